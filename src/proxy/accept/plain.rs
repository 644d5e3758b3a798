//! A connection without TLS, which may turn out to speak HTTP/2 (RFC 9113 3.3).

use std::rc::Rc;

use tokio::net::TcpStream;

use crate::http1::version::ClientProtocol;
use crate::proxy::connection::client::Client;
use crate::proxy::connection::http2;
use crate::proxy::connection::serve::{self, Served};
use crate::proxy::context::WorkerContext;

/// Serves the connection to its end.
pub async fn serve(stream: TcpStream, client: Client, worker: Rc<WorkerContext>) {
    let alarm = worker.alarms.register().await;
    let served = serve::serve(stream, client, Rc::clone(&alarm), Rc::clone(&worker)).await;
    if let Served::Http2 { stream, client } = served {
        let client = Client { protocol: ClientProtocol::Http2, ..client };
        // Boxed: most connections never need that memory.
        Box::pin(http2::serve(stream, client, alarm, worker)).await;
    }
}
