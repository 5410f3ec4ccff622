"""Service type codes (サービス種類コード) and what they belong to (standard, section 8).

``services.csv`` is the table.  It says what exists, never what an office may send: no rule judges a direction by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from relay.standard.tables import read_table

# Each code with its scope: care, preventive, general, outside (of the standard) or management.
SERVICE_SCOPES: Mapping[str, str] = MappingProxyType(
    {code: row["scope"] for row in read_table("services") for code in row["codes"].split()}
)

# 居宅介護支援 43 and 介護予防支援 46: who plans, not who provides.
CARE_MANAGEMENT: frozenset[str] = frozenset(code for code, scope in SERVICE_SCOPES.items() if scope == "management")
