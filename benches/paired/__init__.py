"""The parts of side_by_side.py: proxies that take turns under load in short slices, and what their ratios say."""
