"""Quantiles of a list of latencies."""

from collections.abc import Sequence
from math import ceil


def quantile(sorted_values: Sequence[float], part: float) -> float:
    """The smallest value that `part` of all values do not exceed (nearest rank: always one that was
    measured). The values must be sorted, and one at least."""
    return sorted_values[max(0, ceil(part * len(sorted_values)) - 1)]
