//! Reads the head of a request, and as much of its body as has to be checked before anything is sent upstream.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::http1::body::{BodyDecoder, DecodeStep};
use crate::http1::buffer::SMALL;
use crate::http1::head_scanner::{BareLineFeed, HeadScanner, check_version, empty_lines};
use crate::http1::reject::Rejection;
use crate::http1::version::ClientProtocol;
use crate::proxy::admission::QueuePlace;
use crate::proxy::connection::client_io::ClientIo;
use crate::proxy::connection::lease::LeasedRequest;
use crate::proxy::fault::Fault;
use crate::proxy::transport::Transport;

/// How long the first chunk of a chunked body may take before its head is sent ahead. A malformed first chunk that
/// comes before that costs the upstream nothing.
const FIRST_CHUNK: Duration = Duration::from_secs(1);

/// How much of a head has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeadProgress {
    /// Nothing: the connection is idle.
    Idle,
    /// The head has begun, and is not complete.
    Begun,
}

/// Waits for a complete head at the front of the buffer and returns its length. `None`: the client left, the connection
/// was idle for too long, or the proxy stops.
///
/// # Errors
/// The bytes are no head, the head is too large, or it took too long.
pub async fn read_head<S: Transport>(io: &mut ClientIo<S>, protocol: ClientProtocol) -> Result<Option<usize>, Fault> {
    let head_max = io.worker.proxy.max_header_bytes;
    let mut scanner = HeadScanner::default();
    let mut skipped = 0;
    let mut is_version_checked = false;
    let mut progress = HeadProgress::Idle;
    io.permit = None;
    io.alarm.set(Instant::now() + io.worker.proxy.idle_timeout);
    loop {
        if scanner.first_line_end().is_none() && io.stream.filled().first() == Some(&b'\r') {
            let more = empty_lines(io.stream.filled(), skipped)?;
            skipped += more;
            io.stream.consume(more);
            scanner = HeadScanner::default();
        }
        let input = io.stream.filled();
        if input.len() > 1 || input.first().is_some_and(|&b| b != b'\r') {
            let end = scanner
                .head_len(input)
                .map_err(|BareLineFeed| Rejection::Malformed("a line of the request ends with a bare LF"));
            let end = end?;
            if let (Some(line_end), false) = (scanner.first_line_end(), is_version_checked) {
                check_version(&input[..line_end])?;
                is_version_checked = true;
            }
            match end {
                Some(end) if end <= head_max => return Ok(Some(end)),
                None if input.len() < head_max => {}
                Some(_) | None => return Err(too_large(input, &scanner).into()),
            }
        }
        if !input.is_empty() && progress == HeadProgress::Idle {
            progress = HeadProgress::Begun;
            io.alarm.set(Instant::now() + io.worker.proxy.header_timeout);
        }
        io.stream.make_room(head_max.max(SMALL));
        if read_more(io, protocol, progress).await? == 0 {
            return Ok(None);
        }
    }
}

/// What of the head is too large, as far as it has come.
fn too_large(input: &[u8], scanner: &HeadScanner) -> Rejection {
    if memchr::memchr(b' ', input).is_none() {
        Rejection::NotImplemented("the method is longer than any that is known")
    } else if scanner.first_line_end().is_none() {
        Rejection::TargetTooLong
    } else {
        Rejection::HeadTooLarge
    }
}

/// Reads more of a head and returns how many bytes came; 0 where none will. The first bytes of a head are read once its
/// request is admitted: until then they stay in the kernel.
async fn read_more<S: Transport>(
    io: &mut ClientIo<S>,
    protocol: ClientProtocol,
    progress: HeadProgress,
) -> Result<usize, Fault> {
    let ClientIo { stream, worker, alarm, permit } = io;
    // Streams of HTTP/2 have a limit of their own, and were read before they are here.
    let queues = progress == HeadProgress::Idle && protocol == ClientProtocol::Http1;
    let mut place = QueuePlace::default();
    poll_fn(|cx| {
        let mut may_read = !queues || permit.is_some();
        let has_arrived = !may_read && stream.io.poll_arrived(cx).is_ready();
        if has_arrived && let Poll::Ready(admitted) = worker.admission.poll_permit(&mut place, cx) {
            *permit = Some(admitted);
            may_read = true;
        }
        let filled = if may_read { stream.poll_fill(cx, &worker.buffers, false) } else { Poll::Pending };
        if filled.is_pending() && progress == HeadProgress::Idle {
            *permit = None;
        }
        // A request in the queue waits for the proxy, so its connection is not idle.
        let is_queued = has_arrived && !may_read;
        let is_over_idle = || !is_queued && (alarm.is_late() || worker.shutdown.closes_idle());
        match (filled, progress) {
            (Poll::Ready(Ok(n)), _) => Poll::Ready(Ok(n)),
            (Poll::Ready(Err(_)), _) => Poll::Ready(Ok(0)),
            (Poll::Pending, HeadProgress::Begun) if alarm.is_late() => Poll::Ready(Err(Fault::HeadTimedOut)),
            (Poll::Pending, HeadProgress::Idle) if is_over_idle() => Poll::Ready(Ok(0)),
            (Poll::Pending, _) if worker.shutdown.is_cutting() => Poll::Ready(Ok(0)),
            (Poll::Pending, _) => Poll::Pending,
        }
    })
    .await
}

/// Waits a moment for the first chunk of a chunked body, and checks what has come of the body.
///
/// # Errors
/// The body is malformed, or the client left.
pub async fn check_first_chunk<S: Transport>(
    io: &mut ClientIo<S>,
    protocol: ClientProtocol,
    request: &LeasedRequest,
) -> Result<(), Fault> {
    // The chunks of an HTTP/2 request are the proxy's own.
    if !matches!(request.body, BodyDecoder::Chunked(_)) || protocol == ClientProtocol::Http2 {
        return Ok(());
    }
    io.alarm.set(Instant::now() + FIRST_CHUNK);
    loop {
        let first = request.body.clone().step(io.stream.filled()).map_err(Rejection::from)?;
        if first != DecodeStep::More || request.expects_continue || io.stream.is_full(0) {
            return request.body.check(io.stream.filled()).map_err(|why| Rejection::from(why).into());
        }
        let ClientIo { stream, worker, alarm, .. } = io;
        let filled = poll_fn(|cx| match stream.poll_fill(cx, &worker.buffers, false) {
            Poll::Pending if alarm.is_late() => Poll::Ready(Ok(None)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.map(Some)),
        })
        .await;
        match filled {
            Ok(Some(1..)) => {}
            Ok(None) => return Ok(()),
            Ok(Some(_)) | Err(_) => return Err(Fault::ClientGone),
        }
    }
}
