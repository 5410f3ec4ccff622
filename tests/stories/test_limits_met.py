"""An office that meets its limits: what it is told, what the journal says, and that nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

import asyncssh
import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, general_name, plan_csv, plan_name
from raw_sftp import NO_ATTRIBUTES, Long, Raw, open_raw

from relay.model import OfficeNumber

MakeHouse = Callable[..., House]
ATTRIBUTES = Raw(NO_ATTRIBUTES)


def limits_told(house: House) -> list[tuple[str, str, str]]:
    """Return what the journal says of limits: which, for whom, until when."""
    return [(line["limit"], line["scope"], line["until"]) for line in house.journal_lines("limit.reached")]


# --- transfers a minute ------------------------------------------------------------------------------------------


async def test_a_program_that_sends_too_fast_is_slowed_and_loses_nothing(make_house: MakeHouse) -> None:
    """Behind a minute's worth each file waits for its turn; all arrive, and the journal says so once."""
    house = make_house(limits={"transfers_per_minute": 20})
    house.start()
    async with house.dial() as connection, open_raw(connection) as raw:
        puts = [raw.put(f"/send/{plan_name(number=number)}", plan_csv(300)) for number in range(21)]
        assert {reply.code for reply in await asyncio.gather(*puts)} == {sftp.OK}
    assert len(house.transfers()) == 21
    (line,) = house.journal_lines("limit.slowed")
    assert (line["limit"], line["scope"]) == ("transfers_per_minute", CARE_MANAGER)
    assert datetime.fromisoformat(line["until"]).tzinfo is not None
    assert limits_told(house) == []


async def test_who_would_wait_too_long_is_told_when_to_come_again(make_house: MakeHouse) -> None:
    """Beyond what a client waits for a reply: a sentence with the seconds; another office sends as it likes."""
    house = make_house(limits={"transfers_per_minute": 2})
    house.start()
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        for number in range(2):
            assert (await ours.put(f"/send/{plan_name(number=number)}", plan_csv(300))).code == sftp.OK
        for number in range(2, 5):
            refused = await ours.put(f"/send/{plan_name(number=number)}", plan_csv(300))
            assert refused.text.startswith("limit.rate: 続けて送れるのは1分に 2 件までです。")
            assert "try again in " in refused.text
        name = plan_name(HOME_HELP, CARE_MANAGER)
        assert (await theirs.put(f"/send/{name}", plan_csv(300, CARE_MANAGER, HOME_HELP))).code == sftp.OK
        assert await ours.list("/new") == [".", "..", name]
    ((limit, scope, until),) = limits_told(house)
    assert (limit, scope) == ("transfers_per_minute", CARE_MANAGER)
    assert (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds() < 31


# --- unfinished uploads --------------------------------------------------------------------------------------------


async def test_too_many_unfinished_uploads_are_refused_in_words(make_house: MakeHouse) -> None:
    """A new temporary name is one too many; going on with one, finishing one and whole files are not."""
    house = make_house(limits={"partials_per_office": 3})
    house.start()
    names = [plan_name(number=number) for number in range(5)]
    async with house.dial() as connection, open_raw(connection) as raw:
        for name in names[:3]:
            assert (await raw.put(f"/send/{name}.filepart", plan_csv(300))).code == sftp.OK
        refused = await raw.put(f"/send/{names[3]}.filepart", plan_csv(300))
        assert refused.text.startswith("limit.partials: 途中で止まった送信が上限の 3 件あります。")
        assert "finish or remove them first" in refused.text
        assert (await raw.put(f"/send/{names[4]}", plan_csv(300))).code == sftp.OK
        handle = await raw.open(f"/send/{names[0]}.filepart", 0x02)
        more = plan_csv(600)
        assert (await raw.call(sftp.WRITE, handle, Long(300), more[300:])).code == sftp.OK
        assert (await raw.call(sftp.CLOSE, handle)).code == sftp.OK
        assert (await raw.put(f"/send/{names[1]}.filepart", plan_csv(300))).code == sftp.OK
        assert (await raw.call(sftp.RENAME, f"/send/{names[2]}.filepart", f"/send/{names[2]}")).code == sftp.OK
        assert (await raw.put(f"/send/{names[3]}.filepart", plan_csv(300))).code == sftp.OK
    assert {transfer.name for transfer in house.transfers()} == {names[2], names[4]}
    assert limits_told(house) == [
        ("partials_per_office", CARE_MANAGER, "unfinished uploads are finished, removed or a day old")
    ]


async def test_uploads_under_way_under_temporary_names_count_before_they_are_kept(make_house: MakeHouse) -> None:
    """Open handles are partials in the making: opening them all at once gains nothing; another office has its own."""
    house = make_house(limits={"partials_per_office": 3})
    house.start()
    async with house.dial() as connection, open_raw(connection) as raw:
        opened = [await raw.call(sftp.OPEN, f"/send/{plan_name(number=n)}.part", 0x1A, ATTRIBUTES) for n in range(5)]
        assert [reply.type for reply in opened] == [sftp.HANDLE] * 3 + [sftp.STATUS] * 2
        async with house.dial(HOME_HELP) as other, open_raw(other) as theirs:
            await theirs.open(f"/send/{plan_name(HOME_HELP, CARE_MANAGER)}.part")


async def test_what_is_cut_off_beyond_the_number_is_not_kept(make_house: MakeHouse) -> None:
    """Five uploads lose their connection: two are kept, and the journal says why the others were not."""
    house = make_house(limits={"partials_per_office": 2})
    house.start()
    async with house.dial() as connection, open_raw(connection) as raw:
        for number in range(5):
            handle = await raw.open(f"/send/{general_name('txt', number=number)}")
            assert (await raw.call(sftp.WRITE, handle, Long(0), b"x" * 1_000)).code == sftp.OK
    house.wait_for_event("session.closed")
    assert len(house.journal_lines("upload.left")) == 2
    assert {line["reason"].split("; ")[1] for line in house.journal_lines("upload.aborted")} == {
        "not kept: limit.partials"
    }
    async with house.dial() as connection, open_raw(connection) as raw:
        assert len(await raw.list("/send")) == 2 + 2


# --- certificates ----------------------------------------------------------------------------------------------------


async def open_many(raw: sftp.RawSftp, count: int) -> list[sftp.Reply]:
    """Ask for so many handles at once."""
    numbers = [raw.ask(sftp.OPENDIR, "/send") for _ in range(count)]
    return [await raw.reply_to(number) for number in numbers]


async def is_kept_out(house: House, office: OfficeNumber) -> bool:
    """Tell whether the relay ends a further connection of *office* behind its login."""
    try:
        async with house.dial(office) as connection, open_raw(connection):
            return False
    except asyncssh.Error:
        return True


async def test_offices_behind_one_address_do_not_meet_each_others_limits(make_house: MakeHouse) -> None:
    """One office uses up sessions, handles and its turns; the other one, from the same address, has all of its own."""
    house = make_house(
        limits={
            "sessions_per_certificate": 2,
            "handles_per_certificate": 5,
            "transfers_per_minute": 1,
            "unauthenticated_per_network": 1,
            "unauthenticated_total": 1,
        }
    )
    house.start()
    async with contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(house.dial())
        raws = [await stack.enter_async_context(open_raw(ours)) for _ in range(2)]
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await stack.enter_async_context(open_raw(ours))
        assert await is_kept_out(house, CARE_MANAGER)
        replies = [*await open_many(raws[0], 3), *await open_many(raws[1], 4)]
        assert [reply.type for reply in replies] == [sftp.HANDLE] * 5 + [sftp.STATUS] * 2
        assert replies[-1].text.startswith("limit.handles: 一度に送受信できるファイルは 5 個までです")
        assert (await raws[0].call(sftp.CLOSE, replies[0].handle)).code == sftp.OK
        assert (await raws[1].put(f"/send/{plan_name()}", plan_csv(300))).code == sftp.OK
        assert (await raws[1].put(f"/send/{plan_name(number=1)}", plan_csv(300))).text.startswith("limit.rate: ")

        theirs = await stack.enter_async_context(house.dial(HOME_HELP))
        both = [await stack.enter_async_context(open_raw(theirs)) for _ in range(2)]
        assert {reply.type for reply in await open_many(both[0], 4)} == {sftp.HANDLE}
        content = plan_csv(300, CARE_MANAGER, HOME_HELP)
        assert (await both[1].put(f"/send/{plan_name(HOME_HELP, CARE_MANAGER)}", content)).code == sftp.OK
    told = {(limit, scope.split()[0]) for limit, scope, _ in limits_told(house)}
    limits = ("sessions_per_certificate", "handles_per_certificate", "transfers_per_minute")
    assert told == {(limit, CARE_MANAGER) for limit in limits}


async def test_an_offices_other_certificate_has_sessions_and_handles_of_its_own(make_house: MakeHouse) -> None:
    """A program that runs away with one certificate leaves the office's other computer alone."""
    house = make_house(limits={"sessions_per_certificate": 1, "handles_per_certificate": 2})
    house.start()
    second = house.certificate(DAY_CARE, label="front desk")
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_raw(await stack.enter_async_context(house.dial(DAY_CARE))))
        assert [reply.type for reply in await open_many(first, 3)][2] == sftp.STATUS
        assert await is_kept_out(house, DAY_CARE)
        desk = await stack.enter_async_context(house.dial(DAY_CARE, pass_=second))
        raw = await stack.enter_async_context(open_raw(desk))
        assert {reply.type for reply in await open_many(raw, 2)} == {sftp.HANDLE}


