"""A file that went to the wrong office is stopped by telephone: out of sight, told to both, released or taken back."""

from __future__ import annotations

import json

import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, plan_csv, plan_name
from raw_sftp import Long, RawSftp, open_raw

from relay.lifecycle import State
from relay.model import EventKind

WHY = ("--reason", "宛先の間違いと電話あり", "--yes")


async def told(raw: RawSftp, topic: str) -> object:
    """Return the state of the newest row of a status file."""
    return json.loads(await raw.get(f"/status/{topic}.json"))[topic][0]["state"]


async def test_a_held_file_is_out_of_reach_until_it_is_released(house: House) -> None:
    """Whoever reads it at that moment is told and has not collected it; both status files say so; then it can be fetched."""
    name, content = plan_name(), plan_csv(2_000_000)
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{name}", content)).code == sftp.OK
        handle = await theirs.open(f"/new/{name}", sftp.READING)
        assert (await theirs.call(sftp.READ, handle, Long(0), 1_000)).data
        done = house.relay("transfer", "hold", "1", *WHY)
        assert done.returncode == 0, done.stderr
        refused = await theirs.call(sftp.READ, handle, Long(1_500_000), 1_000)
        assert refused.text.startswith("transfer.held: ")
        assert (await theirs.call(sftp.CLOSE, handle)).text.startswith("transfer.held: ")
        assert name not in await theirs.list("/new")
        assert name not in await theirs.list("/receive")
        assert (await theirs.call(sftp.STAT, f"/new/{name}")).code == sftp.NO_SUCH_FILE
        assert name in await ours.list("/send")
        shown = json.loads(house.relay("transfer", "show", "1", "--json").stdout)
        assert shown["state"] == "held"
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert await told(ours, "sent") == await told(theirs, "received") == "held"
        assert house.relay("transfer", "release", "1", *WHY).returncode == 0
        assert await theirs.get(f"/new/{name}") == content
    assert [transfer.state for transfer in house.transfers()] == [State.COLLECTED]
    kinds = [event.kind for event in house.events() if event.transfer == 1]
    assert [kind for kind in kinds if kind is not EventKind.READ] == [
        EventKind.ACCEPTED,
        EventKind.HELD,
        EventKind.RELEASED,
        EventKind.COLLECTED,
    ]
    late = house.relay("transfer", "hold", "1", *WHY)
    assert (late.returncode, "`relay transfer return 1`" in late.stderr) == (2, True)


async def test_its_sender_takes_a_held_file_back(house: House) -> None:
    """That is how a misdirected file ends: nobody but its sender decides that it was one."""
    name = plan_name()
    async with house.dial(CARE_MANAGER) as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{name}", plan_csv())).code == sftp.OK
        assert house.relay("transfer", "hold", "1", *WHY).returncode == 0
        assert (await ours.call(sftp.RENAME, f"/send/{name}", f"/recall/{name}")).code == sftp.OK
    assert [transfer.state for transfer in house.transfers()] == [State.RECALLED]
    gone = house.relay("transfer", "release", "1", *WHY)
    assert "nothing was changed" in gone.stdout
