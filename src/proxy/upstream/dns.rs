//! The addresses of an upstream's name. A lookup runs on a thread of its own and cannot be stopped: it goes on when all
//! who wait for it have given up. So there is one at a time, and who comes meanwhile waits for it with the others.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::lookup_host;
use tokio::sync::watch;

/// The lookups of one name by one worker.
#[derive(Default)]
pub struct Lookup {
    /// What the one that runs finds.
    running: RefCell<Option<watch::Receiver<Option<Found>>>>,
}

type Found = Result<Rc<[SocketAddr]>, Rc<io::Error>>;

impl Lookup {
    /// The addresses as of now, or of the lookup that is under way.
    ///
    /// # Errors
    /// As the resolver says it.
    pub async fn addresses(self: &Rc<Self>, host: &str, port: u16) -> io::Result<Rc<[SocketAddr]>> {
        let mut running = self.running.borrow_mut().get_or_insert_with(|| self.begin(host, port)).clone();
        match running.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(Rc::clone(addresses)),
            Ok(Some(Err(error))) => Err(once_more(error)),
            Ok(None) | Err(_) => Err(io::Error::other("the lookup ended without a result")),
        }
    }

    fn begin(self: &Rc<Self>, host: &str, port: u16) -> watch::Receiver<Option<Found>> {
        let (tell, found) = watch::channel(None);
        let (lookup, host) = (Rc::clone(self), host.to_owned());
        tokio::task::spawn_local(async move {
            let addresses = lookup_host((host.as_str(), port)).await.map(Iterator::collect);
            lookup.running.take();
            let _ = tell.send(Some(addresses.map_err(Rc::new)));
        });
        found
    }
}

/// The same error for one more who waits for it.
fn once_more(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}
