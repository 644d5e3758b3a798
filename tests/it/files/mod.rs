//! The files and scripts of the runbook, by the programs that read them: Compose, promtool, shellcheck, systemd, a
//! shell.

mod compose;
mod docs;
mod env_examples;
mod monitoring;
mod pages;
mod scripts;
mod service;
mod workflow;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{
    Client, Setup, Upstream, docker, eventually, free_port, have, have_docker, have_root, test_api_image,
};

const BINARY: &str = env!("CARGO_BIN_EXE_cutover");
const COMPOSE: &str = "deploy/docker-compose.yml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).current_dir(root()).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn must(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Writes a program of one line of shell.
fn program(path: &Path, line: &str) {
    fs::write(path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
