#!/usr/bin/env python3
"""CPU per request and memory per idle connection of cutover beside nginx and HAProxy, in one run.

One worker each, alone on core 0; the load (wrk, h2load) and the upstream (nginx) share core 1. What counts is the proxy's own
user and system time from /proc/PID/stat: it hardly depends on what else the machine does, throughput does. Requests
are counted by the upstream, so that a round can be measured from its middle, after all connections are made. Rounds are
interleaved (each proxy once, then each again), medians are shown.

All three do the same work: keep-alive on both sides, X-Forwarded-For, -Proto and -Host, a request id per request,
no access log. cutover has everything else on as well (health probes, counters, watch, admin).
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

WORKS = {
    "small": "answers of 2 bytes, 64 kept connections",
    "64k": "answers of 64 KiB, 64 kept connections",
    "1m": "answers of 1 MiB, 16 kept connections",
    "close": "a new connection for every request",
    "tls": "small, over TLS 1.3",
    "h2": "small, over HTTP/2 and TLS 1.3, 8 kept connections with 16 requests each at once",
    "handshake": "a new connection and a full TLS handshake for every request",
    "tls-1m": "1m, over TLS 1.3",
    "idle": "memory of a kept connection on which nothing happens",
    "services": "small, with 1 service and with 1,000 services",
    "connections": "small, with 64 connections, and with 4,000 of which 64 or all are at work",
    "watch": "small, with the watch off and within an open one; cutover alone",
}
PEERS = ("nginx", "haproxy")
PROXY_CORE, LOAD_CORE = "0", "1"
MANY_SERVICES = 1000
FEW_CONNECTIONS, MANY_CONNECTIONS = 64, 4000
WARM_SECONDS = 2
READY_SECONDS = 20
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def find(tool):
    """Where a tool is; server packages put theirs into sbin, which is not always in PATH."""
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def host(number):
    return f"s{number}.example"


@dataclasses.dataclass
class Proxy:
    """One process under test."""

    name: str
    port: int
    tls_port: int
    process: subprocess.Popen
    admin_port: int = 0


@dataclasses.dataclass
class Sample:
    """One round of load on one proxy."""

    cpu_us: float
    requests_per_second: float
    p50_us: float
    p99_us: float
    bad: str


class Bench:
    """The processes of one run. All of them end with it."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = folder
        self.processes = []
        www = folder / "www"
        www.mkdir()
        (www / "64k").write_bytes(b"a" * (64 << 10))
        (www / "1m").write_bytes(b"a" * (1 << 20))
        self.make_certificate()
        self.upstream_port, self.twin_port = free_port(), free_port()
        config = self.write("upstream.conf", self.nginx("upstream", f"""
            server {{
                listen 127.0.0.1:{self.upstream_port} backlog=4096;
                listen 127.0.0.1:{self.twin_port} backlog=4096;
                location / {{ default_type text/plain; return 200 "ok"; }}
                location = /64k {{ root {www}; }}
                location = /1m {{ root {www}; }}
                location = /count {{ stub_status; }}
            }}"""))
        self.start("upstream", LOAD_CORE, [find("nginx"), "-c", config])
        self.wait_ready(self.upstream_port, "upstream")

    def make_certificate(self):
        """One for all three: ECDSA on P-256, which is what authorities hand out by default."""
        self.cert, self.key = str(self.folder / "cert.pem"), str(self.folder / "key.pem")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench"
        names = ["-addext", f"subjectAltName=DNS:{host(0)}"]
        made = subprocess.run(
            [*command.split(), *names, "-keyout", self.key, "-out", self.cert], capture_output=True, text=True
        )
        if made.returncode != 0:
            sys.exit(f"openssl makes no certificate:\n{made.stderr}")
        self.both = self.write("both.pem", Path(self.cert).read_text() + Path(self.key).read_text())

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def nginx(self, name, server):
        """A whole nginx configuration with one worker in the foreground."""
        user = "user root;" if os.geteuid() == 0 else ""
        paths = "\n".join(
            f"{kind}_temp_path {self.folder}/{name}.{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
            {user} daemon off; worker_processes 1; worker_rlimit_nofile 20000;
            pid {self.folder}/{name}.pid; error_log {self.folder}/{name}.err;
            events {{ worker_connections 9500; multi_accept on; }}
            http {{
                access_log off; sendfile on; tcp_nopush on; server_names_hash_max_size 8192;
                keepalive_requests 1000000000; keepalive_timeout 600;
                # Nobody else here writes an answer to disk on its way.
                proxy_max_temp_file_size 0;
                {paths}
                {server}
            }}"""

    def start(self, name, core, command):
        log = open(self.folder / f"{name}.out", "w")
        process = subprocess.Popen(
            ["taskset", "-c", core, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        log.close()
        self.processes.append(process)
        return process

    def start_nginx(self, services):
        port, tls_port, name = free_port(), free_port(), f"nginx-{services}"
        # nginx takes the options of an address once.
        tls = f"""
                listen 127.0.0.1:{tls_port} ssl http2 backlog=4096;
                ssl_certificate {self.cert}; ssl_certificate_key {self.key}; ssl_protocols TLSv1.2 TLSv1.3;"""
        server = "".join(f"""
            server {{
                listen 127.0.0.1:{port}{" backlog=4096" if n == 0 else ""};{tls if n == 0 else ""}
                server_name {host(n)};
                location / {{
                    proxy_pass http://upstream;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_set_header X-Forwarded-Host $http_host;
                    proxy_set_header X-Request-Id $request_id;
                }}
            }}""" for n in range(services))
        upstream = f"""
            upstream upstream {{
                server 127.0.0.1:{self.upstream_port};
                keepalive 4096; keepalive_requests 1000000000;
            }}"""
        config = self.write(f"{name}.conf", self.nginx(name, upstream + server))
        return Proxy("nginx", port, tls_port, self.start(name, PROXY_CORE, [find("nginx"), "-c", config]))

    def start_haproxy(self, services):
        port, tls_port, name = free_port(), free_port(), f"haproxy-{services}"
        hosts = self.write(f"{name}.map", "".join(f"{host(n)} app\n" for n in range(services)))
        # One service needs no map, as cutover and nginx have nothing to look up either.
        choose = "default_backend app" if services == 1 else f"use_backend %[req.hdr(host),field(1,:),lower,map({hosts})]"
        config = self.write(f"{name}.cfg", f"""
global
    nbthread 1
    maxconn 9500
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 60s
    timeout http-keep-alive 600s
    option http-keep-alive
    http-reuse always
frontend web
    bind 127.0.0.1:{port} backlog 4096
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Request-Id %[uuid]
    {choose}
frontend secure
    bind 127.0.0.1:{tls_port} ssl crt {self.both} alpn h2,http/1.1 backlog 4096
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Request-Id %[uuid]
    {choose}
backend app
    server upstream 127.0.0.1:{self.upstream_port} pool-max-conn 4096
""")
        return Proxy("haproxy", port, tls_port, self.start(name, PROXY_CORE, [find("haproxy"), "-db", "-f", config]))

    def start_floor(self):
        """HAProxy copying bytes: what moving them through the kernel costs a proxy that knows no HTTP."""
        port = free_port()
        config = self.write("floor.cfg", f"""
global
    nbthread 1
    maxconn 9500
listen copy
    mode tcp
    maxconn 9000
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    bind 127.0.0.1:{port} backlog 4096
    server upstream 127.0.0.1:{self.upstream_port}
""")
        return Proxy("bytes alone", port, 0, self.start("floor", PROXY_CORE, [find("haproxy"), "-db", "-f", config]))

    def start_cutover(self, services, window=None):
        """With a window, the idle color is the same upstream, so that the load goes on after a flip."""
        port, tls_port, admin_port = free_port(), free_port(), free_port()
        name = f"cutover-{services}" if window is None else f"cutover-watch-{window}"
        spare = self.spare_port() if window is None else self.twin_port
        tables = "".join(
            f'[service.s{n}]\nhosts = ["{host(n)}"]\nblue = {self.upstream_port}\ngreen = {spare}\n'
            # A thousand services would send two thousand probes a second, and the figure is about requests.
            + ('[service.s%d.health]\ninterval = "1m"\n' % n if services > 1 else "")
            for n in range(services)
        )
        if window is not None:
            tables += f'[service.s0.watch]\nwindow = "{window}"\n'
        config = self.write(f"{name}.toml", f"""
[proxy]
listen = ["127.0.0.1:{port}"]
workers = 1
idle_timeout = "10m"
listen_tls = ["127.0.0.1:{tls_port}"]
[tls]
certificates = [{{ cert = "{self.cert}", key = "{self.key}" }}]
[admin]
listen = "127.0.0.1:{admin_port}"
[state]
dir = "{self.folder}/{name}.state"
ledger = "{self.folder}/{name}.ledger"
{tables}""")
        process = self.start(name, PROXY_CORE, [self.binary, "serve", "--config", config])
        return Proxy("cutover", port, tls_port, process, admin_port)

    def requests_so_far(self):
        """What the upstream has been asked, as its stub_status page has it: accepted, handled, requests."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.upstream_port}/count", timeout=10) as answer:
            return int(re.search(r"(?m)^ \d+ \d+ (\d+)", answer.read().decode())[1])

    def spare_port(self):
        """The idle color: a second listener that answers its probes, on the same upstream core."""
        if not hasattr(self, "_spare"):
            self._spare = free_port()
            server = f'server {{ listen 127.0.0.1:{self._spare}; location / {{ return 200 "ok"; }} }}'
            config = self.write("spare.conf", self.nginx("spare", server))
            self.start("spare", LOAD_CORE, [find("nginx"), "-c", config])
            self.wait_ready(self._spare, "spare")
        return self._spare

    def start_all(self, services=1):
        proxies = [start(services) for start in (self.start_nginx, self.start_haproxy, self.start_cutover)]
        for proxy in proxies:
            self.wait_ready(proxy.port, f"{proxy.name}-{services}")
        return proxies

    def wait_ready(self, port, name):
        """Until it answers 2xx."""
        until = time.monotonic() + READY_SECONDS
        while True:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host(0)})
            try:
                with urllib.request.urlopen(request, timeout=2):
                    return
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > until:
                    output = (self.folder / f"{name}.out").read_text()[-2000:]
                    sys.exit(f"{name} does not answer on port {port} after {READY_SECONDS} s: {error}\n{output}")
                time.sleep(0.1)

    def end(self, processes=None):
        """Ends the given processes, or all."""
        ending = list(processes if processes is not None else self.processes)
        for process in ending:
            process.terminate()
        for process in ending:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.processes.remove(process)


