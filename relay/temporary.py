"""Temporary names: what clients call a file while they upload it, before they rename it (CLIENTS.md, sections 1 and 3).

A file under such a name is routed nowhere; the RENAME to its final name is the commit point.  Pure.
"""

from __future__ import annotations

import re

# WinSCP; rclone from 1.63 on, whose eight characters were any letters at first; many others; lftp
# (xfer:use-temp-file).  In any case.
_SUFFIX = re.compile(r"\.(?:filepart|[0-9a-z]{8}\.partial|partial|part|tmp)\Z", re.IGNORECASE)
_PREFIX = re.compile(r"\.in\.(?P<name>.+)", re.IGNORECASE | re.DOTALL)
# gvfs: such a name does not hold the final one, which is judged at the RENAME.
_NAMELESS = re.compile(r"\.giosave[A-Za-z0-9]{6}")
# rclone makes room for its suffix by cutting a name of more bytes than this.
_CUT_BEHIND_BYTES = 100
_RCLONE = re.compile(r".+\.[0-9a-z]{8}\.partial", re.IGNORECASE | re.DOTALL)


def is_temporary(name: str) -> bool:
    """True where a file of that *name* waits for its RENAME."""
    return _NAMELESS.fullmatch(name) is not None or strip_temporary(name) is not None


def strip_temporary(name: str) -> str | None:
    """Return the final name that the temporary *name* holds, None where it is not temporary or holds none."""
    # Behind the first character: a suffix alone holds none.
    suffix = _SUFFIX.search(name, 1)
    if suffix is not None:
        return name[: suffix.start()]
    prefixed = _PREFIX.fullmatch(name)
    return None if prefixed is None else prefixed["name"]


def may_be_cut(name: str) -> bool:
    """True where the temporary *name* may hold only the beginning of the final one: it is judged at the RENAME."""
    return len(name.encode()) > _CUT_BEHIND_BYTES and _RCLONE.fullmatch(name) is not None
