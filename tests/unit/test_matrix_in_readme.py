from __future__ import annotations

import matrix


def test_readme_shows_the_matrix_as_it_is_declared() -> None:
    """README.md and the cells that the tests try are the same table (`.venv/bin/python tests/matrix.py` writes it)."""
    _, between, _ = matrix.marked(matrix.README.read_text(encoding="utf-8"))
    assert between == matrix.markdown()