def family(pid):
    """A process and all its children: nginx works in one."""
    found = [pid]
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += family(int(child))
    return found


def cpu_seconds(pid):
    """User and system time of the process and its children so far."""
    ticks = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / CLOCK_TICKS


def resident_kib(pid):
    """Memory of the process and its children."""
    status = "".join(Path(f"/proc/{member}/status").read_text() for member in family(pid))
    return sum(int(kib) for kib in re.findall(r"VmRSS:\s+(\d+)", status))


def microseconds(text):
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


class Wrk:
    """The load of HTTP/1."""

    def __init__(self, proxy, path, connections, seconds, headers, service, tls):
        self.command = [find("wrk"), "-t1", f"-c{connections}", "--latency", f"-d{seconds}s"]
        for header in (f"Host: {host(service)}", *headers):
            self.command += ["-H", header]
        self.command.append(f"https://127.0.0.1:{proxy.tls_port}{path}" if tls else f"http://127.0.0.1:{proxy.port}{path}")

    def read(self, output):
        """p50 and p99 in microseconds, and what went wrong; None without an answer."""
        latencies = [re.search(rf"(?m)^\s*{percent}%\s+(\S+)", output) for percent in (50, 99)]
        bad = "; ".join(line.strip() for line in re.findall(r"(?:Non-2xx|Socket errors).*", output))
        return (*(microseconds(found[1]) for found in latencies), bad) if all(latencies) else None


