//! The verbs, their exit codes and their JSON, against a running proxy and without one.

use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Cutover, Setup, Upstream, eventually, free_port, unchained};

fn pair() -> (Upstream, Upstream) {
    (Upstream::saying("blue"), Upstream::saying("green"))
}

fn json_of(cutover: &Cutover, args: &[&str]) -> (i32, Value) {
    let output = cutover.cli(args);
    let text = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} is not JSON: {error}: {text}"));
    (output.status.code().unwrap_or(-1), value)
}

/// Runs a verb with this config and without a proxy.
fn with_config(text: &str, args: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cutover.toml"), text).unwrap();
    run_in(folder.path(), args, &[])
}

fn run_in(folder: &std::path::Path, args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.current_dir(folder).args(args).env_remove("CUTOVER_CONFIG").envs(environment.iter().copied());
    let output = command.output().expect("the binary starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

mod check {
    use super::*;

    #[test]
    fn takes_the_smallest_config() {
        let (code, said) = with_config("[service.shop]\nblue = 8000\ngreen = 8001\n", &["check"]);
        assert_eq!(code, 0, "{said}");
        for word in ["0.0.0.0:8080", "127.0.0.1:9900", "127.0.0.1:8000", "127.0.0.1:8001", "shop"] {
            assert!(said.contains(word), "{word} is said: {said}");
        }
    }

    #[test]
    fn reports_every_problem_at_its_place_in_one_run() {
        let text = "\
[proxy]
listen = [\"nowhere\"]
header_timeout = 10
[service.shop]
blue = 8000
gren = 8001
[service.shop.health]
path = \"readyz\"
[service.Shop]
blue = 9000
green = 9000
";
        let (code, said) = with_config(text, &["check"]);
        assert_eq!(code, 2, "{said}");
        for place in ["cutover.toml:2:", "cutover.toml:3:", "cutover.toml:6:", "cutover.toml:8:", "cutover.toml:9:"] {
            assert!(said.contains(place), "{place} is named: {said}");
        }
        for word in ["green", "header_timeout", "did you mean", "both colors are at"] {
            assert!(said.contains(word), "{word} is said: {said}");
        }
    }

    #[test]
    fn refuses_what_cannot_work() {
        for (case, text, word) in [
            ("not TOML", "[service.shop\nblue = 1", "cutover.toml:1:"),
            ("an empty file", "", "there is no service"),
            ("a color is missing", "[service.shop]\nblue = 1", "green"),
            ("a port out of range", "[service.shop]\nblue = 1\ngreen = 65536", "cutover.toml:3:"),
            ("port zero", "[service.shop]\nblue = 0\ngreen = 1", "cutover.toml:2:"),
            ("one port for both", "[service.shop]\nblue = 1\ngreen = 1", "both colors"),
            ("an unknown key", "[service.shop]\nblue = 1\ngreen = 2\nhost = []", "hosts"),
            ("an unknown table", "[prxy]\n[service.shop]\nblue = 1\ngreen = 2", "proxy"),
            ("a unit that is none", "service.shop = {blue = 1, green = 2, watch.window = '5 parsecs'}", "window"),
            ("admin without a token", "admin.listen = '0.0.0.0:9900'\nservice.shop = {blue = 1, green = 2}", "token"),
            ("a color that is none", "[service.shop]\nblue = 1\ngreen = 2\nactive = 'red'", "blue"),
            ("no such env file", "[service.shop]\nblue = {env_file = 'gone.env'}\ngreen = 2", "gone.env"),
            ("two for one host", "[service.a]\nblue = 1\ngreen = 2\n[service.b]\nblue = 3\ngreen = 4", "both claim"),
        ] {
            let (code, said) = with_config(text, &["check"]);
            assert_eq!(code, 2, "{case}: {said}");
            assert!(said.contains(word), "{case}: {word} is said: {said}");
            let (code, said) = with_config(text, &["check", "--json"]);
            let problems: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{case}: {e}: {said}"));
            assert_eq!((code, &problems["valid"]), (2, &json!(false)), "{case}: {said}");
            assert!(problems["problems"].as_array().is_some_and(|list| !list.is_empty()), "{case}: {said}");
        }
    }

    #[test]
    fn reads_compose_env_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("blue.env", "# blue\r\nexport HOST_PORT='8000' # published\r\nIMAGE_TAG=\"sha-1\"\r\n");
        write("green.env", "IMAGE_TAG=sha-2\n");
        write("cutover.toml", "[service.shop]\nblue = {env_file = 'blue.env'}\ngreen = {env_file = 'green.env'}\n");
        let (code, said) = run_in(folder.path(), &["check"], &[]);
        assert!(code == 2 && said.contains("green.env") && said.contains("HOST_PORT"), "{code}: {said}");
        write("green.env", "IMAGE_TAG=sha-2\nHOST_PORT=8001\n");
        let (code, said) = run_in(folder.path(), &["check"], &[]);
        assert!(code == 0 && said.contains("127.0.0.1:8000") && said.contains("127.0.0.1:8001"), "{code}: {said}");
    }

    #[test]
    fn looks_where_it_says_it_looks() {
        let folder = tempfile::tempdir().unwrap();
        let service = |name: &str| format!("[service.{name}]\nblue = 1\ngreen = 2\n");
        std::fs::create_dir(folder.path().join("config")).unwrap();
        let places = [("config/cutover.toml", "third"), ("cutover.toml", "second"), ("env.toml", "first")];
        let mut environment = vec![];
        for (place, name) in places {
            std::fs::write(folder.path().join(place), service(name)).unwrap();
            if place == "env.toml" {
                environment.push(("CUTOVER_CONFIG", "env.toml"));
            }
            let (code, said) = run_in(folder.path(), &["check"], &environment);
            assert!(code == 0 && said.contains(name), "{place}: {code}: {said}");
        }
        std::fs::write(folder.path().join("flag.toml"), service("flagged")).unwrap();
        let (code, said) = run_in(folder.path(), &["check", "--config", "flag.toml"], &environment);
        assert!(code == 0 && said.contains("flagged"), "{code}: {said}");
        let (code, said) = run_in(folder.path(), &["check", "--config", "none.toml"], &environment);
        assert!(code == 2 && said.contains("none.toml"), "{code}: {said}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let good = "[service.shop]\nblue = 8000\ngreen = 8001\n";
    for args in [&["explode"][..], &["flip"], &["flip", "shop", "red"], &["flip", "red"], &["status", "--frob"]] {
        let (code, said) = with_config(good, args);
        assert_eq!(code, 2, "{args:?}: {said}");
    }
}

#[test]
fn without_a_proxy_the_exit_code_is_6() {
    let admin = free_port();
    let text = format!("admin.listen = '127.0.0.1:{admin}'\n[service.shop]\nblue = 8000\ngreen = 8001\n");
    for args in [&["status"][..], &["flip", "green"], &["rollback"], &["drain"], &["reload"]] {
        let (code, said) = with_config(&text, args);
        assert_eq!(code, 6, "{args:?}: {said}");
        assert!(said.contains(&admin.to_string()), "the address is named: {said}");
        let (code, said) = with_config(&text, &[args, &["--json"]].concat());
        let value: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!((code, &value["error"]["code"]), (6, &json!("no_answer")));
    }
}

#[test]
fn a_deploy_without_a_proxy_does_nothing() {
    let (admin, folder) = (free_port(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("blue.env", "HOST_PORT=8000\n");
    write("green.env", "HOST_PORT=8001\n");
    let text = format!(
        "admin.listen = '127.0.0.1:{admin}'\n[service.shop]\nblue = {{env_file = 'blue.env'}}\ngreen = {{env_file = 'green.env'}}\n"
    );
    write("cutover.toml", &text);
    let (code, said) = run_in(folder.path(), &["deploy", "--image-tag", "sha-1"], &[]);
    assert!(code == 6 && said.contains(&admin.to_string()), "{code}: {said}");
    let (code, said) = run_in(folder.path(), &["deploy", "--image-tag", "sha-1", "--json"], &[]);
    let event: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((code, &event["outcome"]), (6, &json!("no_answer")));
    assert_eq!(std::fs::read_to_string(folder.path().join("green.env")).unwrap(), "HOST_PORT=8001\n");
    let flag = ["deploy", "--strategy", "blue-green", "--image-tag", "sha-1"];
    write("green.env", "HOST_PORT=8001\nCOMPOSE_PROJECT_NAME=shop_blue\n");
    let (code, said) = run_in(folder.path(), &flag, &[]);
    assert!(code == 2 && said.contains("both colors are the Compose project shop_blue"), "{code}: {said}");
    write("cutover.toml", &format!("admin.listen = '127.0.0.1:{admin}'\n[service.shop]\nblue = 1\ngreen = 2\n"));
    let (code, said) = run_in(folder.path(), &flag, &[]);
    assert!(code == 2 && said.contains("blue has no env_file"), "{code}: {said}");
    let (code, said) = run_in(folder.path(), &["deploy", "shpo", "--image-tag", "sha-1"], &[]);
    assert!(code == 2 && said.contains("shop"), "{code}: {said}");
}

mod start {
    use super::*;

    #[test]
    fn names_a_port_that_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap();
        for key in ["proxy.listen", "admin.listen"] {
            let value = if key == "proxy.listen" { format!("['{taken}']") } else { format!("'{taken}'") };
            let other = if key == "proxy.listen" { "admin.listen" } else { "proxy.listen" };
            let free = format!("127.0.0.1:{}", free_port());
            let free = if other == "proxy.listen" { format!("['{free}']") } else { format!("'{free}'") };
            let text = format!("{key} = {value}\n{other} = {free}\nservice.shop = {{blue = 1, green = 2}}\n");
            let (code, said) = with_config(&text, &["serve"]);
            assert_eq!(code, 1, "{key}: {said}");
            assert!(said.contains(&taken.to_string()) && said.contains(key), "{key}: {said}");
        }
    }

    #[test]
    fn names_a_state_folder_that_cannot_be_written() {
        let (port, admin) = (free_port(), free_port());
        let text = format!(
            "proxy.listen = ['127.0.0.1:{port}']\nadmin.listen = '127.0.0.1:{admin}'\nstate.dir = 'cutover.toml/state'\n\
             service.shop = {{blue = 1, green = 2}}\n"
        );
        let (code, said) = with_config(&text, &["serve"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("cutover.toml/state"), "{said}");
    }

    #[test]
    fn refuses_a_bad_config_before_anything_else() {
        let (code, said) = with_config("[service.shop]\nblue = 1\n", &["serve"]);
        assert!(code == 2 && said.contains("green"), "{code}: {said}");
    }
}

mod running {
    use super::*;

    #[test]
    fn status_is_a_screen_and_a_document() {
        let (blue, green) = pair();
        let cutover = Setup::of(&blue, &green).start();
        let (code, said) = cutover.cli_code(&["status"]);
        assert_eq!(code, 0, "{said}");
        for word in ["app", "blue", "green", "active", "ready", &blue.port.to_string(), &green.port.to_string()] {
            assert!(said.contains(word), "{word} is on the screen: {said}");
        }
        let (code, status) = json_of(&cutover, &["status", "--json"]);
        assert_eq!((code, &status["services"]["app"]["active"]), (0, &json!("blue")));
        assert_eq!(status["services"]["app"]["epoch"], 1);
        assert_eq!(cutover.cli_code(&["status", "nobody"]).0, 2);
    }

    #[test]
    fn every_verb_speaks_json() {
        let (blue, green) = pair();
        let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
        let (code, changed) = json_of(&cutover, &["flip", "green", "--json"]);
        assert_eq!(
            (code, &changed["from"], &changed["to"], &changed["epoch"]),
            (0, &json!("blue"), &json!("green"), &json!(2))
        );
        assert_eq!(changed["drain"]["cut"], 0);
        let (code, refused) = json_of(&cutover, &["flip", "green", "--json"]);
        assert_eq!((code, &refused["error"]["code"]), (3, &json!("already_active")));
        let (code, changed) = json_of(&cutover, &["--json", "rollback"]);
        assert_eq!((code, &changed["to"]), (0, &json!("blue")));
        let (code, refused) = json_of(&cutover, &["--json", "rollback"]);
        assert_eq!((code, &refused["error"]["code"]), (3, &json!("nothing_to_roll_back")));
        let (code, drained) = json_of(&cutover, &["drain", "--json"]);
        assert_eq!((code, &drained["cut"]), (0, &json!(0)));
        let (code, reloaded) = json_of(&cutover, &["reload", "--json"]);
        assert_eq!((code, &reloaded["changes"]), (0, &json!([])));
        let (code, ledger) = json_of(&cutover, &["ledger", "--json"]);
        assert!(code == 0 && ledger["lines"].as_array().is_some_and(|lines| lines.len() >= 2), "{ledger}");
        let (code, checked) = json_of(&cutover, &["check", "--json"]);
        assert_eq!((code, &checked["valid"]), (0, &json!(true)));
    }

    #[test]
    fn the_service_must_be_named_where_there_are_two() {
        let (blue, green) = pair();
        let setup = Setup::of(&blue, &green).service("other", &[&blue], &[&green]);
        let cutover = setup.set("service.other.hosts", "['other.example']").start();
        for args in [&["flip", "green"][..], &["rollback"], &["drain"]] {
            let (code, said) = cutover.cli_code(args);
            assert!(code == 2 && said.contains("other"), "{args:?}: {code}: {said}");
        }
        assert_eq!(cutover.cli_code(&["flip", "nobody", "green"]).0, 2);
        assert_eq!(cutover.cli_code(&["flip", "other", "green"]).0, 0);
        assert_eq!(cutover.app()["active"], "blue");
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let (blue, green) = pair();
        let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
        let (code, would) = json_of(&cutover, &["flip", "green", "--dry-run", "--json"]);
        assert_eq!((code, &would["to"], &would["dry_run"]), (0, &json!("green"), &json!(true)));
        assert_eq!((&cutover.app()["active"], &cutover.app()["epoch"]), (&json!("blue"), &json!(1)));
        green.be_ready(false);
        cutover.until_app("green is not ready", |app| app["colors"]["green"]["ready"] == false);
        assert_eq!(cutover.cli_code(&["flip", "green", "--dry-run"]).0, 3);
        assert_eq!(cutover.get("/").text(), "blue");
    }

    #[test]
    fn the_ledger_verb_shows_the_last_lines() {
        let (blue, green) = pair();
        let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
        for _ in 0..3 {
            cutover.must_flip("green");
            cutover.must_flip("blue");
        }
        let (code, said) = cutover.cli_code(&["ledger", "-n", "2"]);
        assert_eq!((code, said.lines().count()), (0, 2), "{said}");
        assert!(unchained(&cutover.ledger()).ends_with(&said), "{said}");
    }

    #[test]
    fn a_bad_reload_keeps_what_was() {
        let (blue, green) = pair();
        let cutover = Setup::of(&blue, &green).start();
        let good = cutover.file("cutover.toml");
        std::fs::write(cutover.path("cutover.toml"), good.replace("blue", "blu")).unwrap();
        let (code, said) = cutover.cli_code(&["reload", "--dry-run"]);
        assert!(code == 2 && said.contains("blu"), "{code}: {said}");
        let (status, refused) = cutover.admin("POST", "/v1/reload", &Value::Null);
        assert_eq!((status, &refused["error"]["code"]), (422, &json!("bad_config")));
        eventually("the status says so", || cutover.status()["problems"].to_string().contains("not valid"));
        assert_eq!(cutover.get("/").text(), "blue");
        std::fs::write(cutover.path("cutover.toml"), good).unwrap();
        assert_eq!(cutover.admin("POST", "/v1/reload", &Value::Null).0, 200);
        assert_eq!(cutover.status()["problems"], json!([]));
    }

    #[test]
    fn a_config_that_is_deleted_changes_nothing() {
        let (blue, green) = pair();
        let cutover = Setup::of(&blue, &green).set("service.app.watch.window", "'0s'").start();
        std::fs::remove_file(cutover.path("cutover.toml")).unwrap();
        let (status, refused) = cutover.admin("POST", "/v1/reload", &Value::Null);
        assert_eq!((status, &refused["error"]["code"]), (422, &json!("bad_config")));
        cutover.signal(libc::SIGHUP);
        assert_eq!(cutover.get("/").text(), "blue");
        cutover.must_flip("green");
        assert_eq!(cutover.get("/").text(), "green");
    }

    #[test]
    fn a_listener_that_changed_needs_a_restart_and_says_so() {
        let (blue, green) = pair();
        let mut cutover = Setup::of(&blue, &green).start();
        cutover.configure("proxy.listen", format!("['127.0.0.1:{}']", free_port()));
        let (status, reloaded) = cutover.admin("POST", "/v1/reload", &Value::Null);
        assert_eq!(status, 200, "{reloaded}");
        assert!(reloaded["changes"].to_string().contains("needs a restart"), "{reloaded}");
        assert_eq!(cutover.get("/").text(), "blue");
    }

    #[test]
    fn a_service_may_come_and_go() {
        let (blue, green) = pair();
        let (other_blue, other_green) = (Upstream::saying("other blue"), Upstream::saying("other green"));
        let mut cutover = Setup::of(&blue, &green).start();
        let alone = cutover.setup.clone();
        cutover.setup = alone
            .clone()
            .service("other", &[&other_blue], &[&other_green])
            .set("service.other.hosts", "['other.example']");
        cutover.write_config();
        assert_eq!(cutover.admin("POST", "/v1/reload", &Value::Null).0, 200);
        let to_other = "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n";
        assert_eq!(cutover.client().ask(to_other).text(), "other blue");
        assert_eq!(cutover.get("/").text(), "blue");
        cutover.setup = alone;
        cutover.write_config();
        assert_eq!(cutover.admin("POST", "/v1/reload", &Value::Null).0, 200);
        assert_eq!(cutover.client().ask(to_other).text(), "blue", "the service without hosts takes it");
        assert_eq!(cutover.status()["services"]["other"], Value::Null);
    }
}
