//! The append-only record of releases.
