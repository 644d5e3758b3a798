//! The skew shield: a static file that one color does not have is asked of the other one, once.
//!
//! For as long as both colors run, pages of either are open in browsers and ask for the files that they were built
//! with. A 404 is looked at here only after it has come, so that every other answer costs nothing.

use std::time::Instant;

use crate::http1::request::path_of;
use crate::http1::response::ServedBy;
use crate::proxy::connection::forward::{Replayed, Trial, Way};
use crate::proxy::connection::{Accepted, Connection};
use crate::proxy::exchange::{Completion, Replaceable};
use crate::proxy::transport::Transport;
use crate::routing::{Lease, METHODS, Standby};

/// Whether a 404 to this request may be another color's to answer; what it is for is only looked at then.
pub(in crate::proxy) fn may_miss(accepted: &Accepted) -> bool {
    matches!(METHODS[accepted.method_index], "GET" | "HEAD")
        && accepted.lease.route().service.shield.is_some()
        && !accepted.lease.is_preview()
        && !accepted.request.upgrade
}

/// Whether the other color is to be asked for what `head`, a request's, asks for; takes that out of the budget.
pub(in crate::proxy) fn take_search(lease: &Lease, head: &[u8]) -> bool {
    let Some(shield) = &lease.route().service.shield else { return false };
    path_of(head).is_some_and(|path| shield.covers(path)) && lease.standby().is_up() && lease.take_search()
}

impl<S: Transport> Connection<S> {
    /// Asks the other color for a file that is `missing`. If it does not have it either, the first answer is passed on.
    pub(in crate::proxy) async fn ask_other(
        &mut self,
        accepted: &mut Accepted,
        way: &mut Way,
        missing: Trial,
    ) -> (Trial, Option<Replayed>) {
        let other: Standby = accepted.lease.standby().clone();
        if !accepted.lease.begin_standby() {
            return (self.go_on(accepted, way, missing).await, None);
        }
        let first_took = accepted.began.elapsed();
        let first_upstream = accepted.line.as_ref().map(|line| line.upstream.clone());
        way.start_again(&self.worker);
        let began = Instant::now();
        let served_by = Some(ServedBy::Skew(other.color));
        let again = self.try_color(accepted, way, &other.upstreams, Replaceable::from(400), served_by).await;
        if way.down.written == 0 && again.result != Ok(Completion::Answered) {
            if let Ok(Completion::Failed(status)) = again.result {
                accepted.lease.record_standby(Some(status), accepted.method_index, began.elapsed());
            }
            accepted.lease.end_standby();
            if let (Some(line), Some(upstream)) = (&mut accepted.line, first_upstream) {
                line.upstream = upstream;
            }
            way.start_again(&self.worker);
            return (self.go_on(accepted, way, missing).await, None);
        }
        // Its 404 is what the first color said of it; what comes of the other one's answer is not its doing.
        let good = crate::routing::Outcome::Good;
        accepted.lease.record(good, Some(404), accepted.method_index, first_took);
        if again.progress.status.is_some_and(|status| status < 400) {
            other.count_skew_answer();
        }
        (again, Some(Replayed { color: other.color, began, word: "skew" }))
    }
}
