"""An upload that was cut off and looked whole, and comes again: the recipient ends with the whole, and is told."""

from __future__ import annotations

import json
import os

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, general_name
from raw_sftp import Long, RawSftp, open_raw

from relay.lifecycle import State

# A text has no end that could be missing: what is cut off looks whole.
NAME = general_name("txt")
WHOLE = os.urandom(700_000).hex().encode()


async def told(raw: RawSftp, topic: str) -> list[dict[str, object]]:
    """Return the rows of a status file."""
    rows: list[dict[str, object]] = json.loads(await raw.get(f"/status/{topic}.json"))[topic]
    return rows


@pytest.mark.parametrize("way", ["straight", "renamed", "one byte more"])
@pytest.mark.parametrize("cut", [1, 40_000, 600_000, 1_200_000])
async def test_not_collected_yet_it_is_replaced(house: House, cut: int, way: str) -> None:
    """Under its own name or a temporary one, the whole supersedes the part, and both sides read so in status/."""
    whole = WHOLE[: cut + 1] if way == "one byte more" else WHOLE
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{NAME}", WHOLE[:cut])).code == sftp.OK
        if way == "renamed":
            assert (await ours.put(f"/send/{NAME}.filepart", whole)).code == sftp.OK
            assert (await ours.call(sftp.RENAME, f"/send/{NAME}.filepart", f"/send/{NAME}")).code == sftp.OK
        else:
            assert (await ours.put(f"/send/{NAME}", whole)).code == sftp.OK
        assert await theirs.get(f"/new/{NAME}") == whole
        for rows in (await told(ours, "sent"), await told(theirs, "received")):
            assert [row["state"] for row in rows] == ["collected", "superseded"]
            assert rows[0]["completes"] == rows[1]["number"]
        assert (await ours.list("/send")).count(NAME) == 1


async def test_collected_it_is_completed_by_a_transfer_of_its_own(house: House) -> None:
    """The recipient finds the whole in new/ under its name; what it had read stays, behind sender and time."""
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{NAME}", WHOLE[:40_000])).code == sftp.OK
        assert await theirs.get(f"/new/{NAME}") == WHOLE[:40_000]
        assert (await ours.put(f"/send/{NAME}", WHOLE)).code == sftp.OK
        assert [name for name in await theirs.list("/new") if name not in (".", "..")] == [NAME]
        assert await theirs.get(f"/new/{NAME}") == WHOLE
        (old,) = [name for name in await theirs.list("/receive") if name.startswith(f"{CARE_MANAGER}_")]
        assert old.endswith(f"_{NAME}")
        assert await theirs.get(f"/receive/{old}") == WHOLE[:40_000]
        new_row, old_row = await told(theirs, "received")
    assert (new_row["completes"], old_row["name"]) == (old_row["number"], old)
    assert [transfer.state for transfer in house.transfers()] == [State.COLLECTED, State.COLLECTED]


async def test_other_bytes_or_fewer_are_a_conflict(house: House) -> None:
    """Neither what differs in one byte nor what is shorter replaces anything."""
    changed = bytearray(WHOLE)
    changed[39_999] ^= 1
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{NAME}", WHOLE[:40_000])).code == sftp.OK
        for content in (bytes(changed), WHOLE[:39_999], bytes(changed[:40_000])):
            assert (await ours.put(f"/send/{NAME}", content)).text.startswith("transfer.conflict: ")
        assert await theirs.get(f"/new/{NAME}") == WHOLE[:40_000]
    assert len(house.transfers()) == 1


async def test_who_was_reading_the_part_is_told(house: House) -> None:
    """A CLOSE behind the replacement is refused in words, and the whole is in new/."""
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{NAME}", WHOLE[:40_000])).code == sftp.OK
        handle = await theirs.open(f"/new/{NAME}", sftp.READING)
        assert len((await theirs.call(sftp.READ, handle, Long(0), 200_000)).data) == 40_000
        assert (await ours.put(f"/send/{NAME}", WHOLE)).code == sftp.OK
        assert (await theirs.call(sftp.CLOSE, handle)).text.startswith("transfer.superseded: ")
        assert await theirs.get(f"/new/{NAME}") == WHOLE
