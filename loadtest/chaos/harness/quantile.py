"""Quantiles of what was measured."""

from collections.abc import Sequence


def quantile(values: Sequence[float], part: float) -> float:
    """The value that so great a part of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
