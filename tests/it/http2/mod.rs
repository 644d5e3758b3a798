//! HTTP/2 from clients and to upstreams.

mod conformance;
mod floods;
mod requests;
mod wire;
