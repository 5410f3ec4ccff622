"""Each reach into asyncssh, pinned: names, signatures, and what happens over a real connection."""
# ruff: noqa: ARG002, D102 - the methods here are asyncssh's to name and to explain

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import uvloop
from asyncssh import connection as asyncssh_connection
from asyncssh.channel import SSHServerChannel
from asyncssh.constants import MSG_GLOBAL_REQUEST, MSG_KEXINIT, MSG_SERVICE_REQUEST
from asyncssh.packet import Boolean, NameList, SSHPacket, String, UInt32
from edge_pair import (
    CA_KEY,
    CLIENT_KEY,
    PATIENCE_SECONDS,
    Owner,
    Seen,
    connect,
    connected,
    listening,
    open_raw_channel,
    until,
)

from relay import edge


def hold_rekey(client: Any) -> None:
    """Make the client begin a key exchange and never answer the server's part of it."""

    def ignore(*_: object) -> bool:
        return True

    client._packet_handlers = {**client._packet_handlers, MSG_KEXINIT: ignore}
    client._send_kexinit()
    client._kexinit_sent = True


# --- names and signatures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (asyncssh.SSHServerConnection, "_send_kexinit", "self"),
        (asyncssh.SSHServerConnection, "send_newkeys", "self k h"),
        (asyncssh.SSHServerConnection, "_recv_data", "self"),
        (asyncssh.SSHServerConnection, "pause_writing", "self"),
        (asyncssh.SSHServerConnection, "resume_writing", "self"),
        (asyncssh.SSHServerConnection, "_send", "self data"),
        (asyncssh.SSHServerConnection, "abort", "self"),
        (asyncssh.SSHServerConnection, "validate_public_key", "self username key_data msg signature"),
        (asyncssh.SSHServerConnection, "reload_config", "self"),
        (asyncssh.SSHServerConnection, "send_packet", "self pkttype args handler"),
        (asyncssh.SSHServerConnection, "remove_channel", "self recv_chan"),
        (asyncssh.SSHServerConnection, "create_server_channel", "self encoding errors window max_pktsize"),
        (SSHServerChannel, "_service_next_request", "self"),
        (SSHServerChannel, "_deliver_data", "self data datatype"),
        (SSHServerChannel, "send_packet", "self pkttype args"),
        (SSHServerChannel, "_report_response", "self result"),
        (SSHServerChannel, "_start_session", "self command subsystem"),
        (edge, "decode_ssh_certificate", "data comment"),
    ],
)
def test_methods_the_edge_takes_hold_of_have_their_parameters(owner: Any, name: str, parameters: str) -> None:
    """A method that asyncssh renames or calls otherwise is noticed here, not in production."""
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters.split()


def test_pausing_is_still_left_empty_by_asyncssh() -> None:
    """By itself asyncssh does nothing when the transport pauses: the reason why the gate exists."""
    for name in ("pause_writing", "resume_writing"):
        code = getattr(asyncssh.SSHServerConnection, name).__code__
        assert not code.co_names
        assert code.co_consts[-1] is None


def test_packets_are_dispatched_through_a_table_of_the_connection() -> None:
    """The handlers that the edge replaces for one connection stand in this table under these numbers."""
    table = asyncssh.SSHServerConnection._packet_handlers
    assert table[MSG_SERVICE_REQUEST].__name__ == "_process_service_request"
    assert table[MSG_KEXINIT].__name__ == "_process_kexinit"
    assert inspect.iscoroutinefunction(table[MSG_KEXINIT])
    assert asyncssh_connection._USERAUTH_SERVICE == b"ssh-userauth"


async def test_attributes_the_edge_reads_are_there_on_a_live_connection() -> None:
    """Every private attribute that the edge reads or sets exists and has the kind of value it takes it for."""
    async with connected() as (seen, client):
        await open_raw_channel(client)
        conn = seen.conn
        assert conn._kex_complete is True
        assert conn._deferred_packets == []
        assert conn._auth_complete is True
        assert conn._auth_in_progress is False
        assert conn._ignore_first_kex is False
        assert conn._next_service is None
        assert isinstance(conn._inpbuf, bytes)
        assert isinstance(conn._session_id, bytes)
        assert isinstance(conn._kex_algs[0], bytes)
        assert conn._server_host_key_algs[0] == b"ssh-ed25519"
        assert conn._transport.get_write_buffer_limits() == (edge.WRITE_LOW_BYTES, edge.WRITE_HIGH_BYTES)
        channel = next(iter(conn._channels.values()))
        assert channel._request_queue == []


