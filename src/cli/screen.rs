//! Renders the screens of `status` and `check` as text. A terminal color is never the only sign of anything.

use std::fmt::Write as _;

use crate::api::{
    Answered, CertificateStatus, ColorStatus, FreezeStatus, Latency, Noise, RehearsalReport, RehearsalStatus,
    RehearsedDifference, Replays, ServiceStatus, Status, SyntheticStatus, WatchNote, WatchStanding, WatchStatus,
};
use crate::config::Config;
use crate::domain::Color;
use crate::domain::rehearsal::percent;
use crate::os::clock;

/// Whether terminal colors are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Colored,
}

impl Paint {
    /// Uses colors on a terminal, unless `NO_COLOR` is set and not empty.
    pub(super) fn of_terminal(is_terminal: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_terminal && !unwanted { Paint::Colored } else { Paint::Plain }
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colored => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Limits the notes of a watch that are shown; the ledger has all of them.
const NOTES_SHOWN: usize = 3;
/// Limits the routes, and the fields that are noise, in the report of a rehearsal.
const ROUTES_SHOWN: usize = 10;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";

fn code(color: Color) -> &'static str {
    match color {
        Color::Blue => "1;34",
        Color::Green => "1;32",
    }
}

macro_rules! line {
    ($out:expr, $($format:tt)*) => { writeln!($out, $($format)*).expect("writing to a String") };
}

/// Renders the status of the proxy.
pub(super) fn status(status: &Status, paint: Paint) -> String {
    let mut out = String::new();
    for problem in &status.problems {
        line!(out, "{} {problem}", paint.with(RED, "problem:"));
    }
    let Status { version, pid, started, connections, config, .. } = status;
    line!(out, "cutover {version}, pid {pid}, up since {started}, {} connections", grouped(*connections));
    line!(out, "{}", paint.with(DIM, config));
    for CertificateStatus { file, names, expires } in &status.certificates {
        line!(out, "certificate {}", certificate(file, names, expires));
    }
    for (name, service) in &status.services {
        out.push('\n');
        write_service(&mut out, name, service, paint);
    }
    if !status.ledger.is_empty() {
        line!(out, "\n{}", paint.with(BOLD, "ledger"));
        for entry in &status.ledger {
            line!(out, "  {entry}");
        }
    }
    out
}

fn write_service(out: &mut String, name: &str, service: &ServiceStatus, paint: Paint) {
    let ServiceStatus { active, epoch, phase, summary, watch, last_verdict, rehearsal, freeze, colors, .. } = service;
    let (name, color) = (paint.with(BOLD, name), paint.with(code(*active), active.as_str()));
    line!(out, "{name}  {color} is active, epoch {epoch}, {}", phase.as_str().replace('_', " "));
    line!(out, "  {summary}");
    if let Some(freeze) = freeze {
        line!(out, "  {}", paint.with(BOLD, &frozen(freeze)));
    }
    if let Some(watch) = watch {
        write_watch(out, watch, paint);
    }
    if let Some(rehearsal) = rehearsal {
        line!(out, "  rehearsal: {}", rehearsed(rehearsal));
    }
    if let Some(verdict) = last_verdict {
        line!(out, "  last verdict: {verdict}");
    }
    write_table(out, *active, colors.iter().map(|(color, status)| (*color, status)), paint);
}

fn write_watch(out: &mut String, watch: &WatchStatus, paint: Paint) {
    let WatchStatus { answered, failed, evidence, standing, tolerated, keeps_one_in, old_color, .. } = watch;
    let left = left(watch.remaining_seconds);
    let (failed, answered) = (grouped(*failed), grouped(*answered));
    line!(out, "  watch: {left} left, {failed} of {answered} failed, evidence {}", bar(*evidence));
    let standing = match standing {
        WatchStanding::Calm | WatchStanding::WarmUp => standing.as_str().to_owned(),
        WatchStanding::Doubted | WatchStanding::SharedFault | WatchStanding::NowhereToGo => {
            paint.with(RED, standing.as_str())
        }
    };
    let keeps = keeps_one_in.map_or(String::new(), |n| format!(", it keeps one request in {n}"));
    let old = old_color.map_or(String::new(), |Answered { answered, failed }| {
        format!(", the old color failed {} of {}", grouped(failed), grouped(answered))
    });
    line!(out, "    {standing}; {:.2} % are tolerated{keeps}{old}", tolerated * 100.0);
    for what in &watch.set_aside {
        line!(out, "    one {what} is set aside: its requests no longer count");
    }
    let Replays { answered, failed, over_budget } = watch.replays;
    if answered + failed + over_budget > 0 {
        let [answered, failed, over_budget] = [answered, failed, over_budget].map(grouped);
        line!(
            out,
            "    replays: {answered} answered by the old color, {failed} failed there too, {over_budget} over budget"
        );
    }
    if let Some(SyntheticStatus { path, new_color, old_color }) = &watch.synthetic {
        let of = |Answered { answered, failed }: &Answered| format!("{} of {}", grouped(*failed), grouped(*answered));
        line!(out, "    synthetic {path}: {} failed, on the old color {}", of(new_color), of(old_color));
    }
    for WatchNote { at, note, message } in watch.notes.iter().rev().take(NOTES_SHOWN).rev() {
        line!(out, "    {at} {note}: {message}");
    }
}

fn frozen(freeze: &FreezeStatus) -> String {
    let FreezeStatus { what, by, why, held, seconds, remaining_seconds } = freeze;
    let why = why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    let (held, since, left) = (grouped(*held), left(*seconds), left(*remaining_seconds));
    format!("FROZEN ({what}) for {since} by {by}{why}: {held} held, {left} left unless it is renewed")
}

fn rehearsed(rehearsal: &RehearsalStatus) -> String {
    let RehearsalStatus { compared, different, latency_ratio, refuses } = rehearsal;
    let latency = latency_ratio.map_or(String::new(), |ratio| format!(", {ratio} times the latency"));
    let gate = if refuses.is_some() { "; a flip would be refused, see `cutover rehearsal`" } else { "" };
    format!("{} of {} responses differ{latency}{gate}", grouped(*different), grouped(*compared))
}

/// Renders the output of `cutover rehearsal`.
pub(super) fn rehearsal(report: &RehearsalReport) -> String {
    let mut out = String::new();
    let RehearsalReport { service, active, idle, compared, different, noise, failed, dropped, .. } = report;
    if let Some(why_not) = &report.why_not {
        line!(out, "{service}: {idle} is not being rehearsed: {why_not}");
        return out;
    }
    line!(out, "{service}: {idle} gets copies of the requests to {active}");
    line!(
        out,
        "  {} compared, {} differ, {} only in noise; {} could not be compared, {} dropped",
        grouped(*compared),
        grouped(*different),
        grouped(*noise),
        grouped(*failed),
        grouped(*dropped)
    );
    if let Some(Latency { active_seconds, idle_seconds, ratio }) = report.latency {
        let ms = |seconds: f64| format!("{:.1}ms", seconds * 1000.0);
        line!(out, "  median latency: {active} {}, {idle} {}: {ratio} times", ms(active_seconds), ms(idle_seconds));
    }
    let allowed = percent(report.max_differences);
    match &report.refuses {
        Some(why) => line!(out, "  a flip would be REFUSED: {why}"),
        None if *compared < report.min_requests => {
            line!(out, "  a flip would pass: fewer than {} compared, which proves nothing", report.min_requests);
        }
        None => line!(out, "  a flip would pass: at most {allowed} differ"),
    }
    for finding in report.findings.iter().take(ROUTES_SHOWN) {
        line!(out, "\n  {}  {} of {} differ, such as", finding.route, finding.different, finding.compared);
        line!(out, "    {}", finding.example);
        for RehearsedDifference { field, was, is } in &finding.differences {
            line!(out, "      {field} was {was}, is {is}");
        }
    }
    if let Some(more) = report.findings.len().checked_sub(ROUTES_SHOWN).filter(|more| *more > 0) {
        line!(out, "\n  and {more} more routes, see --json");
    }
    if !report.noise_fields.is_empty() {
        line!(out, "\n  not counted, because it differs on {active} as well:");
        for Noise { route, field, seen } in report.noise_fields.iter().take(ROUTES_SHOWN) {
            line!(out, "    {route}  {field}: {seen}");
        }
    }
    out
}

/// Writes one row per color, with columns as wide as their widest cell and numbers to the right; `>` marks the active
/// color.
fn write_table<'a>(
    out: &mut String,
    active: Color,
    colors: impl Iterator<Item = (Color, &'a ColorStatus)>,
    paint: Paint,
) {
    const HEAD: [&str; 7] = ["color", "ready", "in flight", "requests", "errors", "image", "upstreams"];
    const NUMBERS: std::ops::RangeInclusive<usize> = 2..=4;
    let rows: Vec<_> = colors.map(|(color, status)| (color, cells(color, status))).collect();
    let width =
        |at: usize| rows.iter().map(|(_, cells)| cells[at].chars().count()).fold(HEAD[at].len(), std::cmp::Ord::max);
    let widths: [usize; 7] = std::array::from_fn(width);
    let padded = |at: usize, cell: &str| {
        let fill = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
        if NUMBERS.contains(&at) { format!("{fill}{cell}") } else { format!("{cell}{fill}") }
    };
    let head: Vec<_> = HEAD.iter().enumerate().map(|(at, cell)| padded(at, cell)).collect();
    line!(out, "    {}", paint.with(DIM, head.join("  ").trim_end()));
    for (color, cells) in &rows {
        let mark = if *color == active { ">" } else { " " };
        let cells: Vec<_> = cells.iter().enumerate().map(|(at, cell)| padded(at, cell)).collect();
        let (first, rest) = (paint.with(code(*color), &cells[0]), cells[1..].join("  "));
        line!(out, "  {mark} {first}  {}", rest.trim_end());
    }
}

fn cells(color: Color, status: &ColorStatus) -> [String; 7] {
    let upstreams = status.upstreams.iter().map(|upstream| match (&upstream.reason, upstream.ready) {
        (Some(reason), _) => format!("{} ({reason})", upstream.address),
        (None, true) => upstream.address.clone(),
        (None, false) => format!("{} (not ready yet)", upstream.address),
    });
    let open = status.long_lived.iter().filter(|(_, ends)| ends.open > 0);
    let open: Vec<_> = open.map(|(kind, ends)| format!("{} {kind}", grouped(ends.open))).collect();
    let open = if open.is_empty() { String::new() } else { format!(" ({})", open.join(", ").replace('_', " ")) };
    [
        color.to_string(),
        if status.ready { "yes" } else { "NO" }.into(),
        format!("{}{open}", grouped(status.in_flight)),
        grouped(status.requests),
        grouped(status.errors),
        status.image_tag.clone().unwrap_or_else(|| "-".into()),
        upstreams.collect::<Vec<_>>().join(", "),
    ]
}

/// Renders what a valid config would serve.
pub(super) fn config(config: &Config) -> String {
    let mut out = String::new();
    let listen: Vec<_> = config.proxy.listen.iter().map(ToString::to_string).collect();
    let workers = match config.proxy.workers {
        1 => "1 worker".to_owned(),
        n => format!("{n} workers"),
    };
    line!(out, "{} is valid", config.path.display());
    line!(out, "  proxy   {}, {workers}", listen.join(", "));
    let secured: Vec<_> = config.proxy.listen_tls.iter().map(ToString::to_string).collect();
    if !secured.is_empty() {
        line!(out, "  tls     {}", secured.join(", "));
    }
    for identity in &config.tls.identities {
        line!(
            out,
            "          {}",
            certificate(&identity.cert.display().to_string(), &identity.names, &identity.expires())
        );
    }
    for warning in config.tls.warnings(clock::unix_seconds()) {
        line!(out, "  warning: {warning}");
    }
    let token = if config.admin.token.is_some() { ", with a token" } else { "" };
    let socket = config.admin.socket.as_ref().map_or(String::new(), |path| format!(", {}", path.display()));
    line!(out, "  admin   {}{token}{socket}", config.admin.listen);
    line!(out, "  state   {}, ledger {}", config.state.dir.display(), config.state.ledger.display());
    for service in &config.services {
        let hosts = if service.hosts.is_empty() { "every other host".to_owned() } else { service.hosts.join(", ") };
        line!(out, "{}: {hosts}, {}", service.name, service.path_prefix);
        for color in Color::BOTH {
            let colored = &service.colors[color.index()];
            let upstreams: Vec<_> = colored.upstreams.iter().map(ToString::to_string).collect();
            let first = if color == service.active { ", active before the first flip" } else { "" };
            let tag = colored.image_tag.as_ref().map_or(String::new(), |tag| format!(", image {tag}"));
            line!(out, "  {color:<6}  {}{tag}{first}", upstreams.join(", "));
        }
    }
    out
}

/// Renders a certificate in one line.
fn certificate(file: &str, names: &[String], expires: &str) -> String {
    let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
    format!("{file}: {names}, until {expires}")
}

/// Formats `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats seconds as `12s` or `14m 3s`.
fn left(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m {}s", seconds / 60, seconds % 60) }
}

/// Formats evidence from 0.0 to 1.0 as a bar and a figure.
fn bar(evidence: f64) -> String {
    let evidence = evidence.clamp(0.0, 1.0);
    let full = (evidence * 10.0).round() as usize;
    format!("[{}{}] {:.0} %", "#".repeat(full), ".".repeat(10 - full), evidence * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LongLived, Phase, UpstreamStatus, WatchStatus};
    use crate::domain::freeze::What;

    fn color(ready: bool, reason: Option<&str>, address: &str) -> ColorStatus {
        let reason = reason.map(str::to_owned);
        ColorStatus {
            ready,
            in_flight: 3,
            long_lived: [("websocket".into(), LongLived { open: 2, ..LongLived::default() })].into(),
            requests: 1_234_567,
            errors: 1,
            image_tag: ready.then(|| "sha-1f2e3d".into()),
            project: None,
            upstreams: vec![UpstreamStatus { address: address.into(), ready, reason }],
        }
    }

    fn example() -> Status {
        let service = ServiceStatus {
            active: Color::Green,
            epoch: 2,
            flip_pending: false,
            phase: Phase::Watching,
            summary: "green takes every new request and is watched for 14m 3s more".into(),
            watch: Some(WatchStatus {
                remaining_seconds: 842.6,
                answered: 1245,
                failed: 3,
                evidence: 0.31,
                standing: WatchStanding::Doubted,
                tolerated: 0.002,
                keeps_one_in: Some(5),
                old_color: Some(Answered { answered: 1200, failed: 1 }),
                set_aside: vec!["client".into()],
                replays: Replays { answered: 2, failed: 1, over_budget: 0 },
                synthetic: Some(SyntheticStatus {
                    path: "/search?q=a".into(),
                    new_color: Answered { answered: 60, failed: 2 },
                    old_color: Answered { answered: 61, failed: 0 },
                }),
                notes: vec![WatchNote {
                    at: "2026-01-01T00:01:00Z".into(),
                    note: "doubted".into(),
                    message: "3 of 40 requests failed".into(),
                }],
            }),
            evidence_file: None,
            last_verdict: None,
            verdict: None,
            rehearsal: None,
            freeze: Some(FreezeStatus {
                what: What::Writes,
                by: "cli:ann".into(),
                why: Some("a test".into()),
                held: 1_204,
                seconds: 61.0,
                remaining_seconds: 9.0,
            }),
            colors: [
                (Color::Blue, color(false, Some("connection refused"), "127.0.0.1:8000")),
                (Color::Green, color(true, None, "[fd00::1]:8001")),
            ]
            .into(),
        };
        Status {
            version: "0.1.0".into(),
            pid: 7,
            started: "2026-01-01T00:00:00Z".into(),
            config: "/etc/cutover/cutover.toml".into(),
            connections: 4,
            certificates: vec![],
            problems: vec!["state: the disk is full".into()],
            services: [("recall".to_owned(), service)].into(),
            ledger: vec!["[2026-01-01T00:00:01Z] flip recall: blue -> green epoch=2".into()],
        }
    }

    #[test]
    fn a_status_says_who_is_active_and_why_the_other_is_not_ready() {
        let want = "\
problem: state: the disk is full
cutover 0.1.0, pid 7, up since 2026-01-01T00:00:00Z, 4 connections
/etc/cutover/cutover.toml

recall  green is active, epoch 2, watching
  green takes every new request and is watched for 14m 3s more
  FROZEN (writes) for 1m 1s by cli:ann (a test): 1,204 held, 9s left unless it is renewed
  watch: 14m 3s left, 3 of 1,245 failed, evidence [###.......] 31 %
    doubted; 0.20 % are tolerated, it keeps one request in 5, the old color failed 1 of 1,200
    one client is set aside: its requests no longer count
    replays: 2 answered by the old color, 1 failed there too, 0 over budget
    synthetic /search?q=a: 2 of 60 failed, on the old color 0 of 61
    2026-01-01T00:01:00Z doubted: 3 of 40 requests failed
    color  ready        in flight   requests  errors  image       upstreams
    blue   NO     3 (2 websocket)  1,234,567       1  -           127.0.0.1:8000 (connection refused)
  > green  yes    3 (2 websocket)  1,234,567       1  sha-1f2e3d  [fd00::1]:8001

ledger
  [2026-01-01T00:00:01Z] flip recall: blue -> green epoch=2
";
        assert_eq!(status(&example(), Paint::Plain), want);
    }

    #[test]
    fn colors_change_nothing_but_the_colors() {
        let colored = status(&example(), Paint::Colored);
        let mut plain = String::new();
        for (at, part) in colored.split("\x1b[").enumerate() {
            plain += if at == 0 { part } else { part.split_once('m').unwrap().1 };
        }
        assert_ne!(colored, plain);
        assert_eq!(plain, status(&example(), Paint::Plain));
    }

    #[test]
    fn a_valid_config_is_summed_up() {
        let text =
            "[service.recall]\nblue = 8000\ngreen = [\"10.0.0.7:8001\", \"10.0.0.8:8001\"]\n[proxy]\nworkers = 2";
        let valid = Config::parse(text, std::path::Path::new("/etc/cutover.toml")).unwrap();
        let want = "\
/etc/cutover.toml is valid
  proxy   0.0.0.0:8080, 2 workers
  admin   127.0.0.1:9900
  state   state, ledger deploy/releases.log
recall: every other host, /
  blue    127.0.0.1:8000, active before the first flip
  green   10.0.0.7:8001, 10.0.0.8:8001
";
        assert_eq!(config(&valid), want);
    }

    #[test]
    fn figures_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([-1.0, 12.4, 60.0, 842.6].map(left), ["0s", "12s", "1m 0s", "14m 3s"]);
        assert_eq!([-1.0, 0.96, 7.0].map(bar), ["[..........] 0 %", "[##########] 96 %", "[##########] 100 %"]);
    }
}
