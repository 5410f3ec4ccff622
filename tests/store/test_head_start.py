"""The disk begins to write what a checkpoint copies, and the checkpoint is as it would be without."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
from ledgers import open_shop, plan_name

from relay.ledger import headstart
from relay.ledger.commit import Writer
from relay.ledger.headstart import HeadStart
from relay.ledger.trail import WritingConnection

PATIENCE_SECONDS = 60


class Disk:
    """Stands in for the call to the system; says when it was told to begin, and with which file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.files: set[str] = set()
        monkeypatch.setattr(headstart, "_find_call", lambda: self.begin)

    def begin(self, file: int) -> None:
        """Be told to begin."""
        self.files.add(str(Path(f"/proc/self/fd/{file}").readlink()))
        self.begun.set()


def test_disk_is_told_to_begin_while_something_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the store's own file, each time anew, and no more once it is over."""
    disk, store = Disk(monkeypatch), tmp_path / "relay.db"
    store.write_bytes(b"")
    head_start = HeadStart(store)
    for _ in range(2):
        disk.begun.clear()
        with head_start.given():
            assert disk.begun.wait(PATIENCE_SECONDS)
    head_start.close()
    disk.begun.clear()
    assert not disk.begun.wait(10 * headstart._EVERY_SECONDS)
    assert disk.files == {str(store)}


def test_system_knows_the_call(tmp_path: Path) -> None:
    """It takes a file, and says of something else that it is none."""
    call = headstart._find_call()
    assert call is not None
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(100_000))
        assert call(file.fileno()) == 0
    reading, writing = os.pipe()
    assert call(reading) == -1
    os.close(reading)
    os.close(writing)


class NoThread(ThreadPoolExecutor):
    """Has no thread to give."""

    def submit(self, *_: object, **__: object) -> NoReturn:  # type: ignore[override]
        """Give none."""
        raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("lack", ["nothing", "call", "file", "thread"])
async def test_log_is_folded_with_a_head_start_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """No such call in the C library, no descriptor to be had, or no thread: what is asked for is done all the same."""
    asked: list[HeadStart] = []
    folded: list[bool] = []
    ask, fold = HeadStart._go_ahead, Writer._checkpoint_now

    def note_asked(self: HeadStart, is_over: threading.Event) -> None:
        asked.append(self)
        ask(self, is_over)

    def note_folded(self: Writer, connection: WritingConnection, mode: str) -> bool:
        folded.append(fold(self, connection, mode))
        return folded[-1]

    monkeypatch.setattr(HeadStart, "_go_ahead", note_asked)
    monkeypatch.setattr(Writer, "_checkpoint_now", note_folded)
    if lack == "call":
        monkeypatch.setattr(headstart, "_find_call", lambda: None)
    if lack == "file":
        monkeypatch.setattr(headstart, "open_for_good", lambda *_: os.close(-1))
    if lack == "thread":
        monkeypatch.setattr(headstart, "ThreadPoolExecutor", NoThread)
    shop = await open_shop(tmp_path, checkpoint_bytes=1)
    contents = [bytes([65 + number]) * 5_000 for number in range(3)]
    async with shop.ledger:
        sent = [await shop.send(content, plan_name(number)) for number, content in enumerate(contents)]
        assert [await shop.content(each.id) for each in sent] == contents
    # A reader may keep one of them from the log's end.
    assert any(folded)
    assert bool(asked) is (lack != "thread")
