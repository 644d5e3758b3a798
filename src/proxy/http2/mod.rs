//! HTTP/2 on both sides of the proxy: sessions driven by sockets, and their streams as what the rest of the data plane
//! knows, connections that speak HTTP/1.
//!
//! So there is one exchange, with one set of rules, for every client and every upstream. What HTTP/2 itself means is
//! the layer `http2`; here are sockets, tasks and time-outs.

pub mod driver;
pub mod stream;

pub use stream::Stream;

use std::cell::RefCell;
use std::rc::Rc;

use crate::http2::Session;

/// A session and those who work on it: its driver and its streams, all of one worker.
pub type Shared = Rc<RefCell<Session>>;
