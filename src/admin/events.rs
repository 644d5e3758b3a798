//! Serves `GET /v1/events` as server-sent events.
//!
//! A reader that falls behind loses the oldest events and is told how many; it never makes anybody else wait.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};

use super::context::stopped;
use crate::api::Event;

/// A comment is sent this often, so that each side notices when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Limits the events that are written but not yet taken by the connection.
const UNSENT_MAX: usize = 16;

/// The body of the response.
pub(super) struct EventStream(mpsc::Receiver<Bytes>);

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Streams `events` until the reader is gone or `stop` is set, and holds `permit` for as long.
pub(super) fn stream(
    mut events: broadcast::Receiver<Event>,
    mut stop: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) -> EventStream {
    let (out, stream) = mpsc::channel(UNSENT_MAX);
    tokio::spawn(async move {
        let _permit = permit;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            let bytes = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => text(&event),
                    Err(RecvError::Lagged(missed)) => format!("event: missed\ndata: {{\"missed\":{missed}}}\n\n").into(),
                    Err(RecvError::Closed) => break,
                },
                _ = heartbeat.tick() => Bytes::from_static(b": still here\n\n"),
                () = out.closed() => break,
                () = stopped(&mut stop) => break,
            };
            // The stop must be heard even while the connection takes nothing.
            tokio::select! {
                sent = out.send(bytes) => if sent.is_err() { break },
                () = stopped(&mut stop) => break,
            }
        }
    });
    EventStream(stream)
}

/// Formats one event. JSON has no bare line ends, so it fits in one `data` line.
fn text(event: &Event) -> Bytes {
    let data = serde_json::to_string(event).expect("our own types have a JSON form");
    format!("event: {}\ndata: {data}\n\n", event.kind.as_str()).into()
}
