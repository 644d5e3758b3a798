#!/usr/bin/env python3
"""A long run at full load with flips and reloads: failed requests, and the memory of the proxy over time.

The same stage as flips.py: cutover alone on core 0, two nginx as colors and wrk on core 1. Every 10 s traffic is flipped, every
30 s the config is changed and HUP is sent. Exits 1 when a request failed, a flip was refused, or memory in the second
half of the time grew by more than a tenth.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flips

FLIP_SECONDS, RELOAD_SECONDS, LOAD_SECONDS = 10, 30, 60
GROWTH_MAX = 1.1


def start_load(port, seconds, connections):
    command = ["taskset", "-c", flips.LOAD_CORE, shutil.which("wrk", path=flips.PATH), "-t1", f"-c{connections}"]
    # A machine that is busy with other things is no failure of the proxy; wrk's default is 2 s.
    command += [f"-d{seconds}s", "--timeout", "10s", f"http://127.0.0.1:{port}/"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def count(output):
    """Requests, and those that failed."""
    total = re.search(r"(\d+) requests in", output)
    if not total:
        sys.exit(f"wrk got no answer:\n{output}")
    not_2xx = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    return int(total[1]), (int(not_2xx[1]) if not_2xx else 0) + (sum(map(int, errors.groups())) if errors else 0)


def reload(folder, proxy, turn):
    """Another time-out each time: a reload that finds nothing changed would prove little."""
    config = folder / "cutover.toml"
    text = re.sub(r"\[service\.app\.drain\]\ntimeout = .*\n", "", config.read_text())
    config.write_text(f'{text}[service.app.drain]\ntimeout = "{30 + turn % 10}s"\n')
    proxy.send_signal(signal.SIGHUP)


def soak(folder, proxy, admin, listen, options):
    flipper, memory, requests, failed, turns = flips.Flipper(admin), [], 0, 0, 0
    began = time.monotonic()
    seconds = options.minutes * 60
    while (elapsed := time.monotonic() - began) < seconds:
        load = start_load(listen, min(LOAD_SECONDS, max(10, round(seconds - elapsed))), options.connections)
        while load.poll() is None:
            now = time.monotonic() - began
            if now >= (turns + 1) * FLIP_SECONDS:
                turns += 1
                admin.connection.close()  # the one before is idle for longer than the API keeps it
                flipper.flip_for(1, 1)
                if turns % (RELOAD_SECONDS // FLIP_SECONDS) == 0:
                    reload(folder, proxy, turns)
                memory.append((now, flips.resident_kib(proxy.pid)))
            time.sleep(0.1)
        of_load = count(load.communicate()[0])
        requests, failed = requests + of_load[0], failed + of_load[1]
        print(f"  {requests} requests, {failed} failed, {memory[-1][1] if memory else 0} KiB", file=sys.stderr)
    return requests, failed, turns, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="default 20")
    parser.add_argument("--connections", type=int, default=64, help="that wrk keeps busy; default 64")
    parser.add_argument("--bin", default="target/release/cutover", help="default target/release/cutover")
    options = parser.parse_args()
    flips.need(("nginx", "wrk", "taskset"), options.bin)
    listen, admin_port, *ports = (flips.free_port() for _ in range(4))
    processes = []
    with tempfile.TemporaryDirectory(prefix="cutover-soak.") as name:
        folder = Path(name)
        try:
            for color, port in zip(flips.COLORS, ports):
                processes.append(flips.start_upstream(folder, color, port))
            proxy = flips.start_cutover(folder, os.path.abspath(options.bin), listen, admin_port, ports, 1)
            processes.append(proxy)
            admin = flips.Admin(admin_port)
            admin.wait_ready()
            requests, failed, turns, memory = soak(folder, proxy, admin, listen, options)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
    print(f"{options.minutes:g} minutes on {options.connections} connections, {turns} flips, {turns // 3} reloads")
    print(f"failed          {failed} of {requests} requests")
    tenths = [memory[min(len(memory) - 1, len(memory) * at // 10)][1] for at in range(11)] if memory else [0]
    print("memory KiB      " + "  ".join(map(str, tenths)))
    half = [kib for _, kib in memory[len(memory) // 2 :]]
    growth = max(half[len(half) // 2 :], default=1) / max(half[: max(1, len(half) // 2)], default=1)
    print(f"growth          {growth:.2f} from the third quarter to the fourth")
    sys.exit(1 if failed or growth > GROWTH_MAX else 0)


if __name__ == "__main__":
    main()