async def test_requests_of_a_certificate_wait_and_none_is_refused(make_house: MakeHouse) -> None:
    """With one request at a time for all of its sessions, four sessions get every answer."""
    house = make_house(limits={"requests_per_certificate": 1, "requests_in_flight": 8})
    house.start()
    async with house.dial() as connection, contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(open_raw(connection)) for _ in range(4)]
        names = [[plan_name(number=10 * at + n) for n in range(10)] for at in range(4)]
        puts = [raw.put(f"/send/{name}", plan_csv(300)) for raw, own in zip(raws, names, strict=True) for name in own]
        assert {reply.code for reply in await asyncio.gather(*puts)} == {sftp.OK}
        asked = [[raw.ask(sftp.STAT, f"/send/{name}") for name in own] for raw, own in zip(raws, names, strict=True)]
        for raw, numbers in zip(raws, asked, strict=True):
            assert {(await raw.reply_to(number)).size for number in numbers} == {300}
    assert len(house.transfers()) == 40
    assert limits_told(house) == []


async def test_a_file_that_is_too_large_is_told_as_a_limit_once(make_house: MakeHouse) -> None:
    """Every WRITE behind it is refused in the same words; the journal has one line, and says what would help."""
    house = make_house(limits={"upload_bytes": 1_000})
    house.start()
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{general_name('txt')}")
        for _ in range(5):
            refused = await raw.call(sftp.WRITE, handle, Long(900), b"x" * 200)
            assert refused.text.startswith("limit.size: ")
    assert limits_told(house) == [("upload_bytes", CARE_MANAGER, "the file is smaller")]
