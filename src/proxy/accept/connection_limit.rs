//! Counts the open connections of each client, where `proxy.max_connections_per_client` limits them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config;

/// Open connections by client, over all workers. The lock is taken when a connection begins and when it ends, and never
/// on a request's path.
pub struct ConnectionLimit {
    proxy: Arc<config::Proxy>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a client, which counts until this is dropped. `None` where the client has no limit.
pub struct ConnectionSlot(Option<(Arc<ConnectionLimit>, IpAddr)>);

/// The client has as many connections as it may have.
#[derive(Debug)]
pub struct LimitReached;

impl ConnectionLimit {
    /// The limit that `proxy` sets, with no connection open.
    pub fn new(proxy: &Arc<config::Proxy>) -> Arc<Self> {
        Arc::new(ConnectionLimit { proxy: Arc::clone(proxy), open: Mutex::default() })
    }

    /// Takes a slot for one more connection. Trusted proxies have no limit, because many clients are behind each.
    ///
    /// # Errors
    /// [`LimitReached`]: the connection has to be closed.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Result<ConnectionSlot, LimitReached> {
        let max = self.proxy.max_connections_per_client;
        let ip = ip.to_canonical();
        if max == 0 || self.proxy.trusted_proxies.iter().any(|network| network.contains(ip)) {
            return Ok(ConnectionSlot(None));
        }
        let client = client_of(ip);
        let mut all = self.open();
        let open = all.entry(client).or_default();
        if *open >= max {
            return Err(LimitReached);
        }
        *open += 1;
        Ok(ConnectionSlot(Some((Arc::clone(self), client))))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let Some((limit, client)) = &self.0 else { return };
        let mut all = limit.open();
        if let Some(open) = all.get_mut(client) {
            *open -= 1;
            if *open == 0 {
                all.remove(client);
            }
        }
    }
}

/// The client that an address stands for. One subscriber is given at least a /64 of IPv6, and every address in it, so
/// the whole /64 counts as one client.
fn client_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::accept::connection_limit::*;

    fn limit(max: usize) -> Arc<ConnectionLimit> {
        let text = format!(
            "[proxy]\nmax_connections_per_client = {max}\ntrusted_proxies = [\"10.0.0.0/8\"]\n[service.a]\nblue = 1\ngreen = 2\n"
        );
        let config = config::Config::parse(&text, std::path::Path::new("cutover.toml")).expect("a valid config");
        ConnectionLimit::new(&Arc::new(config.proxy))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_client_has_so_many_and_gets_them_back() {
        let limit = limit(2);
        let mut slots: Vec<_> = (0..2).map(|_| limit.take(ip("192.0.2.1")).expect("a slot")).collect();
        assert!(limit.take(ip("192.0.2.1")).is_err() && limit.take(ip("::ffff:192.0.2.1")).is_err());
        assert!(limit.take(ip("192.0.2.2")).is_ok(), "another one");
        slots.pop();
        assert!(limit.take(ip("192.0.2.1")).is_ok());
        drop(slots);
        assert!(limit.open().is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_trusted_proxy_is_many() {
        let limit = limit(1);
        let _slot = limit.take(ip("2001:db8::1")).expect("a slot");
        assert!(limit.take(ip("2001:db8::ffff")).is_err());
        assert!(limit.take(ip("2001:db8:0:1::1")).is_ok());
        let slots: Vec<_> = (0..5).map(|_| limit.take(ip("10.1.2.3"))).collect();
        assert!(slots.iter().all(Result::is_ok));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let limit = limit(0);
        let _slots: Vec<_> = (0..5).map(|_| limit.take(ip("192.0.2.1")).expect("a slot")).collect();
        assert!(limit.open().is_empty());
    }
}
