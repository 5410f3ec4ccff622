"""The ledger's statements, read once from ``sql/queries.sql``, by their names."""

from __future__ import annotations

import re
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def _load() -> Mapping[str, str]:
    text = resources.files("relay.ledger").joinpath("sql/queries.sql").read_text("utf-8")
    parts = _HEAD.split(text)[1:]
    return MappingProxyType(
        {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}
    )


SQL = _load()
