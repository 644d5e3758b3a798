//! Sessions of both roles, talking to each other and to bytes of ours.

use std::task::Waker;
use std::time::Instant;

use super::frame::{END_HEADERS, END_STREAM, FrameType, Setting, put_frame_header, put_settings};
use super::*;

const LIMITS: SessionLimits = SessionLimits { streams: 10, head_bytes: 4096, resets: 10 };

/// A client's and a server's session, greeted.
fn pair() -> (Session, Session) {
    let now = Instant::now();
    let (mut client, mut server) = (Session::new(Role::Client, LIMITS, now), Session::new(Role::Server, LIMITS, now));
    exchange(&mut client, &mut server);
    assert!(client.has_peer_settings() && server.has_peer_settings());
    (client, server)
}

/// Hands over what each has to say, until both are quiet.
fn exchange(one: &mut Session, other: &mut Session) {
    while !one.unsent().is_empty() || !other.unsent().is_empty() {
        hand_over(one, other);
        hand_over(other, one);
    }
}

fn hand_over(from: &mut Session, to: &mut Session) {
    let said = from.unsent().to_vec();
    assert_eq!(to.receive(&said, Instant::now()), Ok(said.len()));
    from.sent(said.len());
}

fn read(session: &mut Session, at: usize) -> String {
    let (mut text, mut room) = (Vec::new(), [0; 4096]);
    while let StreamRead::Bytes(n) = session.read(at, &mut room, Waker::noop()) {
        text.extend_from_slice(&room[..n]);
    }
    String::from_utf8(text).unwrap()
}

