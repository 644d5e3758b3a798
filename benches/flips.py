#!/usr/bin/env python3
"""Flips in a row under load: failed requests, and p99 with flips against p99 without, in one run.

cutover stands before two colors (two nginx). wrk keeps a fixed number of connections busy in rounds that take turns:
one without flips, one in which the admin API is asked for flip after flip until the round's share of all flips is done.
Each flip is answered when the color before it is drained, so nothing overlaps. The watch is off: it would refuse the
next flip, and what is measured is the flip. cutover is alone on core 0, everything else shares core 1: otherwise the
tail would say who was waiting for a core, with flips or without.

Exits 1 when a request failed or a flip was refused. A p99 is a matter of the machine, and is printed only.
"""

import argparse
import dataclasses
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READY_SECONDS = 20
WARM_SECONDS = 2
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
SERVICE = "app"
PROXY_CORE, LOAD_CORE = "0", "1"
COLORS = ("blue", "green")


def flip_request(to):
    body = json.dumps({"to": to, "by": "bench"})
    head = f"POST /v1/services/{SERVICE}/flip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


FLIP_REQUESTS = {color: flip_request(color) for color in COLORS}


@dataclasses.dataclass
class Round:
    """What wrk and the flipper saw in one round."""

    requests: int
    failed: int
    p50_us: float
    p99_us: float
    max_us: float
    seconds: float
    flips: int


