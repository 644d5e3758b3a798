//! A connection without TLS, which may turn out to speak HTTP/2 (RFC 9113 3.3).

use std::rc::Rc;

use tokio::net::TcpStream;

use crate::proxy::connection::client::Client;
use crate::proxy::connection::{self, Version, http2};
use crate::proxy::context::WorkerContext;

/// Serves the connection to its end.
pub async fn serve(stream: TcpStream, client: Client, worker: Rc<WorkerContext>) {
    let alarm = worker.alarms.register().await;
    let http2_client = Client { version: Version::Http2, ..client.clone() };
    if let Some(io) = connection::serve(stream, client, Rc::clone(&alarm), Rc::clone(&worker)).await {
        // Boxed: most connections never need that memory.
        Box::pin(http2::serve(io, http2_client, alarm, worker)).await;
    }
}
