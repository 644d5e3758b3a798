//! The API between the proxy and its clients: the types of its JSON, and the client that speaks it.

mod change;
pub mod client;
mod event;
mod refusal;
mod rehearsal;
mod status;

pub use change::{
    ChangeRequest, Changed, Drained, FreezeRequest, Frozen, Pass, Reloaded, ThawRequest, Thawed, Upgraded,
};
pub use event::{Event, EventKind};
pub use refusal::{Refusal, RefusalCode};
pub use rehearsal::{Latency, Noise, RehearsalFinding, RehearsalReport, RehearsedDifference};
pub use status::{
    Answered, CertificateStatus, ColorStatus, FreezeStatus, LongLived, Phase, RehearsalStatus, Replays, ServiceStatus,
    Status, SyntheticStatus, UpstreamStatus, Verdict, WatchNote, WatchStanding, WatchStatus,
};