# --- the gate ------------------------------------------------------------------------------------------------------


async def write_while_open(seen: Seen, channel: Any, piece: bytes) -> int:
    """Write until the gate closes; return how many bytes that took."""
    assert seen.gate
    written = 0
    while seen.gate.is_open:
        channel.write(piece)
        written += len(piece)
        assert written < 512 * 1024 * 1024
        await asyncio.sleep(0)
    return written


async def check_gate_follows_the_reader() -> None:
    """Body of the next test, to be run on either event loop."""
    async with connected() as (seen, client):
        channel = await open_raw_channel(client)
        assert await channel._make_request(b"subsystem", String("sftp"))
        channel._session.data_received = lambda *_: None
        channel._recv_paused = False
        assert seen.gate
        changes: list[bool] = []
        stop = seen.gate.watch(lambda: changes.append(seen.gate is not None and seen.gate.is_open))
        # A window as large as a hostile client would say: the channel never pauses.
        seen.sessions[0].channel._send_window = 1 << 31
        channel._recv_window = channel._init_recv_window = 1 << 31
        client._transport.pause_reading()
        await write_while_open(seen, seen.sessions[0].channel, os.urandom(65536))
        assert seen.conn._transport.get_write_buffer_size() <= edge.WRITE_HIGH_BYTES + 2 * 65536
        assert changes == [False]
        client._transport.resume_reading()
        await until(lambda: changes == [False, True])
        assert seen.gate.is_open
        stop()
        client._transport.pause_reading()
        await write_while_open(seen, seen.sessions[0].channel, os.urandom(65536))
        assert changes == [False, True]


async def test_gate_closes_when_the_client_does_not_read_and_opens_when_it_does() -> None:
    """With any window at all, no more is held than the transport's limit and one write."""
    await check_gate_follows_the_reader()


def test_gate_follows_the_reader_on_uvloop_too() -> None:
    """The other event loop calls the same two methods, which it looks up on the connection each time."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check_gate_follows_the_reader())


async def test_gate_is_closed_during_a_rekey_and_nothing_is_lost() -> None:
    """What was written while the keys changed arrives, in order, and the gate opens again."""
    async with connected() as (seen, client):
        channel = await open_raw_channel(client)
        assert await channel._make_request(b"subsystem", String("sftp"))
        arrived: list[bytes] = []
        channel._session.data_received = lambda data, _: arrived.append(data)
        channel._recv_paused = False
        assert seen.gate
        changes: list[bool] = []
        seen.gate.watch(lambda: changes.append(seen.gate is not None and seen.gate.is_open))
        seen.conn._rekey_bytes_sent = seen.conn._rekey_bytes
        seen.sessions[0].channel.write(b"one")
        assert not seen.gate.is_open
        seen.sessions[0].channel.write(b"two")
        assert len(seen.conn._deferred_packets) == 2
        await until(lambda: b"".join(arrived) == b"onetwo")
        assert changes == [False, True]
        assert seen.gate._rekey_timer is None


async def test_rekey_begun_by_the_client_and_never_finished_is_ended() -> None:
    """A client that holds a key exchange open is disconnected when its time is up."""
    async with connected(rekey_seconds=0.2) as (seen, client):
        hold_rekey(client)
        await until(lambda: seen.gate is not None and not seen.gate.is_open)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await seen.lost.wait()
        assert seen.crimes == ["a key exchange was not finished within 0.2 seconds"]


async def test_rekey_that_the_client_ignores_is_ended() -> None:
    """A key exchange that the relay begins has the same time."""
    async with connected(rekey_seconds=0.2) as (seen, client):
        client._packet_handlers = {**client._packet_handlers, MSG_KEXINIT: lambda *_: True}
        seen.conn._rekey_bytes_sent = seen.conn._rekey_bytes
        seen.conn.send_debug("anything")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await seen.lost.wait()
        assert len(seen.crimes) == 1


def send_past_the_rekey(client: Any, pkttype: int, payload: bytes) -> None:
    """Send as a client does that takes no heed of its own key exchange."""
    client._kex_complete = True
    client.send_packet(pkttype, payload)
    client._kex_complete = False


async def flood(seen: Seen, send: Callable[[], None]) -> None:
    """Send until the server hangs up."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not seen.lost.is_set():
            for _ in range(500):
                send()
            await asyncio.sleep(0)


