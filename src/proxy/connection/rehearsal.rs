//! Leaves copies of safe requests at the tap while a rehearsal is open. It never waits, and never touches an answer.

use crate::http1::request::path_of;
use crate::proxy::connection::Accepted;
use crate::routing::METHODS;

/// Leaves a copy of `accepted`, if one is wanted. GrpcStatus it before the head is used up.
pub(in crate::proxy) fn offer(accepted: &Accepted) {
    let tap = &accepted.lease.route().service.tap;
    if !tap.is_open() || accepted.lease.is_preview() || accepted.request.upgrade || !accepted.body.is_done() {
        return;
    }
    if !matches!(METHODS[accepted.method_index], "GET" | "HEAD") {
        return;
    }
    let head = accepted.head.filled();
    if let Some(path) = path_of(head) {
        tap.offer(path, head);
    }
}
