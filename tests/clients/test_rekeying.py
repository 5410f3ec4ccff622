"""New keys every 256 KiB, from either side and from both at once: what is on its way comes through whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asyncssh.constants import MSG_KEXINIT
from house import CARE_MANAGER, HOME_HELP, House, general_name, pdf

EVERY_BYTES = 256 * 1024
CONTENT = pdf(6_000_000)
# What OpenSSH's client says of each key exchange.
REKEYED = "SSH2_MSG_KEXINIT received"
# OpenSSH waits for a pause to ask, so not all of 24.
MANY = 3
SIDES = [("relay",), ("client",), ("relay", "client")]


@pytest.fixture(params=SIDES, ids="+".join)
def sides(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return who asks for new keys."""
    chosen: tuple[str, ...] = request.param
    return chosen


@pytest.fixture
def rekeying(make_house: Callable[..., House], sides: tuple[str, ...]) -> House:
    """Return a relay that serves, and asks for new keys if it is its turn."""
    house = make_house(server={"rekey_bytes": EVERY_BYTES}) if "relay" in sides else make_house()
    house.start()
    return house


async def test_an_asyncssh_client_sends_and_fetches_through_many_rekeys(
    rekeying: House, sides: tuple[str, ...]
) -> None:
    """6 MB up and down again, with requests in flight at every change of keys."""
    options = {"rekey_bytes": EVERY_BYTES} if "client" in sides else {}
    async with rekeying.connect(CARE_MANAGER, **options) as sender:
        rekeys = watch_rekeys(sender.connection)
        async with sender.sftp.open(f"send/{general_name()}", "wb") as file:
            await file.write(CONTENT)
        # What the relay says while it takes a file is short, so it asks for new keys in the other direction.
        assert len(rekeys) >= MANY or "client" not in sides
    async with rekeying.connect(HOME_HELP, **options) as recipient:
        rekeys = watch_rekeys(recipient.connection)
        async with recipient.sftp.open(f"receive/{general_name()}", "rb") as file:
            assert await file.read() == CONTENT
        assert len(rekeys) >= MANY or "relay" not in sides
    rekeying.wait_for_event("transfer.collected")


def test_openssh_sends_and_fetches_through_many_rekeys(rekeying: House, sides: tuple[str, ...], tmp_path: Path) -> None:
    """The real sftp, whose RekeyLimit is the client's side of it."""
    local = tmp_path / general_name()
    local.write_bytes(CONTENT)
    options = ("-v", "-oRekeyLimit=256K") if "client" in sides else ("-v",)
    done = rekeying.sftp(CARE_MANAGER, f"put {local} send/\n", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(REKEYED) >= MANY or "client" not in sides
    fetched = tmp_path / "fetched.pdf"
    done = rekeying.sftp(HOME_HELP, f"get receive/{general_name()} {fetched}\n", *options)
    assert done.returncode == 0, done.stderr
    assert fetched.read_bytes() == CONTENT
    assert done.stderr.count(REKEYED) >= MANY


def watch_rekeys(connection: Any) -> list[int]:
    """Return a list that grows by one with every key exchange."""
    process = connection._packet_handlers[MSG_KEXINIT]
    seen: list[int] = []

    def note(conn: Any, pkttype: int, pktid: int, packet: Any) -> object:
        seen.append(pktid)
        return process(conn, pkttype, pktid, packet)

    connection._packet_handlers = {**connection._packet_handlers, MSG_KEXINIT: note}
    return seen
