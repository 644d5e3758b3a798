//! The TLS handshake of a new connection, and TLS as a client's transport.
//!
//! The handshake begins with the client's first byte, so a client that sends nothing takes no more memory than one
//! without TLS. Three limits bound what handshakes cost: rustls takes 64 KiB of handshake messages from each,
//! `tls.handshake_timeout` ends those that take too long, and `proxy.max_connections` limits how many there are.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::server::{Acceptor, ClientHello, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::http1::version::ClientProtocol;
use crate::proxy::alarm::Alarm;
use crate::proxy::buffered_io::BufferedIo;
use crate::proxy::connection::client::Client;
use crate::proxy::connection::{http2, serve};
use crate::proxy::context::WorkerContext;
use crate::proxy::fault::Fault;
use crate::proxy::shutdown::Shutdown;
use crate::proxy::transport::Transport;
use crate::tls::{ACME_TLS, Challenges, Current, Handshake, Terminator};

/// A client's connection after its handshake. It is boxed, because it is large and is moved several times.
type Secured = Box<TlsStream<TcpStream>>;

impl Transport for Secured {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }

    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (stream, session) = self.get_ref();
        // The session wants nothing from the socket while it holds bytes that were not read yet.
        if session.wants_read() { stream.poll_read_ready(cx).map(drop) } else { Poll::Ready(()) }
    }

    /// Sends `close_notify`. Without it a client must take what it has for a part (RFC 8446 6.1).
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // If it fails the client is gone already.
        Pin::new(self).poll_shutdown(cx).map(drop)
    }
}

/// Runs the handshake, then serves the connection to its end.
pub async fn serve(stream: TcpStream, client: Client, worker: Rc<WorkerContext>, terminator: &Terminator) {
    let alarm = worker.alarms.register().await;
    let current = terminator.current();
    alarm.set(Instant::now() + current.handshake_timeout);
    match first_byte(&stream, &alarm, &worker.shutdown).await {
        // No TLS record begins with a letter, and every HTTP request does.
        Ok(b'A'..=b'Z') => {
            terminator.count(Handshake::PlainHttp);
            return serve::refuse(stream, client, Fault::PlainToTls, alarm, worker).await;
        }
        Ok(_) => {}
        Err(end) => return terminator.count(end),
    }
    match shake(stream, &current, terminator.challenges(), &alarm, &worker.shutdown).await {
        Ok(stream) => {
            let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            terminator.count(if is_resumed { Handshake::Resumed } else { Handshake::Full });
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(crate::tls::ALPN_H2) => ClientProtocol::Http2,
                Some(_) | None => ClientProtocol::Http1,
            };
            let client = Client { security: Some(current), protocol, ..client };
            match protocol {
                ClientProtocol::Http1 => {
                    serve::serve(stream, client, alarm, worker).await;
                }
                // Boxed, so that a connection of HTTP/1 does not take the memory of one of HTTP/2.
                ClientProtocol::Http2 => {
                    Box::pin(http2::serve(BufferedIo::new(stream), client, alarm, worker)).await;
                }
            }
        }
        Err(end) => {
            tracing::debug!(client = %client.peer, end = end.as_str(), "no TLS handshake");
            terminator.count(end);
        }
    }
}

/// Waits for the first byte and leaves it in the socket.
async fn first_byte(stream: &TcpStream, alarm: &Alarm, shutdown: &Shutdown) -> Result<u8, Handshake> {
    poll_fn(|cx| {
        let mut byte = [0];
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Pending if alarm.is_late() => Poll::Ready(Err(Handshake::TimedOut)),
            Poll::Pending if shutdown.closes_idle() || shutdown.is_cutting() => Poll::Ready(Err(Handshake::Closed)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(1..)) => Poll::Ready(Ok(byte[0])),
            Poll::Ready(Ok(_) | Err(_)) => Poll::Ready(Err(Handshake::Closed)),
        }
    })
    .await
}

/// Runs the handshake itself. Its state is large and soon gone, so it has memory of its own.
async fn shake(
    stream: TcpStream,
    current: &Current,
    challenges: &Challenges,
    alarm: &Alarm,
    shutdown: &Shutdown,
) -> Result<Secured, Handshake> {
    let mut handshake = Box::pin(async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
        let hello = hello.map_err(|error| Handshake::failed_with(&error))?;
        if let Some(proof) = proof(&hello.client_hello(), challenges) {
            // The certificate is all that the ACME server wants to see (RFC 8737 3), so nothing follows.
            return Err(hello.into_stream(proof).await.map_or(Handshake::Malformed, |_| Handshake::Proof));
        }
        let is_refused = current.refuses(hello.client_hello().server_name());
        // The handshake runs for a refused client too, because rustls then tells it by an alert.
        let secured = hello.into_stream(Arc::clone(&current.server)).await;
        secured.map(Box::new).map_err(|error| match Handshake::failed_with(&error) {
            Handshake::Malformed if is_refused => Handshake::UnknownName,
            end => end,
        })
    });
    poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Pending if alarm.is_late() => Poll::Ready(Err(Handshake::TimedOut)),
        Poll::Pending if shutdown.is_cutting() => Poll::Ready(Err(Handshake::Closed)),
        pending_or_done => pending_or_done,
    })
    .await
}

/// The certificate that proves a name to an ACME server; `None` where the client wants more than such a proof.
fn proof(hello: &ClientHello<'_>, challenges: &Challenges) -> Option<Arc<ServerConfig>> {
    let mut protocols = hello.alpn()?;
    let asks = protocols.next() == Some(ACME_TLS) && protocols.next().is_none();
    if asks { challenges.tls(hello.server_name()) } else { None }
}
