//! HTTP/2 from clients and to upstreams.

mod clients;
mod compression;
mod conformance;
mod floods;
mod frames;
mod grpc;
mod lifetime;
mod messages;
mod own;
mod requests;
mod sockets;
mod upstreams;
mod windows;
pub mod wire;
