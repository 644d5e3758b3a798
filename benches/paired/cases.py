"""What is compared, and under which load."""

import contextlib
import dataclasses
import json
import math
import random
import sys
import urllib.request

from paired.load import H2load, Wrk
from paired.memory import idle_connections
from paired.proxies import BETTER_OF
from paired.results import Results, goal_reached
from paired.slices import Lane, take_turns

MANY_SERVICES = 1000
FEW_CONNECTIONS, MANY_CONNECTIONS = 64, 4000
PAST_SECONDS = 3
UPLOAD = "/upload"


@dataclasses.dataclass(frozen=True)
class Work:
    """One kind of load; `goal` is ours, as a share of the better peer."""

    name: str
    what: str
    goal: float = None
    path: str = "/"
    connections: int = 64
    headers: tuple = ()
    upload_bytes: int = 0
    tls: bool = False
    h2: bool = False
    # Where few requests are in a slice, those that are cut at its ends must not matter.
    slice_times: int = 1

    def is_long(self):
        """Bodies that a proxy may move without looking at them."""
        return not self.tls and (self.path in ("/64k", "/1m") or self.upload_bytes > 1 << 20)


CLOSE = ("Connection: close",)
WORKS = [
    Work("small-1", "answers of 2 bytes, 1 kept connection", goal=0.78, connections=1),
    Work("small-8", "answers of 2 bytes, 8 kept connections", goal=0.78, connections=8),
    Work("small", "answers of 2 bytes, 64 kept connections", goal=0.78),
    Work("small-1000", "answers of 2 bytes, 1,000 kept connections", goal=0.80, connections=1000, slice_times=3),
    Work("64k", "answers of 64 KiB, 64 kept connections", goal=0.60, path="/64k"),
    Work("1m", "answers of 1 MiB, 16 kept connections", goal=0.35, path="/1m", connections=16, slice_times=2),
    Work("post", "bodies of 16 KiB, 64 kept connections", goal=0.65, path=UPLOAD, upload_bytes=16 << 10),
    Work(
        "upload", "bodies of 10 MB, 4 kept connections", goal=0.5, path=UPLOAD, upload_bytes=10_000_000, connections=4,
        slice_times=4,
    ),
    Work("close", "a new connection for every request", goal=0.78, headers=CLOSE),
    Work("tls", "small, over TLS 1.3", goal=0.75, tls=True),
    Work("tls-1m", "1m, over TLS 1.3", goal=0.6, path="/1m", connections=16, tls=True, slice_times=2),
    Work("handshake", "a new connection and a full TLS handshake for every request", headers=CLOSE, tls=True),
    Work("h2", "small, over HTTP/2 and TLS 1.3, 8 kept connections with 16 requests each at once", goal=0.70,
         connections=8, tls=True, h2=True),
]
SMALL = next(work for work in WORKS if work.name == "small")


class Bench:
    """The options of a run, and what its cases have in common."""

    def __init__(self, stage, proxies, options):
        self.stage, self.proxies, self.options = stage, proxies, options
        self.random = random.Random(options.seed)
        self.failed = False

    def contenders(self, work):
        """Those that can do this work, the floor first."""
        unable = {"floor"} if work.tls else set()
        unable |= set() if work.is_long() else {"haproxy-splice"}
        return [name for name in self.options.who if name not in unable]

    def lane(self, label, proxy, work, service=0):
        """A proxy under its load."""
        load = H2load(self.stage, proxy, work) if work.h2 else Wrk(self.stage, proxy, work, service)
        return Lane(self.stage, label, proxy, load)

    def measure(self, work, start, before_end=lambda lanes: None):
        """`start(held)` starts proxies and returns their lanes; what it enters into `held` ends with them. They are
        started anew some times."""
        results = Results(work)
        seconds = self.options.slice_ms / 1000 * work.slice_times
        blocks = math.ceil(self.options.seconds / seconds / self.options.starts)
        for turn in range(self.options.starts):
            with contextlib.ExitStack() as held:
                lanes = start(held)
                results.add(take_turns(lanes, blocks, seconds, self.random))
                for lane in lanes:
                    results.fail(lane.label, lane.load.end())
                if self.options.latency and turn == 0:
                    results.latencies = {lane.label: self.latencies(lane, work) for lane in lanes}
                before_end(lanes)
            self.stage.end(process for lane in lanes for process in (lane.proxy.process, lane.load.process))
        self.failed |= any(label.startswith("cutover") for label in results.failures)
        return results

    def show_change(self, results, ours, base):
        """How one build stands to another, and whether that is surely within the limit."""
        interval = results.show_ratio(ours, base)
        if self.options.at_most and interval.high > self.options.at_most:
            print(f"       it may be more than {self.options.at_most}")
            self.failed = True

    def latencies(self, lane, work):
        """Of a load without pauses."""
        load = (H2load if work.h2 else Wrk)(self.stage, lane.proxy, work, seconds=self.options.latency)
        return load.latencies()


