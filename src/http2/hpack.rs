//! HPACK (RFC 7541): field blocks are read with the dynamic table that they need, and written without one.
//!
//! What we write takes names from the static table where it has them and is literal otherwise. That costs the least
//! here, and leaves nothing to be guessed from sizes (RFC 7541 7.1).

use std::collections::VecDeque;

use super::huffman;

/// How many bytes of dynamic table the peer may fill. It is the default, so that no setting has to say it.
const TABLE_BYTES_MAX: usize = 4096;

/// The bytes that an entry counts for beside its text (RFC 7541 4.1).
pub const ENTRY_OVERHEAD: usize = 32;

/// A block could not be read, so the state of the connection is lost (RFC 7541 2.3.3).
#[derive(Debug, PartialEq, Eq)]
pub struct CompressionError;

/// Reads the blocks of one connection, in order.
pub struct HpackDecoder {
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
    /// Room for the present field, which grows to the largest one.
    name: Vec<u8>,
    value: Vec<u8>,
}

struct Entry {
    text: Box<[u8]>,
    name_len: usize,
}

impl Entry {
    fn pair(&self) -> (&[u8], &[u8]) {
        self.text.split_at(self.name_len)
    }

    fn size(&self) -> usize {
        self.text.len() + ENTRY_OVERHEAD
    }
}

impl Default for HpackDecoder {
    fn default() -> Self {
        HpackDecoder {
            entries: VecDeque::new(),
            size: 0,
            size_max: TABLE_BYTES_MAX,
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl HpackDecoder {
    /// Reads one whole block and passes each field to `each`, in order.
    ///
    /// # Errors
    /// [`CompressionError`]; the fields before the mistake have been passed on.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), CompressionError> {
        let mut rest = block;
        let mut is_begun = false;
        while let Some(&first) = rest.first() {
            match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    let (name, value) = self.field(index).ok_or(CompressionError)?;
                    each(name, value);
                }
                0x40.. => {
                    let entry = self.literal(&mut rest, 6)?;
                    let (name, value) = entry.pair();
                    each(name, value);
                    self.insert(entry);
                }
                0x20.. => {
                    // RFC 7541 4.2: it stands only in front of the first field.
                    let size = integer(&mut rest, 5)?;
                    if is_begun || size > TABLE_BYTES_MAX {
                        return Err(CompressionError);
                    }
                    self.size_max = size;
                    self.evict(0);
                    continue;
                }
                _ => {
                    let index = integer(&mut rest, 4)?;
                    let mut name = std::mem::take(&mut self.name);
                    let mut value = std::mem::take(&mut self.value);
                    name.clear();
                    value.clear();
                    self.read_name(index, &mut rest, &mut name)?;
                    string(&mut rest, &mut value)?;
                    each(&name, &value);
                    (self.name, self.value) = (name, value);
                }
            }
            is_begun = true;
        }
        Ok(())
    }

    /// Gives back the memory that the largest field took. The table stays: the next block may need it.
    pub fn shrink(&mut self) {
        (self.name, self.value) = (Vec::new(), Vec::new());
    }

    /// The memory that is held for a field.
    #[cfg(test)]
    pub fn room(&self) -> usize {
        self.name.capacity() + self.value.capacity()
    }

    /// Reads a literal that goes into the table.
    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<Entry, CompressionError> {
        let index = integer(rest, prefix)?;
        let mut text = Vec::new();
        self.read_name(index, rest, &mut text)?;
        let name_len = text.len();
        string(rest, &mut text)?;
        Ok(Entry { text: text.into(), name_len })
    }

    fn read_name(&self, index: usize, rest: &mut &[u8], name: &mut Vec<u8>) -> Result<(), CompressionError> {
        if index == 0 {
            return string(rest, name);
        }
        name.extend_from_slice(self.field(index).ok_or(CompressionError)?.0);
        Ok(())
    }

    fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let at = index.checked_sub(1)?;
        match STATIC.get(at) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.entries.get(at - STATIC.len()).map(Entry::pair),
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.evict(entry.size());
        // RFC 7541 4.4: an entry that is larger than the table empties it, and is no error.
        if entry.size() <= self.size_max {
            self.size += entry.size();
            self.entries.push_front(entry);
        }
    }

    /// Drops the oldest entries until there is room for `wanted` bytes.
    fn evict(&mut self, wanted: usize) {
        while self.size + wanted > self.size_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

/// Reads an integer (RFC 7541 5.1). More than fits into 28 bits is none that we could use.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, CompressionError> {
    let (&first, mut tail) = rest.split_first().ok_or(CompressionError)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, next) = tail.split_first().ok_or(CompressionError)?;
            value += (usize::from(byte) & 0x7f) << shift;
            tail = next;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return Err(CompressionError);
            }
        }
    }
    *rest = tail;
    Ok(value)
}

/// Reads a string (RFC 7541 5.2).
fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (text, tail) = rest.split_at_checked(length).ok_or(CompressionError)?;
    *rest = tail;
    if is_coded {
        huffman::decode(text, out).ok_or(CompressionError)
    } else {
        out.extend_from_slice(text);
        Ok(())
    }
}

