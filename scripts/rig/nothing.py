"""A server that does nothing: what asyncssh, Python's ciphers and the framing cost before anything is done with a file.

``python -m rig.nothing HOME``: the relay's own transport (`relay.packets`, `relay.edge`, `relay.sftp.wire`) with its host key
and its authority, behind which every request is answered at once: OPEN with a handle, everything else with OK.  No name is
read, nothing checked, routed, sealed, stored, synced or told.  The bench puts it beside the relay: no server on this
transport can cost less, whatever it does.
"""

import sys
from pathlib import Path
from typing import Any

import asyncssh
import uvloop

from relay import ciphers, edge, packets
from relay.doorkeeper import PACKET_BYTES, WINDOW_BYTES
from relay.sftp import wire
from rig.servers import HOST

_HANDLE = bytes(8)


class _Door(asyncssh.SSHServer):
    """Lets in whom asyncssh's own check of certificates lets in."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._lane = packets.PacketLane(conn)

    def session_requested(self) -> Any:
        channel = edge.open_channel(self._conn, window_bytes=WINDOW_BYTES, packet_bytes=PACKET_BYTES)
        self._lane.adopt(channel)
        return channel, _Session()


class _Session(asyncssh.SSHServerSession[bytes]):
    """Takes every request apart, as far as its kind, and answers it."""

    def __init__(self) -> None:
        self._framer = wire.Framer()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def data_received(self, data: bytes, datatype: int | None) -> None:
        del datatype
        self._framer.feed(data)
        while (packet := self._framer.next_packet()) is not None:
            self._chan.write(_answer(wire.parse_packet(packet)))
        edge.return_window(self._chan, held_bytes=self._framer.held_bytes)


def _answer(request: wire.Init | wire.Request) -> bytes:
    if isinstance(request, wire.Init):
        return wire.pack_version([])
    if request.type == wire.OPEN:
        return wire.pack_handle(request.id, _HANDLE)
    if request.type == wire.REALPATH:
        return wire.pack_names(request.id, [wire.pack_entry(wire.NameEntry(b"/", b"/", wire.NO_ATTRIBUTES))])
    return wire.pack_status(request.id, 0)


async def _serve(home: Path) -> None:
    keys = home / "keys"
    authority = (keys / "user_ca.pub").read_text(encoding="utf-8")
    listener = await asyncssh.listen(
        HOST,
        0,
        server_factory=_Door,
        server_host_keys=edge.load_host_keys(
            [((keys / "host_ed25519_key").read_bytes(), (keys / "host_ed25519_key-cert.pub").read_bytes())]
        ),
        authorized_client_keys=asyncssh.import_authorized_keys(f"cert-authority {authority}"),
        window=WINDOW_BYTES,
        max_pktsize=PACKET_BYTES,
        encoding=None,
        compression_algs=["none"],
    )
    print(f"listening on {HOST}:{listener.get_port()}", flush=True)
    await listener.wait_closed()


def main() -> None:
    """Serve until a signal ends it."""
    ciphers.keep_ciphers()
    uvloop.run(_serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
