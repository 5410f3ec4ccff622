"""A file that should not have been sent: taken back, too late, or while it is being read."""

from __future__ import annotations

import json

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, general_name, pdf, plan_csv, plan_name, run_program
from raw_sftp import NO_ATTRIBUTES, Long, Raw, RawSftp, open_raw

from relay.lifecycle import State
from relay.model import EventKind

FREE = "提供票 山田花子.pdf"


async def rename(raw: RawSftp, source: str, target: str, *, posix: bool = False) -> sftp.Reply:
    """Ask for a RENAME, or for OpenSSH's posix-rename."""
    if posix:
        return await raw.call(sftp.EXTENDED, "posix-rename@openssh.com", source, target)
    return await raw.call(sftp.RENAME, source, target)


async def told(raw: RawSftp, topic: str) -> list[dict[str, object]]:
    """Return the rows of a status file."""
    rows: list[dict[str, object]] = json.loads(await raw.get(f"/status/{topic}.json"))[topic]
    return rows


def shown(names: list[str]) -> list[str]:
    """Return what a person sees of a directory."""
    return [name for name in names if name not in (".", "..") and not name.startswith("宛先")]


@pytest.mark.parametrize("posix", [False, True], ids=["RENAME", "posix-rename"])
@pytest.mark.parametrize("name", [plan_name(), f"{HOME_HELP}/{FREE}"], ids=["top", "address folder"])
async def test_what_was_taken_back_is_gone_and_both_are_told(house: House, name: str, posix: bool) -> None:  # noqa: FBT001
    """It leaves the recipient's folders at once; recall/ lists it with its size and time; both status files say so."""
    content = plan_csv() if name == plan_name() else pdf()
    plain = name.rpartition("/")[2]
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{name}", content)).code == sftp.OK
        before = (await ours.call(sftp.STAT, f"/send/{name}")).rest
        assert len(shown(await theirs.list("/new"))) == 1
        assert (await rename(ours, f"/send/{name}", f"/recall/{plain}", posix=posix)).code == sftp.OK
        assert shown(await theirs.list("/new")) == shown(await theirs.list("/receive")) == []
        assert plain not in await ours.list("/send")
        assert (await ours.call(sftp.STAT, f"/send/{name}")).code == sftp.NO_SUCH_FILE
        assert shown(await ours.list("/recall")) == [plain]
        kept = await ours.call(sftp.STAT, f"/recall/{plain}")
        assert (kept.size, kept.rest) == (len(content), before)
        refused = await ours.call(sftp.OPEN, f"/recall/{plain}", sftp.READING, Raw(NO_ATTRIBUTES))
        assert refused.text.startswith("transfer.recalled: ")
        (sent,), (received,) = await told(ours, "sent"), await told(theirs, "received")
    assert (sent["state"], sent["name"], received["state"]) == ("recalled", plain, "recalled")
    assert sent["ended_at"] is not None
    # What waits for nothing rides with a later transaction, where the other session has another worker.
    riding = (EventKind.LISTED, EventKind.LOGIN)
    told_of = [event.kind for event in house.events() if event.kind not in riding]
    assert told_of[-2:] == [EventKind.ACCEPTED, EventKind.RECALLED]
    assert "取消済み" in run_program(["cat", str(await fetch_status(house))]).stdout
    assert house.journal_lines("transfer.recalled")[0]["transfer"] == sent["number"]


async def fetch_status(house: House) -> object:
    """Fetch sent.csv with asyncssh's client."""
    async with house.connect() as caller:
        await caller.sftp.get("status/sent.csv", str(house.path / "sent.csv"))
    return house.path / "sent.csv"


async def test_after_collection_it_is_too_late_and_the_time_is_said(house: House) -> None:
    """The move is refused with the time of collection, and nothing changed."""
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        assert await theirs.get(f"/new/{plan_name()}") == plan_csv()
        refused = await rename(ours, f"/send/{plan_name()}", f"/recall/{plan_name()}")
        assert refused.text.startswith("transfer.already_collected: ")
        assert "JST" in refused.text
        assert await theirs.get(f"/receive/{plan_name()}") == plan_csv()
        assert shown(await ours.list("/recall")) == []
    assert [transfer.state for transfer in house.transfers()] == [State.COLLECTED]


