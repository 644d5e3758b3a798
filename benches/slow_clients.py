#!/usr/bin/env python3
"""What slow clients cost the others: p99 of honest requests beside thousands of slow clients and without them, in one run,
and what memory the proxy takes for each.

A quarter of the slow ones sends a head byte by byte, a quarter a body, a quarter asks for 4 MiB and reads a few bytes at a time, and
a quarter asks nothing. Whoever is ended comes again at once. They come from many addresses of 127.0.0.0/8. The honest ones ask
at a fixed rate on kept connections. cutover is alone on core 0, everything else shares core 1.

Exits 1 when an honest request failed, and with --strict also when their p99 grew by more than half.
"""

import argparse
import contextlib
import errno
import heapq
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import flips

CLIENTS, RATE = 16, 1000
TURN_SECONDS = 5
RATIO_MAX = 1.5
HEAD = b"GET / HTTP/1.1\r\nHost: app\r\nX-Slow: "
BODY = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: app\r\n\r\n"


class Slow:
    """One slow client. It does something once in TURN_SECONDS."""

    def __init__(self, number, port):
        self.kind, self.port = ("head", "body", "reader", "idle")[number % 4], port
        self.address = f"127.{1 + number % 200}.{number // 200 % 200}.1"
        self.socket = None

    def open(self):
        self.socket = socket.socket()
        if self.kind == "reader":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # The port is only chosen when the other end is known: 127.x has enough for each.
        self.socket.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        self.socket.bind((self.address, 0))
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", self.port))
        self.socket.setblocking(False)
        self.socket.send({"head": HEAD, "body": BODY, "reader": LARGE, "idle": b""}[self.kind] or b"\r\n")

    def act(self):
        """Whether it was ended, and has come again."""
        try:
            if self.kind in ("head", "body"):
                self.socket.send(b"x")
            if self.kind == "reader":
                if self.socket.recv(512) == b"":
                    raise ConnectionResetError
            elif self.socket.recv(4096) == b"":
                raise ConnectionResetError
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (None, errno.ECONNRESET, errno.EPIPE):
                raise
            self.socket.close()
            self.open()
            return True
        return False


class Crowd:
    """Slow clients, each taking its turn, in a thread of their own until they are sent home."""

    def __init__(self, port, count):
        self.slow = [Slow(number, port) for number in range(count)]
        for one in self.slow:
            one.open()
        self.ended, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        # They share a core with the honest clients, whose time is measured: whoever is slow anyway can wait.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        now = time.monotonic()
        turns = [(now + random.random() * TURN_SECONDS, number) for number in range(len(self.slow))]
        heapq.heapify(turns)
        while not self.over.wait(max(0.005, turns[0][0] - time.monotonic())):
            while turns[0][0] <= time.monotonic():
                at, number = turns[0]
                self.ended += self.slow[number].act()
                heapq.heapreplace(turns, (at + TURN_SECONDS, number))

    def go_home(self):
        self.over.set()
        self.thread.join()
        for one in self.slow:
            one.socket.close()


def start_upstream(folder, port):
    """Answers at once, and has one large file."""
    (folder / "large").write_bytes(os.urandom(4 << 20))
    paths = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(f"""
        {"user root;" if os.geteuid() == 0 else ""} daemon off; worker_processes 1; worker_rlimit_nofile 20000;
        pid {folder}/nginx.pid; error_log {folder}/nginx.err;
        events {{ worker_connections 20000; multi_accept on; }}
        http {{
            access_log off; keepalive_requests 1000000000; keepalive_timeout 600; client_body_timeout 600;
            send_timeout 600; client_max_body_size 0; {paths}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location = /large {{ root {folder}; }}
                location = /readyz {{ return 200; }}
                location / {{ proxy_pass http://unix:{folder}/sink; proxy_request_buffering off; }}
            }}
            server {{ listen unix:{folder}/sink; location / {{ return 200 "ok"; }} }}
        }}""")
    return flips.start(folder, "nginx", flips.LOAD_CORE, [shutil.which("nginx", path=flips.PATH), "-c", str(config)])


