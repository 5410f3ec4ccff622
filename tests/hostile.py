"""Clients that mean harm, or are broken as if they did: one small class for each crime.

`CRIMES` is all of them.  A crime is committed against a real house over a real connection, by an office that has logged
in unless it says otherwise, and ends what it began.  Each names its *trace*: what the journal says of it, by which an
operator learns what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import asyncssh
import pytest
import raw_sftp as sftp
from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.packet import Boolean, String, UInt32
from hostile_tools import (
    HUGE_WINDOW,
    LONG_BYTES,
    LONG_FILE,
    MIB,
    SESSION_BYTES,
    bare_channel,
    hold_rekey,
    send_past_the_rekey,
    session,
    settle,
    stop_reading,
)
from house import CARE_MANAGER, HOME_HELP, HOST, House, plan_csv, plan_name
from raw_sftp import NO_ATTRIBUTES, Long, Raw, RawSftp, open_raw, pack

ATTRIBUTES = Raw(NO_ATTRIBUTES)
_RESET = struct.pack("ii", 1, 0)


class Trace(NamedTuple):
    """A line of the journal: its event, and what one of its facts holds."""

    event: str
    words: str = ""


# --- the crimes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crime:
    """What a client does that none may; *trace* is how the journal names it.

    *held_bytes* is what the server held before.
    """

    trace: ClassVar[Trace]
    held_bytes: int

    def assert_bounded(self, house: House) -> None:
        """AssertionError where the server has grown by more than one session may cost."""
        grown = settle(house) - self.held_bytes
        assert grown < SESSION_BYTES, f"{grown / MIB:.1f} MiB"

    def is_told(self, house: House) -> bool:
        """Tell whether the journal names this crime, and not only one that was committed before."""
        return any(self.trace.words in str(line) for line in house.journal_lines(self.trace.event))

    async def commit(self, house: House) -> None:
        """Do it, check what the culprit is answered, and go."""
        raise NotImplementedError


class GiganticLength(Crime):
    """A packet said to be 4 GiB long."""

    trace = Trace("protocol.error", "4294967295")

    async def commit(self, house: House) -> None:
        """The session ends; nothing waits for the rest."""
        async with session(house) as (_, raw):
            raw.send(struct.pack(">I", 0xFFFFFFFF) + b"x" * 64)
            await raw.wait_closed()
            assert raw.exit_status == 1


class UnknownTypes(Crime):
    """Every type of request that there is not, and an extension of one's own."""

    trace = Trace("request.refused", "sftp type 99")

    async def commit(self, house: House) -> None:
        """Each is refused as unsupported, and the session goes on."""
        async with session(house) as (_, raw):
            for kind in (0, 2, 21, 99, 101, 199, 201, 255):
                assert (await raw.call(kind, "/x")).code == sftp.UNSUPPORTED
            assert (await raw.call(sftp.READLINK, "/x")).code == sftp.UNSUPPORTED
            assert (await raw.call(sftp.SYMLINK, "/x", "/y")).code == sftp.UNSUPPORTED
            for name in ("", "copy-data", "hardlink@openssh.com", "expand-path@openssh.com", "own@example.org", "é"):
                assert (await raw.call(sftp.EXTENDED, name, b"\xff" * 9)).code == sftp.UNSUPPORTED
            assert "new" in await raw.list("/")


class RequestBeforeInit(Crime):
    """A request of somebody who has not greeted."""

    trace = Trace("protocol.error", "before INIT")

    async def commit(self, house: House) -> None:
        """Nothing is said, and the session ends."""
        limits = pack(sftp.EXTENDED, 1, "limits@openssh.com")
        for packet in (pack(sftp.STAT, 1, "/"), limits, pack(99, 1), pack(sftp.OPEN, 1)):
            async with session(house, greets=False) as (_, raw):
                raw.send(packet)
                await raw.wait_closed()
                assert not raw.replies
                assert raw.exit_status == 1


class ReusedIds(Crime):
    """A thousand requests of all kinds under one id; ids are the client's business, so only the guessed handle is told."""

    trace = Trace("session.closed")

    async def commit(self, house: House) -> None:
        """Every one is answered, under that id."""
        kinds = (sftp.STAT, sftp.REALPATH, sftp.OPENDIR, sftp.REMOVE, sftp.CLOSE)
        async with session(house) as (_, raw):
            raw.send(b"".join(pack(kinds[number % 5], 7, "/new/none") for number in range(1_000)))
            assert {(await raw.next_reply()).id for _ in range(1_000)} == {7}


