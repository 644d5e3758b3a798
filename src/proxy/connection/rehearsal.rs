//! Leaves copies of safe requests for a rehearsal while one is open. It never waits, and never touches a response.

use crate::http1::method::Method;
use crate::http1::upstream_head::path_of;
use crate::proxy::connection::lease::LeasedRequest;

/// Leaves a copy of a request and its `head`, if a rehearsal wants one.
pub fn offer(request: &LeasedRequest, head: &[u8]) {
    let tap = &request.lease.route().service.tap;
    if !tap.is_open() || request.lease.is_preview() || request.info.is_upgrade || !request.body.is_done() {
        return;
    }
    if !matches!(request.method, Method::Get | Method::Head) {
        return;
    }
    if let Some(path) = path_of(head) {
        tap.offer(path, head);
    }
}
