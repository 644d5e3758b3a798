//! Holds `[service.NAME.monitor]`, which lists what `cutover monitor` checks beside the proxy and the colors' own
//! containers.

use super::section::Section;

/// The section `[service.NAME.monitor]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    /// A larger share of failed requests is reported; from 0 to 1. Default 0.05.
    pub max_error_rate: f64,
    /// A container that uses a larger share of its memory limit is reported; from 0 to 1. Default 0.9.
    pub max_memory: f64,
    /// The Compose projects on which the service depends; every container in them must be well. Empty by default.
    pub projects: Vec<String>,
    /// URLs that must respond: `http://…` below 500, and `tcp://host:port` must accept a connection. Empty by default.
    pub urls: Vec<String>,
    /// The `http://…` URL of the Prometheus that is queried for firing alerts.
    pub prometheus: Option<String>,
}

impl Default for Monitor {
    fn default() -> Self {
        Monitor { max_error_rate: 0.05, max_memory: 0.9, projects: Vec::new(), urls: Vec::new(), prometheus: None }
    }
}

pub(super) fn monitor(section: &Section<'_, '_>) -> Monitor {
    let default = Monitor::default();
    let monitor = Monitor {
        max_error_rate: section.fraction("max_error_rate", 0.0..=1.0, default.max_error_rate),
        max_memory: section.fraction("max_memory", 0.0..=1.0, default.max_memory),
        projects: words(section, "projects", "[\"recall_data\"]"),
        urls: urls(section),
        prometheus: prometheus(section),
    };
    section.refuse_unknown();
    monitor
}

fn words(section: &Section<'_, '_>, key: &'static str, example: &str) -> Vec<String> {
    section.strings(key, example).unwrap_or_default().into_iter().map(|(word, _)| word.to_owned()).collect()
}

fn urls(section: &Section<'_, '_>) -> Vec<String> {
    const EXAMPLE: &str = "[\"http://127.0.0.1:9000/health\", \"tcp://10.0.0.7:5432\"]";
    for (url, value) in section.strings("urls", EXAMPLE).unwrap_or_default() {
        if !url.starts_with("http://") && !url.starts_with("tcp://") {
            section.problem("urls", value, "has neither http:// nor tcp://", format!("for example `urls = {EXAMPLE}`"));
        }
    }
    words(section, "urls", EXAMPLE)
}

fn prometheus(section: &Section<'_, '_>) -> Option<String> {
    let (url, value) = section.string("prometheus", "\"http://127.0.0.1:9090\"")?;
    if !url.starts_with("http://") {
        section.problem(
            "prometheus",
            value,
            "is not an http:// URL",
            "for example `prometheus = \"http://127.0.0.1:9090\"`",
        );
    }
    Some(url.to_owned())
}
