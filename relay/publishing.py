"""Files that appear whole and synced, or not at all: keys, certificates and whatever else outlives a power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


def publish_file(path: Path, data: bytes, mode: int, *, overwrite: bool = False) -> bool:
    """Make *path* hold *data*, whole and synced with its directory, or leave nothing behind.

    Without *overwrite* an existing file stays and False is returned, also when it appears at the same moment.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # The umask may have taken more than was asked for, never less: say it again.
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            draft.replace(path)
        else:
            # A link, because a rename would replace what is there.
            os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        sync_path(path.parent)
    return True


def publish_owned(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Publish a private file that belongs to whom its folder belongs to: root may have typed the command."""
    publish_file(path, data, PRIVATE_MODE, overwrite=overwrite)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def sync_path(path: Path) -> None:
    """Bring a file, or the names in a folder, onto stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