async def test_what_is_deferred_during_a_rekey_is_bounded() -> None:
    """A client that asks and asks while it holds a key exchange is disconnected at the bound."""
    async with connected() as (seen, client):
        hold_rekey(client)
        question = String("nothing@example.com") + Boolean(True)
        await flood(seen, lambda: send_past_the_rekey(client, MSG_GLOBAL_REQUEST, question))
        assert seen.crimes == ["requests are sent during a key exchange that is not finished"]
        # One read of the socket is processed whole before the bound is looked at.
        assert len(seen.conn._deferred_packets) < edge.DEFERRED_PACKETS + 65536


async def test_replies_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that asyncssh answers by itself cannot pile up answers behind a client that does not read."""
    # An answer is 32 bytes: as many as fill the real bound take a busy machine a minute.
    monkeypatch.setattr(edge, "UNREAD_BYTES", 2 * edge.WRITE_HIGH_BYTES)
    async with connected() as (seen, client):
        client._transport.pause_reading()
        # What the systems hold is not ours; a small buffer at this end makes the test short.  At the other end one full of
        # short segments drops the acknowledgements that come behind them, and nothing would move any more.
        seen.conn._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        question = String("nothing@example.com") + Boolean(True)
        await flood(seen, lambda: client.send_packet(MSG_GLOBAL_REQUEST, question))
        assert seen.crimes == ["requests are sent and no replies are read"]


# --- validation ----------------------------------------------------------------------------------------------------


def make_certificate(**options: Any) -> asyncssh.SSHCertificate:
    """Return a user certificate for CLIENT_KEY."""
    return CA_KEY.generate_user_certificate(CLIENT_KEY, "test", **{"principals": ["A"], **options})


async def test_hook_sees_the_probe_and_the_signature_with_the_name_as_typed() -> None:
    """The certificate is judged for the principal that the hook names, not for what was typed."""
    async with connected(client_keys=[(CLIENT_KEY, make_certificate())]) as (seen, _client):
        assert seen.offers in ([("a", False), ("a", True)], [("a", True)])
        assert seen.conn.get_extra_info("username") == "a"


async def test_signature_made_for_another_principal_is_asyncssh_verdict() -> None:
    """The verdict of asyncssh still compares the principal."""
    async with listening() as (seen, port):
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(port, username="b", client_keys=[(CLIENT_KEY, make_certificate())])
        assert seen.offers[0][0] == "b"


async def test_login_completes_in_the_step_in_which_the_hook_answers() -> None:
    """Between the hook's True and `auth_completed` no other task runs, so that the identity is that of the signature."""
    order: list[str] = []

    class Watched(Owner):
        async def _validate(self, username: str, key_data: bytes, msg: bytes, signature: bytes, ask: Any) -> bool:
            is_good = await ask(username.upper())
            if msg:
                asyncio.get_running_loop().call_soon(order.append, "another task")
                order.append("hook")
            return is_good

        def auth_completed(self) -> None:
            order.append("completed")

    seen = Seen()
    async with listening(server_factory=lambda: Watched(seen, 30.0)) as (_, port):
        client = await connect(port)
        client.abort()
        await client.wait_closed()
        seen.conn.abort()
    assert order[:2] == ["hook", "completed"]


