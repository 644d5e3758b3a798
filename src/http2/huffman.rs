//! Reads the Huffman code of HPACK strings (RFC 7541 5.2 and appendix B). What we write is not coded.
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols. So the lengths are all
//! there is to know, and the compiler makes the tables of them.

/// The symbol that means the end of a string. It must not stand in one.
const END: u16 = 256;

/// Codes of up to this length are read with one look-up.
const FAST_BITS: u32 = 10;

/// The length of the longest code.
const LONGEST: usize = 30;

/// The length in bits of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

struct HuffmanTables {
    /// The symbols, sorted by length, then by number.
    sorted: [u16; 257],
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// How many symbols have a shorter code than each length.
    before: [u16; LONGEST + 1],
    /// For each length, the first code that is longer, at the left end of 32 bits.
    limit: [u64; LONGEST + 1],
    /// The symbol and the length of the code that begins with these bits. Length 0 stands for a longer code.
    fast: [(u8, u8); 1 << FAST_BITS],
}

static TABLES: HuffmanTables = tables();

const fn tables() -> HuffmanTables {
    let mut made = HuffmanTables {
        sorted: [0; 257],
        first: [0; LONGEST + 1],
        before: [0; LONGEST + 1],
        limit: [0; LONGEST + 1],
        fast: [(0, 0); 1 << FAST_BITS],
    };
    let (mut length, mut code, mut placed) = (1, 0u32, 0usize);
    while length <= LONGEST {
        code <<= 1;
        made.first[length] = code;
        made.before[length] = placed as u16;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                if length <= FAST_BITS as usize {
                    let rest = FAST_BITS - length as u32;
                    let mut at = 0;
                    while at < 1usize << rest {
                        made.fast[((code as usize) << rest) + at] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                made.sorted[placed] = symbol as u16;
                placed += 1;
                code += 1;
            }
            symbol += 1;
        }
        made.limit[length] = (code as u64) << (32 - length);
        length += 1;
    }
    made
}

/// Appends what `input` stands for. Returns `None` where it holds the end symbol, or where its padding is not made of
/// at most seven ones (RFC 7541 5.2).
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut bits, mut have, mut rest) = (0u64, 0u32, input);
    loop {
        while let ([byte, tail @ ..], true) = (rest, have <= 56) {
            bits |= u64::from(*byte) << (56 - have);
            (have, rest) = (have + 8, tail);
        }
        let (symbol, length) = match TABLES.fast[(bits >> (64 - FAST_BITS)) as usize] {
            (_, 0) => long(bits)?,
            (symbol, length) => (u16::from(symbol), u32::from(length)),
        };
        if length > have {
            break;
        }
        if symbol == END {
            return None;
        }
        out.push(symbol as u8);
        (bits, have) = (bits << length, have - length);
    }
    let padding = !(u64::MAX >> have);
    (have < 8 && bits & padding == padding).then_some(())
}

/// Finds the symbol of a code that is longer than [`FAST_BITS`].
fn long(bits: u64) -> Option<(u16, u32)> {
    let code = bits >> 32;
    let length = (FAST_BITS as usize + 1..=LONGEST).find(|&length| code < TABLES.limit[length])?;
    let nth = (code >> (32 - length)) as u32 - TABLES.first[length];
    Some((TABLES.sorted[usize::from(TABLES.before[length]) + nth as usize], length as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    /// The slow way round: each symbol's code out of the lengths alone.
    fn coded(text: &[u8]) -> Vec<u8> {
        let mut order: Vec<usize> = (0..257).collect();
        order.sort_by_key(|&symbol| (LENGTHS[symbol], symbol));
        let (mut code, mut length, mut codes) = (0u32, 0, [0u32; 257]);
        for symbol in order {
            code <<= LENGTHS[symbol] - length;
            (codes[symbol], length) = (code, LENGTHS[symbol]);
            code += 1;
        }
        let bit = |symbol: &u8, at: u8| codes[usize::from(*symbol)] >> at & 1 == 1;
        let mut bits: Vec<bool> =
            text.iter().flat_map(|s| (0..LENGTHS[usize::from(*s)]).rev().map(move |at| bit(s, at))).collect();
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |all, &one| all << 1 | u8::from(one))).collect()
    }

    #[test]
    fn reads_the_examples_of_the_rfc() {
        // RFC 7541 C.4.1 and C.6.1
        assert_eq!(
            decoded(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").as_deref(),
            Some(&b"www.example.com"[..])
        );
        assert_eq!(decoded(b"\x64\x02").as_deref(), Some(&b"302"[..]));
        assert_eq!(decoded(b"").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn reads_every_symbol() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&coded(&all)), Some(all));
    }

    #[test]
    fn a_wrong_end_is_refused() {
        for (case, input) in [
            ("the end symbol", &b"\xff\xff\xff\xff"[..]),
            ("a whole byte of padding", b"\x64\x02\xff"),
            ("padding that is not ones", b"\x64\x00\x00"),
        ] {
            assert_eq!(decoded(input), None, "{case}");
        }
    }
}
