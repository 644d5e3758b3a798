//! `cutover status` for people. Colors only on a terminal and without `NO_COLOR`, and never as the only sign.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use crate::domain::Color;
use crate::status::{ColorStatus, ServiceStatus, Status};

/// Prints the screen; `refreshed` replaces what a terminal shows.
pub fn show(status: &Status, refreshed: bool) {
    let mut out = std::io::stdout();
    let is_terminal = out.is_terminal();
    let paint = Paint(is_terminal && std::env::var_os("NO_COLOR").is_none());
    let clear = if refreshed && is_terminal { "\x1b[H\x1b[2J" } else { "" };
    // A reader that has left (`| head`) is no failure.
    let _ = write!(out, "{clear}{}", text(status, paint));
}

/// Whether to use terminal colors.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn color(self, color: Color, text: &str) -> String {
        self.with(if color == Color::Blue { "1;34" } else { "1;32" }, text)
    }
}

fn text(status: &Status, paint: Paint) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "cutover {} pid {} since {}, {} connections, {}",
        status.version, status.pid, status.started, status.connections, status.config
    );
    for problem in &status.problems {
        let _ = writeln!(out, "{} {problem}", paint.with("1;31", "problem:"));
    }
    for (name, service) in &status.services {
        let _ = writeln!(out);
        write_service(&mut out, name, service, paint);
    }
    if !status.ledger.is_empty() {
        let _ = writeln!(out, "\nledger");
        for line in &status.ledger {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

fn write_service(out: &mut String, name: &str, service: &ServiceStatus, paint: Paint) {
    let active = service.active;
    let _ = writeln!(
        out,
        "{}  {} active, epoch {}, {}",
        paint.with("1", name),
        paint.color(active, active.as_str()),
        service.epoch,
        service.phase.as_str().replace('_', " "),
    );
    if !service.summary.is_empty() {
        let _ = writeln!(out, "  {}", service.summary);
    }
    if let Some(watch) = &service.watch {
        let _ = writeln!(
            out,
            "  watch: {:.0} s left, {} answered, {} failed, evidence [{}]",
            watch.remaining_seconds,
            watch.answered,
            watch.failed,
            bar(watch.evidence)
        );
    }
    if let Some(verdict) = &service.last_verdict {
        let _ = writeln!(out, "  last verdict: {verdict}");
    }
    let _ = writeln!(
        out,
        "    {:<6} {:<9} {:>9} {:>10} {:>8}  {:<14} upstreams",
        "", "ready", "in flight", "requests", "errors", "image"
    );
    for (color, status) in &service.colors {
        write_color(out, *color, status, active == *color, paint);
    }
}

fn write_color(out: &mut String, color: Color, status: &ColorStatus, is_active: bool, paint: Paint) {
    let ready = if status.ready { "yes" } else { "NO" };
    let upstreams: Vec<_> = status
        .upstreams
        .iter()
        .map(|upstream| match (&upstream.reason, upstream.ready) {
            (Some(reason), _) => format!("{} ({reason})", upstream.address),
            (None, true) => upstream.address.clone(),
            (None, false) => format!("{} (not yet ready)", upstream.address),
        })
        .collect();
    let _ = writeln!(
        out,
        "  {} {} {:<9} {:>9} {:>10} {:>8}  {:<14} {}",
        if is_active { ">" } else { " " },
        paint.color(color, &format!("{color:<6}")),
        ready,
        status.in_flight,
        status.requests,
        status.errors,
        status.image_tag.as_deref().unwrap_or("-"),
        upstreams.join(", "),
    );
}

/// Evidence from 0.0 to 1.0 as ten characters.
fn bar(evidence: f64) -> String {
    let full = (evidence.clamp(0.0, 1.0) * 10.0).round() as usize;
    format!("{}{}", "#".repeat(full), ".".repeat(10 - full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Phase, UpstreamStatus, WatchStatus};

    #[test]
    fn the_screen_says_who_is_active_and_why_the_other_is_not_ready() {
        let color = |ready, reason: Option<&str>, port| ColorStatus {
            ready,
            in_flight: 3,
            requests: 1200,
            errors: 1,
            image_tag: ready.then(|| "sha-1".to_owned()),
            project: None,
            upstreams: vec![UpstreamStatus {
                address: format!("127.0.0.1:{port}"),
                ready,
                reason: reason.map(str::to_owned),
            }],
        };
        let service = ServiceStatus {
            active: Color::Green,
            epoch: 2,
            phase: Phase::Watching,
            summary: "green is being judged".into(),
            watch: Some(WatchStatus { remaining_seconds: 59.6, answered: 10, failed: 1, evidence: 0.31 }),
            last_verdict: None,
            colors: [(Color::Blue, color(false, Some("connection refused"), 1)), (Color::Green, color(true, None, 2))]
                .into(),
        };
        let status = Status {
            version: "0.1.0".into(),
            pid: 7,
            started: "2026-01-01T00:00:00Z".into(),
            config: "/etc/cutover.toml".into(),
            connections: 4,
            problems: vec!["the disk is full".into()],
            services: [("recall".to_owned(), service)].into(),
            ledger: vec!["[2026-01-01T00:00:01Z] flip".into()],
        };
        let want = "\
cutover 0.1.0 pid 7 since 2026-01-01T00:00:00Z, 4 connections, /etc/cutover.toml
problem: the disk is full

recall  green active, epoch 2, watching
  green is being judged
  watch: 60 s left, 10 answered, 1 failed, evidence [###.......]
           ready     in flight   requests   errors  image          upstreams
    blue   NO                3       1200        1  -              127.0.0.1:1 (connection refused)
  > green  yes               3       1200        1  sha-1          127.0.0.1:2

ledger
  [2026-01-01T00:00:01Z] flip
";
        assert_eq!(text(&status, Paint(false)), want);
    }
}
