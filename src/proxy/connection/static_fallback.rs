//! The skew shield: a static file that one color does not have is asked of the other one, once.
//!
//! While both colors run, pages of either are open in browsers and ask for the files that they were built with. A 404
//! is looked at here only after it has come, so that every other response costs nothing. What follows from it is in
//! [`forward`](crate::proxy::connection::forward).

use crate::http1::method::Method;
use crate::http1::upstream_head::path_of;
use crate::proxy::connection::lease::LeasedRequest;
use crate::routing::Lease;

/// Whether a 404 to this request may be another color's to answer. The path is only looked at once the 404 is there.
pub fn may_apply(request: &LeasedRequest) -> bool {
    matches!(request.method, Method::Get | Method::Head)
        && request.lease.route().service.shield.is_some()
        && !request.lease.is_preview()
        && !request.info.is_upgrade
}

/// Whether the other color is to be asked for what the request with this `head` asks for. Takes that out of the budget.
pub fn take_search(lease: &Lease, head: &[u8]) -> bool {
    let Some(shield) = &lease.route().service.shield else { return false };
    path_of(head).is_some_and(|path| shield.covers(path)) && lease.standby().is_up() && lease.take_search()
}