class H2load:
    """The load of HTTP/2, over TLS."""

    def __init__(self, bench, proxy, seconds):
        # Not beside the config, whose folder is watched: each line would be a notice.
        self.log = bench.folder / "load" / "h2load.log"
        self.log.parent.mkdir(exist_ok=True)
        self.log.unlink(missing_ok=True)
        self.command = [find("h2load"), "-t1", "-c8", "-m16", f"-D{seconds}", f"--log-file={self.log}"]
        self.command += [f"--header=:authority: {host(0)}", f"https://127.0.0.1:{proxy.tls_port}/"]

    def read(self, output):
        """As Wrk.read."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        times = sorted(int(line[2]) for line in lines if len(line) == 3)
        failed = sum(line[1] != "200" for line in lines if len(line) == 3)
        bad = f"Non-2xx: {failed}" if failed else ""
        return (statistics.median(times), times[len(times) * 99 // 100], bad) if times else None


def measure(bench, proxy, path, connections, seconds, headers=(), service=0, tls=False, h2=False):
    """One round of load on one proxy, measured after the warm-up and before the end."""
    whole = WARM_SECONDS + seconds + 1
    load = H2load(bench, proxy, whole) if h2 else Wrk(proxy, path, connections, whole, headers, service, tls)
    command = ["taskset", "-c", LOAD_CORE, *load.command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        marks = []
        for pause in (WARM_SECONDS, seconds):
            time.sleep(pause)
            marks.append((bench.requests_so_far(), cpu_seconds(proxy.process.pid), time.monotonic()))
        output = process.communicate()[0]
    finally:
        process.kill()
    requests, cpu, elapsed = (after - before for before, after in zip(*marks))
    read = load.read(output)
    if requests < 100 or not read:
        sys.exit(f"no answer came from {proxy.name}:\n{output}")
    p50_us, p99_us, bad = read
    return Sample(
        cpu_us=cpu / requests * 1e6,
        requests_per_second=requests / elapsed,
        p50_us=p50_us,
        p99_us=p99_us,
        bad=bad,
    )


def interleave(cases, rounds):
    """`cases` is {label: function that takes a sample}; each once, then each again. Returns {label: [samples]}."""
    samples = {label: [] for label in cases}
    for _ in range(rounds):
        for label, take in cases.items():
            samples[label].append(take())
    return samples


def median(samples, field):
    return statistics.median(getattr(sample, field) for sample in samples)


def show(work, samples):
    """A line per case; returns the median CPU microseconds per request by label."""
    for label, taken in samples.items():
        cpu = [sample.cpu_us for sample in taken]
        bad = " ".join(sorted({sample.bad for sample in taken if sample.bad}))
        print(
            f"{work:<12}{label:<26}{statistics.median(cpu):9.2f} us cpu/request  [{min(cpu):.2f} to {max(cpu):.2f}]"
            f"{median(taken, 'requests_per_second'):10.0f} requests/s"
            f"   p50 {median(taken, 'p50_us'):.0f} us   p99 {median(taken, 'p99_us'):.0f} us   {bad}"
        )
    return {label: median(taken, "cpu_us") for label, taken in samples.items()}


def show_ratios(work, unit, figures):
    for peer in PEERS:
        print(f"ratio       {work}: cutover / {peer} {figures['cutover'] / figures[peer]:.2f} ({unit})")
    better = min(figures[peer] for peer in PEERS)
    print(f"ratio       {work}: cutover / the better of both {figures['cutover'] / better:.2f} ({unit})")


def compare(bench, work, options, path="/", connections=64, headers=(), tls=False, h2=False):
    """The three proxies on the same load."""
    proxies = bench.start_all()
    cases = {
        proxy.name: lambda proxy=proxy: measure(
            bench, proxy, path, connections, options.seconds, headers, tls=tls, h2=h2
        )
        for proxy in proxies
    }
    figures = show(work, interleave(cases, options.rounds))
    show_ratios(work, "cpu per request", figures)
    bench.end(proxy.process for proxy in proxies)


@contextlib.contextmanager
def idle_connections(proxy, count):
    """Connections that have asked once, and wait."""
    with contextlib.ExitStack() as held:
        connections = []
        for _ in range(count):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host(0)}\r\n\r\n".encode())
            connections.append(connection)
        for connection in connections:
            if b" 200 " not in connection.recv(4096):
                sys.exit(f"{proxy.name} did not answer on every idle connection")
        yield


def compare_idle(bench, options):
    """Memory that kept connections add after one request each, per connection."""
    figures = {name: [] for name in (*PEERS, "cutover")}
    for _ in range(options.rounds):
        # Fresh processes each round: memory that was freed once would be used again and hide the growth.
        proxies = bench.start_all()
        for proxy in proxies:
            before = resident_kib(proxy.process.pid)
            with idle_connections(proxy, options.idle):
                time.sleep(1)
                figures[proxy.name].append((resident_kib(proxy.process.pid) - before) / options.idle)
        bench.end(proxy.process for proxy in proxies)
    for name, kib in figures.items():
        print(f"{'idle':<12}{name:<26}{statistics.median(kib):9.2f} KiB/connection   ({options.idle} connections)")
    show_ratios("idle", "KiB per idle connection", {name: statistics.median(kib) for name, kib in figures.items()})


def compare_services(bench, options):
    """The cost of looking a service up: each proxy with one and with many."""
    few, many = bench.start_all(1), bench.start_all(MANY_SERVICES)
    cases = {}
    for one, thousand in zip(few, many):
        cases[f"{one.name}, 1 service"] = lambda p=one: measure(bench, p, "/", 64, options.seconds)
        cases[f"{one.name}, {MANY_SERVICES} services"] = lambda p=thousand: measure(
            bench, p, "/", 64, options.seconds, service=MANY_SERVICES // 2
        )
    figures = show("services", interleave(cases, options.rounds))
    for proxy in few:
        ratio = figures[f"{proxy.name}, {MANY_SERVICES} services"] / figures[f"{proxy.name}, 1 service"]
        print(f"ratio       services: {proxy.name} with {MANY_SERVICES} / with 1 {ratio:.2f} (cpu per request)")
    bench.end(proxy.process for proxy in (*few, *many))


def compare_connections(bench, options):
    """The cost of many clients: each proxy with few connections, with many that are idle but for as few, and with many
    at work; and bytes copied without HTTP as well."""
    floor = bench.start_floor()
    bench.wait_ready(floor.port, floor.name)
    proxies = [*bench.start_all(), floor]

    def take(proxy, at_work, idle):
        with idle_connections(proxy, idle):
            return measure(bench, proxy, "/", at_work, options.seconds)

    few, mostly_idle, many = kinds = (
        (FEW_CONNECTIONS, 0), (FEW_CONNECTIONS, MANY_CONNECTIONS - FEW_CONNECTIONS), (MANY_CONNECTIONS, 0)
    )
    cases = {
        (proxy.name, kind): lambda p=proxy, k=kind: take(p, *k) for proxy in proxies for kind in kinds
    }

    def label(case):
        name, (at_work, idle) = case
        return f"{name}, {at_work} of {at_work + idle}"

    figures = show("connections", {label(case): samples for case, samples in interleave(cases, options.rounds).items()})
    for proxy in proxies:
        base, idle, work = (figures[label((proxy.name, kind))] for kind in (few, mostly_idle, many))
        print(
            f"ratio       connections: {proxy.name} with {MANY_CONNECTIONS} / with {FEW_CONNECTIONS}: "
            f"{idle / base:.2f} with {FEW_CONNECTIONS} of them at work, {work / base:.2f} with all (cpu per request)"
        )
    bench.end(proxy.process for proxy in proxies)


def compare_watch(bench, options):
    """What it costs a request that its end is counted for the watch: two instances of the same binary, taking turns."""
    off, on = bench.start_cutover(1, window="0s"), bench.start_cutover(1, window="1h")
    for proxy, name in ((off, "0s"), (on, "1h")):
        bench.wait_ready(proxy.port, f"cutover-watch-{name}")
        # Without a past, slowness is not judged, and the watch would be cheaper than it is.
        measure(bench, proxy, "/", 64, options.seconds)
        ask(proxy, "/v1/services/s0/flip", {"to": "green", "by": "bench"})
    take = lambda proxy: lambda: measure(bench, proxy, "/", 64, options.seconds)
    samples = interleave({"watch off": take(off), "within a watch": take(on)}, options.rounds)
    show("watch", samples)
    service = ask(on, "/v1/status")["services"]["s0"]
    if service["active"] != "green" or not service.get("watch"):
        sys.exit(f"the watch did not stay open: {service['summary']}")
    pairs = [watched.cpu_us / free.cpu_us for free, watched in zip(*samples.values())]
    print(
        f"ratio       watch: within a watch / watch off {statistics.median(pairs):.3f} (cpu per request, median of"
        f" {len(pairs)} pairs, [{min(pairs):.3f} to {max(pairs):.3f}])"
    )
    bench.end((off.process, on.process))


def ask(proxy, path, body=None):
    """The admin API's answer; with a body, it is a POST."""
    url, data = f"http://127.0.0.1:{proxy.admin_port}{path}", body and json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def run(bench, work, options):
    match work:
        case "small":
            compare(bench, work, options)
        case "64k":
            compare(bench, work, options, path="/64k")
        case "1m":
            compare(bench, work, options, path="/1m", connections=16)
        case "close":
            compare(bench, work, options, headers=("Connection: close",))
        case "tls":
            compare(bench, work, options, tls=True)
        case "h2":
            compare(bench, work, options, h2=True)
        case "handshake":
            compare(bench, work, options, headers=("Connection: close",), tls=True)
        case "tls-1m":
            compare(bench, work, options, path="/1m", connections=16, tls=True)
        case "idle":
            compare_idle(bench, options)
        case "services":
            compare_services(bench, options)
        case "connections":
            compare_connections(bench, options)
        case "watch":
            compare_watch(bench, options)


