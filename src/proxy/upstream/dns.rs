//! Resolves an upstream's name.
//!
//! A lookup runs on a thread of its own and cannot be stopped: it goes on when every request that waits for it has
//! given up. So a worker runs one lookup of a name at a time, and requests that need the name meanwhile wait for the
//! same one.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::lookup_host;
use tokio::sync::watch;

/// The lookups of one name by one worker.
#[derive(Default)]
pub struct Lookup {
    /// Receives the result of the lookup that runs now.
    running: RefCell<Option<watch::Receiver<Option<LookupResult>>>>,
}

type LookupResult = Result<Rc<[SocketAddr]>, Rc<io::Error>>;

impl Lookup {
    /// Resolves the name, by the lookup that is under way or by a new one.
    ///
    /// # Errors
    /// The resolver's.
    pub async fn addresses(self: &Rc<Self>, host: &str, port: u16) -> io::Result<Rc<[SocketAddr]>> {
        let mut running = self.running.borrow_mut().get_or_insert_with(|| self.begin(host, port)).clone();
        match running.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(Rc::clone(addresses)),
            Ok(Some(Err(error))) => Err(copy_of(error)),
            Ok(None) | Err(_) => Err(io::Error::other("the lookup ended without a result")),
        }
    }

    fn begin(self: &Rc<Self>, host: &str, port: u16) -> watch::Receiver<Option<LookupResult>> {
        let (sender, receiver) = watch::channel(None);
        let (lookup, host) = (Rc::clone(self), host.to_owned());
        tokio::task::spawn_local(async move {
            let addresses = lookup_host((host.as_str(), port)).await.map(Iterator::collect);
            lookup.running.take();
            let _ = sender.send(Some(addresses.map_err(Rc::new)));
        });
        receiver
    }
}

/// Makes the same error once more, for another request that waited for it.
fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}