class RequestsWithoutReading(Crime):
    """Ten thousand READs, 2.6 GB asked for, and not a byte taken off the network."""

    trace = Trace("session.closed", "did not read the replies")
    window: ClassVar[int] = 2 * MIB

    async def commit(self, house: House) -> None:
        """The relay stops answering; what it holds meanwhile is measured by whoever looks."""
        async with session(house, window=self.window) as (connection, raw):
            handle = await raw.open(f"/receive/{LONG_FILE}", sftp.READING)
            stop_reading(connection)
            for number in range(10_000):
                raw.ask(sftp.READ, handle, Long(number * 4_000 % LONG_BYTES), 261_120)
                if connection._transport.get_write_buffer_size() > 4 * MIB:
                    break
            self.assert_bounded(house)
            connection.abort()


class HugeWindowNeverRead(RequestsWithoutReading):
    """The same under a window of 2 GiB, which says that all of it may come."""

    window = HUGE_WINDOW


class FarWrites(Crime):
    """WRITEs at 2**63 and at the end of all offsets."""

    trace = Trace("upload.refused", "limit.size")

    async def commit(self, house: House) -> None:
        """Refused there, at CLOSE and at STAT; nothing is kept."""
        async with house.dial() as connection, open_raw(connection) as raw:
            for number, offset in enumerate((2**63, 2**64 - 1), 800):
                path = f"/send/{plan_name(number=number)}"
                handle = await raw.open(path)
                reply = await raw.call(sftp.WRITE, handle, Long(offset), b"x")
                assert reply.code == sftp.FAILURE
                assert (await raw.call(sftp.CLOSE, handle)).text == (await raw.call(sftp.STAT, path)).text == reply.text


class ByteByByte(Crime):
    """A login that dribbles in: one byte, then another, for longer than a login may take."""

    trace = Trace("limit.reached", "login_seconds")

    async def commit(self, house: House) -> None:
        """It is ended by the clock, however busy it looks."""

        def dribble() -> None:
            with socket.create_connection((HOST, house.port)) as stranger:
                stranger.settimeout(0.2)
                deadline = time.monotonic() + house.config.server.login_seconds + 60
                for byte in b"SSH-2.0-" + b"s" * 10_000:
                    stranger.send(bytes([byte]))
                    with contextlib.suppress(TimeoutError):
                        if not stranger.recv(4_096):
                            return
                    assert time.monotonic() < deadline

        with contextlib.suppress(ConnectionError):
            await asyncio.to_thread(dribble)


class ThousandsOfHandles(Crime):
    """Three thousand OPENs of all kinds, and no CLOSE."""

    trace = Trace("limit.reached", "handles_per_session")

    async def commit(self, house: House) -> None:
        """As many as allowed are opened, the others refused in words."""
        async with house.dial() as connection, open_raw(connection) as raw:
            # Names of its own: of two sessions of an office with one name the later one has the upload.
            names = [plan_name(number=5_000 + number) for number in range(1_000)]
            numbers = [raw.ask(sftp.OPEN, f"/send/{name}", 0x0A, ATTRIBUTES) for name in names]
            numbers += [raw.ask(sftp.OPENDIR, "/send") for _ in range(1_000)]
            numbers += [raw.ask(sftp.OPEN, "/README.txt", sftp.READING, ATTRIBUTES) for _ in range(1_000)]
            replies = [await raw.reply_to(number) for number in numbers]
            opened = [reply.handle for reply in replies if reply.type == sftp.HANDLE]
            assert len(set(opened)) == len(opened) == house.config.limits.handles_per_session
            assert {r.text.split(": ")[0] for r in replies if r.type == sftp.STATUS} == {"limit.handles"}
            # Nothing was written: refused, and closed all the same, which makes room.
            await raw.call(sftp.CLOSE, opened[0])
            assert (await raw.call(sftp.OPENDIR, "/send")).handle


class PathTricks(Crime):
    """Paths that climb, double, hide and point elsewhere."""

    trace = Trace("upload.refused", "name.")
    tricks: ClassVar[Sequence[str]] = (
        "/../../../../etc/passwd",
        "/send/../../../etc/passwd",
        "//etc//passwd",
        "/proc/self/environ",
        "..\\..\\windows\\win.ini",
        "/send/..\\..\\x.csv",
        "C:\\x.csv",
        "/send/file:///etc/passwd",
        "/send/./../keys/master",
        "~/.ssh/authorized_keys",
        "/send/%2e%2e/x.csv",
        "/send/\uff0e\uff0e/x.csv",
        "/receive/../../data/relay.db",
    )

    async def commit(self, house: House) -> None:
        """Nothing is there, nothing can be put there, and REALPATH never leaves the tree."""
        # New names each time: REMOVE of what was tried and refused a while ago is answered OK, and removes nothing.
        tricks = [trick.replace("x.csv", f"{secrets.token_hex(4)}.csv") for trick in self.tricks]
        async with session(house) as (_, raw):
            for trick in tricks:
                for kind in (sftp.STAT, sftp.LSTAT, sftp.OPENDIR, sftp.REMOVE, sftp.RMDIR, sftp.READLINK):
                    assert (await raw.call(kind, trick)).code != sftp.OK
                assert (await raw.call(sftp.OPEN, trick, sftp.READING, ATTRIBUTES)).type == sftp.STATUS
                assert (await raw.call(sftp.OPEN, trick, sftp.WRITING, ATTRIBUTES)).type == sftp.STATUS
                assert (await raw.call(sftp.SYMLINK, trick, "/send/x")).code == sftp.UNSUPPORTED
                for source, target in ((trick, "/send/x"), (f"/receive/{LONG_FILE}", trick)):
                    assert (await raw.call(sftp.RENAME, source, target)).code != sftp.OK
                (real,) = (await raw.call(sftp.REALPATH, trick)).names
                assert b".." not in real.split(b"/")


