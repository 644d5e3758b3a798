//! The state of reloads: how they have gone, and the way to ask for one.

use tokio::sync::{mpsc, watch};

use crate::control::file_watch::Contents;
use crate::control::task::reload::load::ReloadRequest;

/// How reloads have gone, and the way to ask for one.
pub(in crate::control) struct Reloads {
    pub(super) requests: mpsc::Sender<ReloadRequest>,
    /// What the config in force, or refused last, was read from.
    pub(super) files: watch::Sender<Contents>,
    /// Why the config on disk is not in force.
    pub(in crate::control) problem: Option<String>,
    pub(in crate::control) counts: ReloadCounts,
}

/// Reloads, by how they ended.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::control) struct ReloadCounts {
    pub(in crate::control) ok: u64,
    pub(in crate::control) failed: u64,
}

impl Reloads {
    pub(in crate::control) fn new(requests: mpsc::Sender<ReloadRequest>, files: watch::Sender<Contents>) -> Self {
        Reloads { requests, files, problem: None, counts: ReloadCounts::default() }
    }
}
