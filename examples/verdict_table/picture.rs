//! The picture of `docs/verdict.md`: evidence, request by request, for a good release and two bad ones.

use std::fmt::Write as _;
use std::time::Duration;

use cutover::domain::verdict::DetectorConfig;
use cutover::domain::watch::Decision;

use super::ours::Trial;
use super::stream::{Recipe, Stream};

/// What is drawn: the share of failures that is added to 0.1 %, its name and its color.
const RELEASES: [(f64, &str, &str); 3] =
    [(1.0, "100 % fail", "#b3261e"), (0.05, "5 % fail", "#b26a00"), (0.0, "good: 0.1 % fail, as before", "#2e7d32")];
const SEED: u64 = 7;
const RATE: usize = 100;
/// Requests on the axis; each step to the right is as many times more.
const LAST: usize = 10_000;
/// Decades of evidence on the other axis.
const LOWEST: f64 = -3.0;
const HIGHEST: f64 = 8.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 690.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 350.0;

/// The same text each time: nothing in it depends on the machine.
pub fn draw() -> String {
    let mut svg = String::from(HEAD);
    for decade in [-2, 0, 2, 4, 6] {
        let y = height(f64::from(decade));
        let name = if decade < 0 {
            format!("1/{}", 10_u32.pow(-decade as u32))
        } else {
            10_u32.pow(decade as u32).to_string()
        };
        line(&mut svg, (LEFT, y), (RIGHT, y), "grid");
        text(&mut svg, (LEFT - 8.0, y + 4.0), "end", "#333", &name);
    }
    for requests in [1, 10, 100, 1_000, 10_000] {
        let x = width(requests);
        line(&mut svg, (x, TOP), (x, BOTTOM), "grid");
        text(&mut svg, (x, BOTTOM + 18.0), "middle", "#333", &requests.to_string());
    }
    text(&mut svg, (LEFT, 28.0), "start", "#333", "evidence against the new color");
    text(
        &mut svg,
        (RIGHT, BOTTOM + 38.0),
        "end",
        "#333",
        "requests since the fault began (each step is ten times as many)",
    );
    let bars = [
        (20.0, "20: doubt, most of the traffic returns", (RIGHT - 6.0, 15.0, "end")),
        (2000.0, "2000: the traffic is taken back", (width(20), -6.0, "start")),
    ];
    for (bar, what, (x, below, anchor)) in bars {
        let y = height(f64::log10(bar));
        line(&mut svg, (LEFT, y), (RIGHT, y), "bar");
        text(&mut svg, (x, y + below), anchor, "#333", what);
    }
    for (added, name, color) in RELEASES {
        curve(&mut svg, added, name, color);
    }
    svg.push_str("</svg>\n");
    svg
}

/// How evidence goes for one release, until it is taken back.
fn curve(svg: &mut String, added: f64, name: &str, color: &str) {
    let stream = Stream::new(Recipe { rate: RATE, baseline: 0.001, fault: Some((added, 0)) }, SEED);
    let mut trial = Trial::new(&stream, DetectorConfig { warm_up: Duration::ZERO, ..DetectorConfig::DEFAULT });
    let mut points = String::new();
    let mut last = (0.0, 0.0);
    let mut is_taken_back = false;
    while trial.asked() < LAST && !is_taken_back {
        is_taken_back = matches!(trial.ask(), Some(Decision::RollBack(_)));
        // Before the first look, half of the stake is about to be bet.
        let decades = (trial.ln_evidence() / std::f64::consts::LN_10).max(LOWEST);
        let decades = if decades > LOWEST || trial.asked() > RATE { decades } else { 0.5_f64.log10() };
        let point = (width(trial.asked()), height(decades.min(HIGHEST)));
        // Ten thousand requests are some hundred points: what cannot be told apart is left out.
        if is_taken_back || (point.0 - last.0).abs() > 1.0 || (point.1 - last.1).abs() > 1.0 {
            write!(points, "{:.0},{:.0} ", point.0, point.1).expect("a string takes all");
            last = point;
        }
    }
    writeln!(svg, r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2.5"/>"#, points.trim_end())
        .expect("a string takes all");
    if is_taken_back {
        let _ = writeln!(svg, r#"<circle cx="{:.0}" cy="{:.0}" r="5" fill="{color}"/>"#, last.0, last.1);
        let what = format!("{name}: back after {} failures", trial.failed());
        text(svg, (last.0 + 9.0, last.1 - 5.0), "start", color, &what);
    } else {
        text(svg, (width(400), height(-2.2)), "end", color, name);
    }
}

fn width(requests: usize) -> f64 {
    LEFT + (requests.max(1) as f64).log10() / (LAST as f64).log10() * (RIGHT - LEFT)
}

fn height(decades: f64) -> f64 {
    BOTTOM - (decades - LOWEST) / (HIGHEST - LOWEST) * (BOTTOM - TOP)
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), class: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(svg, r#"<line class="{class}" x1="{x1:.0}" y1="{y1:.0}" x2="{x2:.0}" y2="{y2:.0}"/>"#)
        .expect("a string takes all");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, color: &str, text: &str) {
    writeln!(svg, r#"<text x="{x:.0}" y="{y:.0}" text-anchor="{anchor}" fill="{color}">{text}</text>"#)
        .expect("a string takes all");
}

/// A light ground of its own, so that it reads on a dark page as well.
const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 400" width="720" height="400" role="img" font-family="sans-serif" font-size="13">
<title>Evidence against the new color, request by request</title>
<style>.grid { stroke: #ddd } .bar { stroke: #333; stroke-dasharray: 6 4 }</style>
<rect width="720" height="400" rx="8" fill="#fcfcfa"/>
"##;
