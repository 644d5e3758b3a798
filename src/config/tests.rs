//! Tests which configs are accepted, and where problems are reported.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::domain::Color;

const MINIMAL: &str = "[service.recall]\nblue = 8000\ngreen = 8001\n";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("cutover.toml"))
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns `(line, column, message)` of each problem.
fn problems(text: &str) -> Vec<(usize, usize, String)> {
    let problems = parse(text).expect_err("a config with problems").0;
    problems.into_iter().map(|p| (p.line, p.column, p.message)).collect()
}

#[test]
fn the_minimal_file_has_the_documented_defaults() {
    let config = Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/minimal.toml")).expect("valid");
    let [service] = &config.services[..] else { panic!("one service") };
    assert_eq!(config.proxy.listen, ["0.0.0.0:8080".parse().expect("an address")]);
    assert_eq!(config.admin.listen, "127.0.0.1:9900".parse().expect("an address"));
    assert_eq!(
        (config.proxy.header_timeout, config.proxy.body_timeout),
        (Duration::from_secs(10), Duration::from_secs(30))
    );
    assert_eq!(
        (config.proxy.idle_timeout, config.proxy.shutdown_timeout),
        (Duration::from_secs(75), Duration::from_secs(30))
    );
    assert_eq!(
        (config.state.dir.as_path(), config.state.ledger.as_path()),
        (Path::new("state"), Path::new("deploy/releases.log"))
    );
    assert_eq!((service.name.as_str(), service.path_prefix.as_str(), service.active), ("recall", "/", Color::Blue));
    assert!(config.proxy.workers >= 1 && service.hosts.is_empty() && config.proxy.trusted_proxies.is_empty());
    assert_eq!(service.colors[1].upstreams, [Address { host: "127.0.0.1".into(), port: 8001 }]);
    assert_eq!(service.upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!(
        (service.upstream.response_timeout, service.upstream.idle_timeout),
        (Duration::from_secs(60), Duration::from_secs(4))
    );
    assert_eq!((service.health.path.as_str(), service.health.rise, service.health.fall), ("/readyz", 2, 3));
    assert_eq!((service.health.interval, service.health.timeout), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((service.watch.window, service.drain.timeout), (Duration::from_secs(900), Duration::from_secs(30)));
    assert_eq!((service.watch.max_false_rollbacks, service.watch.min_effect), (0.001, 0.001));
    assert_eq!((service.watch.min_failures, service.watch.warm_up), (5, Duration::from_secs(2)));
}

#[test]
fn the_full_file_says_the_defaults() {
    let full = parse(&shipped("config/cutover.toml")).expect("valid");
    let mut minimal = parse(&shipped("config/minimal.toml")).expect("valid");
    minimal.services[0].hosts = vec!["recall.example.com".into()];
    assert_eq!(full, minimal);
}

#[test]
fn every_key_is_in_the_full_file_and_in_the_docs() {
    let (full, docs) = (shipped("config/cutover.toml"), shipped("docs/configuration.md"));
    // Every key that a reader asks for is a known key.
    let readers = ["deploy", "file", "proxy", "rehearse", "service", "watch"];
    let asked: Vec<String> = readers
        .map(|name| shipped(&format!("src/config/{name}.rs")))
        .concat()
        .split(['(', ' ', '\n'])
        .filter_map(|word| word.strip_prefix('"')?.split_once("\",").map(|(key, _)| key.to_owned()))
        .filter(|key| {
            ![
                "off", "json", "combined", "tag", "any", "stop", "flask", "db", "recreate", "http", "grpc", "location",
                "token",
            ]
            .contains(&key.as_str())
        })
        .filter(|key| key.len() > 1 && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        .collect();
    assert!(asked.len() > 25, "only {asked:?}");
    for key in asked {
        assert!(full.contains(&key), "{key} is not in config/cutover.toml");
        assert!(docs.contains(&format!("`{key}`")) || docs.contains(&format!("{key}]")), "{key} is not in the docs");
    }
}

#[test]
fn a_color_takes_every_documented_form() {
    let of = |blue: &str| parse(&format!("[service.a]\nblue = {blue}\ngreen = 1\n")).expect("valid").services.remove(0);
    let text = |blue: &str| of(blue).colors[0].upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(text("8000"), "127.0.0.1:8000");
    assert_eq!(text("\"10.0.0.7:8001\""), "10.0.0.7:8001");
    assert_eq!(text("\"[::1]:8001\""), "[::1]:8001");
    assert_eq!(text("\"api.internal:8001\""), "api.internal:8001");
    assert_eq!(text("[\"10.0.0.7:8001\", \"10.0.0.8:8001\", 8000]"), "10.0.0.7:8001 10.0.0.8:8001 127.0.0.1:8000");
    let dir = tempfile::tempdir().expect("a folder");
    let env = dir.path().join(".env.blue");
    std::fs::write(&env, "HOST_PORT=8000\r\nexport IMAGE_TAG='sha-1'\r\nCOMPOSE_PROJECT_NAME=\"recall_blue\"\r\n")
        .expect("written");
    let service = of(&format!("{{ env_file = {env:?} }}"));
    let blue = &service.colors[0];
    assert_eq!(blue.upstreams[0].to_string(), "127.0.0.1:8000");
    assert_eq!((blue.image_tag.as_deref(), blue.project.as_deref()), (Some("sha-1"), Some("recall_blue")));
    assert_eq!(blue.env_file.as_deref(), Some(env.as_path()));
}

#[test]
fn each_problem_has_its_place() {
    for (text, line, column, message) in [
        ("[service.a]\nblue = 1\ngreen = 2\ncolor = 3\n", 4, 1, "unknown key service.a.color"),
        ("[service.a]\nblue = 1\ngreen = 2\n[stat]\n", 4, 2, "unknown key stat"),
        (
            "[service.a]\nblue = 1\ngreen = 2\nwatch.synthetic = { interval = \"1s\" }\n",
            4,
            19,
            "service.a.watch.synthetic names no path",
        ),
        ("[service.a]\nblue = 1\n", 1, 10, "service.a.green is missing"),
        (
            "[service.a]\nblue = 1\ngreen = 1\n",
            3,
            9,
            "service.a: both colors are at 127.0.0.1:1, so a flip would change nothing",
        ),
        ("[service.a]\nblue = 0\ngreen = 1\n", 2, 8, "service.a.blue is not an address with a port from 1 to 65535"),
        (
            "[service.a]\nblue = 65536\ngreen = 1\n",
            2,
            8,
            "service.a.blue is not an address with a port from 1 to 65535",
        ),
        (
            "[service.a]\nblue = \"here\"\ngreen = 1\n",
            2,
            8,
            "service.a.blue is not an address with a port from 1 to 65535",
        ),
        ("[service.a]\nblue = []\ngreen = 1\n", 2, 8, "service.a.blue has no address"),
        ("[service.a]\nblue = [1, 1]\ngreen = 2\n", 2, 8, "service.a.blue has an address twice"),
        ("[service.a]\nblue = true\ngreen = 1\n", 2, 8, "service.a.blue is true or false"),
        ("[service.a]\nblue = {}\ngreen = 1\n", 2, 8, "service.a.blue names no env_file"),
        ("[service.A]\nblue = 1\ngreen = 2\n", 1, 10, "\"A\" is not a service name"),
        (
            "[service.a]\nblue = 1\ngreen = 2\ndeploy.strategy = \"blue-green\"\n",
            4,
            19,
            "service.a.deploy.strategy needs both colors to have an env_file",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\ndeploy.strategy = \"canary\"\n",
            4,
            19,
            "service.a.deploy.strategy is none of blue-green, recreate",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\ndeploy.retire = \"down\"\n",
            4,
            17,
            "service.a.deploy.retire is none of stop, keep",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\ndeploy.version = 3\n",
            4,
            18,
            "service.a.deploy.version is a number, but must be a string",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\ndeploy.backup.keep = 0\n",
            4,
            22,
            "service.a.deploy.backup.keep must be from 1 to 10000",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\ndeploy.migrate.command = \"flask db upgrade\"\n",
            4,
            26,
            "service.a.deploy.migrate.command is one word with spaces",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\ndeploy.migrate.requires = true\n",
            4,
            16,
            "unknown key service.a.deploy.migrate.requires",
        ),
        ("[service.a]\nblue = 1\ngreen = 2\nactive = \"red\"\n", 4, 10, "service.a.active is not a color"),
        ("[service.a]\nblue = 1\ngreen = 2\npath_prefix = \"api\"\n", 4, 15, "service.a.path_prefix is not a path"),
        (
            "[service.a]\nblue = 1\ngreen = 2\nhosts = [\"http://a\"]\n",
            4,
            10,
            "service.a.hosts has an entry that is not a host name",
        ),
        ("[service.a]\nblue = 1\ngreen = 2\nhealth.interval = 5\n", 4, 19, "service.a.health.interval has no unit"),
        (
            "[service.a]\nblue = 1\ngreen = 2\nhealth.interval = \"soon\"\n",
            4,
            19,
            "service.a.health.interval is not a duration",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\nhealth.interval = \"0s\"\n",
            4,
            19,
            "service.a.health.interval must be more than zero",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\nhealth.rise = 0\n",
            4,
            15,
            "service.a.health.rise must be from 1 to 1000000",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\nwatch.max_false_rollbacks = 0\n",
            4,
            29,
            "service.a.watch.max_false_rollbacks must be from 0.000001 to 0.1",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\nwatch.min_effect = nan\n",
            4,
            20,
            "service.a.watch.min_effect must be from 0 to 0.5",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\nwatch.min_effect = \"1 %\"\n",
            4,
            20,
            "service.a.watch.min_effect is a string, but must be a number",
        ),
        ("[service.a]\nblue = 1\ngreen = 2\nhealth = 1\n", 4, 10, "service.a.health is a number, but must be a table"),
        (
            "[service.a]\nblue = 1\ngreen = 2\n[service.b]\nblue = 3\ngreen = 4\n",
            4,
            10,
            "service.b and service.a both claim every other host with /",
        ),
        ("[proxy]\nlisten = \"8080\"\n[service.a]\nblue = 1\ngreen = 2\n", 2, 10, "proxy.listen is not an address"),
        (
            "[proxy]\nlisten = []\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            10,
            "proxy.listen is empty: nobody could reach the proxy",
        ),
        (
            "[proxy]\nlisten = [\"0.0.0.0:9\", \"0.0.0.0:9\"]\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            24,
            "proxy.listen has this address twice",
        ),
        (
            "[proxy]\ntrusted_proxies = [\"10.0.0.0/33\"]\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            20,
            "proxy.trusted_proxies is not a network",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\n[service.a.upstream]\nproxy_protocol = \"v3\"\n",
            5,
            18,
            "service.a.upstream.proxy_protocol is none of v1, v2",
        ),
        (
            "[service.a]\nblue = 1\ngreen = 2\n[service.a.upstream]\nproxy_protocol = \"v2\"\nprotocol = \"h2c\"\n",
            5,
            18,
            "service.a.upstream.proxy_protocol names one client, but with h2c many clients share a connection",
        ),
        (
            "[proxy]\nlisten_tls = [\"0.0.0.0:9\"]\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            14,
            "proxy.listen_tls needs a certificate, and tls.certificates has none",
        ),
        (
            "[proxy]\nlisten_tls = [\"0.0.0.0:9\"]\n[tls.acme]\ndomains = [\"*.a.b\"]\n[service.a]\nblue = 1\ngreen = 2\n",
            4,
            12,
            "tls.acme.domains has a wildcard",
        ),
        (
            "[tls.acme]\ndomains = [\"a.b\"]\n[service.a]\nblue = 1\ngreen = 2\n",
            1,
            1,
            "tls.acme has no TLS listener to order certificates for",
        ),
        (
            "[proxy]\nmax_header_bytes = 1\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            20,
            "proxy.max_header_bytes must be from 1KiB to 1MiB",
        ),
        (
            "[proxy]\nvia = 1\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            7,
            "proxy.via is a number, but must be true or false",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:9\"\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            10,
            "admin.listen is not loopback and there is no token: anybody could flip",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:9\"\n[proxy]\nlisten = \"127.0.0.1:9\"\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            10,
            "admin.listen is also an address of proxy.listen",
        ),
        (
            "[log]\naccess = \"on\"\n[service.a]\nblue = 1\ngreen = 2\n",
            2,
            10,
            "log.access is none of off, json, combined",
        ),
        (
            "[service.a]\nblue = 8080\ngreen = 1\n",
            1,
            10,
            "service.a: 127.0.0.1:8080 is the proxy's own address: a request would go in circles",
        ),
        ("", 1, 1, "there is no service"),
    ] {
        assert_eq!(problems(text), [(line, column, message.to_owned())], "{text}");
    }
}

#[test]
fn all_problems_are_seen_in_one_run() {
    let found =
        problems("[proxy]\nlisten = 5\nworkers = \"x\"\nlisten_tsl = 1\n[service.a]\nblue = 0\nhealth.fall = -1\n");
    assert_eq!(found.iter().map(|p| p.0).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7], "{found:?}");
}

#[test]
fn a_problem_shows_its_line_and_a_way_out() {
    let text = parse(&format!("{MINIMAL}actve = \"green\"\n")).expect_err("a typing error").to_string();
    let want = "cutover.toml:4:1: unknown key service.recall.actve\n    4 | actve = \"green\"\n      | help: did you mean `active`?\n1 problem";
    assert_eq!(text, want);
}

#[test]
fn broken_toml_is_placed_too() {
    let found = problems("[service.a]\nblue = \n");
    assert_eq!((found.len(), found[0].0), (1, 2), "{found:?}");
}

#[test]
fn problems_of_an_env_file_point_into_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let env = dir.path().join(".env.blue");
    let config = format!("[service.a]\nblue = {{ env_file = {env:?} }}\ngreen = 1\n");
    for (content, line, message) in [
        (None, 0, "cannot read the env file"),
        (Some("IMAGE_TAG=x\n"), 0, "no HOST_PORT"),
        (Some("A=b\nHOST_PORT=many\n"), 2, "HOST_PORT is not a port from 1 to 65535"),
        (Some("A=b\nnonsense\n"), 2, "not a KEY=value line"),
    ] {
        if let Some(content) = content {
            std::fs::write(&env, content).expect("written");
        }
        let problem = parse(&config).expect_err("a problem").0.remove(0);
        assert_eq!((problem.file.as_path(), problem.line), (env.as_path(), line), "{problem}");
        assert!(problem.message.starts_with(message), "{problem}");
    }
}

#[test]
fn admin_off_loopback_needs_a_token_that_can_be_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let token = dir.path().join("token");
    let config = format!("[admin]\nlisten = \"0.0.0.0:9900\"\ntoken_file = {token:?}\n{MINIMAL}");
    assert!(problems(&config)[0].2.starts_with("admin.token_file cannot be read"));
    std::fs::write(&token, "\n").expect("written");
    assert_eq!(problems(&config)[0].2, "admin.token_file names an empty file");
    std::fs::write(&token, "hunter2\n").expect("written");
    let admin = parse(&config).expect("valid").admin;
    assert_eq!(admin.token.as_deref(), Some("hunter2"));
    assert!(!format!("{admin:?}").contains("hunter2"), "a token is never shown");
}

