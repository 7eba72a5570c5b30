"""Quantiles of measured values."""

from collections.abc import Sequence
from math import ceil


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` of all values do not exceed; 0 if there are none.

    This is the nearest-rank quantile: the result is always one of the values.
    """
    if not values:
        return 0.0
    return sorted(values)[max(0, ceil(part * len(values)) - 1)]
