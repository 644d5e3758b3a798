//! The API between the proxy and its clients: the types of its JSON, and the client that speaks it.

pub mod client;
pub mod status;
