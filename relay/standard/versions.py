"""The editions of the standard, by what item 1 (CSVバージョン) of every record says (standard, section 1).

``versions.csv`` is the table.  A version holds from one service month to another, whenever a file is sent.  Values
that were published and never used, or are long out of date, are not in it and are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from relay.standard.tables import read_table


@dataclass(frozen=True, slots=True)
class Version:
    """One row of ``versions.csv``; months are ``YYYYMM``, *last_month* is empty while the version is in force.

    Files of it have names of the form of *name_form* (``3.2``, ``4.1``) that end with *extension*, and are read by
    *reader* (`relay.standard.readers`).
    """

    value: str
    standard: str
    name_form: str
    extension: str
    reader: str
    first_month: str
    last_month: str
    edition: str

    def holds_in(self, month: str) -> bool:
        """Say whether *month* (``YYYYMM``) is one of this version's service months."""
        # Months have one width, so they compare as text.
        return self.first_month <= month and (not self.last_month or month <= self.last_month)


def _read_versions() -> Mapping[str, Version]:
    versions = (
        Version(
            value=row["version"],
            standard=row["standard"],
            name_form=row["name_form"],
            extension=row["extension"],
            reader=row["reader"],
            first_month=row["first_month"],
            last_month=row["last_month"],
            edition=row["edition"],
        )
        for row in read_table("versions")
    )
    return MappingProxyType({version.value: version for version in versions})


VERSIONS: Mapping[str, Version] = _read_versions()
# Of two for the same names the first one.
_BY_NAME = {(version.name_form, version.extension): version for version in reversed([*VERSIONS.values()])}


def current_version(standard: str) -> Version:
    """Return the version that records of *standard* (``3.2``, ``4.1``) carry; KeyError for any other."""
    for version in VERSIONS.values():
        if version.standard == standard:
            return version
    raise KeyError(standard)


def version_for(name_form: str, extension: str) -> Version | None:
    """Return the version of files whose names have this form and this extension; None where they have no records."""
    return _BY_NAME.get((name_form, extension.lower()))
