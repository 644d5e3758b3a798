#!/usr/bin/env python3
"""What a bad release costs those who use the service, and whether a good one is left alone: the watch, end to end.

cutover stands before two servers, under steady requests from eight clients. For a bad release, the new color fails a share
of its requests from the flip on; GETs are answered by the old color in its place, POSTs are not. Printed are requests that failed
for clients, those that failed on the new color, and the time from its first failure until the traffic is back.
Good releases follow one another, each a flip and a whole short watch, where both colors fail a usual share.

Exits 1 when a failed GET reached a client, a bad release was not taken back, or a good one was; `--strict` also when more than
12 POSTs failed or the new color stood 250 ms after its first failure, both where it fails everything.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIENTS, READY_SECONDS, BACK_SECONDS = 8, 20, 60
POSTS_BAR, BACK_BAR_MS = 12, 250
COLORS = ("blue", "green")
CONFIG = """[proxy]
listen = ["127.0.0.1:{proxy}"]
[admin]
listen = "127.0.0.1:{admin}"
[state]
dir = "{folder}/state"
ledger = "{folder}/releases.log"
[service.app]
blue = {blue}
green = {green}
[service.app.health]
interval = "200ms"
[service.app.watch]
window = "{window}s"
"""


class Upstream:
    """One color, a process of its own. Probes are always answered well, so that only the watch can tell."""

    def __init__(self):
        self.share = multiprocessing.Value("d", 0.0)
        self.failed = multiprocessing.Value("L", 0)
        self.first_failure = multiprocessing.Value("d", 0.0)
        port = multiprocessing.Value("i", 0)
        self.process = multiprocessing.Process(target=lambda: asyncio.run(self.serve(port)), daemon=True)
        self.process.start()
        wait_for("an upstream", lambda: port.value)
        self.port = port.value

    async def serve(self, port):
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0, backlog=1024)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    async def answer(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                is_bad = not head.startswith(b"GET /readyz ") and random.random() < self.share.value
                if is_bad:
                    self.failed.value += 1
                    self.first_failure.value = self.first_failure.value or time.monotonic()
                status = b"500 Internal Server Error" if is_bad else b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


class Load:
    """Steady requests, a process of its own; each client has an address, or all failures would be those of one."""

    def __init__(self, port, method, rate):
        self.port, self.method, self.pause = port, method, CLIENTS / rate
        self.answered, self.failed = multiprocessing.Value("L", 0), multiprocessing.Value("L", 0)
        self.process = multiprocessing.Process(target=lambda: asyncio.run(self.run()), daemon=True)
        self.process.start()

    async def run(self):
        await asyncio.gather(*(self.client(number) for number in range(CLIENTS)))

    async def client(self, number):
        length = "content-length: 0\r\n" if self.method == "POST" else ""
        request = f"{self.method} / HTTP/1.1\r\nhost: app\r\n{length}\r\n".encode()
        due, connection = time.monotonic() + self.pause * number / CLIENTS, None
        while True:
            await asyncio.sleep(max(0, due - time.monotonic()))
            due += self.pause
            try:
                if not connection:
                    connection = await asyncio.open_connection(
                        "127.0.0.1", self.port, local_addr=(f"127.0.0.{number + 2}", 0)
                    )
                reader, writer = connection
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(length)
                is_bad = head[9:12] >= b"500"
            except (asyncio.IncompleteReadError, OSError):
                is_bad, connection = True, None
            self.answered.value += 1
            self.failed.value += is_bad


def wait_for(what, is_so, seconds=READY_SECONDS):
    until = time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() > until:
            sys.exit(f"{what} is not there after {seconds} s")
        time.sleep(0.004)
    return found


class Stage:
    """cutover, both colors and the load; blue is active."""

    def __init__(self, options, method, window):
        self.folder = tempfile.TemporaryDirectory(prefix="cutover-verdict.")
        self.colors = dict(zip(COLORS, (Upstream(), Upstream())))
        ports = {color: upstream.port for color, upstream in self.colors.items()}
        proxy, self.admin = free_port(), free_port()
        config = Path(self.folder.name) / "cutover.toml"
        config.write_text(CONFIG.format(proxy=proxy, admin=self.admin, folder=self.folder.name, window=window, **ports))
        with open(Path(self.folder.name) / "cutover.out", "w") as output:
            self.cutover = subprocess.Popen(
                [options.bin, "serve", "--config", config], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        wait_for("cutover with both colors ready", self.is_ready)
        self.load = Load(proxy, method, options.rate)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.load.process, *(upstream.process for upstream in self.colors.values()), self.cutover):
            process.terminate()
        self.cutover.wait(30)
        self.folder.cleanup()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        if answer.status >= 300:
            sys.exit(f"{method} {path} answered {answer.status}: {text}")
        return json.loads(text)

    def service(self):
        return self.ask("GET", "/v1/status")["services"]["app"]

    def is_ready(self):
        try:
            return all(color["ready"] for color in self.service()["colors"].values())
        except OSError:
            return False

    def flip(self, to):
        self.ask("POST", "/v1/services/app/flip", {"to": to, "by": "bench"})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def bad_release(options, method, share):
    """Failures that clients saw, failures on the new color, milliseconds from its first one until the traffic is back."""
    with Stage(options, method, 60) as stage:
        time.sleep(options.history)
        green = stage.colors["green"]
        green.share.value = share
        began, answered = time.monotonic(), stage.load.answered.value
        stage.flip("green")
        wait_for("a rollback", lambda: green.first_failure.value and stage.service()["active"] == "blue", BACK_SECONDS)
        back = time.monotonic()
        rate = (stage.load.answered.value - answered) / (back - began)
        # What was in flight may still fail.
        time.sleep(0.3)
        return stage.load.failed.value, green.failed.value, (back - green.first_failure.value) * 1000, rate


def show_bad(options, method):
    missed = []
    for share in (1.0, 0.2, 0.05):
        runs = [bad_release(options, method, share) for _ in range(options.runs)]
        seen, failed, back, rate = zip(*runs)
        name = f"{method}, {share * 100:.0f} % fail"
        print(
            f"{name:<18}{max(seen):>8} seen at most{max(failed):>8} failed at most"
            f"{statistics.median(back):>9.0f} ms median{max(back):>9.0f} ms at most   {statistics.median(rate):.0f} requests/s",
            flush=True,
        )
        if method == "GET" and max(seen) > 0:
            missed.append(f"{name}: {max(seen)} failed GETs reached clients")
        if options.strict and share == 1.0 and max(seen) > POSTS_BAR:
            missed.append(f"{name}: {max(seen)} reached clients")
        if options.strict and share == 1.0 and max(back) > BACK_BAR_MS:
            missed.append(f"{name}: {max(back):.0f} ms until the traffic was back")
    return missed


def show_good(options, usual):
    """Releases no worse than the color before them, in a row."""
    taken_back = 0
    with Stage(options, "GET", options.window) as stage:
        for upstream in stage.colors.values():
            upstream.share.value = usual
        time.sleep(options.history)
        answered, began = stage.load.answered.value, time.monotonic()
        active = "blue"
        for _ in range(options.releases):
            active = COLORS[1 - COLORS.index(active)]
            stage.flip(active)
            wait_for("the end of a watch", lambda: not stage.service().get("watch"), options.window + READY_SECONDS)
            now = stage.service()["active"]
            taken_back += now != active
            active = now
        requests = stage.load.answered.value - answered
        rate = requests / (time.monotonic() - began)
        ledger = (Path(stage.folder.name) / "releases.log").read_text()
        doubted = ledger.count("doubt")
    print(
        f"good, {usual * 100:.1f} % usual  {taken_back} taken back of {options.releases} releases in a row, "
        f"watches of {options.window} s, {requests} requests, {rate:.0f} requests/s, {doubted} times in doubt",
        flush=True,
    )
    return [f"{taken_back} good releases were taken back"] if taken_back else []


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[[], "get", "post", "good"], help="default: all")
    parser.add_argument("--rate", type=int, default=500, help="requests/s; default 500")
    parser.add_argument("--runs", type=int, default=5, help="of each bad release; default 5")
    parser.add_argument("--history", type=float, default=5, help="seconds of load before the first flip; default 5")
    parser.add_argument("--releases", type=int, default=100, help="good ones in a row; default 100")
    parser.add_argument("--usual", type=float, nargs="+", default=[0.1, 1.0], help="%% of failures of good ones; default 0.1 1")
    parser.add_argument("--window", type=int, default=2, help="of a good one's watch in seconds; default 2")
    parser.add_argument("--strict", action="store_true", help="the bars on POSTs and time count as well")
    parser.add_argument("--bin", default="target/release/cutover", help="default target/release/cutover")
    return parser.parse_args()


def main():
    options = parse()
    options.bin = os.path.abspath(options.bin)
    if not os.access(options.bin, os.X_OK):
        sys.exit(f"{options.bin} is not there; build it with `cargo build --release`")
    multiprocessing.set_start_method("fork")
    what = options.what or ["get", "post", "good"]
    print(f"{options.rate} requests/s from {CLIENTS} clients; bad releases {options.runs} times each")
    missed = []
    for method in ("GET", "POST"):
        if method.lower() in what:
            missed += show_bad(options, method)
    if "good" in what:
        for usual in options.usual:
            missed += show_good(options, usual / 100)
    for one in missed:
        print(f"missed: {one}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
