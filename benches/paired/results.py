"""What was measured of each proxy, and how it is shown."""

import statistics

from paired.intervals import bootstrap, paired_ratios


class Results:
    """Slices by label, in one group for each start of the processes."""

    def __init__(self, work):
        self.work = work
        self.groups = {}
        self.failures = {}
        self.latencies = {}

    def add(self, slices):
        """Those of one more start."""
        for label, taken in slices.items():
            self.groups.setdefault(label, []).append(taken)

    def fail(self, label, what):
        """Notes what the load says went wrong."""
        if what:
            self.failures.setdefault(label, []).append(what)

    def median(self, label, field):
        return statistics.median(getattr(slice, field) for group in self.groups[label] for slice in group)

    def ratio(self, ours, theirs):
        """The interval of CPU per request, block by block."""
        cost = lambda label: [[slice.cpu_us for slice in group] for group in self.groups[label]]
        return bootstrap([paired_ratios(a, b) for a, b in zip(cost(ours), cost(theirs))])

    def show(self, ours=None):
        """A line for each label; with `ours`, how that one stands to each."""
        slices = sum(len(group) for group in next(iter(self.groups.values())))
        print(f"\n{self.work.name}: {self.work.what} ({slices} slices each)")
        latency = f"{'p50 us':>10}{'p99 us':>10}" if self.latencies else ""
        print(f"{'':<30}{'us CPU/request':>14}{'requests/s':>12}{latency}" + (f"   {ours} / it" if ours else ""))
        for label in self.groups:
            line = f"  {label:<28}{self.median(label, 'cpu_us'):14.2f}{self.median(label, 'requests_per_second'):12.0f}"
            line += "".join(f"{us:10.0f}" for us in self.latencies.get(label, ()))
            if ours:
                line += f"   {self.ratio(ours, label) if label != ours else '':<26}"
            print("  ".join([line, *self.failures.get(label, ())]).rstrip())

    def show_ratio(self, ours, theirs, remark=""):
        """One line, for a pair that matters."""
        interval = self.ratio(ours, theirs)
        print(f"ratio  {self.work.name}: {ours} / {theirs} {interval} (cpu per request){remark}")
        return interval


def goal_reached(interval, goal):
    """In words. A goal within the interval may be reached or not: measure longer."""
    if interval.high <= goal:
        return "reached"
    return "missed" if interval.low > goal else "open"