def honest(folder, port, seconds):
    """p99 in microseconds, requests, and those that failed."""
    # Not beside the config, whose folder is watched.
    log = folder / "load" / "honest.tsv"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    command = ["taskset", "-c", flips.LOAD_CORE, shutil.which("h2load"), "--h1", f"-c{CLIENTS}", f"-D{seconds}"]
    command += [f"--rps={RATE / CLIENTS:g}", f"--log-file={log}", f"http://127.0.0.1:{port}/fast"]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", output)
    taken = [line.split("\t") for line in log.read_text().splitlines()]
    times = sorted(int(taken) for _, status, taken in taken if status == "200")
    if len(times) < 100:
        sys.exit(f"hardly any answer:\n{output}")
    return times[len(times) * 99 // 100], len(times), max(map(int, failed.groups()))


def rounds(folder, port, options):
    return [honest(folder, port, options.seconds) for _ in range(options.rounds)]


def measure(folder, proxy, port, options):
    honest(folder, port, 2)  # warms up
    calm, before = rounds(folder, port, options), flips.resident_kib(proxy.pid)
    crowd = Crowd(port, options.clients)
    try:
        time.sleep(TURN_SECONDS)  # each has had its turn
        crowded, ended = rounds(folder, port, options), crowd.ended
        beside = flips.resident_kib(proxy.pid)
    finally:
        crowd.go_home()
    time.sleep(2)
    calm += rounds(folder, port, options)
    return calm, crowded, ended, before, beside


def show(calm, crowded, ended, before, beside, options):
    print(f"{options.clients} slow clients; {RATE} honest requests a second from {CLIENTS}; medians of the rounds of {options.seconds} s")
    print(f"{'':<16}{'rounds':>7}{'requests':>10}{'failed':>8}{'p99 us':>9}")
    for name, all_rounds in (("without", calm), ("beside them", crowded)):
        p99 = statistics.median(p99 for p99, _, _ in all_rounds)
        requests, failed = (sum(one[at] for one in all_rounds) for at in (1, 2))
        print(f"{name:<16}{len(all_rounds):>7}{requests:>10}{failed:>8}{p99:>9.0f}")
    ratio = statistics.median(one[0] for one in crowded) / statistics.median(one[0] for one in calm)
    print(f"ratio           p99 beside them / without {ratio:.2f}")
    each = (beside - before) / options.clients
    print(f"memory          {before} KiB without, {beside} KiB beside them: {each:.1f} KiB for each slow client")
    print(f"ended           {ended} slow clients were ended, and came again")
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000, help="slow ones; default 10000")
    parser.add_argument("--seconds", type=int, default=5, help="of one round; default 5")
    parser.add_argument("--rounds", type=int, default=4, help="beside the slow clients; as many before and after; default 4")
    parser.add_argument("--strict", action="store_true", help=f"exit 1 when p99 grew by more than {RATIO_MAX}")
    parser.add_argument("--bin", default="target/release/cutover", help="default target/release/cutover")
    options = parser.parse_args()
    flips.need(("nginx", "h2load", "taskset"), options.bin)
    os.sched_setaffinity(0, {int(flips.LOAD_CORE)})
    listen, admin_port, upstream, nobody = (flips.free_port() for _ in range(4))
    with tempfile.TemporaryDirectory(prefix="cutover-slow.") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for process in start(folder, options, listen, admin_port, upstream, nobody):
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            proxy = process
        flips.Admin(admin_port).wait_ready(awaited=("blue",))
        figures = measure(folder, proxy, listen, options)
    ratio = show(*figures, options)
    failed = sum(failed for _, _, failed in (*figures[0], *figures[1]))
    sys.exit(1 if failed or (options.strict and ratio > RATIO_MAX) else 0)


def start(folder, options, listen, admin_port, upstream, nobody):
    yield start_upstream(folder, upstream)
    binary = os.path.abspath(options.bin)
    yield flips.start_cutover(folder, binary, listen, admin_port, (upstream, nobody), 1)


if __name__ == "__main__":
    main()
