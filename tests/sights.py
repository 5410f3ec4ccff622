"""What offices see of everything that was sent: their status files, their folders and their bytes, over SFTP.

Looking changes nothing: what is read here is never closed, so it does not count as collected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import raw_sftp as sftp
from abort_judge import Row, Sight
from raw_sftp import Long, RawSftp

_BLOCK_BYTES = 200_000


async def look(raw: RawSftp, known: Mapping[str, str] | None = None) -> Sight:
    """Return what the office of *raw* sees; bytes whose digest is *known* by name are not read again."""
    received, sent = await _rows(raw, "received", "sender"), await _rows(raw, "sent", "recipient")
    new, receive, done = [
        frozenset(await raw.list(f"/{folder}")) - {".", ".."} for folder in ("new", "receive", "done")
    ]
    read = dict(known or {})
    for folder, names in (("receive", receive), ("done", done)):
        for name in names - read.keys():
            content = await peek(raw, f"/{folder}/{name}")
            if content is not None:
                read[name] = hashlib.sha256(content).hexdigest()
    return Sight(received, sent, new, receive, done, read)


async def look_at_status(raw: RawSftp) -> Sight:
    """Return what the status files tell, without a look at folders and bytes."""
    return Sight(await _rows(raw, "received", "sender"), await _rows(raw, "sent", "recipient"))


async def _rows(raw: RawSftp, topic: str, other: str) -> tuple[Row, ...]:
    content = await peek(raw, f"/status/{topic}.json")
    assert content is not None, f"status/{topic}.json cannot be read"
    return tuple(Row(row[other], row["name"], row["state"], row["sha256"]) for row in json.loads(content)[topic])


async def peek(raw: RawSftp, path: str) -> bytes | None:
    """Read a file and leave it open; None where it cannot be read."""
    opened = await raw.call(sftp.OPEN, path, sftp.READING, sftp.Raw(sftp.NO_ATTRIBUTES))
    if opened.type != sftp.HANDLE:
        return None
    data = bytearray()
    while (reply := await raw.call(sftp.READ, opened.handle, Long(len(data)), _BLOCK_BYTES)).type == sftp.DATA:
        data += reply.data
    return bytes(data) if reply.code == sftp.EOF else None