#[test]
fn no_mutilation_of_a_file_makes_it_panic() {
    let text = shipped("config/cutover.toml");
    for at in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
        for changed in [
            text[..at].to_owned(),
            format!("{}{}", &text[..at], &text[at + 1..]),
            format!("{}]{}", &text[..at], &text[at..]),
        ] {
            if let Err(problems) = parse(&changed) {
                assert!(!problems.0.is_empty() && !problems.to_string().is_empty());
            }
        }
    }
}

#[test]
fn networks_contain_their_addresses() {
    for (network, ip, want) in [
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "11.1.2.3", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("0.0.0.0/0", "1.2.3.4", true),
        ("192.0.2.7", "192.0.2.7", true),
        ("192.0.2.7", "192.0.2.8", false),
        ("fd00::/8", "fd12::1", true),
        ("::/0", "fd12::1", true),
        ("::/0", "1.2.3.4", false),
        ("::ffff:10.0.0.0/104", "10.1.2.3", true),
        ("::ffff:10.0.0.0/104", "11.1.2.3", false),
    ] {
        let network: Cidr = network.parse().expect("a network");
        assert_eq!(network.contains(ip.parse().expect("an address")), want, "{network:?} {ip}");
    }
}

#[test]
fn a_rehearsal_is_off_until_it_is_given_a_share() {
    assert_eq!(parse(MINIMAL).expect("valid").services[0].rehearse, Rehearse::default());
    let text = format!(
        "{MINIMAL}[service.recall.rehearse]\nshare = 1\nmax_differences = 0.25\nheaders = [\"ETag\"]\nallow = \"/a/**\"\n"
    );
    let rehearse = parse(&text).expect("valid").services.remove(0).rehearse;
    assert_eq!((rehearse.share, rehearse.max_differences), (1.0, 0.25));
    assert_eq!((rehearse.headers, rehearse.allow), (vec!["etag".to_owned()], vec!["/a/**".to_owned()]));
}

