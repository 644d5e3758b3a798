"""What the figures of side_by_side.py rest on."""

import random
import statistics
import unittest

from paired.intervals import bootstrap, paired_ratios
from paired.results import goal_reached


def noisy_pairs(seed, ratio, count=50):
    """Two costs on a machine whose speed wanders by a third within the run, each with a noise of 3 % of its own."""
    noise = random.Random(seed)
    ours, theirs, speed = [], [], 1.0
    for _ in range(count):
        speed = min(max(speed * noise.uniform(0.9, 1.1), 0.75), 1.33)
        ours.append(10 * ratio * speed * noise.gauss(1, 0.03))
        theirs.append(10 * speed * noise.gauss(1, 0.03))
    return ours, theirs


class Intervals(unittest.TestCase):
    def test_pairs_cancel_what_both_share(self):
        self.assertEqual(paired_ratios([1, 20, 3], [2, 40, 6]), [0.5, 0.5, 0.5])

    def test_pairs_must_be_complete(self):
        with self.assertRaises(ValueError):
            paired_ratios([1, 2], [1])

    def test_equal_values_have_an_interval_without_width(self):
        interval = bootstrap([[0.8] * 5])
        self.assertEqual((interval.median, interval.low, interval.high), (0.8, 0.8, 0.8))

    def test_one_seed_gives_one_interval(self):
        values = paired_ratios(*noisy_pairs(7, 1.0))
        self.assertEqual(bootstrap([values], seed=3), bootstrap([values], seed=3))

    def test_one_wild_slice_moves_nothing(self):
        values = [1 + n / 1000 for n in range(-20, 21)]
        tame, wild = bootstrap([values]), bootstrap([[*values[:-1], 50.0]])
        self.assertEqual(tame.median, wild.median)
        self.assertLess(wild.high, 1.02)

    def test_the_truth_is_within_the_interval_about_as_often_as_it_says(self):
        hits = 0
        for seed in range(60):
            interval = bootstrap([paired_ratios(*noisy_pairs(seed, 0.9))], resamples=400)
            hits += interval.low <= 0.9 <= interval.high
        self.assertGreaterEqual(hits, 53)

    def test_more_pairs_narrow_it(self):
        few = bootstrap([paired_ratios(*noisy_pairs(1, 1.0, 20))])
        many = bootstrap([paired_ratios(*noisy_pairs(1, 1.0, 320))])
        self.assertLess(many.high - many.low, (few.high - few.low) / 2)

    def test_starts_that_differ_widen_it_and_more_slices_of_them_do_not_help(self):
        starts = [[1 + shift + n / 10000 for n in range(100)] for shift in (-0.02, 0.0, 0.02)]
        apart, together = bootstrap(starts), bootstrap([sum(starts, [])])
        self.assertEqual(apart.median, together.median)
        self.assertGreater(apart.high - apart.low, together.high - together.low)

    def test_median_is_that_of_all_values(self):
        groups = [[1, 2, 9], [3, 4]]
        self.assertEqual(bootstrap(groups).median, statistics.median([1, 2, 9, 3, 4]))


class Goals(unittest.TestCase):
    def test_a_goal_is_reached_when_all_of_the_interval_is_below_it(self):
        interval = bootstrap([[0.78, 0.80, 0.82]])
        self.assertEqual([goal_reached(interval, goal) for goal in (0.83, 0.80, 0.77)], ["reached", "open", "missed"])


if __name__ == "__main__":
    unittest.main()
