#!/usr/bin/env python3
"""Upgrades in place under load: how many requests fail, how many connections are refused? (bars: 0 and 0)

    python3 benches/upgrade.py                    # 20 upgrades at 2,000 requests/s
    python3 benches/upgrade.py --upgrades 3 --rate 500

Half of the requests come on kept connections, half each on a connection of its own. A client that is told to close does
so, and asks again on a new connection, as every HTTP client must; nothing is tried again otherwise.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
KEPT = 32


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Upstream(asyncio.Protocol):
    """Answers each head with the same few bytes."""

    def connection_made(self, transport):
        self.transport, self.rest = transport, b""

    def data_received(self, data):
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            _, self.rest = self.rest.split(b"\r\n\r\n", 1)
            self.transport.write(ANSWER)


class Tally:
    def __init__(self):
        self.answered, self.failed, self.refused, self.told_to_close = 0, 0, 0, 0
        self.whys, self.slowest = {}, 0.0

    def fail(self, error):
        if isinstance(error, ConnectionRefusedError):
            self.refused += 1
        self.failed += 1
        why = f"{type(error).__name__}: {error}"
        self.whys[why] = self.whys.get(why, 0) + 1


async def exchange(reader, writer, tally):
    """One request; whether the connection may be used again."""
    began = time.monotonic()
    writer.write(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(3)
    if not head.startswith(b"HTTP/1.1 200") or body != b"ok\n":
        raise ValueError(f"answered {head.splitlines()[0]!r}")
    tally.answered += 1
    tally.slowest = max(tally.slowest, time.monotonic() - began)
    closes = b"connection: close" in head.lower()
    tally.told_to_close += closes
    return not closes


async def kept(port, every, tally, stop):
    connection, due = None, time.monotonic()
    while not stop.is_set():
        due += every
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        try:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port)
            if not await exchange(*connection, tally):
                connection[1].close()
                connection = None
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            tally.fail(error)
            connection = None


async def fresh(port, every, tally, stop):
    due = time.monotonic()
    while not stop.is_set():
        due += every
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await exchange(reader, writer, tally)
            writer.close()
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            tally.fail(error)


def status(admin):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/v1/status", timeout=10) as answer:
        return json.load(answer)


def wait_for(what, holds, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.02)
    sys.exit(f"waited {seconds} s in vain: {what}")


def upgrade(binary, folder):
    began = time.monotonic()
    done = subprocess.run([binary, "--json", "upgrade"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"not upgraded: {done.stdout}{done.stderr}")
    return json.loads(done.stdout), time.monotonic() - began


async def run(args, folder):
    loop = asyncio.get_running_loop()
    upstream = await loop.create_server(Upstream, "127.0.0.1", 0)
    app, port, admin = upstream.sockets[0].getsockname()[1], free_port(), free_port()
    (folder / "cutover.toml").write_text(
        f"[proxy]\nlisten = ['127.0.0.1:{port}']\n[admin]\nlisten = '127.0.0.1:{admin}'\n"
        f"[state]\ndir = 'state'\nledger = 'releases.log'\n[service.app]\nblue = {app}\ngreen = {free_port()}\n"
    )
    binary = str(Path(args.bin).resolve())
    log = open(folder / "log", "w")
    first = subprocess.Popen([binary, "serve"], cwd=folder, stderr=log)
    serving = first.pid
    tally, stop = Tally(), asyncio.Event()
    try:
        in_thread = asyncio.to_thread
        await in_thread(wait_for, "it serves", lambda: status(admin)["services"]["app"]["colors"]["blue"]["ready"])
        every = KEPT * 2 / args.rate
        clients = [loop.create_task(of(port, every, tally, stop)) for of in (kept, fresh) for _ in range(KEPT)]
        await asyncio.sleep(1)
        began, took = time.monotonic(), []
        for _ in range(args.upgrades):
            upgraded, seconds = await in_thread(upgrade, binary, folder)
            serving = upgraded["to_pid"]
            took.append(seconds)
            old = upgraded["from_pid"]
            gone = lambda: first.poll() is not None if old == first.pid else not Path(f"/proc/{old}").exists()
            await in_thread(wait_for, "the old process ends", gone, 60)
        elapsed = time.monotonic() - began
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*clients)
    finally:
        # Only what was started here, by its id.
        try:
            os.kill(serving, signal.SIGTERM)
        except ProcessLookupError:
            pass
        first.poll()
    took.sort()
    print(f"{args.upgrades} upgrades in {elapsed:.1f} s, each {took[len(took) // 2]:.2f} s (median) until the new process served")
    print(f"{tally.answered} answered ({tally.answered / (elapsed + 2):.0f}/s), slowest {tally.slowest * 1000:.0f} ms, "
          f"{tally.told_to_close} told to close")
    print(f"failed requests: {tally.failed} (bar 0), refused connections: {tally.refused} (bar 0)")
    for why, count in tally.whys.items():
        print(f"  {count} x {why}")
    return 1 if tally.failed or tally.refused or not tally.answered else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release/cutover")
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--rate", type=int, default=2000, help="requests a second")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(asyncio.run(run(args, Path(folder))))


if __name__ == "__main__":
    main()
