#!/usr/bin/env python3
"""What a deploy costs, good and bad: failed GETs under 200 requests a second, and the time from the command to the flip.

cutover stands before two Compose projects on this machine's own Docker engine; the releases are the sample app in images
FROM scratch (tests/images/build.sh), one good, one slow to start, and one of each kind of bad. Blue runs a good one, and each
release is deployed in turn while the load goes on. In recreate the proxy
holds the requests of the gap: the slowest one says how long that was.

Exits 1 when a deploy ended otherwise than its release deserves, or cost a request.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENTS, READY_SECONDS = 8, 20
# tag, SAMPLE_BEHAVIOR, strategy, the exit code it deserves
RELEASES = [
    ("good-2", "good", "blue-green", 0),
    ("slow-start", "slow-start", "blue-green", 0),
    ("never-ready", "never-ready", "blue-green", 3),
    ("wrong-version", "wrong-version", "blue-green", 3),
    ("crash-loop", "crash-loop", "blue-green", 3),
    ("fail-after-start", "fail-after-start", "blue-green", 4),
    ("good-3", "good", "blue-green", 0),
    ("good-2", "good", "recreate", 0),
    ("never-ready", "never-ready", "recreate", 4),
    ("wrong-version", "wrong-version", "recreate", 4),
    ("crash-loop", "crash-loop", "recreate", 4),
]
COMPOSE = """services:
  api:
    image: cutover-bench:${IMAGE_TAG}
    restart: unless-stopped
    ports: ["127.0.0.1:${HOST_PORT}:8000"]
    stop_grace_period: 5s
    healthcheck:
      test: ["CMD", "/cutover", "sample-app", "probe", "http://127.0.0.1:8000/readyz"]
      interval: 1s
      start_period: 30s
"""
CONFIG = """[proxy]
listen = ["127.0.0.1:{proxy}"]
[admin]
listen = "127.0.0.1:{admin}"
[service.app]
blue = {{ env_file = "deploy/.env.blue" }}
green = {{ env_file = "deploy/.env.green" }}
[service.app.health]
interval = "200ms"
[service.app.watch]
window = "{window}s"
[service.app.deploy]
ready_timeout = "8s"
[service.app.deploy.migrate]
command = []
"""


class Load:
    """Steady GETs on kept connections, counted."""

    def __init__(self, port, per_second):
        self.port, self.pause = port, CLIENTS / per_second
        self.over, self.lock = threading.Event(), threading.Lock()
        self.answered = self.failed = 0
        self.slowest = 0.0
        self.threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def run(self):
        connection, due = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), time.monotonic()
        while not self.over.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                is_good = answer.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()
                is_good = False
            with self.lock:
                self.answered += 1
                self.failed += not is_good
                self.slowest = max(self.slowest, time.monotonic() - began)
            due = max(due + self.pause, time.monotonic() - 1)
            self.over.wait(max(0, due - time.monotonic()))

    def take(self):
        with self.lock:
            taken = (self.answered, self.failed, self.slowest)
            self.answered = self.failed = 0
            self.slowest = 0.0
        return taken

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def build_images(folder):
    subprocess.run(["bash", ROOT / "tests/images/build.sh"], check=True, stderr=subprocess.DEVNULL)
    for tag, behavior in {("good-1", "good"), *((tag, behavior) for tag, behavior, _, _ in RELEASES)}:
        text = f"FROM cutover-sample:base\nENV SAMPLE_RELEASE={tag} SAMPLE_BEHAVIOR={behavior}\n"
        (folder / "Dockerfile").write_text(text)
        docker(folder, "build", "--quiet", "--tag", f"cutover-bench:{tag}", ".")


def docker(folder, *args):
    subprocess.run(["docker", *args], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until_ready(admin):
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
            connection.request("GET", "/v1/status")
            status = json.load(connection.getresponse())
            if status["services"]["app"]["colors"]["blue"]["ready"]:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("blue never became ready")


def deploy(binary, folder, tag, strategy):
    """The exit code, the seconds from the command to the flip, and those of them until the containers were healthy."""
    command = [binary, "deploy", "--json", "--image-tag", tag, "--strategy", strategy]
    ran = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    seconds = {}
    for line in ran.stdout.splitlines():
        event = json.loads(line)
        if event["event"] == "done":
            seconds[event["step"]] = event["seconds"]
    if "flip" not in seconds:
        return ran.returncode, None, None
    before = [value for step, value in seconds.items() if step not in ("watch", "drain", "retire")]
    return ran.returncode, sum(before), seconds["healthy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "target/release/cutover", type=Path)
    parser.add_argument("--rate", default=200, type=int, help="requests a second")
    parser.add_argument("--window", default=5, type=int, help="watch.window in seconds")
    options = parser.parse_args()
    binary = options.bin.resolve()
    folder = Path(tempfile.mkdtemp(prefix="cutover-bench-"))
    project = f"cutover-bench-{os.getpid()}"
    proxy, admin = free_port(), free_port()
    process = load = None
    held = True
    try:
        build_images(folder)
        (folder / "deploy").mkdir()
        (folder / "deploy/docker-compose.yml").write_text(COMPOSE)
        for color in ("blue", "green"):
            text = f"COMPOSE_PROJECT_NAME={project}-{color}\nHOST_PORT={free_port()}\nIMAGE_TAG=good-1\n"
            (folder / f"deploy/.env.{color}").write_text(text)
        (folder / "cutover.toml").write_text(CONFIG.format(proxy=proxy, admin=admin, window=options.window))
        docker(folder, "compose", "-f", "deploy/docker-compose.yml", "--env-file", "deploy/.env.blue", "up", "--detach")
        with open(folder / "log", "w", encoding="utf-8") as log:
            process = subprocess.Popen([binary, "serve"], cwd=folder, stdout=log, stderr=log)
        until_ready(admin)
        load = Load(proxy, options.rate)
        time.sleep(1)
        load.take()
        print(f"{'release':17} {'strategy':11} {'exit':>4} {'GETs':>6} {'failed':>6} {'slowest':>8}  to the flip, of that until healthy")
        for tag, _, strategy, deserved in RELEASES:
            code, flip, healthy = deploy(binary, folder, tag, strategy)
            answered, failed, slowest = load.take()
            times = "-" if flip is None else f"{flip:.1f} s, {healthy:.1f} s"
            print(f"{tag:17} {strategy:11} {code:4} {answered:6} {failed:6} {slowest * 1000:6.0f}ms  {times}", flush=True)
            held = held and code == deserved and failed == 0
    finally:
        if load:
            load.end()
        if process:
            process.terminate()
            process.wait()
        for color in ("blue", "green"):
            down = ["docker", "compose", "-p", f"{project}-{color}", "down", "--timeout", "0"]
            subprocess.run(down, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
