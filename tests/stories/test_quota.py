"""An office that has stored all it may: told at the OPEN, at the WRITE, at the CLOSE, and by `df`."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, general_name, plan_csv, plan_name
from raw_sftp import NO_ATTRIBUTES, Long, Raw, RawSftp, open_raw

QUOTA = 1_000_000


@pytest.fixture
def small(make_house: Callable[..., House]) -> House:
    """Return a relay in which an office may store a million bytes, in files of at most 600,000."""
    house = make_house(limits={"upload_bytes": 600_000, "stored_bytes_per_office": QUOTA})
    house.start()
    return house


async def free_bytes(raw: RawSftp, path: str = "/send") -> tuple[int, int]:
    """Return what `df` would show: all and what is left."""
    reply = await raw.call(sftp.EXTENDED, "statvfs@openssh.com", path)
    assert reply.type == sftp.EXTENDED_REPLY
    block, _, total, free, available, *_, longest = struct.unpack(">11Q", reply.rest)
    assert (free, longest) == (available, 255)
    return block * total, block * free


async def test_an_office_is_told_what_it_has_left(small: House) -> None:
    """Everything that is stored counts, until it is destroyed: an upload under way, a transfer, not one taken back."""
    async with small.dial() as one, small.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        total, free = await free_bytes(ours)
        assert QUOTA - 4096 < total <= QUOTA
        assert free == total
        assert (await ours.put(f"/send/{plan_name()}", plan_csv(400_000))).code == sftp.OK
        assert abs(total - (await free_bytes(ours, "/"))[1] - 400_000) <= 8192
        assert await theirs.get(f"/new/{plan_name()}") == plan_csv(400_000)
        assert (await free_bytes(theirs))[1] == total
        assert (await ours.put(f"/send/{plan_name(number=1)}", plan_csv(300_000))).code == sftp.OK
        assert abs(total - (await free_bytes(ours))[1] - 700_000) <= 8192
        recalled = await ours.call(sftp.RENAME, f"/send/{plan_name(number=1)}", "/recall")
        assert recalled.code == sftp.OK
        assert abs(total - (await free_bytes(ours))[1] - 400_000) <= 8192
        refused = await ours.call(sftp.EXTENDED, "statvfs@openssh.com", "/nowhere")
        assert refused.code == sftp.NO_SUCH_FILE


async def test_the_write_that_is_too_much_is_refused(small: House) -> None:
    """In words, and the next OPEN too where nothing is left; what was accepted may be repeated."""
    first, second, third = (plan_name(number=number) for number in range(3))
    async with small.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{first}", plan_csv(600_000))).code == sftp.OK
        handle = await ours.open(f"/send/{second}")
        content = plan_csv(500_000)
        codes = [
            await ours.call(sftp.WRITE, handle, Long(at), content[at : at + 50_000]) for at in range(0, 500_000, 50_000)
        ]
        assert [reply.code for reply in codes] == [sftp.OK] * 8 + [sftp.FAILURE] * 2
        assert codes[-1].text.startswith("limit.quota: ")
        assert (await ours.call(sftp.CLOSE, handle)).text.startswith("limit.quota: ")
        assert (await ours.put(f"/send/{second}", plan_csv(400_000))).code == sftp.OK
        opened = await ours.call(sftp.OPEN, f"/send/{third}", sftp.WRITING, Raw(NO_ATTRIBUTES))
        assert opened.text.startswith("limit.quota: ")
        assert (await ours.put(f"/send/{first}", plan_csv(600_000))).code == sftp.OK
        assert f"{third}.refused.txt" in await ours.list("/send")
    assert len(small.transfers()) == 2
    assert small.journal_lines("limit.reached")[0]["limit"] == "stored_bytes_per_office"


async def test_the_commit_decides_between_two_that_fit_alone(small: House) -> None:
    """Two uploads at once, each within what was left at its OPEN: one is accepted, the other refused."""
    async with small.dial() as one, small.dial() as two, open_raw(one) as ours, open_raw(two) as also:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv(600_000))).code == sftp.OK
        handles = []
        for raw, number in ((ours, 1), (also, 2)):
            handle = await raw.open(f"/send/{plan_name(number=number)}")
            content = plan_csv(220_000)
            for at in range(0, len(content), 32_000):
                assert (await raw.call(sftp.WRITE, handle, Long(at), content[at : at + 32_000])).code == sftp.OK
            handles.append(handle)
        replies = await asyncio.gather(ours.call(sftp.CLOSE, handles[0]), also.call(sftp.CLOSE, handles[1]))
        assert sorted(reply.code for reply in replies) == [sftp.OK, sftp.FAILURE]
        (refused,) = [reply for reply in replies if reply.code != sftp.OK]
        assert refused.text.startswith("limit.quota: ")


async def test_what_is_staged_counts_and_is_given_back(small: House) -> None:
    """A cut-off upload takes up room until it is removed; taken up again it counts once."""
    name = general_name("txt")
    async with small.dial() as one, open_raw(one) as ours:
        handle = await ours.open(f"/send/{name}")
        for at in range(0, 550_000, 50_000):
            assert (await ours.call(sftp.WRITE, handle, Long(at), b"x" * 50_000)).code == sftp.OK
    small.wait_for_event("upload.left")
    async with small.dial() as two, open_raw(two) as again:
        total, free = await free_bytes(again)
        assert abs(total - free - 550_000) <= 8192
        handle = await again.open(f"/send/{name}", 0x02)
        assert (await again.call(sftp.WRITE, handle, Long(550_000), b"x" * 1_000)).code == sftp.OK
        assert (await again.call(sftp.CLOSE, handle)).code == sftp.OK
        assert abs(total - (await free_bytes(again))[1] - 551_000) <= 8192
        part = await again.open(f"/send/{general_name('txt', number=1)}")
        assert (await again.call(sftp.WRITE, part, Long(0), b"x" * 100)).code == sftp.OK
        assert (await again.call(sftp.REMOVE, f"/send/{general_name('txt', number=1)}")).code == sftp.OK
        assert abs(total - (await free_bytes(again))[1] - 551_000) <= 8192


def test_the_real_sftp_shows_it_with_df(small: House) -> None:
    """OpenSSH's `df` prints the quota as the size."""
    done = small.sftp(CARE_MANAGER, "df send\n")
    assert done.returncode == 0, done.stderr
    assert "976" in done.stdout
