//! What the fuzz targets call of the private parts of the data plane. Each function takes any bytes, and panics when a
//! promise is broken.

use crate::http1::body::{BodyDecoder, ChunkState, DecodeStep, TRAILERS_MAX};
use crate::http1::boundary::Boundary;
use crate::http1::buffer::Buffer;
use crate::http1::fields::{FIELDS_MAX, HeaderStorage};
use crate::http1::head_scanner::HeadScanner;
use crate::http1::request::Request;
use crate::http1::response::{Additions, RequestInfo, ResponseHead};
use crate::http1::upstream_head::{ClientIdentity, UpstreamHead};
use crate::http1::version::{ClientProtocol, HttpVersion};

/// A request head that is accepted is rebuilt into one that means the same to a second parser, and to this one again.
pub fn request(head: &[u8]) {
    let Some(end) = head_end(head) else { return };
    let head = &head[..end];
    let mut storage = HeaderStorage::new();
    let Ok(parsed) = Request::parse(head, &mut storage) else { return };
    let client = ClientIdentity {
        ip: "192.0.2.1".into(),
        is_trusted: head.len().is_multiple_of(2),
        port: 80,
        scheme: "http",
        local_authority: "192.0.2.2:80".into(),
        protocol: ClientProtocol::Http1,
    };
    let mut out = Buffer::default();
    UpstreamHead { request_id: b"id", adds_via: true, hidden_cookie: None }.write(&mut out, &parsed, &client);
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut second = httparse::Request::new(&mut fields);
    let status = second.parse(out.filled()).expect("what is sent can be read");
    assert_eq!(status, httparse::Status::Complete(out.filled().len()), "it is one head, and nothing follows it");
    let count = |name: &str| second.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    assert_eq!(count("host"), 1);
    assert!(count("content-length") + count("transfer-encoding") <= 1);
    // An absolute target without a path has that of the root (RFC 9112 3.2.1).
    let root = if parsed.path.starts_with('?') { "/" } else { "" };
    let target = format!("{root}{}", parsed.path);
    assert_eq!((second.method, second.path, second.version), (Some(parsed.method_name), Some(&*target), Some(1)));
    if second.headers.len() <= FIELDS_MAX {
        let mut storage = HeaderStorage::new();
        let again = Request::parse(out.filled(), &mut storage).expect("it accepts what it sends");
        assert_eq!(again.body, parsed.body, "the body ends where it did");
    }
}

/// A response head that is accepted is rebuilt into one with the same status and one framing.
pub fn response(head: &[u8]) {
    let Some(end) = head_end(head) else { return };
    let request = RequestInfo {
        is_head: head.len().is_multiple_of(3),
        is_upgrade: head.len().is_multiple_of(2),
        version: if head.len().is_multiple_of(5) { HttpVersion::Http10 } else { HttpVersion::Http11 },
    };
    let mut storage = HeaderStorage::new();
    let Ok(parsed) = ResponseHead::parse(&head[..end], &mut storage, request) else { return };
    let mut out = Buffer::default();
    let additions = Additions {
        keep_alive: true,
        date: b"now",
        served_by: None,
        preview: None,
        hsts: Some("max-age=1"),
        via: Some("1.1 cutover"),
    };
    if parsed.status < 200 {
        parsed.write_interim(&mut out);
    } else {
        parsed.write_final(&mut out, request, &additions);
    }
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut second = httparse::Response::new(&mut fields);
    let status = second.parse(out.filled()).expect("what is sent can be read");
    assert_eq!(status, httparse::Status::Complete(out.filled().len()), "it is one head, and nothing follows it");
    assert_eq!(second.code, Some(parsed.status));
    let count = |name: &str| second.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    assert!(count("content-length") + count("transfer-encoding") <= 1);
}

/// A chunked body is the same in whatever pieces it comes, and never reads past its end.
pub fn body(input: &[u8]) {
    let Some((&size, input)) = input.split_first() else { return };
    let whole = payload(input, input.len().max(1));
    let pieces = payload(input, usize::from(size).max(1));
    // In pieces an error may come earlier or later, but never another payload.
    if let (Some(whole), Some(pieces)) = (whole, pieces) {
        assert_eq!(whole, pieces);
    }
}

/// Payload and length of a chunked body that arrives in pieces of `size`; `None`: it is malformed or incomplete.
fn payload(input: &[u8], size: usize) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut payload, mut at, mut arrived) = (BodyDecoder::Chunked(ChunkState::Size), Vec::new(), 0, 0);
    loop {
        match decoder.step(&input[at..arrived]).ok()? {
            DecodeStep::Payload(len) => {
                payload.extend_from_slice(&input[at..at + len]);
                decoder.used(len);
                at += len;
            }
            DecodeStep::Framing(len) => at += len,
            DecodeStep::Trailers(len) => {
                assert!(len <= 2 * TRAILERS_MAX + 2);
                return Some((payload, at + len));
            }
            DecodeStep::Done => return Some((payload, at)),
            DecodeStep::More if arrived == input.len() => return None,
            DecodeStep::More => arrived = (arrived + size).min(input.len()),
        }
    }
}

/// Boundaries are where they are, in whatever pieces a stream comes.
pub fn boundary(input: &[u8]) {
    let Some((&size, input)) = input.split_first() else { return };
    for make in [Boundary::of_events, Boundary::of_messages] {
        let found = |size: usize| {
            let (mut boundary, mut at, mut found) = (make(), 0, Vec::new());
            for piece in input.chunks(size) {
                let end = at + piece.len();
                while at < end {
                    let followed = boundary.follow(&input[at..end], true);
                    assert!(followed > 0 && followed <= end - at);
                    at += followed;
                    found.extend(boundary.is_here().then_some(at));
                }
            }
            found
        };
        assert_eq!(found(usize::from(size).max(1)), found(input.len().max(1)));
    }
}

/// Where a head ends that arrives byte by byte: there, where it ends as a whole.
fn head_end(head: &[u8]) -> Option<usize> {
    let whole = HeadScanner::default().head_len(head).ok()?;
    let mut scanner = HeadScanner::default();
    let pieces = (1..=head.len()).find_map(|len| scanner.head_len(&head[..len]).ok().flatten());
    assert_eq!(pieces, whole);
    whole
}
