//! How many connections each client has open, where `proxy.max_connections_per_client` limits that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config;

/// Open connections by client, of all workers. The lock is taken when a connection begins and ends, never within.
pub struct Clients {
    proxy: Arc<config::Proxy>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a client, until it is dropped.
pub struct Place(Option<(Arc<Clients>, IpAddr)>);

/// The client has as many connections as it may have.
#[derive(Debug)]
pub struct Full;

impl Clients {
    /// Nobody has a connection.
    pub fn new(proxy: &Arc<config::Proxy>) -> Arc<Self> {
        Arc::new(Clients { proxy: Arc::clone(proxy), open: Mutex::default() })
    }

    /// A place for one more connection. Trusted proxies, behind which many clients are, have as many as they want.
    ///
    /// # Errors
    /// [`Full`]
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Result<Place, Full> {
        let max = self.proxy.max_connections_per_client;
        let ip = ip.to_canonical();
        if max == 0 || self.proxy.trusted_proxies.iter().any(|network| network.contains(ip)) {
            return Ok(Place(None));
        }
        let client = network_of(ip);
        let mut all = self.open();
        let open = all.entry(client).or_default();
        if *open >= max {
            return Err(Full);
        }
        *open += 1;
        Ok(Place(Some((Arc::clone(self), client))))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((clients, client)) = &self.0 else { return };
        let mut all = clients.open();
        if let Some(open) = all.get_mut(client) {
            *open -= 1;
            if *open == 0 {
                all.remove(client);
            }
        }
    }
}

/// Whom an address stands for. One subscriber is given a /64 of IPv6 at least, and every address in it.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::accept::connection_limit::*;

    fn clients(max: usize) -> Arc<Clients> {
        let text = format!(
            "[proxy]\nmax_connections_per_client = {max}\ntrusted_proxies = [\"10.0.0.0/8\"]\n[service.a]\nblue = 1\ngreen = 2\n"
        );
        let config = config::Config::parse(&text, std::path::Path::new("cutover.toml")).expect("a valid config");
        Clients::new(&Arc::new(config.proxy))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_client_has_so_many_and_gets_them_back() {
        let clients = clients(2);
        let mut places: Vec<_> = (0..2).map(|_| clients.enter(ip("192.0.2.1")).expect("a place")).collect();
        assert!(clients.enter(ip("192.0.2.1")).is_err() && clients.enter(ip("::ffff:192.0.2.1")).is_err());
        assert!(clients.enter(ip("192.0.2.2")).is_ok(), "another one");
        places.pop();
        assert!(clients.enter(ip("192.0.2.1")).is_ok());
        drop(places);
        assert!(clients.open().is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_trusted_proxy_is_many() {
        let clients = clients(1);
        let _place = clients.enter(ip("2001:db8::1")).expect("a place");
        assert!(clients.enter(ip("2001:db8::ffff")).is_err());
        assert!(clients.enter(ip("2001:db8:0:1::1")).is_ok());
        let places: Vec<_> = (0..5).map(|_| clients.enter(ip("10.1.2.3"))).collect();
        assert!(places.iter().all(Result::is_ok));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let clients = clients(0);
        let _places: Vec<_> = (0..5).map(|_| clients.enter(ip("192.0.2.1")).expect("a place")).collect();
        assert!(clients.open().is_empty());
    }
}
