//! The text of /metrics.
