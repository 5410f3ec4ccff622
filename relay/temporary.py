"""Temporary names: what clients call a file while they upload it, before they rename it (CLIENTS.md, sections 1 and 3).

A file under such a name is routed nowhere; the RENAME to its final name is the commit point.  Pure.
"""

from __future__ import annotations

import re

# WinSCP; rclone from 1.63 on; many others; lftp (xfer:use-temp-file).  In any case.
_SUFFIX = re.compile(
    r"(?P<name>.+)(?:\.filepart|\.[0-9a-f]{8}\.partial|\.partial|\.part|\.tmp)", re.IGNORECASE | re.DOTALL
)
_PREFIX = re.compile(r"\.in\.(?P<name>.+)", re.IGNORECASE | re.DOTALL)
# gvfs: such a name does not hold the final one, which is judged at the RENAME.
_NAMELESS = re.compile(r"\.giosave[A-Za-z0-9]{6}")


def is_temporary(name: str) -> bool:
    """True where a file of that *name* waits for its RENAME."""
    return _NAMELESS.fullmatch(name) is not None or strip_temporary(name) is not None


def strip_temporary(name: str) -> str | None:
    """Return the final name that the temporary *name* holds, None where it is not temporary or holds none."""
    match = _SUFFIX.fullmatch(name) or _PREFIX.fullmatch(name)
    return None if match is None else match["name"]
