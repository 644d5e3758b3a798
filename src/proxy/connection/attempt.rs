//! What came of sending a request to one color, and how a watch hears of it when it failed.

use std::time::Instant;

use crate::domain::Color;
use crate::http1::grpc_status::GrpcFailure;
use crate::os::clock;
use crate::proxy::connection::lease::LeasedRequest;
use crate::proxy::exchange::{Completion, ExchangeProgress};
use crate::proxy::fault::Fault;
use crate::proxy::upstream::pool::UpstreamConn;
use crate::routing::{FailedRequest, Lease, Outcome, ReplayResult, Symptom};

/// One request at one color.
pub struct Attempt {
    pub result: Result<Completion, Fault>,
    pub progress: ExchangeProgress,
    /// The client's connection may take another request.
    pub keep_client: bool,
    /// The connection to the upstream; `None` where none came about.
    pub conn: Option<UpstreamConn>,
}

/// A response by the color that the lease is not on.
pub struct Replacement {
    pub color: Color,
    pub began: Instant,
    pub reason: ReplacementReason,
}

/// Why another color was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplacementReason {
    /// A watched color failed, and the standby was asked in its place.
    Replay,
    /// One color did not have a static file, and the other was asked for it.
    Skew,
}

/// How a request ended, as the access log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// The response is complete.
    Complete,
    /// The response is complete, and was for a preview.
    Preview,
    /// The response is complete, and says that a gRPC call failed.
    GrpcFailed(GrpcFailure),
    /// The response is complete, and came from another color.
    Replaced(ReplacementReason),
    /// The request became a tunnel, whose ends have closed it.
    Tunnel,
    /// There is no complete response.
    Failed(Fault),
}

impl RequestEnd {
    /// Why there is no complete response; `None` where there is one.
    pub fn fault(self) -> Option<Fault> {
        match self {
            RequestEnd::Failed(fault) => Some(fault),
            RequestEnd::Complete
            | RequestEnd::Preview
            | RequestEnd::GrpcFailed(_)
            | RequestEnd::Replaced(_)
            | RequestEnd::Tunnel => None,
        }
    }

    /// The word of the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestEnd::Complete => "ok",
            RequestEnd::Preview => "preview",
            RequestEnd::GrpcFailed(failure) => failure.as_str(),
            RequestEnd::Replaced(ReplacementReason::Replay) => "replayed",
            RequestEnd::Replaced(ReplacementReason::Skew) => "skew",
            RequestEnd::Tunnel => "tunnel",
            RequestEnd::Failed(fault) => fault.label(),
        }
    }
}

impl Attempt {
    /// The status that the client would get, or has got.
    pub fn status(&self) -> Option<u16> {
        match self.result {
            Ok(Completion::Failed(status)) => Some(status),
            Ok(Completion::Answered | Completion::Tunnel) => self.progress.status,
            Err(fault) => fault.status(),
        }
    }

    /// Reports a request that failed on a watched color, or was slow. `None` for any other request, for one that was
    /// reported before, and where the watch has enough of them.
    pub fn report(&self, request: &mut LeasedRequest) -> Option<FailureReport> {
        let (ill, status, fault) = match self.result {
            Ok(Completion::Failed(status)) => (Symptom::Failed, Some(status), None),
            Ok(Completion::Answered) if self.progress.status.is_some_and(|code| code >= 500) => {
                (Symptom::Failed, self.progress.status, None)
            }
            Ok(Completion::Answered) if self.progress.failure.is_some() => {
                (Symptom::Failed, self.progress.status, self.progress.failure.map(GrpcFailure::as_str))
            }
            Ok(Completion::Answered) if request.lease.is_slow() => (Symptom::Slow, self.progress.status, None),
            Ok(Completion::Answered | Completion::Tunnel) => return None,
            Err(fault) => match fault.outcome() {
                Outcome::Bad | Outcome::Refused => (Symptom::Failed, self.progress.status, Some(fault.label())),
                Outcome::Good | Outcome::Void => return None,
            },
        };
        let target = request.target.take()?;
        request.lease.failed().filter(|place| place.has_room(ill))?;
        let failed = FailedRequest {
            at_unix_ms: clock::unix_ms(),
            method: request.method.as_str(),
            target,
            status,
            fault,
            took: request.began.elapsed(),
            request_id: request.request_id.clone(),
            upstream: self.upstream_address(request),
            replay: None,
            synthetic: false,
        };
        Some(FailureReport { ill, failed })
    }

    /// Where the request was sent: to one upstream, or in vain to all of them.
    fn upstream_address(&self, request: &LeasedRequest) -> String {
        if let Some(conn) = &self.conn {
            return conn.upstream().address.to_string();
        }
        let all: Vec<_> = request.lease.upstreams().iter().map(|upstream| upstream.address.to_string()).collect();
        all.join(", ")
    }
}

/// The description of a failed or slow request.
pub struct FailureReport {
    ill: Symptom,
    failed: FailedRequest,
}

impl FailureReport {
    /// Leaves it where the watch finds it; `replay` is what came of asking the standby, where it was asked.
    pub fn leave(self, lease: &Lease, replay: Option<ReplayResult>) {
        if let Some(place) = lease.failed() {
            place.add(self.ill, FailedRequest { replay, ..self.failed });
        }
    }
}
