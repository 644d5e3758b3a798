//! What `rise` and `fall` make of the probes of one upstream.
//!
//! An upstream nobody has heard of yet is [`Readiness::Unknown`]: traffic may try it, a flip may not rely on it. A
//! probe that could not be made says nothing about the upstream and moves nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It answered that it is ready.
    Ready,
    /// It did not, and this is why: "connection refused", "503", "timed out after 2s".
    Failed(String),
    /// The probe itself could not be made, for want of file descriptors for example.
    Missing(String),
}

/// What is believed of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// Neither `rise` successes nor `fall` failures in a row yet.
    Unknown,
    /// `rise` successes in a row, and not `fall` failures in a row since.
    Up,
    /// `fall` failures in a row, and not `rise` successes in a row since.
    Down,
}

/// Says why a flip may not rely on an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// Its last probe failed, or could not be made; the text is the probe's.
    ProbeFailed(String),
    /// It has not been found ready `rise` times in a row yet.
    TooFewProbes {
        /// Good probes in a row so far.
        good: u32,
        /// Good probes that are needed.
        rise: u32,
    },
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::ProbeFailed(why) => f.write_str(why),
            NotReady::TooFewProbes { good, rise } => write!(f, "{good} of {rise} good probes in a row so far"),
        }
    }
}

/// An upstream that a gate is closed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamNotReady {
    /// Host and port.
    pub address: String,
    /// The reason for which a flip may not rely on it.
    pub why: NotReady,
}

impl fmt::Display for UpstreamNotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.why)
    }
}

/// The health of one upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamHealth {
    #[serde(rename = "standing")]
    readiness: Readiness,
    streak: Streak,
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Streak {
    Successes(u32),
    Failures(u32),
}

impl Default for UpstreamHealth {
    fn default() -> Self {
        UpstreamHealth { readiness: Readiness::Unknown, streak: Streak::Successes(0), reason: None }
    }
}

impl UpstreamHealth {
    /// Takes a probe in. Returns the new readiness when it has changed. `rise` and `fall` count as at least 1.
    pub fn on(&mut self, probe: ProbeOutcome, rise: u32, fall: u32) -> Option<Readiness> {
        let now = match probe {
            ProbeOutcome::Missing(why) => {
                // Not a failure of the upstream; still what an operator wants to see when nothing else is known.
                if self.readiness == Readiness::Unknown {
                    self.reason = Some(why);
                }
                return None;
            }
            ProbeOutcome::Ready => {
                self.reason = None;
                let row = match self.streak {
                    Streak::Successes(row) => row.saturating_add(1),
                    Streak::Failures(_) => 1,
                };
                self.streak = Streak::Successes(row);
                if row >= rise { Readiness::Up } else { self.readiness }
            }
            ProbeOutcome::Failed(why) => {
                self.reason = Some(why);
                let row = match self.streak {
                    Streak::Failures(row) => row.saturating_add(1),
                    Streak::Successes(_) => 1,
                };
                self.streak = Streak::Failures(row);
                if row >= fall { Readiness::Down } else { self.readiness }
            }
        };
        let changed = now != self.readiness;
        self.readiness = now;
        changed.then_some(now)
    }

    /// What is believed now.
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// Returns the reason for which the last probe failed; `None` after a success, or before the first probe.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether a flip may rely on it: up, and its last probe did not fail.
    ///
    /// Stricter than [`Readiness::Up`]: `fall` keeps a hiccup from taking traffic away, but it is no reason to send
    /// all traffic to an upstream that was dead a moment ago.
    ///
    /// # Errors
    /// The reason.
    pub fn passes_gate(&self, rise: u32) -> Result<(), NotReady> {
        let good = match (self.readiness, self.streak) {
            (Readiness::Up, Streak::Successes(_)) => return Ok(()),
            (Readiness::Unknown | Readiness::Down, Streak::Successes(good)) => good,
            (Readiness::Up | Readiness::Unknown | Readiness::Down, Streak::Failures(_)) => 0,
        };
        Err(self.reason.clone().map_or(NotReady::TooFewProbes { good, rise }, NotReady::ProbeFailed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(probes: &str) -> UpstreamHealth {
        let mut health = UpstreamHealth::default();
        for probe in probes.chars() {
            let probe = match probe {
                '+' => ProbeOutcome::Ready,
                '-' => ProbeOutcome::Failed("503".into()),
                _ => ProbeOutcome::Missing("too many open files".into()),
            };
            health.on(probe, 2, 3);
        }
        health
    }

    #[test]
    fn follows_rise_and_fall() {
        for (case, probes, want) in [
            ("nothing heard", "", Readiness::Unknown),
            ("the first success is not enough", "+", Readiness::Unknown),
            ("rise successes", "++", Readiness::Up),
            ("a success between failures starts the count anew", "--+--", Readiness::Unknown),
            ("fall failures", "---", Readiness::Down),
            ("two failures do not take an upstream away", "++--", Readiness::Up),
            ("three do", "++---", Readiness::Down),
            ("one success does not bring it back", "---+", Readiness::Down),
            ("two do", "---++", Readiness::Up),
            ("missing data is neither", "??????", Readiness::Unknown),
            ("missing data does not break a row of failures", "++--?-", Readiness::Down),
            ("missing data does not break a row of successes", "+?+", Readiness::Up),
        ] {
            assert_eq!(after(probes).readiness(), want, "{case}");
        }
    }

    #[test]
    fn reports_each_change_once() {
        let mut health = UpstreamHealth::default();
        let changes: Vec<_> = (0..4).map(|_| health.on(ProbeOutcome::Ready, 2, 3)).collect();
        assert_eq!(changes, [None, Some(Readiness::Up), None, None]);
    }

    #[test]
    fn keeps_the_reason_of_the_last_failure_until_a_success() {
        assert_eq!(after("+").reason(), None);
        assert_eq!(after("++-").reason(), Some("503"));
        assert_eq!(after("++-?").reason(), Some("503"));
        assert_eq!(after("++-+").reason(), None);
        assert_eq!(after("?").reason(), Some("too many open files"));
    }

    #[test]
    fn lets_no_flip_rely_on_what_just_failed() {
        assert_eq!(after("++").passes_gate(2), Ok(()));
        assert_eq!(after("++-").passes_gate(2), Err(NotReady::ProbeFailed("503".into())));
        assert_eq!(after("++-+").passes_gate(2), Ok(()));
        let why = |probes: &str| after(probes).passes_gate(2).unwrap_err().to_string();
        assert_eq!(why("+"), "1 of 2 good probes in a row so far");
        assert_eq!(why(""), "0 of 2 good probes in a row so far");
    }
}
