//! A client that sends exactly the bytes it is told to, and reads answers the way the RFC frames them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};

use super::PATIENCE;

/// One connection.
pub struct Client<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

/// One answer, its body as the application meant it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Field lines after the last chunk.
    pub trailers: String,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

impl Answer {
    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

/// The first field of that name in a head.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

impl Client {
    /// Connects to a port of this machine.
    pub fn connect(port: u16) -> Client {
        Self::try_connect(("127.0.0.1", port)).expect("a listening proxy")
    }

    /// Connects, or not.
    pub fn try_connect(address: impl ToSocketAddrs) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::of(stream))
    }

    /// One GET on a connection of its own.
    pub fn get(port: u16, path: &str) -> Answer {
        Self::connect(port).ask(&format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n"))
    }

    /// Says that no more will be sent; goes on reading.
    pub fn close_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }
}

impl<S: Read + Write> Client<S> {
    /// A connection that is open already.
    pub fn of(stream: S) -> Client<S> {
        Client { stream, buffer: Vec::new() }
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("the proxy reads");
        self
    }

    /// Sends these bytes, or not.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends and reads one answer.
    pub fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer_to(request.starts_with("HEAD "))
    }

    /// Reads one answer to anything but HEAD.
    pub fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    fn answer_to(&mut self, head_only: bool) -> Answer {
        self.try_answer(head_only).unwrap_or_else(|error| {
            panic!("no whole answer: {error}; there was {:?}", String::from_utf8_lossy(&self.buffer))
        })
    }

    /// Reads one answer, interim ones (1xx) too; an error when it is not whole.
    pub fn try_answer(&mut self, head_only: bool) -> io::Result<Answer> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let bodiless = head_only || status < 200 || status == 204 || status == 304;
        let (mut body, mut trailers) = (Vec::new(), String::new());
        if bodiless {
        } else if header(&head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            (body, trailers) = self.chunked()?;
        } else if let Some(length) = header(&head, "content-length") {
            body = self.exactly(length.parse().map_err(io::Error::other)?)?;
        } else {
            body = std::mem::take(&mut self.buffer);
            self.stream.read_to_end(&mut body)?;
        }
        Ok(Answer { status, head, body, trailers })
    }

    /// Reads a head, with its empty line.
    pub fn head(&mut self) -> io::Result<String> {
        let head = self.until(b"\r\n\r\n")?;
        String::from_utf8(head).map_err(io::Error::other)
    }

    fn chunked(&mut self) -> io::Result<(Vec<u8>, String)> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
        let mut trailers = String::new();
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Ok((body, trailers));
            }
            trailers.push_str(std::str::from_utf8(&line).map_err(io::Error::other)?);
        }
    }

    /// Reads one chunk; an empty one is the last.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.until(b"\r\n")?;
        let digits = std::str::from_utf8(&line).map_err(io::Error::other)?.trim_end();
        let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.exactly(size)?;
        if self.exactly(2)? != b"\r\n" {
            return Err(io::Error::other("a chunk without its end"));
        }
        Ok(chunk)
    }

    /// Reads exactly so many bytes.
    pub fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < n {
            self.fill()?;
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Reads up to and with `end`.
    pub fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }

    /// Everything up to the end of the connection, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let mut rest = std::mem::take(&mut self.buffer);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => (rest, End::Closed),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (rest, End::Reset),
            Err(error) => panic!("the connection did not end: {error}; it said {:?}", String::from_utf8_lossy(&rest)),
        }
    }

    /// Reads and forgets everything up to the end of the connection.
    pub fn rest_or_reset(&mut self) {
        if let Err(error) = io::copy(&mut self.stream, &mut io::sink()) {
            let is_open = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            assert!(!is_open, "the connection did not end");
        }
    }

    /// Reads some bytes of a large body.
    pub fn some(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            return self.stream.read(piece);
        }
        let n = piece.len().min(self.buffer.len());
        piece[..n].copy_from_slice(&self.buffer[..n]);
        self.buffer.drain(..n);
        Ok(n)
    }

    /// The connection itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream itself, of which nothing may have been read ahead.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// The connection itself, past what was read ahead.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}