def main():
    works = "\n".join(f"  {name:<12}{what}" for name, what in WORKS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"works:\n{works}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", nargs="*", metavar="WORK", help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="of each case; default 5")
    parser.add_argument("--seconds", type=int, default=4, help="of load in each round; default 4")
    parser.add_argument("--idle", type=int, default=4000, help="idle connections; default 4000")
    parser.add_argument("--bin", default="target/release/cutover", help="default target/release/cutover")
    options = parser.parse_args()
    unknown = [work for work in options.work if work not in WORKS]
    if unknown:
        parser.error(f"unknown work {', '.join(unknown)}; known: {', '.join(WORKS)}")

    missing = [tool for tool in ("nginx", "haproxy", "openssl", "wrk", "h2load", "taskset") if not find(tool)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; there is no comparison without all of them")
    if not os.access(options.bin, os.X_OK):
        sys.exit(f"{options.bin} is not there; build it with `cargo build --release`")
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the proxy, one for the load")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    with tempfile.TemporaryDirectory(prefix="cutover-bench.") as folder:
        # The upstream's worker may run as another user, and has to read its files.
        os.chmod(folder, 0o755)
        bench = None
        try:
            bench = Bench(os.path.abspath(options.bin), Path(folder))
            for work in options.work or WORKS:
                run(bench, work, options)
                sys.stdout.flush()
        finally:
            if bench:
                bench.end()


if __name__ == "__main__":
    main()