@pytest.mark.parametrize("size", [5_000, 9_000_000])
async def test_who_reads_while_it_is_taken_back_is_told_at_the_close(house: House, size: int) -> None:
    """The recall wins over a CLOSE behind it: the reader is refused in words, and it was not collected."""
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv(size))).code == sftp.OK
        handle = await theirs.open(f"/new/{plan_name()}", sftp.READING)
        at, length = 0, plan_csv_length(house)
        while at < min(length, 5_000):
            at += len((await theirs.call(sftp.READ, handle, Long(at), 200_000)).data)
        assert (await rename(ours, f"/send/{plan_name()}", f"/recall/{plan_name()}")).code == sftp.OK
        if size > 1_000_000:
            gone = await theirs.call(sftp.READ, handle, Long(length - 1_000), 1_000)
            assert gone.text.startswith("transfer.recalled: ")
        closed = await theirs.call(sftp.CLOSE, handle)
        assert closed.text.startswith("transfer.recalled: ")
        assert (await theirs.call(sftp.REMOVE, f"/new/{plan_name()}")).code == sftp.NO_SUCH_FILE
    assert [transfer.state for transfer in house.transfers()] == [State.RECALLED]


def plan_csv_length(house: House) -> int:
    """Return the size of the one transfer."""
    (transfer,) = house.transfers()
    return transfer.size_bytes


async def test_who_closes_first_has_it(house: House) -> None:
    """The CLOSE wins over a recall behind it: the sender is refused, and nobody is told both."""
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        handle = await theirs.open(f"/new/{plan_name()}", sftp.READING)
        await theirs.call(sftp.READ, handle, Long(0), 200_000)
        closing = theirs.ask(sftp.CLOSE, handle)
        recalling = ours.ask(sftp.RENAME, f"/send/{plan_name()}", f"/recall/{plan_name()}")
        closed, recalled = await theirs.reply_to(closing), await ours.reply_to(recalling)
    (transfer,) = house.transfers()
    assert (closed.code == sftp.OK) is (transfer.state is State.COLLECTED)
    assert (recalled.code == sftp.OK) is (transfer.state is State.RECALLED)
    assert (closed.code == sftp.OK) is not (recalled.code == sftp.OK)


async def test_taken_back_while_the_last_bytes_are_on_their_way_it_was_not_collected(house: House) -> None:
    """The recipient has asked for everything and closed, but not taken the bytes: the recall wins, and it is told."""
    name = general_name("txt")
    # A window that holds the first reply and not the second.
    async with (
        house.dial() as one,
        house.dial(HOME_HELP) as two,
        open_raw(one) as ours,
        open_raw(two, window=300_000) as theirs,
    ):
        assert (await ours.put(f"/send/{name}", bytes(500_000))).code == sftp.OK
        handle = await theirs.open(f"/new/{name}", sftp.READING)
        theirs.channel.pause_reading()
        asked = [theirs.ask(sftp.READ, handle, Long(at), 250_000) for at in (0, 250_000)]
        closing = theirs.ask(sftp.CLOSE, handle)
        assert (await rename(ours, f"/send/{name}", f"/recall/{name}")).code == sftp.OK
        theirs.channel.resume_reading()
        replies = [await theirs.reply_to(number) for number in asked]
        assert all(reply.type == sftp.DATA or reply.text.startswith("transfer.recalled: ") for reply in replies)
        # Who got no byte, because the recall came before what he asked for, was told so and has nothing to delete.
        has_some = any(reply.type == sftp.DATA for reply in replies)
        assert (await theirs.reply_to(closing)).text.startswith("transfer.recalled: " if has_some else "")
        assert name not in await theirs.list("/new")
    assert [transfer.state for transfer in house.transfers()] == [State.RECALLED]


