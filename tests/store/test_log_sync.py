"""The log of the store is brought onto the disk beside the writing, and promises nothing by that."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from relay.ledger.logsync import _AHEAD_BYTES, LogSync

HALF = _AHEAD_BYTES // 2


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synced from here on, by this process itself."""
    paths: list[str] = []
    sync = os.fdatasync

    def note(file: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        sync(file)

    monkeypatch.setattr(os, "fdatasync", note)
    return paths


def test_log_is_synced_once_enough_lies_in_it_that_nobody_synced(tmp_path: Path, synced: list[str]) -> None:
    """What a durable commit has synced is not counted, and a small file's chunks alone sync nothing."""
    log = tmp_path / "relay.db-wal"
    log.write_bytes(b"frames")
    ahead = LogSync(log)
    ahead.committed(HALF, is_durable=False)
    ahead.committed(1, is_durable=True)
    ahead.committed(HALF, is_durable=False)
    assert ahead._running is None
    ahead.committed(HALF, is_durable=False)
    ahead.close()
    assert synced == [str(log)]


def test_log_that_cannot_be_synced_here_is_left_to_the_store(tmp_path: Path, synced: list[str]) -> None:
    """No log, or a disk that fails: nothing is raised, no descriptor stays, and it is tried again later."""
    ahead = LogSync(tmp_path / "relay.db-wal")
    ahead.committed(_AHEAD_BYTES, is_durable=False)
    assert ahead._running is not None
    assert ahead._running.exception(timeout=30) is None
    (tmp_path / "relay.db-wal").write_bytes(b"frames")
    ahead.committed(_AHEAD_BYTES, is_durable=False)
    ahead.close()
    assert len(synced) == 1


def test_a_disk_that_could_not_keep_the_log_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens the log later hears nothing of it from the system; no log to sync is no failure of the disk."""
    log = tmp_path / "relay.db-wal"
    told: list[bool] = []
    monkeypatch.setattr(os, "fdatasync", _fail)
    for is_there, expected in ((False, []), (True, [True])):
        if is_there:
            log.write_bytes(b"frames")
        ahead = LogSync(log, lambda: told.append(True))
        ahead.committed(_AHEAD_BYTES, is_durable=False)
        ahead.close()
        assert told == expected


def _fail(_file: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
