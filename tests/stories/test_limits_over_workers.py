"""A limit is one for all workers: spreading over them gains nothing, and what a dead one had is free again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, HOST, House, general_name, wait_for
from raw_sftp import NO_ATTRIBUTES, Raw, RawSftp, open_raw
from several import Door, Several

from relay.model import OfficeNumber

_LIMITS: dict[str, object] = {
    "sessions_per_certificate": 2,
    "handles_per_certificate": 5,
    "partials_per_office": 1,
    "transfers_per_minute": 2,
    "unauthenticated_per_network": 2,
}


@pytest.fixture(scope="module")
def pair(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """Return a relay of two workers with small limits."""
    house = House.copy(prepared_home, tmp_path_factory.mktemp("limits") / "house", {"limits": _LIMITS})
    several = Several.of(house)
    yield several
    several.close()


async def enter(stack: contextlib.AsyncExitStack, door: Door, office: OfficeNumber) -> RawSftp:
    """Log in at *door* and open SFTP."""
    connection = await stack.enter_async_context(door.dial(office))
    return await stack.enter_async_context(open_raw(connection))


async def is_let_in(door: Door, office: OfficeNumber) -> bool:
    """Tell whether *door* opens for one more session."""
    try:
        async with door.dial(office) as connection, open_raw(connection):
            return True
    except (asyncssh.Error, OSError):
        return False


async def until_let_in(door: Door, office: OfficeNumber) -> None:
    """Wait until *door* opens again."""
    async with asyncio.timeout(sftp.PATIENCE_SECONDS):
        while not await is_let_in(door, office):  # noqa: ASYNC110 - the relay tells nobody of room
            await asyncio.sleep(0.05)


def limits_told(pair: Several) -> Counter[tuple[str, str]]:
    """Return how often the journal tells of which limit of whom."""
    return Counter((line["limit"], line["scope"].split()[0]) for line in pair.journal_lines("limit.reached"))


async def test_sessions_and_handles_of_a_certificate(pair: Several) -> None:
    """A session at each door is all there may be; five handles in both; what one gives back the other may have."""
    here, there = pair.doors
    async with contextlib.AsyncExitStack() as stack:
        ours = await enter(stack, here, CARE_MANAGER)
        async with contextlib.AsyncExitStack() as second:
            theirs = await enter(second, there, CARE_MANAGER)
            assert [await is_let_in(door, CARE_MANAGER) for door in pair.doors] == [False, False]
            assert await is_let_in(here, HOME_HELP)
            opened = [await ours.call(sftp.OPENDIR, "/send") for _ in range(3)]
            replies = [*opened, *[await theirs.call(sftp.OPENDIR, "/send") for _ in range(3)]]
            assert [reply.type for reply in replies] == [sftp.HANDLE] * 5 + [sftp.STATUS]
            assert replies[-1].text.startswith("limit.handles: 一度に送受信できるファイルは 5 個までです")
            assert (await ours.call(sftp.OPENDIR, "/send")).type == sftp.STATUS
            assert (await ours.call(sftp.CLOSE, opened[0].handle)).code == sftp.OK
            assert (await theirs.call(sftp.OPENDIR, "/send")).type == sftp.HANDLE
        await until_let_in(here, CARE_MANAGER)
        assert len([await ours.call(sftp.OPENDIR, "/send") for _ in range(3)]) == 3
    told = limits_told(pair)
    # Both doors met each of them: it was told once.
    assert told["sessions_per_certificate", CARE_MANAGER] == 1
    assert told["handles_per_certificate", CARE_MANAGER] == 1


async def test_unfinished_uploads_and_turns_of_an_office(pair: Several) -> None:
    """A temporary name open at one door counts at the other, and so do the files that were begun within a minute."""
    async with contextlib.AsyncExitStack() as stack:
        raws = [await enter(stack, door, HOME_HELP) for door in pair.doors]
        names = [general_name("txt", HOME_HELP, CARE_MANAGER, number) for number in range(2)]
        opened, refused = [
            await raw.call(sftp.OPEN, f"/send/{name}.part", 0x1A, Raw(NO_ATTRIBUTES))
            for raw, name in zip(raws, names, strict=True)
        ]
        assert opened.type == sftp.HANDLE
        assert refused.text.startswith("limit.partials: ")
        for raw in raws:
            assert (await raw.put(f"/send/{names[0]}", b"")).text.startswith("limit.rate: ")
    assert limits_told(pair)["transfers_per_minute", HOME_HELP] == 1


async def test_strangers_of_a_network(pair: Several) -> None:
    """Two that have not logged in are all from one network, one at each door; who goes makes room at the other."""
    here, there = pair.doors
    readers = [await asyncio.open_connection(HOST, door.port) for door in pair.doors]
    for reader, _ in readers:
        await reader.readuntil(b"\n")
    assert [await is_let_in(door, DAY_CARE) for door in pair.doors] == [False, False]
    readers[0][1].close()
    await until_let_in(there, DAY_CARE)
    readers[1][1].close()
    assert limits_told(pair)["unauthenticated_per_network", "127.0.0.0/24"] == 1
    await until_let_in(here, DAY_CARE)


async def test_what_a_killed_worker_had_is_free_again(pair: Several) -> None:
    """Both sessions of a certificate die with their worker: the other one takes new ones."""
    dying, alive = pair.doors
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(asyncssh.Error, OSError):
            async with contextlib.AsyncExitStack() as lost:
                for _ in range(2):
                    await enter(lost, dying, DAY_CARE)
                assert not await is_let_in(alive, DAY_CARE)
                pair.bury(0)
        for _ in range(2):
            await enter(stack, alive, DAY_CARE)
        dying.open(pair.common)
        assert not await is_let_in(dying, DAY_CARE)
    assert wait_for(lambda: pair.journal_lines("limit.reached"), "what was met")
