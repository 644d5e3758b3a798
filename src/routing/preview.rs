//! What the idle color answers beside the active one: requests with a pass, and static files that the active color does
//! not have.

use std::sync::Arc;

use globset::GlobSet;

use crate::config;
use crate::domain::asset;
use crate::routing::preview_token::{Flaw, Key};
use crate::routing::rehearsal::set_of;
use crate::routing::{Guest, Lease};

/// The door to the idle color of one service.
#[derive(Debug)]
pub struct Gate {
    key: Arc<Key>,
    service: String,
    /// The service's path prefix.
    prefix: String,
}

/// What follows the service's prefix in the path that hands a pass to a browser.
const DOOR: &str = "/.cutover/preview";

/// What the path of a request means at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door<'r> {
    /// Wants to come in with this pass.
    Enter(&'r str),
    /// Wants no more of it.
    Leave,
}

impl Gate {
    /// The door of `config`, if it has one.
    pub fn new(config: &config::Service, key: &Arc<Key>) -> Option<Self> {
        let gate = || Gate { key: Arc::clone(key), service: config.name.clone(), prefix: config.path_prefix.clone() };
        config.preview.enabled.then(gate)
    }

    /// Checks a pass at `now`, in seconds since 1970; gives the last second it is good in.
    ///
    /// # Errors
    /// Its flaw.
    pub fn check(&self, pass: &[u8], now: u64) -> Result<u64, Flaw> {
        self.key.check(&self.service, pass, now)
    }

    /// A pass until `until`, in seconds since 1970.
    pub fn sign(&self, until: u64) -> String {
        self.key.sign(&self.service, until)
    }

    /// The path that hands a pass to a browser.
    pub fn door(&self) -> String {
        format!("{}{DOOR}", self.prefix.trim_end_matches('/'))
    }

    /// The path below which the service is.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a path (with its query) is the door.
    pub fn knocks<'r>(&self, path: &'r str) -> Option<Door<'r>> {
        let rest = path.strip_prefix(self.prefix.trim_end_matches('/'))?.strip_prefix(DOOR)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        match rest {
            "" => Some(Door::Enter(query.split('&').find_map(|part| part.strip_prefix("token=")).unwrap_or(""))),
            "/leave" => Some(Door::Leave),
            _ => None,
        }
    }
}

/// Which paths may be answered by the other color where one has no such file.
#[derive(Debug)]
pub struct Shield {
    globs: GlobSet,
}

impl Shield {
    /// As configured; `None` where it is off.
    pub fn new(config: &config::SkewShield) -> Option<Self> {
        config.enabled.then(|| Shield { globs: set_of(&config.paths) })
    }

    /// Whether the file at `path`, without a query, is the same in every release that has it.
    pub fn covers(&self, path: &str) -> bool {
        asset::is_hashed(path) || self.globs.is_match(path)
    }
}

impl Lease {
    /// Whether it is the lease of somebody with a pass, on the idle color.
    pub fn is_preview(&self) -> bool {
        self.guest == Guest::Yes
    }

    /// Whether some upstream of the color that serves it is not known to be down.
    pub fn is_up(&self) -> bool {
        self.upstreams().iter().any(|upstream| !upstream.is_down())
    }
}

#[cfg(test)]
mod tests {
    use crate::routing::preview::*;
    use crate::routing::preview_token::KEY_BYTES;

    fn gate(prefix: &str) -> Gate {
        Gate { key: Arc::new(Key::new(&[1; KEY_BYTES])), service: "a".into(), prefix: prefix.into() }
    }

    #[test]
    fn the_door_is_below_the_prefix_and_nowhere_else() {
        for (prefix, path, want) in [
            ("/", "/.cutover/preview?token=1.a", Some(Door::Enter("1.a"))),
            ("/", "/.cutover/preview?x=1&token=1.a&y", Some(Door::Enter("1.a"))),
            ("/", "/.cutover/preview", Some(Door::Enter(""))),
            ("/", "/.cutover/preview/leave", Some(Door::Leave)),
            ("/", "/.cutover/preview/leave?x", Some(Door::Leave)),
            ("/", "/.cutover/previews", None),
            ("/", "/.cutover/preview/", None),
            ("/", "/x/.cutover/preview", None),
            ("/", "*", None),
            ("/api", "/api/.cutover/preview?token=1", Some(Door::Enter("1"))),
            ("/api/", "/api/.cutover/preview?token=1", Some(Door::Enter("1"))),
            ("/api", "/.cutover/preview?token=1", None),
        ] {
            assert_eq!(gate(prefix).knocks(path), want, "{prefix} {path}");
        }
        assert_eq!(gate("/").door(), "/.cutover/preview");
        assert_eq!(gate("/api").door(), "/api/.cutover/preview");
    }

    #[test]
    fn a_file_is_covered_by_its_name_or_by_a_glob() {
        let config = config::SkewShield { enabled: true, paths: vec!["/_next/static/**".into()] };
        let shield = Shield::new(&config).expect("it is on");
        assert!(shield.covers("/app.3f9a1c2e.js") && shield.covers("/_next/static/x/_buildManifest.js"));
        assert!(!shield.covers("/app.js") && !shield.covers("/_next/data/x.json"));
        assert!(Shield::new(&config::SkewShield { enabled: false, ..config }).is_none());
    }
}