class IllegalBytes(Crime):
    """NULs, bytes that are no UTF-8, and names of 256 and of 100,000 bytes."""

    trace = Trace("upload.refused", "name.illegal")
    names: ClassVar[Sequence[bytes]] = (
        plan_name().encode() + b"\0.pdf",
        b"\0",
        b"\xff\xfe.csv",
        b"\xc0\xae\xc0\xae.csv",
        b"\xed\xa0\x80.csv",
        b"x" * 252 + b".csv",
        b"x" * 100_000 + b".csv",
        "\u202egnp.csv".encode(),
    )

    async def commit(self, house: House) -> None:
        """Refused in words wherever a path can stand, kept in ``status/refused``, and without a note."""
        async with session(house) as (_, raw):
            for name in self.names:
                opened = await raw.call(sftp.OPEN, b"/send/" + name, sftp.WRITING, ATTRIBUTES)
                assert opened.text.startswith("name.illegal: "), opened
                for kind in (sftp.STAT, sftp.OPENDIR, sftp.REMOVE, sftp.SETSTAT, sftp.MKDIR, sftp.REALPATH):
                    reply = await raw.call(kind, b"/send/" + name, ATTRIBUTES)
                    assert reply.type in (sftp.STATUS, sftp.NAME)
                assert (await raw.call(sftp.RENAME, b"/send/a.filepart", b"/send/" + name)).code != sftp.OK
            assert not [name for name in await raw.list("/send") if name.endswith(".refused.txt")]
            told = (await raw.get("/status/refused.json")).decode()
            assert told.count('"name.illegal"') >= 3


class Forwarding(Crime):
    """Tunnels of every kind, in both directions."""

    trace = Trace("request.refused", "direct-tcpip")

    async def commit(self, house: House) -> None:
        """Not one is opened, and nothing listens."""
        async with house.dial() as connection:
            for opening in (
                connection.open_connection("127.0.0.1", 22),
                connection.open_unix_connection("/run/x"),
                connection.create_tun(asyncssh.SSHTunTapSession),
            ):
                with pytest.raises(asyncssh.ChannelOpenError):
                    await opening
            for listening in (
                connection.forward_remote_port("", 0, "127.0.0.1", 22),
                connection.forward_remote_path("/run/x", "/run/y"),
            ):
                with pytest.raises(asyncssh.ChannelListenError):
                    await listening


class ChannelRequests(Crime):
    """A request on a channel that is not for SFTP; *asked* are its name and what follows."""

    asked: ClassVar[Sequence[tuple[bytes, bytes]]]
    times: ClassVar[int] = 1

    async def commit(self, house: House) -> None:
        """Each is refused, and SFTP can be had on that channel all the same."""
        async with bare_channel(house) as (_, channel):
            for _ in range(self.times):
                for name, payload in self.asked:
                    assert not await channel._make_request(name, payload)
            assert await channel._make_request(b"subsystem", String("sftp"))


class ShellAndExec(ChannelRequests):
    """A terminal, a shell, a command."""

    trace = Trace("request.refused", "exec")
    asked = (
        (b"pty-req", String("xterm") + UInt32(80) + UInt32(24) + UInt32(0) + UInt32(0) + String("")),
        (b"shell", b""),
        (b"exec", String("cat /etc/passwd")),
    )


class AgentAndX11(ChannelRequests):
    """An agent and a display."""

    trace = Trace("request.refused", "auth-agent-req@openssh.com")
    asked = (
        (b"auth-agent-req@openssh.com", b""),
        (b"x11-req", Boolean(False) + String("MIT-MAGIC-COOKIE-1") + String("00") + UInt32(0)),
    )


class StrangeSubsystems(ChannelRequests):
    """Other subsystems than SFTP, and names that nearly are it."""

    trace = Trace("request.refused", "subsystem")
    asked = tuple((b"subsystem", String(name)) for name in (b"shell", b"netconf", b"sftp\0", b"SFTP", b"sftp\xff", b""))