async def test_a_recall_may_be_repeated_and_the_name_used_again(house: House) -> None:
    """A lost reply costs nothing; what is sent afterwards, the same bytes or others, is a new transfer."""
    path = f"/send/{plan_name()}"
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(path, plan_csv())).code == sftp.OK
        for target in (f"/recall/{plan_name()}", f"/recall/{plan_name().lower()}", "/recall", "/recall/"):
            assert (await rename(ours, path, target)).code == sftp.OK, target
        assert (await ours.put(path, plan_csv(9_000))).code == sftp.OK
        assert await theirs.get(f"/new/{plan_name()}") == plan_csv(9_000)
        assert (await rename(ours, path, "/recall")).text.startswith("transfer.already_collected")
        assert shown(await ours.list("/recall")) == [plan_name()]
    assert [transfer.state for transfer in house.transfers()] == [State.COLLECTED, State.RECALLED]


async def test_each_name_stands_once_in_recall(house: House) -> None:
    """Two of one name, to two offices: the directory shows the one that was taken back last."""
    async with house.dial() as one, open_raw(one) as ours:
        for office, size in ((HOME_HELP, 5_000), (DAY_CARE, 8_000)):
            assert (await ours.put(f"/send/{office}/{FREE}", pdf(size))).code == sftp.OK
            assert (await rename(ours, f"/send/{office}/{FREE}", f"/recall/{FREE}")).code == sftp.OK
        assert shown(await ours.list("/recall")) == [FREE]
        assert (await ours.call(sftp.STAT, f"/recall/{FREE.upper()}")).size == len(pdf(8_000))
    assert {transfer.state for transfer in house.transfers()} == {State.RECALLED}


async def test_nothing_else_takes_back(house: House) -> None:
    """REMOVE is refused and names recall/; another name, another office's file, an upload under way cannot be moved."""
    other = general_name("txt", number=1)
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        removed = await ours.call(sftp.REMOVE, f"/send/{plan_name()}")
        assert removed.text.startswith("transfer.accepted: ")
        assert "recall/" in removed.text
        moved = await rename(ours, f"/send/{plan_name()}", "/recall/other.csv")
        assert moved.text.startswith("tree.no_rename: ")
        assert (await rename(theirs, f"/send/{plan_name()}", "/recall")).code == sftp.NO_SUCH_FILE
        assert (await rename(theirs, f"/new/{plan_name()}", f"/recall/{plan_name()}")).code == sftp.FAILURE
        assert (await rename(ours, f"/send/{other}", "/recall")).code == sftp.NO_SUCH_FILE
        handle = await ours.open(f"/send/{other}")
        await ours.call(sftp.WRITE, handle, Long(0), b"text")
        assert (await rename(ours, f"/send/{other}", "/recall")).text.startswith("tree.no_rename: ")
        assert (await ours.call(sftp.CLOSE, handle)).code == sftp.OK
        assert (await ours.call(sftp.REMOVE, "/recall/x")).code == sftp.NO_SUCH_FILE
        assert len(shown(await theirs.list("/new"))) == 2


def test_the_real_sftp_takes_back(house: House) -> None:
    """`rename` of OpenSSH's program, which sends posix-rename, takes back; too late, it prints the sentence."""
    (house.path / plan_name()).write_bytes(plan_csv())
    (house.path / plan_name(number=1)).write_bytes(plan_csv())
    done = house.sftp(
        CARE_MANAGER,
        f"put {plan_name()} send/\nrename send/{plan_name()} recall/{plan_name()}\nls -l recall\n"
        f"put {plan_name(number=1)} send/\n",
    )
    assert done.returncode == 0, done.stderr
    assert f" {plan_name()}" in done.stdout
    fetched = house.sftp(HOME_HELP, "ls new\nget new/* .\n")
    assert plan_name() not in fetched.stdout
    late = house.sftp(CARE_MANAGER, f"rename send/{plan_name(number=1)} recall/{plan_name(number=1)}\n")
    assert late.returncode == 1
    assert "transfer.already_collected: " in late.stderr