/// Writes that the dynamic table stays empty, whatever the peer allows. It stands in front of the first block.
pub fn put_no_table(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// Writes `:status`.
pub fn put_status(out: &mut Vec<u8>, status: u16) {
    match status {
        200 => out.push(0x88),
        204 => out.push(0x89),
        206 => out.push(0x8a),
        304 => out.push(0x8b),
        400 => out.push(0x8c),
        404 => out.push(0x8d),
        500 => out.push(0x8e),
        _ => {
            out.push(0x08);
            put_string(out, itoa::Buffer::new().format(status).as_bytes());
        }
    }
}

/// Writes a field. Its name becomes lower case. A field that holds a secret is marked never to be put into a table
/// (RFC 7541 7.1.3).
pub fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let start = out.len();
    out.push(0);
    put_integer(out, 7, 0, name.len());
    let text = out.len();
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    let known = static_name(&out[text..]);
    if let Some(index) = known {
        out.truncate(start);
        let is_secret = matches!(index, 23 | 32 | 55);
        put_integer(out, 4, if is_secret { 0x10 } else { 0 }, index);
    }
    put_string(out, value);
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, 7, 0, text.len());
    out.extend_from_slice(text);
}

fn put_integer(out: &mut Vec<u8>, prefix: u32, flags: u8, value: usize) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        return out.push(flags | value as u8);
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The index of a name in the static table.
fn static_name(name: &[u8]) -> Option<usize> {
    // In the order of their lengths: most names are told apart by one comparison.
    Some(match name {
        b"age" => 21,
        b"via" => 60,
        b"date" => 33,
        b"etag" => 34,
        b"from" => 37,
        b"link" => 45,
        b"vary" => 59,
        b"allow" => 22,
        b"range" => 50,
        b":path" => 4,
        b"accept" => 19,
        b"cookie" => 32,
        b"expect" => 35,
        b"server" => 54,
        b":method" => 2,
        b"expires" => 36,
        b"referer" => 51,
        b"refresh" => 52,
        b"if-match" => 39,
        b"if-range" => 42,
        b"location" => 46,
        b":authority" => 1,
        b"set-cookie" => 55,
        b"user-agent" => 58,
        b"retry-after" => 53,
        b"content-type" => 31,
        b"max-forwards" => 47,
        b"accept-ranges" => 18,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-range" => 30,
        b"if-none-match" => 41,
        b"last-modified" => 44,
        b"accept-charset" => 15,
        b"content-length" => 28,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-location" => 29,
        b"www-authenticate" => 61,
        b"if-modified-since" => 40,
        b"proxy-authenticate" => 48,
        b"content-disposition" => 25,
        b"if-unmodified-since" => 43,
        b"proxy-authorization" => 49,
        b"strict-transport-security" => 56,
        b"access-control-allow-origin" => 20,
        _ => return None,
    })
}

/// The static table (RFC 7541 appendix A).
#[rustfmt::skip]
static STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut HpackDecoder, block: &[u8]) -> Result<Vec<(String, String)>, CompressionError> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
        Ok(fields)
    }

    fn fields(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, CompressionError> {
        Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// RFC 7541 C.4: three requests on one connection.
    #[test]
    fn reads_the_requests_of_the_rfc() {
        let mut decoder = HpackDecoder::default();
        let common = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(read(&mut decoder, first), fields(&common));
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        assert_eq!(read(&mut decoder, second), fields(&[&common[..], &[("cache-control", "no-cache")]].concat()));
        let third = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        let want = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(read(&mut decoder, third), fields(&want));
        assert_eq!(decoder.size, 164);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let long = "x".repeat(5000);
        let written = [("Server", "a"), ("x-mine", &long), ("set-cookie", "b=c"), ("X-Empty", "")];
        let mut block = Vec::new();
        put_no_table(&mut block);
        put_status(&mut block, 200);
        put_status(&mut block, 418);
        written.iter().for_each(|(name, value)| put_field(&mut block, name.as_bytes(), value.as_bytes()));
        let want = [
            (":status", "200"),
            (":status", "418"),
            ("server", "a"),
            ("x-mine", &long),
            ("set-cookie", "b=c"),
            ("x-empty", ""),
        ];
        assert_eq!(read(&mut HpackDecoder::default(), &block), fields(&want));
    }

    #[test]
    fn known_names_have_their_place_in_the_table() {
        for (name, _) in STATIC {
            if let Some(index) = static_name(name.as_bytes()) {
                assert_eq!(STATIC[index - 1].0, name);
            }
        }
    }

    #[test]
    fn the_table_stays_as_small_as_it_was_announced() {
        let mut decoder = HpackDecoder::default();
        for round in 0..1000 {
            let mut block = vec![0x40];
            put_string(&mut block, format!("name-{round}").as_bytes());
            put_string(&mut block, &[b'x'; 100]);
            read(&mut decoder, &block).unwrap();
            assert!(decoder.size <= TABLE_BYTES_MAX);
        }
        assert_eq!(read(&mut decoder, b"\x20"), fields(&[]));
        assert_eq!((decoder.size, decoder.entries.len()), (0, 0));
    }

    #[test]
    fn what_no_table_has_is_refused() {
        for (case, block) in [
            ("index 0", &b"\x80"[..]),
            ("an index past both tables", b"\xbe"),
            ("a name past both tables", b"\x7e\x00"),
            ("a table larger than announced", b"\x3f\xe2\x1f"),
            ("a new table size behind a field", b"\x82\x20"),
            ("an endless integer", b"\xff\xff\xff\xff\xff\xff\x01"),
            ("a string that is cut off", b"\x40\x05ab"),
            ("nothing behind a name", b"\x40\x01a"),
        ] {
            assert_eq!(read(&mut HpackDecoder::default(), block), Err(CompressionError), "{case}");
        }
    }
}
