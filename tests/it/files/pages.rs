//! What the pages say of the program is so, and they can be read: metrics, exit codes, signals, commands, width.

use super::docs::pages;
use super::*;

/// A stranger reads the README in four minutes.
const README_WORDS_MAX: usize = 1200;
/// As in the code.
const WIDTH_MAX: usize = 120;
/// More does not belong into a table.
const CELL_CHARS_MAX: usize = 300;

/// The lines of a page with their numbers, and whether each stands in a block of code.
fn lines(page: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut in_code = false;
    page.lines().enumerate().map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (at + 1, line, in_code || is_fence)
    })
}

/// The cells of a table's row. A `|` within backquotes, or behind a backslash, is text.
fn cells(row: &str) -> Vec<String> {
    let (mut cells, mut in_code, mut before) = (vec![String::new()], false, ' ');
    for c in row.trim().trim_start_matches('|').trim_end_matches('|').chars() {
        in_code ^= c == '`';
        match c {
            '|' if !in_code && before != '\\' => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
        before = c;
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// The rows of all tables of a page, without heads.
fn rows(page: &str) -> Vec<Vec<String>> {
    let rows = lines(page).filter(|(_, line, in_code)| !in_code && line.starts_with('|'));
    let rows = rows.map(|(_, line, _)| cells(line)).collect::<Vec<_>>();
    let is_rule = |row: &[String]| row.iter().all(|cell| !cell.is_empty() && cell.chars().all(|c| "-:".contains(c)));
    let heads = rows.iter().skip(1).map(|next| is_rule(next)).chain([false]).collect::<Vec<_>>();
    rows.into_iter().zip(heads).filter(|(row, is_head)| !is_head && !is_rule(row)).map(|(row, _)| row).collect()
}

/// What stands in backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn keep_to_the_width_and_their_table_cells_are_short() {
    let mut findings = Vec::new();
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for (number, line, in_code) in lines(&page) {
            let (wide, is_row) = (line.chars().count() > WIDTH_MAX, line.starts_with('|'));
            // A table has no lines to break, a command must be copied whole, and neither can a link be broken.
            if wide && !is_row && !in_code && line.contains(' ') && !line.starts_with("![") {
                findings.push(format!("{}:{number}: wider than {WIDTH_MAX}", path.display()));
            }
            let long = |cell: &String| cell.chars().count() >= CELL_CHARS_MAX;
            if is_row && !in_code && cells(line).iter().any(long) {
                findings.push(format!("{}:{number}: a cell of {CELL_CHARS_MAX} characters or more", path.display()));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn readme_is_short_and_its_commands_are_there() {
    let readme = text("README.md");
    let words = readme.split_whitespace().count();
    assert!(words < README_WORDS_MAX, "{words} words");
    let help = must(BINARY, &["--help"]);
    let commands = lines(&readme).filter(|(_, _, in_code)| *in_code);
    let verbs: BTreeSet<_> =
        commands.filter_map(|(_, line, _)| line.strip_prefix("cutover ")?.split_whitespace().next()).collect();
    assert!(verbs.len() >= 6, "{verbs:?}");
    for verb in verbs {
        assert!(help.contains(&format!("\n  {verb} ")), "there is no cutover {verb}");
    }
    let config = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.toml");
    fs::write(&path, config).unwrap();
    must(BINARY, &["check", "--config", path.to_str().unwrap()]);
}

#[test]
fn operations_has_every_exit_code_and_signal() {
    let page = text("docs/operations.md");
    let help = must(BINARY, &["--help"]);
    let codes = help.split("Exit codes:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let codes: Vec<_> = codes.map(|line| line.trim().split_once("  ").unwrap()).collect();
    assert!(codes.len() >= 7, "{codes:?}");
    let rows = rows(&page);
    let told: Vec<_> = rows.iter().filter(|row| row[0].parse::<u8>().is_ok()).collect();
    let told: Vec<_> = told.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(told, codes, "the exit codes of docs/operations.md and of cutover --help");
    let signals = page.split("\n## Signals\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut heard = BTreeSet::new();
    for file in files_below(&root().join("src")) {
        let source = fs::read_to_string(file).unwrap();
        heard.extend(source.split("SignalKind::").skip(1).map(|rest| rest.split('(').next().unwrap().to_owned()));
    }
    heard.retain(|kind| kind.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()));
    assert!(heard.len() >= 4, "{heard:?}");
    for kind in heard {
        let name = match kind.as_str() {
            "hangup" => "HUP",
            "interrupt" => "INT",
            "terminate" => "TERM",
            "quit" => "QUIT",
            "user_defined1" => "USR1",
            "user_defined2" => "USR2",
            other => panic!("what is the signal {other} called?"),
        };
        let is_named = signals.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name);
        assert!(is_named, "docs/operations.md says nothing of {name}");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn operations_has_every_word_of_the_access_log() {
    let page = text("docs/operations.md");
    let said = quoted(&page);
    let faults = words_of("src/proxy/fault.rs", "pub fn label(self)");
    let replies = words_of("src/proxy/local_reply.rs", "pub fn label(&self)");
    for word in faults.into_iter().chain(replies) {
        assert!(said.contains(word.as_str()), "docs/operations.md says nothing of end = {word}");
    }
}

/// The strings that a function of a file answers with.
fn words_of(path: &str, function: &str) -> Vec<String> {
    let source = text(path);
    let body = source.split(function).nth(1).unwrap_or_else(|| panic!("{path} has no {function}"));
    let body = body.split("\n    }\n").next().unwrap();
    let words: Vec<_> = body.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(words.len() > 5, "{words:?}");
    words
}

/// A row of `docs/metrics.md`.
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    said: String,
    alerts: BTreeSet<String>,
}

fn metrics_of_the_page(page: &str) -> Vec<(String, Metric)> {
    let rows = rows(page).into_iter().filter(|row| row[0].starts_with("`cutover_"));
    let metric = |row: Vec<String>| {
        let (kind, labels) = row[1].split_once("; ").unwrap_or((&row[1], ""));
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let alerts = quoted(&row[3]).into_iter().map(str::to_owned).collect();
        (row[0].trim_matches('`').to_owned(), Metric { kind: kind.to_owned(), labels, said: row[2].clone(), alerts })
    };
    rows.map(metric).collect()
}

/// `name{a="b",…} value` as the name and its labels.
fn sample(line: &str) -> (&str, Vec<(&str, &str)>) {
    let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
    let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(labels, _)| labels);
    let labels = labels.split("\",").filter(|label| !label.is_empty());
    (name, labels.map(|label| label.trim_end_matches('"').split_once("=\"").unwrap()).collect())
}

#[test]
fn metrics_are_those_of_a_running_proxy() {
    let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
    let (setup, ..) = Setup::of(&blue, &green).with_tls();
    let cutover = setup.start();
    assert_eq!(cutover.get("/").status, 200);
    let scrape = || cutover.admin_with("GET", "/metrics", "", "").text().to_owned();
    // A request is counted when it has ended, which may be after its last byte was read.
    eventually("the request is counted", || scrape().contains("cutover_requests_total{"));
    let have = scrape();
    let types: Vec<_> = have.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let page = text("docs/metrics.md");
    let documented = metrics_of_the_page(&page);
    let names = |names: &mut dyn Iterator<Item = String>| names.collect::<BTreeSet<_>>();
    assert_eq!(
        names(&mut documented.iter().map(|(name, _)| name.clone())),
        names(&mut types.iter().map(|(name, _)| (*name).to_owned())),
        "the metrics of docs/metrics.md and those of a proxy"
    );
    // Values that are the operator's own, or are said elsewhere on the page.
    let open = ["service", "color", "to", "upstream", "cert", "version", "method", "le"];
    for (name, kind) in types {
        let metric = &documented.iter().find(|(documented, _)| documented == name).unwrap().1;
        assert_eq!(metric.kind, kind, "{name}");
        let samples = have.lines().filter(|line| !line.starts_with('#')).map(sample);
        let ours = samples.filter(|(sample, _)| sample.trim_end_matches("_bucket").trim_end_matches("_sum") == name);
        for (_, labels) in ours {
            let labels: Vec<_> = labels.into_iter().filter(|(label, _)| *label != "le").collect();
            let named: BTreeSet<_> = labels.iter().map(|(label, _)| (*label).to_owned()).collect();
            assert_eq!(named, metric.labels, "the labels of {name}");
            for (label, value) in labels.into_iter().filter(|(label, _)| !open.contains(label)) {
                let is_said = metric.said.contains(&format!("`{value}`")) || rows_name(&page, label, name, value);
                assert!(is_said, "docs/metrics.md does not say what {label}=\"{value}\" of {name} is");
            }
        }
    }
}

/// Whether the table of the values of `label` of `metric` has `value`.
fn rows_name(page: &str, label: &str, metric: &str, value: &str) -> bool {
    let head = format!("| `{label}` of `{metric}` |");
    let table = page.split(&head).nth(1).map(|rest| rest.split("\n\n").next().unwrap());
    table.is_some_and(|table| quoted(table).contains(value))
}

#[test]
fn metrics_name_the_alerts_that_ask_for_them() {
    let (page, rules) = (text("docs/metrics.md"), text("deploy/prometheus/rules.yml"));
    let mut asked = BTreeSet::new();
    for alert in rules.split("- alert: ").skip(1) {
        let (name, rest) = alert.split_once('\n').unwrap();
        let expression = rest.split("labels:").next().unwrap();
        let metrics = expression.match_indices("cutover_").map(|(at, _)| &expression[at..]);
        let metrics = metrics.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap());
        asked.extend(metrics.map(|metric| (metric.to_owned(), name.to_owned())));
        assert!(page.contains(&format!("`{name}`")), "docs/metrics.md says nothing of {name}");
    }
    let told = metrics_of_the_page(&page).into_iter();
    let told = told.flat_map(|(name, metric)| metric.alerts.into_iter().map(move |alert| (name.clone(), alert)));
    assert_eq!(told.collect::<BTreeSet<_>>(), asked);
}
