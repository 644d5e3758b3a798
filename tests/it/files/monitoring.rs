//! Alerts and dashboard, by promtool and by a real Prometheus before a running proxy.

use super::*;

#[test]
fn rules_and_config_are_what_prometheus_takes() {
    if !have("promtool") {
        return;
    }
    must("promtool", &["check", "config", "deploy/prometheus/prometheus.yml"]);
    must("promtool", &["check", "rules", "deploy/prometheus/rules.yml"]);
    must("promtool", &["test", "rules", "deploy/prometheus/rules_test.yml"]);
}

/// Ends with its test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn config_scrapes_a_running_proxy_and_its_alerts_fire() {
    if !have("prometheus") {
        return;
    }
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let cutover = Setup::of(&blue, &green).start();
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let config = text("deploy/prometheus/prometheus.yml").replace("5s #", "100ms #");
    let config = config.replace("evaluation_interval: 5s", "evaluation_interval: 100ms");
    let config = config.replace("127.0.0.1:9900", &format!("127.0.0.1:{}", cutover.setup.admin_port));
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    fs::write(folder.path().join("rules.yml"), text("deploy/prometheus/rules.yml")).unwrap();
    let mut command = Command::new("prometheus");
    command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"]);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).current_dir(folder.path());
    let _prometheus = Prometheus(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let ask = |path: &str| {
        let client = Client::try_connect(("127.0.0.1", port)).ok()?;
        drop(client);
        let answer = Client::get(port, path);
        serde_json::from_slice::<Value>(&answer.body).ok()
    };
    let value = |query: &str| {
        let answer = ask(&format!("/api/v1/query?query={query}"))?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    eventually("it is scraped", || value("up").as_deref() == Some("1"));
    eventually("its metrics are there", || value("cutover_ledger_ok").as_deref() == Some("1"));
    fs::create_dir(cutover.path("releases.log")).unwrap();
    cutover.must_flip("green");
    let state = |alert: &str| {
        let answer = ask("/api/v1/alerts").unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().find(|one| one["labels"]["alertname"] == alert).map(|one| one["state"].to_string())
    };
    // Pending: it has to last for a while before somebody is told.
    eventually("the ledger's alert has begun", || state("CutoverLedgerNotWritten").is_some());
    assert_eq!(state("CutoverDown"), None);
}

#[test]
fn rules_are_all_tested() {
    let (rules, tests) = (text("deploy/prometheus/rules.yml"), text("deploy/prometheus/rules_test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        // In the quiet test, and once where it fires.
        assert!(tests.matches(&format!("alertname: {alert}\n        exp_alerts")).count() >= 1, "{alert} fires");
        assert!(tests.contains(&format!("eval_time: 10m, alertname: {alert}}}")), "{alert} is quiet");
    }
}

#[test]
fn names_only_metrics_that_there_are() {
    let product = text("src/admin/metrics.rs");
    let product = product.split("#[cfg(test)]").next().unwrap();
    for path in ["deploy/prometheus/rules.yml", "deploy/prometheus/rules_test.yml", "deploy/grafana/cutover.json"] {
        let text = text(path);
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let names = text.match_indices("cutover_").map(|(at, _)| {
            let name = &text[at + "cutover_".len()..];
            name.split(|c| !is_name(c)).next().unwrap()
        });
        let names: BTreeSet<_> = names.map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect();
        assert!(names.len() > 5, "{path}: {names:?}");
        for name in names {
            assert!(product.contains(&format!("\"{name}\"")), "{path}: there is no cutover_{name}");
        }
    }
}

#[test]
fn dashboard_asks_what_prometheus_understands() {
    let json: Value = serde_json::from_str(&text("deploy/grafana/cutover.json")).unwrap();
    let panels = json["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<_> = targets.chain(json["annotations"]["list"].as_array().unwrap()).collect();
    assert!(asked.len() > 15, "{}", asked.len());
    if !have("promtool") {
        return;
    }
    let rules = asked.iter().enumerate().map(|(n, asked)| {
        let expression = asked["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
        let expression = expression.replace("$__interval", "1m").replace("$service", ".*");
        serde_json::json!({ "record": format!("panel:{n}"), "expr": expression })
    });
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules.collect::<Vec<_>>() }] });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yml");
    // JSON is YAML.
    fs::write(&path, rules.to_string()).unwrap();
    must("promtool", &["check", "rules", path.to_str().unwrap()]);
}
