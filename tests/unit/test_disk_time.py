"""Whether the event loop stands still for the disk: while it is quick, and as soon as it is not no more."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from relay.ledger.disktime import QUICK_SECONDS, DiskTime

QUICK, SLOW = QUICK_SECONDS / 4, 4 * QUICK_SECONDS


@dataclass
class Disk:
    """A disk whose commits take as long as a test says."""

    now: float = 1000.0
    time: DiskTime = field(init=False)

    def __post_init__(self) -> None:
        self.time = DiskTime(lambda: self.now)

    def commit(self, seconds: float, count: int = 1, *, is_synced: bool = True) -> None:
        """Make *count* commits, each of which takes so many seconds."""
        for _ in range(count):
            with self.time.counted(is_synced=is_synced):
                self.now += seconds

    def fail_after(self, seconds: float) -> None:
        """Make a commit that the disk gives up after so many seconds."""
        with self.time.counted(is_synced=True):
            self.now += seconds
            raise OSError("gone")


def commits_until_quick(disk: Disk) -> int:
    """Make quick commits until the disk counts as quick; returns how many."""
    count = 0
    while not disk.time.is_quick:
        disk.commit(QUICK)
        count += 1
    return count


def test_disk_that_nobody_knows_is_slow_until_it_was_quick_for_a_while() -> None:
    """The first commit of a process finds a disk that may be slow; a slow one never counts as quick."""
    assert 2 <= commits_until_quick(Disk()) <= 20
    slow = Disk()
    for _ in range(100):
        assert not slow.time.is_quick
        slow.commit(SLOW)


def test_one_commit_that_was_kept_waiting_changes_nothing() -> None:
    """A busy processor delays one among quick ones by some milliseconds: the disk is as quick as before."""
    disk = Disk()
    disk.commit(QUICK, 100)
    disk.commit(SLOW)
    assert disk.time.is_quick


@pytest.mark.parametrize("seconds", [0.1, 1.0, 30.0])
def test_disk_that_stood_still_is_slow_at_once_and_quick_again_after_some_quick_commits(seconds: float) -> None:
    """However long it stood still, that is one commit of the loop, and forgotten after a few dozen."""
    disk = Disk()
    disk.commit(QUICK, 100)
    disk.commit(seconds)
    assert not disk.time.is_quick
    assert commits_until_quick(disk) <= 30


def test_commit_that_failed_after_a_while_counts() -> None:
    """A disk that answers with an error after half a minute is waited for in that way once."""
    disk = Disk()
    disk.commit(QUICK, 100)
    with pytest.raises(OSError, match="gone"):
        disk.fail_after(30.0)
    assert not disk.time.is_quick


def test_commit_that_does_not_wait_for_the_disk_tells_nothing_about_it() -> None:
    """What is not synced is quick on any disk."""
    disk = Disk()
    disk.commit(QUICK, 100, is_synced=False)
    assert not disk.time.is_quick
