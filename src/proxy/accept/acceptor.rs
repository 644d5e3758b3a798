//! Accepts connections from one listener, and hands each of them to the worker that has the fewest.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;

use crate::proxy::accept::listener::Listener;
use crate::proxy::accept::worker_handle::{NewConnection, WorkerHandle};
use crate::proxy::connection::client::Admission;

/// How many connections beyond `max_connections` get a 503 at the same time. Those beyond them are closed without one.
const REFUSED_MAX: usize = 128;

/// The pause after an accept that failed for want of file descriptors or memory: they do not come back in a
/// microsecond.
const RETRY: Duration = Duration::from_millis(50);

/// Accepts until the task is aborted. That closes the listener, and new connections are refused from there on.
pub async fn run(listener: Listener, workers: Arc<[WorkerHandle]>, connections_max: usize) {
    let Listener { socket: listener, scheme } = listener;
    let local = listener.local_addr();
    // SAFETY: a TcpListener keeps its descriptor open until it is dropped, and `AsyncFd` drops it last.
    let listener = unsafe { AsyncFd::register(listener) };
    let (Ok(listener), Ok(local)) = (listener, local) else {
        return tracing::error!("a listener cannot be waited for: no connections are accepted on it");
    };
    loop {
        // In a flood there is always one more connection, and this worker has requests to serve too.
        consume_budget().await;
        let accepted = match listener.readable().await {
            Ok(mut ready) => match ready.try_io(|listener| listener.get_ref().accept()) {
                Ok(accepted) => accepted,
                Err(_would_block) => continue,
            },
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(admission) = admission(&workers, connections_max) {
                    hand_over(NewConnection { stream, peer, local, scheme, admission }, &workers);
                }
            }
            Err(error) if died_before_accept(&error) => {}
            Err(error) => {
                tracing::error!(%local, %error, "cannot accept a connection; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Whether only this one connection failed, and not the listener.
fn died_before_accept(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// What becomes of one more connection; `None` where it is closed at once. Connections that get a 503 are open
/// connections too, so a flood of them is closed without it.
fn admission(workers: &[WorkerHandle], connections_max: usize) -> Option<Admission> {
    let open: usize = workers.iter().map(WorkerHandle::open).sum();
    match open.checked_sub(connections_max) {
        None => Some(Admission::Served),
        Some(over) if over < REFUSED_MAX => Some(Admission::Refused),
        Some(_) => None,
    }
}

fn hand_over(connection: NewConnection, workers: &[WorkerHandle]) {
    if connection.stream.set_nonblocking(true).is_err() {
        return;
    }
    if let Some(worker) = workers.iter().min_by_key(|worker| worker.open()) {
        worker.serve(connection);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;

    use tokio::runtime::{Builder, LocalOptions};

    use crate::proxy::accept::acceptor::*;
    use crate::proxy::accept::listener::{Scheme, bind};

    #[test]
    fn a_flood_of_connections_leaves_others_their_turn() {
        const MANY: usize = 300;
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let listener = bind(([127, 0, 0, 1], 0).into(), Scheme::Http).unwrap();
            let address = listener.socket.local_addr().unwrap();
            let clients: Vec<_> = (0..MANY).map(|_| TcpStream::connect(address).unwrap()).collect();
            clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
            // Without workers each is closed as soon as it is accepted.
            let accepted = || clients.iter().filter(|&client| matches!({ client }.read(&mut [0]), Ok(0))).count();
            tokio::task::spawn_local(run(listener, Arc::new([]), MANY));
            let mut so_far = 0;
            while so_far == 0 {
                tokio::task::yield_now().await;
                so_far = accepted();
            }
            assert!(so_far < MANY, "all in one turn");
        });
    }
}
