"""What a store that fails says: to clients by a code, to its operator once, with what to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from relay.errors import Deferred
from relay.ledger.doubt import GapError
from relay.ledger.storefile import LockedDeferred
from relay.ledger.trouble import Ill, Trouble, TroubleLog, diagnose

STORE = Path("/srv/relay/relay.db")


def sqlite_error(code: int, extension: int = 3) -> sqlite3.OperationalError:
    """Return what SQLite raises with that result code, here an extended one of it."""
    error = sqlite3.OperationalError("as SQLite says")
    error.sqlite_errorcode = code | extension << 8
    return error


@pytest.mark.parametrize(
    ("error", "ill", "code"),
    [
        (sqlite_error(13), Ill.FULL, "server.storage_full"),
        (OSError(errno.ENOSPC, "full"), Ill.FULL, "server.storage_full"),
        (OSError(errno.EDQUOT, "quota"), Ill.FULL, "server.storage_full"),
        (sqlite_error(11), Ill.DAMAGED, "server.storage_damaged"),
        (sqlite_error(26), Ill.DAMAGED, "server.storage_damaged"),
        (sqlite_error(5), Ill.LOCKED, "server.busy"),
        (sqlite_error(6), Ill.LOCKED, "server.busy"),
        (LockedDeferred("server.busy", detail="locked"), Ill.LOCKED, "server.busy"),
        (sqlite_error(7), Ill.NO_MEMORY, "server.busy"),
        (MemoryError(), Ill.NO_MEMORY, "server.busy"),
        (sqlite_error(14), Ill.UNREACHABLE, "server.busy"),
        (sqlite_error(8), Ill.DISK, "server.busy"),
        (sqlite_error(10), Ill.DISK, "server.busy"),
        (sqlite_error(10, 4), Ill.FORGETFUL, "server.busy"),
        (sqlite_error(10, 5), Ill.FORGETFUL, "server.busy"),
        (GapError("some of it is gone"), Ill.GAP, "server.busy"),
        (OSError(errno.EIO, "no"), Ill.DISK, "server.busy"),
        (Deferred("server.busy", detail="no such key"), Ill.OTHER, "server.busy"),
    ],
)
def test_every_failure_has_its_code_and_its_advice(error: Exception, ill: Ill, code: str) -> None:
    """What it suffers from decides what the client is told and what the operator is to do."""
    trouble = diagnose(error)
    assert trouble is not None
    assert (trouble.ill, trouble.deferred.code) == (ill, code)
    advice = trouble.advise(STORE)
    assert "{" not in advice
    assert advice.endswith(".")


@pytest.mark.parametrize("error", [sqlite3.IntegrityError("twice"), sqlite3.ProgrammingError("slip"), KeyError("x")])
def test_a_defect_of_ours_is_no_trouble_of_the_store(error: Exception) -> None:
    """It is told as a defect by whoever meets it."""
    assert diagnose(error) is None


def test_trouble_of_two_is_told_once_and_over_when_both_are_well() -> None:
    """The first one's begin and the last one's end."""
    heard: list[str | None] = []
    log = TroubleLog(STORE, heard.append)
    log.works("writer")
    log.failed("writer", Trouble("full", Ill.FULL))
    log.failed("reader", Trouble("slow", Ill.DISK))
    log.works("writer")
    assert len(heard) == 1
    assert "full. Free some of the disk of /srv/relay," in (heard[0] or "")
    log.works("reader")
    assert heard[1:] == [None]


def test_damage_is_told_once_and_nothing_says_that_all_is_well() -> None:
    """A page that is broken stays so, though everything else goes on, fails and goes on again."""
    heard: list[str | None] = []
    log = TroubleLog(STORE, heard.append)
    for _ in range(3):
        log.failed("reader", Trouble("malformed", Ill.DAMAGED))
        log.works("writer")
        log.works("reader")
    assert len(heard) == 1
    assert "`relay restore FILE`" in (heard[0] or "")
    log.failed("writer", Trouble("full", Ill.FULL))
    log.works("writer")
    assert len(heard) == 2
    assert "full" in (heard[1] or "")


def test_a_gap_is_told_behind_the_failure_that_made_it() -> None:
    """What is to be done is another thing than was said at first; it is said once, until all is well again."""
    heard: list[str | None] = []
    log = TroubleLog(STORE, heard.append)
    for _ in range(2):
        log.failed("writer", Trouble("a sync failed", Ill.FORGETFUL))
        log.failed("writer", Trouble("some is gone", Ill.GAP))
        log.failed("writer", Trouble("some is gone", Ill.GAP))
        log.works("writer")
    first, second, over = heard[:3]
    assert "replace it" in (first or "")
    assert "start it again" in (second or "")
    assert over is None
    assert heard[3:] == [first, second, None]
