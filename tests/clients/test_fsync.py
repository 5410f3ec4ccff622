from __future__ import annotations

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, House, plan_csv, plan_name
from raw_sftp import Long, open_raw


async def test_what_was_synced_survives_the_server_being_killed(house: House) -> None:
    """After OK to fsync@openssh.com and kill -9 of the server its owner finds those bytes and can go on."""
    name, content = plan_name(), plan_csv()
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{name}")
        assert (await raw.call(sftp.WRITE, handle, Long(0), content[:100])).code == sftp.OK
        assert (await raw.call(sftp.EXTENDED, "fsync@openssh.com", handle)).code == sftp.OK
        house.kill()
    house.start()
    async with house.connect(CARE_MANAGER) as caller:
        assert await caller.sftp.getsize(f"/send/{name}") == 100
    assert house.transfers() == []


@pytest.mark.parametrize("size", [5_000, 700_000])
def test_put_with_fsync_arrives_whole(house: House, size: int) -> None:
    """`sftp put -f` asks for a sync before its CLOSE; the file is then a transfer like any other."""
    name = plan_name()
    local = house.path / "slip.csv"
    local.write_bytes(plan_csv(size))
    done = house.sftp(CARE_MANAGER, f"put -f {local} send/{name}\n")
    assert done.returncode == 0, done
    assert [(each.name, each.size_bytes) for each in house.transfers()] == [(name, local.stat().st_size)]