#[test]
fn what_is_wrong_with_a_rehearsal_is_said() {
    for (line, message) in [
        ("share = 1.5", "service.recall.rehearse.share must be from 0 to 1"),
        ("share = nan", "service.recall.rehearse.share must be from 0 to 1"),
        ("share = \"5%\"", "service.recall.rehearse.share is a string, but must be a number"),
        ("max_differences = -1", "service.recall.rehearse.max_differences must be from 0 to 1"),
        ("rate = 0", "service.recall.rehearse.rate must be from 1 to 1000"),
        ("timeout = \"0s\"", "service.recall.rehearse.timeout must be more than zero"),
        ("min_requests = 0", "service.recall.rehearse.min_requests must be from 1 to 1000000"),
        ("deny = [\"logout\"]", "service.recall.rehearse.deny has a glob that no path can match"),
        ("allow = [\"/a/[z\"]", "service.recall.rehearse.allow is not a glob: unclosed character class; missing ']'"),
        ("headers = [\"a b\"]", "service.recall.rehearse.headers has an entry that is not a header name"),
        ("percent = 5", "unknown key service.recall.rehearse.percent"),
    ] {
        let found = problems(&format!("{MINIMAL}[service.recall.rehearse]\n{line}\n"));
        assert_eq!(found.iter().map(|(_, _, message)| message.as_str()).collect::<Vec<_>>(), [message], "{line}");
    }
}

#[test]
fn what_the_idle_color_may_answer_is_said_by_two_sections() {
    let service = parse(MINIMAL).expect("valid").services.remove(0);
    assert_eq!((service.preview, service.skew_shield), (Preview { enabled: false }, SkewShield::default()));
    let text = format!(
        "{MINIMAL}[service.recall.preview]\nenabled = true\n[service.recall.skew_shield]\nenabled = false\npaths = \"/a/**\"\n"
    );
    let service = parse(&text).expect("valid").services.remove(0);
    assert!(service.preview.enabled && !service.skew_shield.enabled);
    assert_eq!(service.skew_shield.paths, ["/a/**"]);
    for (section, line, want) in [
        ("preview", "header = \"X-Mine\"", "unknown key service.recall.preview.header"),
        ("preview", "enabled = 1", "service.recall.preview.enabled is a number, but must be true or false"),
        ("skew_shield", "paths = [\"a\"]", "service.recall.skew_shield.paths has a glob that no path can match"),
    ] {
        let found = problems(&format!("{MINIMAL}[service.recall.{section}]\n{line}\n"));
        assert!(found[0].2.starts_with(want), "{line}: {found:?}");
    }
}
