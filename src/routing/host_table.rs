//! Which service a request is for. The control plane builds a table at each reload, the workers look things up.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config;
use crate::routing::Service;

/// Finds the service of a request: by host, then by the longest path prefix.
#[derive(Default)]
pub struct HostTable {
    exact: HashMap<Box<[u8]>, Vec<HostEntry>>,
    wildcard: HashMap<Box<[u8]>, Vec<HostEntry>>,
    fallback: Vec<HostEntry>,
}

struct HostEntry {
    prefix: Box<[u8]>,
    service: Arc<Service>,
}

impl HostEntry {
    fn matches(&self, path: &[u8]) -> bool {
        if path == b"*" {
            return *self.prefix == *b"/"; // OPTIONS of the whole server
        }
        let Some(rest) = path.strip_prefix(&*self.prefix) else { return false };
        self.prefix.ends_with(b"/") || matches!(rest.first(), None | Some(b'/' | b'?'))
    }
}

/// The longest host name (RFC 1035 2.3.4); a longer one matches no configured host.
const HOST_BYTES_MAX: usize = 255;

impl HostTable {
    /// Builds the table; of two services with the same host and prefix the first is found (the config refuses that).
    pub fn new<'a>(services: impl IntoIterator<Item = (&'a config::Service, Arc<Service>)>) -> Self {
        let mut table = HostTable::default();
        for (config, service) in services {
            let entry = || HostEntry { prefix: config.path_prefix.as_bytes().into(), service: Arc::clone(&service) };
            if config.hosts.is_empty() {
                table.fallback.push(entry());
            }
            for host in &config.hosts {
                match host.strip_prefix("*.") {
                    Some(parent) => table.wildcard.entry(parent.as_bytes().into()).or_default().push(entry()),
                    None => table.exact.entry(host.as_bytes().into()).or_default().push(entry()),
                }
            }
        }
        let lists = table.exact.values_mut().chain(table.wildcard.values_mut()).chain([&mut table.fallback]);
        for list in lists {
            list.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.len()));
        }
        table
    }

    /// The service for `host` (without port, any case, with or without the dot of the root) and `path` (with or without
    /// query).
    ///
    /// Tried in turn: the host itself, `*.` before each of its parents, services without hosts; the first of these
    /// that has a matching prefix wins.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<&Arc<Service>> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        let first = |list: &'_ [HostEntry]| list.iter().position(|entry| entry.matches(path));
        if (!self.exact.is_empty() || !self.wildcard.is_empty()) && host.len() <= HOST_BYTES_MAX {
            let mut buffer = [0; HOST_BYTES_MAX];
            let lower = &mut buffer[..host.len()];
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            if let Some(list) = self.exact.get(&*lower)
                && let Some(at) = first(list)
            {
                return Some(&list[at].service);
            }
            let mut rest = &*lower;
            while !self.wildcard.is_empty()
                && let Some(dot) = memchr::memchr(b'.', rest)
            {
                rest = &rest[dot + 1..];
                if let Some(list) = self.wildcard.get(rest)
                    && let Some(at) = first(list)
                {
                    return Some(&list[at].service);
                }
            }
        }
        first(&self.fallback).map(|at| &self.fallback[at].service)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::domain::Color;
    use crate::routing::host_table::*;
    use crate::routing::tests::{address, service};

    fn configured(name: &str, hosts: &[&str], path_prefix: &str) -> config::Service {
        let color = config::ColorConfig { upstreams: vec![address(1)], env_file: None, project: None, image_tag: None };
        let timeout = Duration::from_secs(1);
        config::Service {
            name: name.into(),
            hosts: hosts.iter().map(|&host| host.into()).collect(),
            path_prefix: path_prefix.into(),
            active: Color::Blue,
            colors: [color.clone(), color],
            upstream: config::Upstream {
                connect_timeout: timeout,
                response_timeout: timeout,
                idle_timeout: timeout,
                protocol: config::Protocol::Http1,
                proxy_protocol: None,
            },
            health: config::Health {
                path: "/".into(),
                check: config::Check::Http(config::Protocol::Http1),
                proxy_protocol: None,
                interval: timeout,
                timeout,
                rise: 1,
                fall: 1,
            },
            watch: config::Watch {
                window: timeout,
                max_false_rollbacks: 0.001,
                min_effect: 0.001,
                min_failures: 5,
                warm_up: timeout,
                slow_factor: 2.0,
                split: true,
                stay_open: false,
                rare_route: 0.02,
                synthetic: None,
            },
            replay: config::Replay::default(),
            rehearse: config::Rehearse::default(),
            preview: config::Preview::default(),
            skew_shield: config::SkewShield::default(),
            drain: config::Drain { timeout },
            freeze: config::Freeze::default(),
            deploy: config::Deploy::default(),
            monitor: config::Monitor::default(),
        }
    }

    #[test]
    fn a_service_is_found_by_host_then_by_the_longest_prefix() {
        let configs = [
            configured("shop", &["shop.example"], "/"),
            configured("shop-api", &["shop.example"], "/api"),
            configured("wild", &["*.example"], "/"),
            configured("rest", &[], "/"),
            configured("rest-api", &[], "/api/"),
        ];
        let table = HostTable::new(configs.iter().map(|config| (config, service(&config.name).0)));
        for (host, path, want) in [
            ("shop.example", "/", "shop"),
            ("SHOP.example", "/api", "shop-api"),
            ("shop.example.", "/", "shop"),
            ("a.example.", "/", "wild"),
            ("shop.example..", "/", "rest"),
            ("shop.example", "/api?x", "shop-api"),
            ("shop.example", "/api/x", "shop-api"),
            ("shop.example", "/apix", "shop"),
            ("a.example", "/", "wild"),
            ("a.b.example", "/", "wild"),
            ("example", "/", "rest"),
            ("other", "/api/x", "rest-api"),
            ("other", "/api", "rest"),
            ("", "*", "rest"),
        ] {
            let found = table.find(host.as_bytes(), path.as_bytes()).map_or("", |service| service.info.name.as_str());
            assert_eq!(found, want, "{host} {path}");
        }
        assert!(table.find(&[b'a'; 300], b"/").is_some(), "an endless host is every other host");
    }
}
