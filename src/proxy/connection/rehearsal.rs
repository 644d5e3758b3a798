//! Leaves copies of safe requests for a rehearsal while one is open. It never waits, and never touches a response.

use crate::http1::request::path_of;
use crate::proxy::connection::lease::LeasedRequest;
use crate::routing::METHODS;

/// Leaves a copy of a request and its `head`, if a rehearsal wants one.
pub fn offer(request: &LeasedRequest, head: &[u8]) {
    let tap = &request.lease.route().service.tap;
    if !tap.is_open() || request.lease.is_preview() || request.info.upgrade || !request.body.is_done() {
        return;
    }
    if !matches!(METHODS[request.method_index], "GET" | "HEAD") {
        return;
    }
    if let Some(path) = path_of(head) {
        tap.offer(path, head);
    }
}
