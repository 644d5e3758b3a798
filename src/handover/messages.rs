//! What the two processes of an upgrade say to each other: one line of JSON for each thing said.
//!
//! The two may be of different versions: a state that the reader does not know is said and left out, never a reason
//! to fail.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The form of an [`UpgradeState`] written now. Another form's counters may mean something else.
pub const VERSION: u32 = 1;
/// A line at most: the last hour of some 1,000 busy services.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// One who does not read for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a successor says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeMessage {
    /// Config, state and sockets are in order; it waits for the state.
    Ready,
    /// It accepts connections and answers.
    Serving,
    /// It cannot start, and why.
    Failed(String),
}

/// What was counted so far. Sent when the successor is ready, and again while its predecessor finishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpgradeState {
    /// [`VERSION`]
    pub version: u32,
    /// By service: the lasting counters of blue and green, in the order of `Shard::counters`.
    pub counters: BTreeMap<String, [Vec<u64>; 2]>,
    /// Flips and rollbacks that were made.
    pub flips: Vec<CountedFlip>,
    /// Watches that ended without taking traffic back.
    pub watch_ends: Vec<CountedWatchEnd>,
    /// By service, what only the control plane reads: the running watch, the history. Not in what is sent later.
    #[serde(default, rename = "left", skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, serde_json::Value>,
    /// Reloads that took effect.
    pub reloads_ok: u64,
    /// Reloads that were refused.
    pub reloads_failed: u64,
}

/// Flips of one service, in the words of the metrics; a JSON array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(String, String, String, u64)", into = "(String, String, String, u64)")]
pub struct CountedFlip {
    /// The service.
    pub service: String,
    /// The color that took the traffic.
    pub to: String,
    /// Where the change came from.
    pub reason: String,
    /// How many there were.
    pub count: u64,
}

impl From<(String, String, String, u64)> for CountedFlip {
    fn from((service, to, reason, count): (String, String, String, u64)) -> Self {
        CountedFlip { service, to, reason, count }
    }
}

impl From<CountedFlip> for (String, String, String, u64) {
    fn from(flip: CountedFlip) -> Self {
        (flip.service, flip.to, flip.reason, flip.count)
    }
}

/// Watches of one service that ended in one way, in the words of the metrics; a JSON array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(String, String, u64)", into = "(String, String, u64)")]
pub struct CountedWatchEnd {
    /// The service.
    pub service: String,
    /// How the watches ended.
    pub end: String,
    /// How many there were.
    pub count: u64,
}

impl From<(String, String, u64)> for CountedWatchEnd {
    fn from((service, end, count): (String, String, u64)) -> Self {
        CountedWatchEnd { service, end, count }
    }
}

impl From<CountedWatchEnd> for (String, String, u64) {
    fn from(ended: CountedWatchEnd) -> Self {
        (ended.service, ended.end, ended.count)
    }
}

/// One end of the line between the two processes.
pub struct UpgradeLink(BufReader<UnixStream>);

impl UpgradeLink {
    /// An end of a pair.
    pub fn new(stream: UnixStream) -> Self {
        // Only a closed socket refuses it, and that one fails at the first word.
        let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
        UpgradeLink(BufReader::new(stream))
    }

    /// Says one thing.
    ///
    /// # Errors
    /// The other process is gone, or has not read for 2 s.
    pub fn say(&mut self, said: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(said)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    /// Whether something is said, or the other process is gone, within `limit`.
    ///
    /// # Errors
    /// The socket's.
    pub fn is_said(&mut self, limit: Duration) -> io::Result<bool> {
        self.0.get_ref().set_read_timeout(Some(limit))?;
        match self.0.fill_buf() {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hears one thing, within `limit` of silence where there is one.
    ///
    /// # Errors
    /// `TimedOut` after the limit, `UnexpectedEof` when the other process is gone, `InvalidData` for what is not
    /// understood; after the last one more can be heard.
    pub fn hear<T: DeserializeOwned>(&mut self, limit: Option<Duration>) -> io::Result<T> {
        self.0.get_ref().set_read_timeout(limit)?;
        let mut line = Vec::new();
        let read = (&mut self.0).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
            Ok(_) if line.last() != Some(&b'\n') => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut here, mut there) = (UpgradeLink::new(here), UpgradeLink::new(there));
        let state = UpgradeState { version: VERSION, reloads_ok: 3, ..UpgradeState::default() };
        here.say(&UpgradeMessage::Failed("no".into())).unwrap();
        here.say(&state).unwrap();
        assert_eq!(there.hear::<UpgradeMessage>(None).unwrap(), UpgradeMessage::Failed("no".into()));
        assert_eq!(there.hear::<UpgradeState>(None).unwrap(), state);
        let silence = there.hear::<UpgradeMessage>(Some(Duration::from_millis(1))).unwrap_err();
        assert_eq!(silence.kind(), io::ErrorKind::TimedOut);
        drop(here);
        assert_eq!(there.hear::<UpgradeMessage>(None).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_the_next_line_is_heard() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut there = UpgradeLink::new(there);
        here.write_all(b"what?\n\"ready\"\n").unwrap();
        assert_eq!(there.hear::<UpgradeMessage>(None).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(there.hear::<UpgradeMessage>(None).unwrap(), UpgradeMessage::Ready);
    }
}
