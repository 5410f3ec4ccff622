"""Where figures are kept: a page for people, and everything that was measured as JSON."""

from pathlib import Path


def publish(folder: Path, page: str, raw: str) -> None:
    """Write ``bench.md`` and ``bench.json`` into *folder*; the page says that a command made it."""
    folder.mkdir(parents=True, exist_ok=True)
    head = "# Figures of the bench\n\nWritten by the command below; taken again, it writes this page again. Raw: [bench.json](bench.json).\n\n"
    (folder / "bench.md").write_text(f"{head}{page}\n", encoding="utf-8")
    (folder / "bench.json").write_text(f"{raw}\n", encoding="utf-8")
