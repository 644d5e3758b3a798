"""How sure a ratio of two costs is.

On a shared machine the cost of a request wanders by tens of percent within seconds, and both sides of a comparison
wander together when they take turns quickly enough. So each ratio is taken within one block of slices, the median of
these ratios is the figure, and a percentile bootstrap says how far another run of the same length might have it.
"""

import dataclasses
import random
import statistics

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A median, and the bounds that 95 of 100 resampled medians are within."""

    median: float
    low: float
    high: float

    def __str__(self):
        return f"{self.median:.3f} [{self.low:.3f} to {self.high:.3f}]"

    def __format__(self, spec):
        return format(str(self), spec)


def paired_ratios(ours, theirs):
    """Block by block; both took one slice in each."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def bootstrap(groups, seed=1, resamples=RESAMPLES):
    """The interval of the median of all values. Values of one group were measured on the same processes.

    Two processes of one binary differ from each other for as long as they live, by where their memory happens to lie.
    More slices of the same two processes do not average that out, so groups are drawn first, then values within each.
    """
    draw = random.Random(seed).choices
    medians = sorted(
        statistics.median(value for group in draw(groups, k=len(groups)) for value in draw(group, k=len(group)))
        for _ in range(resamples)
    )
    outside = round(resamples * (1 - CONFIDENCE) / 2)
    middle = statistics.median(value for group in groups for value in group)
    return Interval(middle, medians[outside], medians[-1 - outside])
