//! The preview of one service: who is let through to the idle color, and the path that hands a pass to a browser.

use std::sync::Arc;

use crate::config;
use crate::routing::preview_token::{PreviewKey, TokenError};

/// Decides who is let through to the idle color of one service.
#[derive(Debug)]
pub struct PreviewGate {
    key: Arc<PreviewKey>,
    service: String,
    /// The service's path prefix.
    prefix: String,
}

/// Follows the service's prefix in the path that hands a pass to a browser.
const ENTRY_PATH: &str = "/.cutover/preview";

/// Says what a request to the entry path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviewAction<'r> {
    /// To be let through with this pass from now on.
    Enter(&'r str),
    /// To be let through no more.
    Leave,
}

impl PreviewGate {
    /// Returns the gate of a service, if its preview is enabled.
    pub fn new(config: &config::Service, key: &Arc<PreviewKey>) -> Option<Self> {
        let gate =
            || PreviewGate { key: Arc::clone(key), service: config.name.clone(), prefix: config.path_prefix.clone() };
        config.preview.enabled.then(gate)
    }

    /// Checks a pass at `now`, in seconds since 1970, and returns the last second it is good in.
    ///
    /// # Errors
    /// The pass has expired, or was not made for this service with this key.
    pub fn check(&self, pass: &[u8], now: u64) -> Result<u64, TokenError> {
        self.key.check(&self.service, pass, now)
    }

    /// Makes a pass that is good until `until`, in seconds since 1970.
    pub fn sign(&self, until: u64) -> String {
        self.key.sign(&self.service, until)
    }

    /// Returns the path that hands a pass to a browser.
    pub fn entry_path(&self) -> String {
        format!("{}{ENTRY_PATH}", self.prefix.trim_end_matches('/'))
    }

    /// Returns the path below which the service is.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns what a path (with its query) asks for, if it is the entry path.
    pub fn action<'r>(&self, path: &'r str) -> Option<PreviewAction<'r>> {
        let rest = path.strip_prefix(self.prefix.trim_end_matches('/'))?.strip_prefix(ENTRY_PATH)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        match rest {
            "" => {
                Some(PreviewAction::Enter(query.split('&').find_map(|part| part.strip_prefix("token=")).unwrap_or("")))
            }
            "/leave" => Some(PreviewAction::Leave),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::routing::preview::*;
    use crate::routing::preview_token::KEY_BYTES;

    fn gate(prefix: &str) -> PreviewGate {
        PreviewGate { key: Arc::new(PreviewKey::new(&[1; KEY_BYTES])), service: "a".into(), prefix: prefix.into() }
    }

    #[test]
    fn the_entry_path_is_below_the_prefix_and_nowhere_else() {
        for (prefix, path, want) in [
            ("/", "/.cutover/preview?token=1.a", Some(PreviewAction::Enter("1.a"))),
            ("/", "/.cutover/preview?x=1&token=1.a&y", Some(PreviewAction::Enter("1.a"))),
            ("/", "/.cutover/preview", Some(PreviewAction::Enter(""))),
            ("/", "/.cutover/preview/leave", Some(PreviewAction::Leave)),
            ("/", "/.cutover/preview/leave?x", Some(PreviewAction::Leave)),
            ("/", "/.cutover/previews", None),
            ("/", "/.cutover/preview/", None),
            ("/", "/x/.cutover/preview", None),
            ("/", "*", None),
            ("/api", "/api/.cutover/preview?token=1", Some(PreviewAction::Enter("1"))),
            ("/api/", "/api/.cutover/preview?token=1", Some(PreviewAction::Enter("1"))),
            ("/api", "/.cutover/preview?token=1", None),
        ] {
            assert_eq!(gate(prefix).action(path), want, "{prefix} {path}");
        }
        assert_eq!(gate("/").entry_path(), "/.cutover/preview");
        assert_eq!(gate("/api").entry_path(), "/api/.cutover/preview");
    }
}
