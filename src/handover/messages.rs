//! Defines the messages between the two processes of an upgrade: each is one line of JSON.
//!
//! The two processes may be of different versions: a reader reports a state that it does not know and ignores it, and
//! never fails because of it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the [`UpgradeState`] that this binary writes. The counters of another version may mean something
/// else.
pub const VERSION: u32 = 1;
/// Limits a line; the last hour of some 1,000 busy services fits.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// A process that does not read for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message from the successor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeMessage {
    /// The config, the state and the sockets are in order; the successor waits for the state.
    Ready,
    /// The successor accepts connections and responds.
    Serving,
    /// The successor cannot start, for this reason.
    Failed(String),
}

/// Carries the counters so far. It is sent when the successor is ready, and again while its predecessor finishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpgradeState {
    /// The value of [`VERSION`].
    pub version: u32,
    /// The lasting counters of blue and green by service, in the order of `Shard::counters`.
    pub counters: BTreeMap<String, [Vec<u64>; 2]>,
    /// Counts the flips and rollbacks that were made.
    pub flips: Vec<CountedFlip>,
    /// Counts the watches that ended without taking traffic back.
    pub watch_ends: Vec<CountedWatchEnd>,
    /// State that only the control plane reads, by service: the running watch, the history. Later messages leave it
    /// out.
    #[serde(default, rename = "left", skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, serde_json::Value>,
    /// Counts the reloads that took effect.
    pub reloads_ok: u64,
    /// Counts the reloads that were refused.
    pub reloads_failed: u64,
}

/// Counts flips of one service, with the labels of the metrics; it is written as a JSON array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(String, String, String, u64)", into = "(String, String, String, u64)")]
pub struct CountedFlip {
    pub service: String,
    /// The color that took the traffic.
    pub to: String,
    /// The origin of the change.
    pub reason: String,
    /// The number of flips.
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

/// Counts the watches of one service that ended in one way, with the labels of the metrics; it is written as a JSON
/// array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(String, String, u64)", into = "(String, String, u64)")]
pub struct CountedWatchEnd {
    pub service: String,
    /// Tells how the watches ended.
    pub end: String,
    /// The number of watches.
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

/// One end of the connection between the two processes.
pub struct UpgradeLink(BufReader<UnixStream>);

impl UpgradeLink {
    /// Wraps one end of a pair.
    pub fn new(stream: UnixStream) -> Self {
        // Only a closed socket refuses this, and then the first message fails.
        let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
        UpgradeLink(BufReader::new(stream))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// Fails when the other process is gone, or has not read for 2 s.
    pub fn say(&mut self, said: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(said)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    /// Returns whether a message arrives, or the other process is gone, within `limit`.
    ///
    /// # Errors
    /// Returns an error of the socket.
    pub fn is_said(&mut self, limit: Duration) -> io::Result<bool> {
        self.0.get_ref().set_read_timeout(Some(limit))?;
        match self.0.fill_buf() {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Receives one message; a `limit` bounds the wait for it.
    ///
    /// # Errors
    /// Returns `TimedOut` after the limit, `UnexpectedEof` when the other process is gone, and `InvalidData` for a
    /// message that cannot be parsed; after the last one, more messages can be received.
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