async def test_good_signature_is_told_apart_from_a_certificate_that_is_not_valid() -> None:
    """An expired certificate has a good signature all the same; a changed one has not."""
    found: list[tuple[bool, bool, bool]] = []

    class Watched(Owner):
        async def _validate(self, username: str, key_data: bytes, msg: bytes, signature: bytes, ask: Any) -> bool:
            conn = self._seen.conn
            good = edge.has_good_signature(conn, key_data, msg, signature)
            if msg:
                changed = key_data[:-1] + bytes([key_data[-1] ^ 1])
                forged = signature[:-1] + bytes([signature[-1] ^ 1])
                found.append(
                    (
                        good,
                        edge.has_good_signature(conn, changed, msg, signature),
                        edge.has_good_signature(conn, key_data, msg, forged),
                    )
                )
                assert not await ask(username.upper())
            return good and not msg

    seen = Seen()
    async with listening(server_factory=lambda: Watched(seen, 30.0)) as (_, port):
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(port, client_keys=[(CLIENT_KEY, make_certificate(valid_after=1, valid_before=2))])
    assert found == [(True, False, False)]


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x04ssh", b"\xff" * 200, String("ssh-ed25519-cert-v01@openssh.com")])
async def test_bytes_that_are_no_certificate_have_no_good_signature(data: bytes) -> None:
    """Whatever the bytes, the answer is no and not an exception."""
    async with connected() as (seen, _client):
        assert not edge.has_good_signature(seen.conn, data, b"m", b"s")


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"), ("ssh-rsa", "rsa2048-sha256")]
)
async def test_a_signature_is_that_of_a_key_on_this_connection_alone(kind: str, algorithm: str) -> None:
    """What RFC 6187 names is verified with the plain key; a changed one, another key's, another connection's is none."""
    key, other = asyncssh.generate_private_key(kind), asyncssh.generate_private_key(kind)
    async with connected() as (seen, _client):
        signature = key.sign(String(seen.conn._session_id) + b"m", algorithm.encode())
        elsewhere = key.sign(String(b"another") + b"m", algorithm.encode())
        data = key.public_data
        assert edge.is_signed_by(seen.conn, data, b"m", signature)
        assert not edge.is_signed_by(seen.conn, data, b"n", signature)
        assert not edge.is_signed_by(seen.conn, data, b"m", elsewhere)
        assert not edge.is_signed_by(seen.conn, other.public_data, b"m", signature)
        for bad in (b"", signature[:-1], b"\xff" * 80):
            assert not edge.is_signed_by(seen.conn, data, b"m", bad)
        assert not edge.is_signed_by(seen.conn, b"rubbish", b"m", signature)


async def test_a_client_is_told_of_more_signatures_than_are_configured() -> None:
    """Those of X.509 are named beside asyncssh's own, which it would refuse where it cannot read X.509."""

    class Teller(Owner):
        def connection_made(self, conn: Any) -> None:
            super().connection_made(conn)
            edge.offer_signatures(conn, ["x509v3-rsa2048-sha256"])

    seen = Seen()
    options = {"server_factory": lambda: Teller(seen, 30.0), "signature_algs": ["ssh-ed25519"]}
    async with listening(**options) as (_, port), await connect(port) as client:
        assert client._server_sig_algs == {b"ssh-ed25519", b"x509v3-rsa2048-sha256"}


async def test_options_are_not_built_again_for_a_user_name() -> None:
    """A login costs no thread, and leaves the options that the listener was given."""
    async with connected() as (seen, _client):
        options = seen.conn._options
        await seen.conn.reload_config()
        assert seen.conn._options is options


# --- channels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_name", "payload"),
    [
        (b"env", String("LANG") + String("C")),
        (b"pty-req", String("xterm") + UInt32(80) + UInt32(24) + UInt32(0) + UInt32(0) + String("")),
        (b"shell", b""),
        (b"exec", String("id")),
        (b"x11-req", Boolean(False) + String("MIT-MAGIC-COOKIE-1") + String("00") + UInt32(0)),
        (b"auth-agent-req@openssh.com", b""),
        (b"window-change", UInt32(80) + UInt32(24) + UInt32(0) + UInt32(0)),
        (b"signal", String("TERM")),
        (b"break", UInt32(1)),
        (b"xon-xoff", Boolean(True)),
        (b"exit-status", UInt32(0)),
        (b"eow@openssh.com", b""),
        (b"anything-else", b"\xff\xff"),
        (b"subsystem", String("shell")),
        (b"subsystem", String(b"sftp\xff")),
    ],
)
async def test_nothing_but_the_sftp_subsystem_may_be_asked_for(request_name: bytes, payload: bytes) -> None:
    """Every other request of a channel is refused without anybody being asked, and SFTP still starts afterwards."""
    async with connected() as (seen, client):
        channel = await open_raw_channel(client)
        assert not await channel._make_request(request_name, payload)
        assert seen.sessions[0].asked == []
        assert seen.sessions[0].channel.get_environment() == {}
        assert await channel._make_request(b"subsystem", String("sftp"))
        assert seen.sessions[0].asked == ["sftp"]


async def test_subsystem_is_granted_once_a_channel() -> None:
    """A second request on the same channel is refused."""
    async with connected() as (seen, client):
        channel = await open_raw_channel(client)
        assert await channel._make_request(b"subsystem", String("sftp"))
        assert not await channel._make_request(b"subsystem", String("sftp"))
        assert seen.sessions[0].asked == ["sftp"]


