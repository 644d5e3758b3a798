"""Short slices of load, one proxy at a time, in random order."""

import dataclasses
import sys
import time

from paired.stage import cpu_ns, family

WARM_SECONDS = 0.5
WARM_REQUESTS = 100
WARM_SECONDS_MAX = 20
REQUESTS_MIN, SLICE_SECONDS_MAX = 20, 20
QUIET_SECONDS, QUIET_SECONDS_MAX = 0.004, 0.2


@dataclasses.dataclass
class Slice:
    """What one proxy did in one slice."""

    cpu_us: float  # per request
    requests_per_second: float


class Lane:
    """One proxy and its load, stopped except in its slices."""

    def __init__(self, stage, label, proxy, load):
        self.stage, self.label, self.proxy, self.load = stage, label, proxy, load
        self.warm()

    def warm(self):
        """Makes the connections, and stops."""
        before, begun = self.stage.requests_so_far(), time.monotonic()
        while self.stage.requests_so_far() - before < WARM_REQUESTS or time.monotonic() < begun + WARM_SECONDS:
            time.sleep(0.05)
            if self.load.process.poll() is not None or time.monotonic() > begun + WARM_SECONDS_MAX:
                sys.exit(f"no answers came from {self.label}:\n{self.load.kill()}")
        self.load.pause()
        self.processes = family(self.proxy.process.pid)

    def take(self, seconds):
        """One slice; it is longer when too little happens in it. What the proxy still does for it after it ended
        belongs to it."""
        requests, cpu = self.stage.requests_so_far(), cpu_ns(self.processes)
        begun = time.monotonic()
        self.load.resume()
        time.sleep(seconds)
        while self.stage.requests_so_far() - requests < REQUESTS_MIN:
            if time.monotonic() > begun + SLICE_SECONDS_MAX:
                sys.exit(f"{self.label} answered less than {REQUESTS_MIN} requests in {SLICE_SECONDS_MAX} s")
            time.sleep(seconds)
        self.load.pause()
        elapsed = time.monotonic() - begun
        self.wait_until_quiet()
        requests, cpu = self.stage.requests_so_far() - requests, cpu_ns(self.processes) - cpu
        return Slice(cpu / requests / 1e3, requests / elapsed)

    def wait_until_quiet(self):
        until, before = time.monotonic() + QUIET_SECONDS_MAX, -1
        while (now := cpu_ns(self.processes)) != before and time.monotonic() < until:
            before = now
            time.sleep(QUIET_SECONDS)


def take_turns(lanes, blocks, seconds, random):
    """{label: slices}; each block has one slice of each lane, in an order of its own."""
    slices = {lane.label: [] for lane in lanes}
    for _ in range(blocks):
        for lane in random.sample(lanes, len(lanes)):
            slices[lane.label].append(lane.take(seconds))
    return slices
