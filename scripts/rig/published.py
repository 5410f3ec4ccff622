"""Where figures are kept: pages for people and raw JSON in ``tests/figures/``, and what has a target in README.md.

Whatever stands there was written by a command, which stands beside it and writes it again.  A bench of some workloads takes
the place of what was published of these, and leaves the others' figures with the command and the day that they are of.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rig.figures import Figure, as_json, describe_figures, read_figures, write_markdown

CHECKOUT = Path(__file__).resolve().parents[2]
FIGURES = CHECKOUT / "tests" / "figures"
README = CHECKOUT / "README.md"
BEGIN, END = "<!-- figures: written by ./scripts/bench --publish -->\n", "<!-- end of the figures -->\n"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the bench: what it found, the sentence that says where and when, and all that it told as JSON."""

    source: str
    figures: Sequence[Figure]
    told: Mapping[str, Any]

    def describe(self) -> str:
        """Say of which workloads its figures are, and where they come from."""
        letters = dict.fromkeys(figure.workload.partition(" ")[0] for figure in self.figures)
        return f"{' '.join(f'({letter})' for letter in letters)}: {self.source}"


def read_runs() -> list[Run]:
    """Return the runs whose figures are published, the oldest first."""
    file = FIGURES / "bench.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return [Run(run["source"], read_figures(run["figures"]), run) for run in told.get("runs", [])]


def add_run(runs: Sequence[Run], latest: Run) -> list[Run]:
    """Put *latest* behind *runs*, which lose the workloads that it measured anew."""
    anew = {figure.workload for figure in latest.figures}
    left = [replace(run, figures=[each for each in run.figures if each.workload not in anew]) for run in runs]
    return [*(run for run in left if run.figures), latest]


def write_runs(runs: Sequence[Run]) -> tuple[str, str]:
    """Write the page of all *runs*, and their JSON."""
    page = "\n\n".join(f"{run.describe()}\n\n{write_markdown(run.figures)}" for run in runs)
    told = [{**run.told, "source": run.source, "figures": describe_figures(run.figures)} for run in runs]
    return page, as_json({"runs": told})


def publish(name: str, title: str, page: str, raw: str) -> Path:
    """Write *name*.md and *name*.json, and return where the page is."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    head = f"# {title}\n\nWritten by the command below, which writes it again. Raw: [{name}.json]({name}.json).\n\n"
    (FIGURES / f"{name}.md").write_text(f"{head}{page}\n", encoding="utf-8")
    (FIGURES / f"{name}.json").write_text(f"{raw}\n", encoding="utf-8")
    return FIGURES / f"{name}.md"


def show_in_readme(text: str, figures: Sequence[Figure], sentences: Sequence[str]) -> str:
    """Return the text of README.md with the lines that have a target between its marks; ValueError where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md has lost the marks between which the figures stand")
    judged = [figure for figure in figures if figure.verdict]
    others = [path.name for path in sorted(FIGURES.glob("*.md"))] if FIGURES.exists() else []
    links = ", ".join(f"[{name}](tests/figures/{name})" for name in others)
    more = [f"All that was measured: {links}."] if links else []
    block = "\n\n".join([*sentences, write_markdown(judged), *more])
    return f"{before}{BEGIN}{block}\n{END}{after}"