async def test_channels_are_counted_until_they_are_closed() -> None:
    """The count is what sessions are limited by; whoever watches is told once it has become less."""
    async with connected() as (seen, client):
        told: list[int] = []
        edge.watch_channels(seen.conn, lambda: told.append(edge.count_channels(seen.conn)))
        channels = [await open_raw_channel(client) for _ in range(3)]
        assert edge.count_channels(seen.conn) == 3
        channels[0].close()
        await until(lambda: edge.count_channels(seen.conn) == 2)
    await until(lambda: len(told) == 3)
    assert told == [2, 1, 0]


async def test_window_is_opened_for_what_was_dealt_with_alone() -> None:
    """A client gets no further ahead than its window, however much it has to say, and its end shows at once."""
    async with connected() as (seen, client):
        channel = await open_raw_channel(client)
        assert await channel._make_request(b"subsystem", String("sftp"))
        session = seen.sessions[-1]
        window = session.channel._init_recv_window
        channel.write(bytes(3 * window))
        await until(lambda: len(session.received) == window)
        edge.return_window(session.channel, held_bytes=window)
        edge.return_window(session.channel, held_bytes=window // 2 + 1)
        assert session.channel._recv_window == 0
        edge.return_window(session.channel, held_bytes=window // 4)
        assert session.channel._recv_window == window - window // 4
        await until(lambda: len(session.received) == 2 * window - window // 4)
        channel.abort()
        await until(lambda: not edge.count_channels(seen.conn))


async def test_forwarding_of_any_kind_is_refused_by_default() -> None:
    """Not a single channel but sessions, and no listener."""
    async with connected() as (seen, client):
        with pytest.raises(asyncssh.ChannelOpenError):
            await client.open_connection("127.0.0.1", 22)
        with pytest.raises(asyncssh.ChannelOpenError):
            await client.open_unix_connection("/run/x")
        with pytest.raises(asyncssh.ChannelOpenError):
            await client.create_tun(asyncssh.SSHTunTapSession)
        with pytest.raises(asyncssh.ChannelListenError):
            await client.forward_remote_port("", 0, "127.0.0.1", 22)
        with pytest.raises(asyncssh.ChannelListenError):
            await client.forward_remote_path("/run/x", "/run/y")
        assert edge.count_channels(seen.conn) == 0


# --- what real clients need ------------------------------------------------------------------------------------------


async def test_service_request_is_answered_again_before_login() -> None:
    """A paramiko client asks for the authentication service once for each key."""

    class Insisting(asyncssh.SSHClient):
        def __init__(self) -> None:
            self.conn: Any = None

        def connection_made(self, conn: Any) -> None:
            self.conn = conn

        def begin_auth(self, username: str) -> None:
            for _ in range(3):
                self.conn.send_packet(MSG_SERVICE_REQUEST, String("ssh-userauth"))

        def auth_completed(self) -> None:
            pass

    async with listening() as (seen, port):
        accepted: list[bytes] = []
        insisting = Insisting()
        ours = asyncssh.SSHClientConnection._packet_handlers

        def on_accept(conn: Any, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
            accepted.append(packet.get_full_payload())
            if len(accepted) == 1:
                return ours[pkttype](conn, pkttype, pktid, packet)
            return True

        def factory() -> Insisting:
            return insisting

        made = insisting.connection_made

        def connection_made(conn: Any) -> None:
            made(conn)
            conn._packet_handlers = {**conn._packet_handlers, 6: on_accept}

        insisting.connection_made = connection_made  # type: ignore[method-assign]
        client = await connect(port, client_factory=factory)
        await until(lambda: len(accepted) == 4)
        assert seen.offers[-1] == ("a", True)
        client.abort()
        await client.wait_closed()


async def test_service_request_after_login_ends_the_connection() -> None:
    """The leniency ends with the login."""
    async with connected() as (seen, client):
        client.send_packet(MSG_SERVICE_REQUEST, String("ssh-userauth"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await seen.lost.wait()


class RawClient:
    """A client's bytes before there are any keys."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, payload: bytes) -> None:
        padding = 8 - (len(payload) + 5) % 8 + 8
        self.writer.write(UInt32(len(payload) + 1 + padding) + bytes([padding]) + payload + bytes(padding))

    async def receive(self) -> bytes:
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        packet = await self.reader.readexactly(length)
        return packet[1 : length - packet[0]]


@pytest.mark.parametrize("preferred", ["curve25519-sha256", "mlkem768x25519-sha256"])
async def test_guessed_key_exchange_is_judged_as_the_rfc_says(preferred: str) -> None:
    """A guess that was wrong is ignored and the packet that follows is answered; a right one is answered at once."""
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        listening(kex_algs=[preferred, "ecdh-sha2-nistp256", "curve25519-sha256"]) as (_, port),
    ):
        client = RawClient(*await asyncio.open_connection("127.0.0.1", port))
        client.writer.write(b"SSH-2.0-Guessing\r\n")
        assert (await client.reader.readline()).startswith(b"SSH-2.0-")
        ciphers, macs, none = NameList([b"aes128-ctr"]), NameList([b"hmac-sha2-256"]), NameList([b"none"])
        lists = NameList([b"curve25519-sha256"]) + NameList([b"ssh-ed25519"]) + ciphers * 2 + macs * 2 + none * 2
        client.send(bytes([MSG_KEXINIT]) + bytes(16) + lists + String("") * 2 + Boolean(True) + UInt32(0))
        point = asyncssh.generate_private_key("ssh-ed25519").public_data[-32:]
        client.send(bytes([30]) + String(point))
        if preferred != "curve25519-sha256":
            client.send(bytes([30]) + String(point))
        assert (await client.receive())[0] == MSG_KEXINIT
        assert (await client.receive())[0] == 31
        assert (await client.receive())[0] == 21
        client.writer.close()
        await client.writer.wait_closed()


async def test_client_that_knows_a_post_quantum_exchange_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """mlkem768x25519-sha256 works here, and the client's order decides, not ours."""
    chosen: list[bytes] = []
    make = asyncssh_connection.get_kex

    def watch(conn: Any, algorithm: bytes) -> Any:
        chosen.append(algorithm)
        return make(conn, algorithm)

    monkeypatch.setattr(asyncssh_connection, "get_kex", watch)
    async with listening(kex_algs=["curve25519-sha256", "mlkem768x25519-sha256"]) as (_, port):
        client = await connect(port, kex_algs=["mlkem768x25519-sha256", "curve25519-sha256"])
        client.abort()
        await client.wait_closed()
    assert chosen == [b"mlkem768x25519-sha256"] * 2


# --- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connection_too_many_reads_why_and_a_clean_end(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Whatever the client has sent by then, it reads the version, a DISCONNECT and the end, and never a reset."""
    said = b"SSH-2.0-Relay-Test\r\n"
    ended: list[object] = []

    class Full(asyncssh.SSHServer):
        def connection_made(self, conn: Any) -> None:
            farewells.bid(conn, "Too many")

        def connection_lost(self, exc: Exception | None) -> None:
            ended.append(exc)

    farewells = edge.Farewells()

    async def read_all() -> None:
        async with listening(server_factory=Full, server_version="Relay-Test") as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"SSH-2.0-Early\r\n" + bytes(300_000))
            everything = await reader.read()
            assert everything.startswith(said)
            packet = SSHPacket(everything[len(said) + 5 :])
            assert (packet.get_byte(), packet.get_uint32(), packet.get_string()) == (1, 12, b"Too many")
            writer.close()
            await writer.wait_closed()
            await until(lambda: len(ended) == 1)
            with pytest.raises(asyncssh.DisconnectError, match="Too many"):
                await connect(port)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(read_all(), PATIENCE_SECONDS))
    assert ended == [None, None]


def sending_away(farewells: edge.Farewells) -> type[asyncssh.SSHServer]:
    """Return a server that has no room."""

    class Full(asyncssh.SSHServer):
        def connection_made(self, conn: Any) -> None:
            farewells.bid(conn, "Too many")

    return Full


async def test_a_key_exchange_before_login_waits_for_its_turn_and_a_later_one_does_not() -> None:
    """Nothing dear is done for a stranger before his turn; one who leaves the line ends nothing but himself."""
    asked, may_pass, spent = [], asyncio.Event(), []

    class InTurn(Owner):
        def connection_made(self, conn: Any) -> None:
            super().connection_made(conn)
            edge.take_turns(conn, self.wait, spent.append)

        async def wait(self) -> None:
            asked.append(self._seen.conn)
            await may_pass.wait()

    seen = Seen()
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        listening(server_factory=lambda: InTurn(seen, 30.0)) as (_, port),
    ):
        gone = asyncio.create_task(connect(port))
        await until(lambda: len(asked) == 1)
        gone.cancel()
        await until(seen.lost.is_set)
        connecting = asyncio.create_task(connect(port))
        await until(lambda: len(asked) == 2)
        assert asked[1]._kex_complete is False
        assert asked[1]._kex is None
        before = sum(spent)
        may_pass.set()
        client = await connecting
        assert sum(spent) > before
        client._send_kexinit()
        client._kexinit_sent = True
        rekeyed = client._session_id, client._send_encryption
        await until(lambda: client._send_encryption is not rekeyed[1])
        assert len(asked) == 2
        client.abort()
        await client.wait_closed()


async def test_who_was_sent_away_and_stays_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never closes his side holds the connection for a moment only."""
    monkeypatch.setattr(edge, "LINGER_SECONDS", 0.05)
    farewells = edge.Farewells()
    async with asyncio.timeout(PATIENCE_SECONDS), listening(server_factory=sending_away(farewells)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.read()
        await until(lambda: not farewells._lingering)
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0)
        writer.close()


async def test_few_may_stay_who_were_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of clients that never close holds so many connections and no more, those that came last."""
    monkeypatch.setattr(edge, "LINGER_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(edge, "LINGERING_MOST", 2)
    farewells = edge.Farewells()
    async with asyncio.timeout(PATIENCE_SECONDS), listening(server_factory=sending_away(farewells)) as (_, port):
        ends = []
        for _ in range(4):
            ends.append(await asyncio.open_connection("127.0.0.1", port))
            assert b"Too many" in await ends[-1][0].read()
        assert len(farewells._lingering) == 2
        for _, writer in ends:
            writer.close()
        await until(lambda: all(transport.is_closing() for transport in farewells._lingering))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.read()
        assert len(farewells._lingering) == 1
        writer.close()


async def test_client_that_gives_no_sign_of_life_is_known_as_such() -> None:
    """The reason of a lost connection tells a client that is gone from one that went."""
    async with listening(keepalive_interval=0.05, keepalive_count_max=1) as (seen, port):
        client = await connect(port)
        transport: Any = client._transport  # type: ignore[attr-defined]
        transport.pause_reading()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await seen.lost.wait()
        assert edge.is_keepalive_timeout(seen.lost_with)
        assert not edge.is_login_timeout(seen.lost_with)
        client.abort()
        await client.wait_closed()


async def test_login_that_takes_too_long_is_known_as_such() -> None:
    """The reason of a lost connection tells a slow login from a lost peer."""
    async with listening(login_timeout=0.1) as (seen, port):
        with socket.create_connection(("127.0.0.1", port)):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await seen.lost.wait()
        assert edge.is_login_timeout(seen.lost_with)
        assert not edge.is_login_timeout(None)
        assert not edge.is_login_timeout(asyncssh.ConnectionLost("Connection lost"))


def test_host_keys_do_not_sign_with_sha1(tmp_path: Path) -> None:
    """The RSA host key is offered with SHA-2 signatures only, bare and certified."""
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    certificate = CA_KEY.generate_host_certificate(key, "host")
    offered = [
        name
        for keypair in edge.load_host_keys(
            [(key.export_private_key("openssh"), certificate.export_certificate("openssh"))]
        )
        for name in keypair.host_key_algorithms
    ]
    assert sorted(offered) == [
        b"rsa-sha2-256",
        b"rsa-sha2-256-cert-v01@openssh.com",
        b"rsa-sha2-512",
        b"rsa-sha2-512-cert-v01@openssh.com",
    ]


async def test_a_connection_that_we_accept_ourselves_is_served_by_the_options_of_its_time() -> None:
    """From a socket of ours it is a server's like any other; a host key that was exchanged is shown to the next one."""
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(2)]
    welcomer = await edge.Welcomer.prepare(server_factory=asyncssh.SSHServer, server_host_keys=[keys[0]], backlog=7)
    loop = asyncio.get_running_loop()
    shown = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        for _ in keys:
            asking = asyncio.create_task(asyncssh.get_server_host_key(*door.getsockname(), config=None))
            guest, _ = await loop.sock_accept(door)
            await loop.connect_accepted_socket(welcomer.receive, guest)
            shown.append(await asking)
            welcomer.update(server_host_keys=[keys[1]], backlog=7)
    assert [key.public_data for key in shown if key] == [key.public_data for key in keys]