/// A frame as bytes.
fn frame(kind: FrameType, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame_header(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

/// A server's session, greeted by bytes of ours.
fn server() -> Session {
    server_with(LIMITS)
}

fn server_with(limits: SessionLimits) -> Session {
    let mut server = Session::new(Role::Server, limits, Instant::now());
    let mut hello = PREFACE.to_vec();
    put_settings(&mut hello, &[]);
    assert_eq!(server.receive(&hello, Instant::now()), Ok(hello.len()));
    server.sent(server.unsent().len());
    server
}

/// POST, scheme http, path /, all out of the static table.
const POST: [u8; 3] = [0x83, 0x86, 0x84];

#[test]
fn a_request_and_its_answer_are_text_on_both_sides() {
    let (mut client, mut server) = pair();
    let asks = client.open().unwrap();
    let head = b"POST /a HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(client.put_request(asks, head), Ok(AfterHead::Body(Framing::Chunked)));
    assert_eq!(client.write(asks, b"hello", Waker::noop()), Ok(5));
    client.put_trailers(asks, b"sum: 1\r\n\r\n").unwrap();
    exchange(&mut client, &mut server);
    let serves = server.accept().unwrap();
    let want = "POST /a HTTP/1.1\r\nHost: h\r\nte: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n0\r\nsum: 1\r\n\r\n";
    assert_eq!(read(&mut server, serves), want);
    assert_eq!(server.put_response(serves, b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n"), Ok(AfterHead::Head));
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
    assert_eq!(server.put_response(serves, head), Ok(AfterHead::Body(Framing::Length(2))));
    assert_eq!(server.write(serves, b"ok", Waker::noop()), Ok(2));
    server.finish_writing(serves);
    exchange(&mut client, &mut server);
    let want = "HTTP/1.1 103 \r\na: b\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    assert_eq!(read(&mut client, asks), want, "in chunks, because trailers could follow");
    assert_eq!((client.completed(), server.completed()), (1, 1));
    client.release(asks);
    assert!(matches!(server.read(serves, &mut [0; 9], Waker::noop()), StreamRead::Wait));
    assert_eq!((client.active_streams(), server.active_streams()), (0, 0), "both wait for the next one");
}

#[test]
fn the_last_byte_of_an_answer_waits_for_the_end_of_its_stream() {
    let (mut client, mut server) = pair();
    let asks = client.open().unwrap();
    client.put_request(asks, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    exchange(&mut client, &mut server);
    let serves = server.accept().unwrap();
    server.put_response(serves, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").unwrap();
    server.write(serves, b"ok", Waker::noop()).unwrap();
    exchange(&mut client, &mut server);
    assert!(read(&mut client, asks).ends_with("\r\n\r\no"));
    server.finish_writing(serves);
    exchange(&mut client, &mut server);
    assert_eq!(read(&mut client, asks), "k");
}

#[test]
fn windows_stop_the_writer_until_the_reader_has_read() {
    let (mut client, mut server) = pair();
    let asks = client.open().unwrap();
    client.put_request(asks, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let fill = |client: &mut Session, server: &mut Session| {
        let mut sent = 0;
        loop {
            let n = client.write(asks, &[b'x'; 20_000], Waker::noop()).unwrap();
            if n == 0 && client.unsent().is_empty() {
                return sent;
            }
            sent += n;
            exchange(client, server);
        }
    };
    assert_eq!(fill(&mut client, &mut server), STREAM_WINDOW as usize);
    let serves = server.accept().unwrap();
    read(&mut server, serves);
    exchange(&mut client, &mut server);
    assert_eq!(fill(&mut client, &mut server), STREAM_WINDOW as usize);
}

#[test]
fn who_sends_past_a_window_is_told() {
    let now = Instant::now();
    let data = |stream| frame(FrameType::Data, 0, stream, &[0; 16_384]);
    let mut one = server();
    one.receive(&frame(FrameType::Headers, END_HEADERS, 1, &POST), now).unwrap();
    for _ in 0..STREAM_WINDOW / 16_384 {
        one.receive(&data(1), now).unwrap();
    }
    assert_eq!(one.unsent(), b"");
    one.receive(&data(1), now).unwrap();
    let reset = frame(FrameType::RstStream, 0, 1, &[0, 0, 0, ErrorCode::FlowControl as u8]);
    assert!(one.unsent().starts_with(&reset), "of one stream");
    let mut all = server();
    let fill = (0..CONNECTION_WINDOW / STREAM_WINDOW).try_for_each(|nth| {
        all.receive(&frame(FrameType::Headers, END_HEADERS, nth * 2 + 1, &POST), now)?;
        (0..STREAM_WINDOW / 16_384).try_for_each(|_| all.receive(&data(nth * 2 + 1), now).map(drop))
    });
    assert_eq!(fill, Ok(()));
    all.receive(&frame(FrameType::Headers, END_HEADERS, 99, &POST), now).unwrap();
    let error = all.receive(&data(99), now).unwrap_err();
    assert_eq!((error.code, error.end), (ErrorCode::FlowControl, SessionEnd::Protocol), "of the connection");
}

#[test]
fn a_window_that_grows_is_that_of_open_streams() {
    let now = Instant::now();
    let grows = |by: u32| {
        let mut out = Vec::new();
        put_settings(&mut out, &[(Setting::InitialWindowSize, 65_535 + by)]);
        out
    };
    let mut session = server();
    let opens = |stream| frame(FrameType::Headers, END_HEADERS | END_STREAM, stream, &POST);
    let largest = |stream| frame(FrameType::WindowUpdate, 0, stream, &(0x7fff_ffff - 65_536u32).to_be_bytes());
    session.receive(&[opens(1), largest(1)].concat(), now).unwrap();
    let at = session.accept().unwrap();
    session.put_response(at, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    session.receive(&grows(2), now).expect("the one with the large window is over");
    session.receive(&[grows(0), opens(3), largest(3), grows(1)].concat(), now).expect("as large as it may be");
    let error = session.receive(&grows(2), now).unwrap_err();
    assert_eq!(error.code, ErrorCode::FlowControl);

    let (mut client, _) = pair();
    let at = client.open().unwrap();
    client.receive(&grows(9), now).unwrap();
    client.put_request(at, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65544\r\n\r\n").unwrap();
    assert_eq!(client.streams.slots[at].send_window, 65_544, "it has no number yet, but a window");
}

#[test]
fn a_stream_that_nobody_reads_gives_its_window_back() {
    let now = Instant::now();
    let mut session = server();
    for nth in 0..100 {
        let stream = nth * 2 + 1;
        session.receive(&frame(FrameType::Headers, END_HEADERS, stream, &POST), now).unwrap();
        let at = session.accept().unwrap();
        session.receive(&frame(FrameType::Data, 0, stream, &[0; 16_384]), now).unwrap();
        session.put_response(at, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").unwrap();
        session.release(at);
        // What was on its way when the stream was reset counts as well.
        session.receive(&frame(FrameType::Data, END_STREAM, stream, &[0; 16_384]), now).unwrap();
        session.sent(session.unsent().len());
    }
}

#[test]
fn a_stream_opened_by_the_bytes_that_end_the_session_is_nobody_s() {
    let mut session = server();
    let opens = frame(FrameType::Headers, END_HEADERS | END_STREAM, 1, &POST);
    let ends = frame(FrameType::Ping, 0, 1, &[0; 8]);
    let error = session.receive(&[opens, ends].concat(), Instant::now()).unwrap_err();
    assert_eq!(session.tasks(), 1);
    session.terminate(error.code);
    assert_eq!((session.accept(), session.tasks(), session.active_streams()), (None, 0, 0));
}

#[test]
fn the_rest_of_an_answered_request_is_waited_for_unless_it_is_much() {
    let now = Instant::now();
    for (case, then, want) in [
        ("its end", frame(FrameType::Data, END_STREAM, 1, b"x"), StreamRead::Wait),
        ("a little", frame(FrameType::Data, 0, 1, b"x"), StreamRead::Wait),
        ("much", frame(FrameType::Data, 0, 1, &[0; 16_384]).repeat(9), StreamRead::End),
    ] {
        let mut session = server();
        session.receive(&frame(FrameType::Headers, END_HEADERS, 1, &POST), now).unwrap();
        let at = session.accept().unwrap();
        read(&mut session, at);
        session.put_response(at, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").unwrap();
        session.sent(session.unsent().len());
        session.receive(&then, now).unwrap();
        read(&mut session, at);
        assert_eq!(session.read(at, &mut [0; 99], Waker::noop()), want, "{case}");
        let is_over = session.completed() == 1;
        session.release(at);
        let reset = frame(FrameType::RstStream, 0, 1, &[0, 0, 0, ErrorCode::NoError as u8]);
        assert_eq!((session.unsent().ends_with(&reset), is_over), (case != "its end", case == "its end"), "{case}");
    }
}

#[test]
fn a_stream_that_was_reset_leaves_its_place_at_once_and_not_without_end() {
    let now = Instant::now();
    let mut session = server_with(SessionLimits { streams: 4, ..LIMITS });
    let opens = |nth: u32| frame(FrameType::Headers, END_HEADERS, nth * 2 + 1, &POST);
    let cancels = |nth: u32| frame(FrameType::RstStream, 0, nth * 2 + 1, &[0, 0, 0, ErrorCode::Cancel as u8]);
    session.receive(&(0..4).flat_map(opens).collect::<Vec<u8>>(), now).unwrap();
    for nth in 0..4 {
        session.receive(&[cancels(nth), opens(nth + 4)].concat(), now).unwrap();
        assert_eq!(session.unsent(), b"", "the fifth is one of four");
    }
    session.receive(&[cancels(4), opens(8)].concat(), now).unwrap();
    assert_eq!(session.unsent(), frame(FrameType::RstStream, 0, 17, &[0, 0, 0, ErrorCode::RefusedStream as u8]));
    assert_eq!(session.tasks(), 8, "nobody has noticed yet");
}

#[test]
fn an_idle_connection_keeps_nothing_of_what_its_streams_took() {
    let mut session = server_with(SessionLimits { head_bytes: 100_000, ..LIMITS });
    let now = Instant::now();
    let large = "x".repeat(50_000);
    let opens = |nth: u32| {
        let mut block = POST.to_vec();
        hpack::put_field(&mut block, large.as_bytes(), b"1");
        hpack::put_field(&mut block, b"x", large.as_bytes());
        let (one, rest) = block.split_at(FRAME_MAX / 2);
        let mut frames = frame(FrameType::Headers, END_STREAM, nth * 2 + 1, one);
        let last = rest.chunks(FRAME_MAX / 2).count() - 1;
        for (nth_part, part) in rest.chunks(FRAME_MAX / 2).enumerate() {
            let flags = if nth_part == last { END_HEADERS } else { 0 };
            frames.extend(frame(FrameType::Continuation, flags, nth * 2 + 1, part));
        }
        frames
    };
    for nth in 0..4 {
        assert!(session.receive(&opens(nth), now).is_ok());
    }
    while let Some(at) = session.accept() {
        read(&mut session, at);
        session.put_response(at, b"HTTP/1.1 431 No\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(session.read(at, &mut [0; 9], Waker::noop()), StreamRead::Wait, "for the next one");
    }
    session.sent(session.unsent().len());
    session.shrink();
    for at in 0..session.streams.slots.len() {
        assert_eq!(session.read(at, &mut [0; 9], Waker::noop()), StreamRead::End, "nobody waits here any more");
        session.release(at);
    }
    let inputs: usize = session.streams.slots.iter().map(|slot| slot.input.capacity()).sum();
    assert_eq!((session.decoder.room(), inputs, session.output_capacity()), (0, 0, 0));
}

/// What an upstream says last: it serves no stream after this one.
fn goes_away(last: u8) -> Vec<u8> {
    frame(FrameType::GoAway, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])
}

#[test]
fn a_stream_that_waits_for_its_number_when_the_peer_goes_is_sent_elsewhere() {
    let (mut client, _) = pair();
    let (first, waits) = (client.open().unwrap(), client.open().unwrap());
    client.put_request(first, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    client.receive(&goes_away(1), Instant::now()).unwrap();
    assert!(client.is_refused(waits) && !client.is_refused(first));
    assert_eq!(
        client.put_request(waits, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        Err(StreamError),
        "nobody would hear it"
    );
    assert_eq!(client.read(first, &mut [0; 9], Waker::noop()), StreamRead::Wait, "this one is still served");
}

#[test]
fn a_stream_that_was_reset_is_not_refused_by_what_follows() {
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n";
    for (case, then) in [("it goes away", goes_away(0)), ("it closes", Vec::new())] {
        let (mut client, _) = pair();
        let at = client.open().unwrap();
        client.put_request(at, POST).unwrap();
        let failed = frame(FrameType::RstStream, 0, 1, &[0, 0, 0, ErrorCode::Internal as u8]);
        client.receive(&[failed, then].concat(), Instant::now()).unwrap();
        client.disconnected();
        assert_eq!(client.read(at, &mut [0; 9], Waker::noop()), StreamRead::Broken);
        assert!(!client.is_refused(at), "{case}: it may have been done");
    }
}

#[test]
fn frames_may_come_byte_by_byte() {
    let (now, mut session) = (Instant::now(), Session::new(Role::Server, LIMITS, Instant::now()));
    let mut said = PREFACE.to_vec();
    put_settings(&mut said, &[]);
    said.extend(frame(FrameType::Headers, 0, 1, &POST[..1]));
    said.extend(frame(FrameType::Continuation, END_HEADERS, 1, &POST[1..]));
    said.extend(frame(FrameType::Data, END_STREAM, 1, b"hello"));
    let mut unused = Vec::new();
    for byte in said {
        unused.push(byte);
        let used = session.receive(&unused, now).unwrap();
        unused.drain(..used);
    }
    let at = session.accept().unwrap();
    assert!(read(&mut session, at).ends_with("5\r\nhello\r\n0\r\n\r\n"));
}

#[test]
fn a_large_head_takes_more_than_one_frame() {
    let limits = SessionLimits { head_bytes: 100_000, ..LIMITS };
    let (mut client, mut server) =
        (Session::new(Role::Client, limits, Instant::now()), Session::new(Role::Server, limits, Instant::now()));
    exchange(&mut client, &mut server);
    let asks = client.open().unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Large: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(client.put_request(asks, head.as_bytes()), Ok(AfterHead::Body(Framing::None)));
    exchange(&mut client, &mut server);
    let serves = server.accept().unwrap();
    assert_eq!(read(&mut server, serves).len(), head.len());
}
