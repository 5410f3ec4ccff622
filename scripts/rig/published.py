"""Where figures are kept: pages for people and raw JSON in ``tests/figures/``, and what has a target in README.md.

Whatever stands there was written by a command, which stands beside it and writes it again.
"""

from collections.abc import Sequence
from pathlib import Path

from rig.figures import Figure, write_markdown

CHECKOUT = Path(__file__).resolve().parents[2]
FIGURES = CHECKOUT / "tests" / "figures"
README = CHECKOUT / "README.md"
BEGIN, END = "<!-- figures: written by ./scripts/bench --publish -->\n", "<!-- end of the figures -->\n"


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