class EnvFlood(ChannelRequests):
    """Two thousand environment variables of a kilobyte each."""

    trace = Trace("request.refused", "env")
    asked = ((b"env", String("LD_PRELOAD") + String("x" * 1_000)),)
    times = 2_000


class SecondChannels(Crime):
    """More sessions over one connection than anybody needs, each with SFTP."""

    trace = Trace("limit.reached", "sessions_per_connection")

    async def commit(self, house: House) -> None:
        """As many as allowed are opened; they go on when the next one is refused."""
        most = house.config.limits.sessions_per_connection
        async with house.dial() as connection, contextlib.AsyncExitStack() as stack:
            open_ = [await stack.enter_async_context(open_raw(connection)) for _ in range(most)]
            for _ in range(20):
                with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
                    await connection.create_session(RawSftp, subsystem="sftp", encoding=None)
            assert "send" in await open_[0].list("/")


class AuthFlood(Crime):
    """Wrong keys as fast as they can be made, on connection after connection."""

    trace = Trace("limit.reached", "key_probes")

    async def commit(self, house: House) -> None:
        """Each connection is ended after so many keys, and the operator reads that it was a limit."""
        keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(80)]
        for _ in range(3):
            with pytest.raises((asyncssh.Error, OSError)):
                async with house.dial(client_keys=keys):
                    pass


class StrangersAtTheDoor(Crime):
    """Hundreds of connections from one network that never log in."""

    trace = Trace("limit.reached", "unauthenticated_per_network")

    def knock(self, house: House) -> socket.socket:
        """Connect from another network than everybody else."""
        return socket.create_connection((HOST, house.port), source_address=("127.0.1.9", 0))

    async def commit(self, house: House) -> None:
        """Those within the limit are waited for, the others are told and closed at once."""
        with contextlib.ExitStack() as stack:
            strangers = [stack.enter_context(self.knock(house)) for _ in range(200)]
            await asyncio.to_thread(house.wait_for, lambda: self.is_told(house), "the limit of strangers")
            last = strangers[-1]
            last.settimeout(60)
            assert b"Too many connections" in await asyncio.to_thread(lambda: last.makefile("rb").read())
            for stranger in strangers:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class UnfinishedRekey(Crime):
    """A key exchange that is begun and never ended, with READs sent into it."""

    trace = Trace("protocol.error", "key exchange")

    async def commit(self, house: House) -> None:
        """What is deferred is bounded, and then the connection is ended."""
        async with session(house, window=HUGE_WINDOW) as (client, raw):
            handle = await raw.open(f"/receive/{LONG_FILE}", sftp.READING)
            hold_rekey(client)
            channel = client._channels[raw.channel._recv_chan]._send_chan
            for number in range(10_000):
                if client._transport is None or client._transport.get_write_buffer_size() > 4 * MIB:
                    break
                request = pack(sftp.READ, number, handle, Long(0), 261_120)
                send_past_the_rekey(client, MSG_CHANNEL_DATA, UInt32(channel) + String(request))
            self.assert_bounded(house)
            await asyncio.to_thread(
                house.wait_for, lambda: self.is_told(house), "the end of an unfinished key exchange"
            )
            client.abort()


class ClosedWhilePaused(Crime):
    """A channel closed while its session waits for room to answer, with an upload open."""

    trace = Trace("upload.left")

    async def commit(self, house: House) -> None:
        """The session ends at once: neither it nor its handles are left behind."""
        async with house.dial() as connection:
            async with open_raw(connection, window=4_096) as raw:
                upload = await raw.open(f"/send/{plan_name(number=700)}")
                assert (await raw.call(sftp.WRITE, upload, Long(0), b"x")).code == sftp.OK
                handle = await raw.open(f"/send/{LONG_FILE}", sftp.READING)
                raw.channel.pause_reading()
                for number in range(400):
                    raw.ask(sftp.READ, handle, Long(number * 1_000), 200_000)
                raw.channel.abort()
            async with open_raw(connection) as raw:
                assert "send" in await raw.list("/")


def find_crimes(kind: type[Crime] = Crime) -> Iterator[type[Crime]]:
    """Yield every crime that can be committed."""
    for crime in kind.__subclasses__():
        if "trace" in crime.__dict__ or crime is HugeWindowNeverRead:
            yield crime
        yield from find_crimes(crime)


async def be_honest(house: House, number: int) -> None:
    """Do what an honest office does: upload, be delivered, look."""
    async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{plan_name(number=number)}", plan_csv())).code == sftp.OK
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert await raw.get(f"/receive/{plan_name(number=number)}") == plan_csv()


CRIMES = tuple(find_crimes())