def need(tools, binary):
    """Exits where one of them is not there."""
    missing = [tool for tool in tools if not shutil.which(tool, path=PATH)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")
    if not os.access(binary, os.X_OK):
        sys.exit(f"{binary} is not there; build it with `cargo build --release`")


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_upstream(folder, color, port):
    user = "user root;" if os.geteuid() == 0 else ""
    paths = "\n".join(
        f"{kind}_temp_path {folder}/{color}.{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / f"{color}.conf"
    config.write_text(f"""
        {user} daemon off; worker_processes 1; pid {folder}/{color}.pid; error_log {folder}/{color}.err;
        events {{ worker_connections 4096; multi_accept on; }}
        http {{
            access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
            {paths}
            server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 "{color}"; }} }}
        }}""")
    return start(folder, color, LOAD_CORE, [shutil.which("nginx", path=PATH), "-c", str(config)])


def start_cutover(folder, binary, listen, admin, ports, workers):
    # As in a project: what the proxy writes is not beside the config, whose folder it watches.
    config = folder / "config" / "cutover.toml"
    config.parent.mkdir()
    config.write_text(f"""
[proxy]
listen = ["127.0.0.1:{listen}"]
workers = {workers}
[admin]
listen = "127.0.0.1:{admin}"
[state]
dir = "{folder}/state"
ledger = "{folder}/deploy/releases.log"
[service.{SERVICE}]
blue = {ports[0]}
green = {ports[1]}
[service.{SERVICE}.health]
interval = "200ms"
[service.{SERVICE}.watch]
window = "0s"
""")
    return start(folder, "cutover", PROXY_CORE, [binary, "serve", "--config", str(config)])


def start(folder, name, core, command):
    pinned = ["taskset", "-c", core, *command]
    with open(folder / f"{name}.out", "w") as output:
        return subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


class Admin:
    """One kept connection to the admin API."""

    def __init__(self, port):
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.flips = None

    def ask(self, method, path, body=None):
        """The answer's JSON. Exits when it is not 200: a refused flip spoils the figure."""
        self.connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{method} {path} answered {answer.status}: {text.decode(errors='replace')}")
        return json.loads(text)

    def service(self):
        return self.ask("GET", "/v1/status")["services"][SERVICE]

    def wait_ready(self, awaited=COLORS):
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                colors = self.service()["colors"]
                if all(colors[color]["ready"] for color in awaited):
                    return
                missing = f"{' or '.join(awaited)} is not ready"
            except OSError as error:
                self.connection.close()
                missing = str(error)
            if time.monotonic() > until:
                sys.exit(f"cutover is not ready after {READY_SECONDS} s: {missing}")
            time.sleep(0.05)

    def flip(self, to):
        """Asks with as little of Python as can be: it shares its core with the load, whose tail is measured."""
        self.flips = self.flips or socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.flips.sendall(FLIP_REQUESTS[to])
        answer = self.flips.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200 "):
            sys.exit(f"a flip to {to} was answered with:\n{answer.decode(errors='replace')}")


class Flipper:
    """Flips from color to color and keeps count."""

    def __init__(self, admin, rate=0):
        self.admin = admin
        self.pause = 1 / rate if rate else 0
        self.active = admin.service()["active"]

    def flip_for(self, seconds, at_most):
        """As many flips as fit into the time, and no more than `at_most`; returns how many."""
        began, done = time.monotonic(), 0
        until = began + seconds
        while done < at_most and time.monotonic() < until:
            time.sleep(max(0, began + done * self.pause - time.monotonic()))
            self.active = COLORS[1 - COLORS.index(self.active)]
            self.admin.flip(self.active)
            done += 1
        return done


def microseconds(text):
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


def run_round(port, options, flipper, flips_left):
    """wrk for one round, with flips during it if `flips_left` is above zero."""
    command = [
        "taskset", "-c", LOAD_CORE, shutil.which("wrk", path=PATH), "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency",
        f"http://127.0.0.1:{port}/",
    ]
    command = ["chrt", "--other", "0", *command]
    wrk = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        # The first and the last tenth of a second belong to wrk's own start and end.
        time.sleep(0.1)
        began = time.monotonic()
        flips = flipper.flip_for(options.seconds - 0.2, flips_left)
        seconds = time.monotonic() - began
        output = wrk.communicate(timeout=options.seconds + 30)[0]
    finally:
        wrk.kill()
    total = re.search(r"(\d+) requests in", output)
    if not total or int(total[1]) == 0:
        sys.exit(f"wrk got no answer:\n{output}")
    not_2xx = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    failed = (int(not_2xx[1]) if not_2xx else 0) + (sum(map(int, errors.groups())) if errors else 0)
    return Round(
        requests=int(total[1]),
        failed=failed,
        p50_us=microseconds(re.search(r"(?m)^\s*50%\s+(\S+)", output)[1]),
        p99_us=microseconds(re.search(r"(?m)^\s*99%\s+(\S+)", output)[1]),
        max_us=microseconds(re.search(r"(?m)^\s*Latency\s+\S+\s+\S+\s+(\S+)", output)[1]),
        seconds=seconds,
        flips=flips,
    )


def measure(admin, port, options):
    """Rounds without and with flips, taking turns, until all flips are done. The first load only warms up."""
    # From here on the load is not interrupted by who asks for flips.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    flipper = Flipper(admin, options.rate)
    run_round(port, dataclasses.replace(options, seconds=WARM_SECONDS), flipper, 0)
    calm, flipped, done = [], [], 0
    while done < options.flips:
        calm.append(run_round(port, options, flipper, 0))
        flipped.append(run_round(port, options, flipper, options.flips - done))
        if flipped[-1].flips == 0:
            sys.exit("not one flip was done in a whole round")
        done += flipped[-1].flips
        p99s = f"p99 {calm[-1].p99_us:.0f} us without and {flipped[-1].p99_us:.0f} us with them"
        print(f"  {done} of {options.flips} flips, {p99s}", file=sys.stderr)
    # A last round that was mostly calm says nothing about flips; its failures still count.
    if len(flipped) > 1 and flipped[-1].seconds < options.seconds / 2:
        for rounds in (calm, flipped):
            rounds[-1] = dataclasses.replace(rounds[-1], p50_us=None, p99_us=None, max_us=None)
    return calm, flipped


def of(rounds, field, summary):
    return summary(value for value in (getattr(one, field) for one in rounds) if value is not None)


def show(calm, flipped, options):
    print(f"{options.connections} connections, rounds of {options.seconds} s taking turns; medians of the rounds")
    print(f"{'':<16}{'rounds':>7}{'requests':>12}{'failed':>8}{'p50 us':>10}{'p99 us':>10}{'max us':>10}")
    for name, rounds in (("without flips", calm), ("with flips", flipped)):
        print(
            f"{name:<16}{len(rounds):>7}{of(rounds, 'requests', sum):>12}{of(rounds, 'failed', sum):>8}"
            f"{of(rounds, 'p50_us', statistics.median):>10.0f}{of(rounds, 'p99_us', statistics.median):>10.0f}"
            f"{of(rounds, 'max_us', max):>10.0f}"
        )
    flips = of(flipped, "flips", sum)
    ratio = of(flipped, "p99_us", statistics.median) / of(calm, "p99_us", statistics.median)
    print(f"flips           {flips} in a row, {flips / of(flipped, 'seconds', sum):.0f} flips/s")
    print(f"failed          {of(flipped, 'failed', sum)} of {of(flipped, 'requests', sum)} requests with flips")
    print(f"ratio           p99 with flips / p99 without {ratio:.2f}")


@dataclasses.dataclass
class Options:
    """What the command line asked for."""

    flips: int
    connections: int
    seconds: int
    workers: int
    rate: float
    bin: str


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000, help="default 10000")
    parser.add_argument("--connections", type=int, default=32, help="that wrk keeps busy; default 32")
    parser.add_argument("--seconds", type=int, default=5, help="of one round; default 5")
    parser.add_argument("--workers", type=int, default=2, help="of cutover; default 2")
    parser.add_argument("--rate", type=float, default=0, help="flips per second at most; default 0: as many as it can")
    parser.add_argument("--bin", default="target/release/cutover", help="default target/release/cutover")
    return Options(**vars(parser.parse_args()))


def main():
    options = parse()
    need(("nginx", "wrk", "taskset"), options.bin)
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for cutover, one for the load")
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    listen, admin_port, *ports = (free_port() for _ in range(4))
    processes = []
    with tempfile.TemporaryDirectory(prefix="cutover-flips.") as name:
        folder = Path(name)
        try:
            for color, port in zip(COLORS, ports):
                processes.append(start_upstream(folder, color, port))
            binary = os.path.abspath(options.bin)
            processes.append(start_cutover(folder, binary, listen, admin_port, ports, options.workers))
            admin = Admin(admin_port)
            admin.wait_ready()
            calm, flipped = measure(admin, listen, options)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
    show(calm, flipped, options)
    sys.exit(1 if any(one.failed for one in (*calm, *flipped)) else 0)


if __name__ == "__main__":
    main()
