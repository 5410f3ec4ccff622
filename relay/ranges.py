"""Ranges of bytes that were read: as few as say the same, and never more than can be kept.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

# Nobody reads a file in so many separate pieces but to fill somebody's memory.
RANGES_MOST = 1_024


def merge_ranges(ranges: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return *ranges* (start, end) as few as possible, disjoint and ascending; empty ones are dropped."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((start, end) for start, end in ranges if start < end):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def keep_longest(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return *ranges* without the shortest of them where they are too many to keep: those have to be read again."""
    if len(ranges) <= RANGES_MOST:
        return ranges
    return sorted(sorted(ranges, key=lambda each: each[0] - each[1])[:RANGES_MOST])