def compare(bench, work):
    """All proxies on the same load."""
    contenders = bench.contenders(work)
    results = bench.measure(work, lambda _: [bench.lane(name, bench.proxies.start(name), work) for name in contenders])
    results.show("cutover")
    if "base" in contenders:
        bench.show_change(results, "cutover", "base")
    peers = [name for name in contenders if name in BETTER_OF]
    if peers:
        better = min(peers, key=lambda name: results.median(name, "cpu_us"))
        reached = goal_reached(results.ratio("cutover", better), work.goal) if work.goal else None
        results.show_ratio("cutover", better, f", the better peer; goal {work.goal:.2f}: {reached}" if reached else "")


def compare_services(bench):
    """The cost of looking a service up: each proxy with one and with many."""
    work = dataclasses.replace(SMALL, name="services", what="small, with 1 service and with 1,000 services")
    names = [name for name in bench.options.who if name in ("nginx", "haproxy", "cutover", "base")]
    for name in names:
        one, many = f"{name}, 1 service", f"{name}, {MANY_SERVICES} services"
        results = bench.measure(work, lambda _: [
            bench.lane(one, bench.proxies.start(name), work),
            bench.lane(many, bench.proxies.start(name, MANY_SERVICES), work, MANY_SERVICES // 2),
        ])
        results.show()
        results.show_ratio(many, one)


def compare_connections(bench):
    """The cost of many clients: each proxy with few connections, with many that are idle but for as few, and with many
    at work."""
    few, many = FEW_CONNECTIONS, MANY_CONNECTIONS
    what = f"small, with {few} connections, and with {many} of which {few} or all are at work"
    work = dataclasses.replace(SMALL, name="connections", what=what, slice_times=3)
    crowd = dataclasses.replace(work, connections=many)
    for name in bench.contenders(work):
        labels = [f"{name}, {at_work} of {of}" for at_work, of in ((few, few), (few, many), (many, many))]

        def start(held):
            calm, idle, busy = (bench.proxies.start(name) for _ in labels)
            held.enter_context(idle_connections(idle, many - few))
            return [bench.lane(*each) for each in zip(labels, (calm, idle, busy), (work, work, crowd))]

        results = bench.measure(work, start)
        results.show()
        for label in labels[1:]:
            results.show_ratio(label, labels[0])


def compare_watch(bench):
    """What it costs a request that its end is counted for the watch: instances of the same binary."""
    what = "small, with the watch off and within an open one; cutover alone"
    work = dataclasses.replace(SMALL, name="watch", what=what)
    builds = [name for name in bench.options.who if name in ("cutover", "base")]

    def start(_):
        lanes = []
        for name in builds:
            lanes.append(bench.lane(f"{name}, watch off", bench.proxies.start(name, window="0s"), work))
            proxy = bench.proxies.start(name, window="1h")
            lanes.append(bench.lane(f"{name}, within a watch", proxy, work))
            # Without a past, slowness is not judged, and the watch would be cheaper than it is.
            lanes[-1].take(PAST_SECONDS)
            ask(proxy, "/v1/services/s0/flip", {"to": "green", "by": "bench"})
        return lanes

    def still_open(lanes):
        for lane in lanes[1::2]:
            service = ask(lane.proxy, "/v1/status")["services"]["s0"]
            if service["active"] != "green" or not service.get("watch"):
                sys.exit(f"the watch of {lane.label} did not stay open: {service['summary']}")

    results = bench.measure(work, start, still_open)
    results.show()
    for name in builds:
        results.show_ratio(f"{name}, within a watch", f"{name}, watch off")
    if "base" in builds:
        bench.show_change(results, "cutover, within a watch", "base, within a watch")


def ask(proxy, path, body=None):
    """The admin API's answer; with a body, it is a POST."""
    url, data = f"http://127.0.0.1:{proxy.admin_port}{path}", body and json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
