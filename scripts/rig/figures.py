"""Figures of the bench: one line each, with what it is held against, and how all of them are written out.

A figure says which workload it is of, what was measured on the relay and beside it, and, where there is a target, whether
that was met.  Times of two runs are not to be compared; the ratios of one run are.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

_HEADINGS = ("", "workload", "ours", "theirs", "ratio", "target", "")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line.

    *others* are measured alike, the first of them being what *ours* is divided by.  *target* is the most that this
    ratio may be, or *ours* itself where there is nobody beside it; with *is_floor* the least.
    """

    workload: str
    text: str
    unit: str
    ours: float
    others: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    is_floor: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours for one of theirs."""
        first = next(iter(self.others.values()), 0.0)
        return self.ours / first if first else None

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or nothing where there is no target."""
        judged = self.ours if not self.others else self.ratio
        if self.target is None or judged is None:
            return ""
        # As it is shown: a table that says 1.50 ≤ 1.50 and "missed" would puzzle.
        rounded = round(judged, 2)
        return "met" if (rounded >= self.target if self.is_floor else rounded <= self.target) else "missed"

    def cells(self) -> tuple[str, ...]:
        """Return what stands in a table."""
        theirs = ", ".join(f"{name} {_number(value)}" for name, value in self.others.items())
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        sign = "≥" if self.is_floor else "≤"
        target = "" if self.target is None else f"{sign} {self.target:g}" + ("" if self.others else f" {self.unit}")
        return (
            f"({self.workload})",
            self.text,
            f"{_number(self.ours)} {self.unit}",
            theirs,
            ratio,
            target,
            self.verdict,
        )


def show_figures(console: Console, figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table()
    for place, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if place in (0, 1, 3) else "right", no_wrap=place in (0, 2, 4, 5, 6))
    for figure in figures:
        style = {"met": "green", "missed": "red"}.get(figure.verdict)
        *cells, verdict = figure.cells()
        table.add_row(*cells, f"[{style}]{verdict}[/{style}]" if style else "")
    console.print(table)


def write_markdown(figures: Sequence[Figure]) -> str:
    """Write the table for a page."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def describe_figures(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """Return what JSON says of them."""
    return [
        {
            "workload": figure.workload,
            "what": figure.text,
            "unit": figure.unit,
            "ours": figure.ours,
            "theirs": dict(figure.others),
            "ratio": figure.ratio,
            "target": figure.target,
            "target_is": "at least" if figure.is_floor else "at most",
            "verdict": figure.verdict,
        }
        for figure in figures
    ]


def read_figures(described: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """Return the figures that `describe_figures` told of."""
    return [
        Figure(
            each["workload"],
            each["what"],
            each["unit"],
            each["ours"],
            each["theirs"],
            each["target"],
            is_floor=each["target_is"] == "at least",
        )
        for each in described
    ]


def as_json(told: Mapping[str, object]) -> str:
    """Write JSON that a person can read as well."""
    return json.dumps(told, ensure_ascii=False, indent=2)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that *percent* of *values* do not exceed: one that was measured, none made up between two."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _number(value: float) -> str:
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3  # noqa: PLR2004
    return f"{value:,.{digits}f}"
