"""The edge: every reach into asyncssh beyond its documentation, and nothing else.

asyncssh does transport, ciphers, key exchange, certificates and channels.  What a relay needs besides, it keeps to
itself, so it is taken here, a few lines for each thing, and `tests/unit/test_edge.py` fails for each as soon as
asyncssh changes:

* `ConnectionGate` - whether the connection takes more output.  asyncssh leaves the transport's pause and resume
  empty, and keeps what is sent during a rekey in a list without end.  A client that does not read, or never ends
  its rekey, is disconnected at a bound instead of filling memory.
* `wrap_validation` - sees every key, probe and signature, around asyncssh's own verdict.
* `has_good_signature` - whether the client holds the key of a certificate that asyncssh will not let in.
* `is_signed_by`, `offer_signatures` - logins with X.509 chains, which asyncssh leaves to another library.
* `open_channel` - a channel on which ``subsystem sftp`` may be asked for, once, and nothing else.
* `Welcomer` - connections that we accept ourselves, because several processes share the listening socket.
* `Farewells` - a connection too many is sent away with a sentence before a key exchange.
* `take_turns` - a stranger's key exchange waits for its turn, and what he costs is measured.
* `watch_requests` - tells what is asked for besides sessions; `watch_channels` that one has ended.
* `permit_repeated_service_request`, `judge_kex_guess`, `keep_options` - behaviour of real clients that asyncssh ends
  the connection for, and work that it does for each login and that we have no use for.

What is taken of every single packet is in `relay.packets`.  Nothing here knows of offices, files or the ledger.
``Any`` lives in these two and in no other module: asyncssh's private names have no types to hold them to.
"""

# ruff: noqa: SLF001 - reaching for private names is what this module is for
from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
    MSG_KEXINIT,
    MSG_SERVICE_REQUEST,
)
from asyncssh.packet import SSHPacket, String, UInt32
from asyncssh.public_key import KeyImportError, decode_ssh_certificate, decode_ssh_public_key

Connection = asyncssh.SSHServerConnection
Channel = asyncssh.SSHServerChannel[bytes]
AskAsyncssh = Callable[[str], Awaitable[bool]]
ValidationHook = Callable[[str, bytes, bytes, bytes, AskAsyncssh], Awaitable[bool]]

# An unfinished rekey keeps every reply in memory; OpenSSH's own clients need a round trip.
REKEY_SECONDS = 30.0
# Output that the kernel has not taken: two whole replies to READ are under way at most before the gate closes.
WRITE_HIGH_BYTES = 256 * 1024
WRITE_LOW_BYTES = 64 * 1024
# asyncssh answers by itself what needs no session (requests it does not know, windows); who lets that pile up
# behind a closed gate never reads.  Some 60,000 answers.
UNREAD_BYTES = 2 * 1024 * 1024
# During a rekey: one reply that was being written for each session, and asyncssh's own small answers.
DEFERRED_BYTES = 8 * 1024 * 1024
DEFERRED_PACKETS = 8192
# Two packets of an upload.
PIECE_BYTES = 64 * 1024
# Before login nobody has anything to say that is longer: the largest certificate is 32 KiB.
UNPROVEN_BYTES = 512 * 1024
UNPROVEN_DEFERRED_PACKETS = 256
# How long somebody who was sent away may take to close his side, and how many may do so at once.
LINGER_SECONDS = 2.0
LINGERING_MOST = 256

# What a host key may sign with: SHA-1 (``ssh-rsa``) is not here, though asyncssh would offer it.
_HOST_KEY_ALGORITHMS = frozenset(
    name + suffix
    for name in (b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"rsa-sha2-256", b"rsa-sha2-512")
    for suffix in (b"", b"-cert-v01@openssh.com")
)
_USERAUTH_SERVICE = b"ssh-userauth"
SFTP_SUBSYSTEM = b"sftp"
_SESSION = b"session"


class ConnectionGate:
    """Whether a connection takes more output at present; one for each connection.

    Closed while the transport's buffer is full, a key exchange is under way or packets wait for its end.  Sessions
    write only while it is open, one reply at a time, and look again before the next.
    """

    def __init__(
        self, conn: Connection, *, on_crime: Callable[[str], None], rekey_seconds: float = REKEY_SECONDS
    ) -> None:
        """Install the gate; to be called in `SSHServer.connection_made`.

        *on_crime* is told in words when the client exceeds a bound, once, and must disconnect.
        """
        self._conn: Any = conn
        # Given what asyncssh takes its input with: what needs no asyncssh may be taken off a long one before it is cut.
        self.take_ahead: Callable[[Callable[[], None]], None] = lambda _: None
        self._on_crime = on_crime
        self._rekey_seconds = rekey_seconds
        self._rekey_timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._was_open = False
        self._watchers: dict[object, Callable[[], None]] = {}
        transport: Any = self._conn._transport
        self._transport = transport
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)
        self._wrap()

    @property
    def is_open(self) -> bool:
        """True while more may be written."""
        conn = self._conn
        return not self._is_paused and conn._kex_complete and not conn._deferred_packets

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* whenever the gate has opened or closed; returns how to stop that."""
        token = object()
        self._watchers[token] = callback

        def stop() -> None:
            self._watchers.pop(token, None)

        return stop

    def close(self) -> None:
        """Let go of everything, once the connection is lost."""
        self._cancel_rekey_timer()
        self._watchers.clear()

    def _wrap(self) -> None:
        """Put ourselves around the five methods that tell when the gate opens, closes or overflows."""
        conn = self._conn
        send_kexinit, send_newkeys, receive = conn._send_kexinit, conn.send_newkeys, conn._recv_data

        def on_kexinit() -> None:
            send_kexinit()
            self._start_rekey_timer()
            self._tell()

        def on_newkeys(k: bytes, h: bytes) -> None:
            # What was deferred leaves in here, and may begin the next rekey: the timer must not be ours to cancel then.
            self._cancel_rekey_timer()
            send_newkeys(k, h)
            self._tell()

        def on_data() -> None:
            if len(conn._inpbuf) > PIECE_BYTES:
                self.take_ahead(receive)
            read = conn._inpbuf
            if len(read) > PIECE_BYTES:
                # asyncssh copies all that is left behind each packet: fed whole, a large read is copied many times.
                conn._inpbuf = b""
                for start in range(0, len(read), PIECE_BYTES):
                    conn._inpbuf += read[start : start + PIECE_BYTES]
                    receive()
            else:
                receive()
            self._check_bounds()

        conn.pause_writing, conn.resume_writing = self._pause, self._resume
        conn._send_kexinit, conn.send_newkeys, conn._recv_data = on_kexinit, on_newkeys, on_data

    def _pause(self) -> None:
        self._is_paused = True
        self._tell()

    def _resume(self) -> None:
        self._is_paused = False
        self._tell()

    def _tell(self) -> None:
        is_open = self.is_open
        if is_open != self._was_open:
            self._was_open = is_open
            for callback in list(self._watchers.values()):
                callback()

    def _start_rekey_timer(self) -> None:
        # The first key exchange is under asyncssh's login time-out.
        if self._conn._session_id and self._rekey_timer is None:
            self._rekey_timer = asyncio.get_running_loop().call_later(self._rekey_seconds, self._give_up)

    def _cancel_rekey_timer(self) -> None:
        if self._rekey_timer is not None:
            self._rekey_timer.cancel()
            self._rekey_timer = None

    def _give_up(self) -> None:
        self._accuse(f"a key exchange was not finished within {self._rekey_seconds:g} seconds")

    def _check_bounds(self) -> None:
        """Accuse a client whose input makes us hold more than it will ever take."""
        conn = self._conn
        if conn._transport is None:
            return
        if self._is_paused and self._transport.get_write_buffer_size() > UNREAD_BYTES:
            self._accuse("requests are sent and no replies are read")
        elif conn._deferred_packets:
            deferred = conn._deferred_packets
            most = DEFERRED_PACKETS if conn._auth_complete else UNPROVEN_DEFERRED_PACKETS
            if len(deferred) > most or sum(len(part) for _, parts in deferred for part in parts) > DEFERRED_BYTES:
                self._accuse("requests are sent during a key exchange that is not finished")
        elif not conn._auth_complete and len(conn._inpbuf) > UNPROVEN_BYTES:
            self._accuse("data is sent before login faster than it can be answered")

    def _accuse(self, crime: str) -> None:
        self._cancel_rekey_timer()
        if self._conn._transport is not None:
            self._on_crime(crime)


def wrap_validation(conn: Connection, hook: ValidationHook) -> None:
    """Let *hook* decide about every key that the client offers on *conn*.

    *hook* gets (user name as typed, key, message, signature, ask_asyncssh).  Message and signature are empty for a
    probe.  ``ask_asyncssh(principal)`` is asyncssh's own verdict on the CA's signature, the certificate's claims for
    *principal*, and the client's signature.  When *hook* answers True to a signature, the login completes before
    any other task runs.
    """
    unwrapped: Any = conn
    ask = unwrapped.validate_public_key

    async def validate(username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        return await hook(username, key_data, msg, signature, lambda who: ask(who, key_data, msg, signature))

    unwrapped.validate_public_key = validate


def has_good_signature(conn: Connection, key_data: bytes, msg: bytes, signature: bytes) -> bool:
    """Tell whether a certificate is signed by the CA that it names and, unless *msg* is empty, by its own key.

    This is cryptography alone: trust, dates and principals are not looked at.
    """
    unwrapped: Any = conn
    try:
        certificate: Any = decode_ssh_certificate(key_data)
    except KeyImportError:
        return False
    return not msg or bool(certificate.key.verify(String(unwrapped._session_id) + msg, signature))


def is_signed_by(conn: Connection, key_data: bytes, msg: bytes, signature: bytes) -> bool:
    """Tell whether *signature* is that of the plain public key *key_data* over *msg* on this connection.

    For chains of X.509 certificates, which asyncssh reads only with pyOpenSSL and verifies by rules that are not ours.
    """
    unwrapped: Any = conn
    try:
        key: Any = decode_ssh_public_key(key_data)
    except KeyImportError:
        return False
    return bool(key.verify(String(unwrapped._session_id) + msg, signature))


def offer_signatures(conn: Connection, algorithms: Iterable[str]) -> None:
    """Tell the client of *algorithms* to sign with besides the configured ones; before its key exchange ends.

    asyncssh refuses to be configured with those of X.509 where it cannot read X.509 by itself.
    """
    unwrapped: Any = conn
    unwrapped._sig_algs = [*unwrapped._sig_algs, *(name.encode() for name in algorithms)]


def open_channel(
    conn: Connection,
    *,
    window_bytes: int,
    packet_bytes: int,
    allowed: bytes = SFTP_SUBSYSTEM,
    on_refused: Callable[[str], None] = lambda _: None,
) -> Channel:
    """Make a channel that refuses every request but the first one for the subsystem *allowed*.

    Environment variables, terminals, shells, commands, agents, X11, signals and all that is not known yet are
    answered with a failure before asyncssh looks at them; *on_refused* is told what was asked for, as the client
    wrote it.
    """
    channel: Any = conn.create_server_channel(
        encoding=None, errors="strict", window=window_bytes, max_pktsize=packet_bytes
    )

    def answer_request() -> None:
        request, packet, _ = channel._request_queue[0]
        if request == "subsystem":
            name = packet.get_string()
            packet.check_end()
            is_ours = name == allowed and channel._start_session(subsystem=name.decode("ascii"))
            channel._report_response(is_ours)
        else:
            is_ours = False
            channel._report_response(False)
        if not is_ours:
            on_refused(request)

    def deliver(data: bytes, datatype: int | None) -> None:
        if channel._session is not None:
            channel._session.data_received(data, datatype)

    channel._service_next_request = answer_request
    channel._deliver_data = deliver
    return channel  # type: ignore[no-any-return]


def return_window(channel: Channel, *, held_bytes: int) -> None:
    """Let the client send as much more as its window has room for behind *held_bytes* that wait for their turn.

    asyncssh opens the whole window with the first piece it hands over, whatever waits behind it; and while its reading
    is paused it keeps a list entry for every packet, be it of one byte, and tells nobody of the channel's end.  So a
    session of ours never pauses: it holds what it cannot deal with yet, and the window is opened here alone.
    """
    unwrapped: Any = channel
    due = unwrapped._init_recv_window - unwrapped._recv_window - held_bytes
    if due >= unwrapped._init_recv_window // 2 and not channel.is_closing():
        unwrapped._recv_window += due
        unwrapped.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(due))


def count_channels(conn: Connection) -> int:
    """Return how many channels are open on *conn*, those that close included until they have."""
    unwrapped: Any = conn
    return len(unwrapped._channels)


def watch_channels(conn: Connection, on_closed: Callable[[], None]) -> None:
    """Call *on_closed* behind the end of each channel."""
    unwrapped: Any = conn
    remove = unwrapped.remove_channel

    def remove_channel(number: int) -> None:
        remove(number)
        on_closed()

    unwrapped.remove_channel = remove_channel


def permit_repeated_service_request(conn: Connection) -> None:
    """Answer SSH_MSG_SERVICE_REQUEST again before login; asyncssh would disconnect.

    paramiko sends it for every key it tries.
    """
    unwrapped: Any = conn
    answer = unwrapped._packet_handlers[MSG_SERVICE_REQUEST]

    def answer_again(conn: Any, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if conn._auth_in_progress and not conn._auth_complete:
            conn._next_service = _USERAUTH_SERVICE
        answer(conn, pkttype, pktid, packet)

    unwrapped._packet_handlers = {**unwrapped._packet_handlers, MSG_SERVICE_REQUEST: answer_again}


def judge_kex_guess(conn: Connection) -> None:
    """Judge a client's guessed key exchange packet as RFC 4253 section 7 does.

    A guess is wrong unless both sides prefer the same method; asyncssh compares with what was chosen, takes the
    packet that has to be ignored, and disconnects at the right one (Dropbear guesses).
    """
    unwrapped: Any = conn
    process = unwrapped._packet_handlers[MSG_KEXINIT]

    async def process_and_judge(conn: Any, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        payload = SSHPacket(packet.get_full_payload())
        payload.get_bytes(1 + 16)
        theirs = payload.get_namelist(), payload.get_namelist()
        for _ in range(8):
            payload.get_string()
        is_guess = payload.get_boolean()
        await process(conn, pkttype, pktid, packet)
        ours = conn._kex_algs, conn._server_host_key_algs
        is_right = all(their[:1] == list(our[:1]) for their, our in zip(theirs, ours, strict=True))
        conn._ignore_first_kex = is_guess and not is_right

    unwrapped._packet_handlers = {**unwrapped._packet_handlers, MSG_KEXINIT: process_and_judge}


def take_turns(conn: Connection, turn: Callable[[], Awaitable[None]], note_work: Callable[[float], None]) -> None:
    """Let the key exchange before login wait for *turn*, and tell *note_work* the seconds that *conn* takes until then.

    asyncssh reads no further while a packet is being answered, so what the exchange costs comes behind its turn.  To be
    called last in `SSHServer.connection_made`.
    """
    unwrapped: Any = conn
    process, receive = unwrapped._packet_handlers[MSG_KEXINIT], unwrapped._recv_data

    async def process_in_turn(conn: Any, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if not conn._session_id:
            await turn()
        if conn._transport is not None:
            await process(conn, pkttype, pktid, packet)

    def measure() -> None:
        began = time.monotonic()
        receive()
        note_work(time.monotonic() - began)
        if unwrapped._auth_complete:
            unwrapped._recv_data = receive

    unwrapped._packet_handlers = {**unwrapped._packet_handlers, MSG_KEXINIT: process_in_turn}
    unwrapped._recv_data = measure


def watch_requests(conn: Connection, on_request: Callable[[str], None]) -> None:
    """Tell *on_request*, as the client wrote it, of every channel that is no session and every global request.

    asyncssh refuses tunnels without asking its server where the certificate does not permit them.
    """
    unwrapped: Any = conn

    def watch(pkttype: int) -> Callable[[Any, int, int, SSHPacket], object]:
        process: Callable[[Any, int, int, SSHPacket], object] = unwrapped._packet_handlers[pkttype]

        def look_and_process(conn: Any, pkttype: int, pktid: int, packet: SSHPacket) -> object:
            payload = SSHPacket(packet.get_full_payload())
            payload.get_bytes(1)
            name = payload.get_string()
            if name != _SESSION:
                on_request(name.decode("utf-8", "replace"))
            return process(conn, pkttype, pktid, packet)

        return look_and_process

    watched = {pkttype: watch(pkttype) for pkttype in (MSG_CHANNEL_OPEN, MSG_GLOBAL_REQUEST)}
    unwrapped._packet_handlers = {**unwrapped._packet_handlers, **watched}


def keep_options(conn: Connection) -> None:
    """Leave the options as they are at each new user name.

    asyncssh builds all of them again, in a thread, for the sake of OpenSSH's ``Match`` blocks, and collects input
    without a bound meanwhile.
    """

    async def keep() -> None:
        return

    unwrapped: Any = conn
    unwrapped.reload_config = keep


class Welcomer:
    """Makes asyncssh's side of a connection that somebody else has accepted; `asyncssh.listen` does so for its own."""

    def __init__(self, options: asyncssh.SSHServerConnectionOptions) -> None:
        """Go by *options*; use `prepare`."""
        self._options = options

    @classmethod
    async def prepare(cls, **options: Any) -> Welcomer:
        """Take the keyword arguments of `asyncssh.listen`."""
        options.pop("backlog", None)
        return cls(await asyncssh.SSHServerConnectionOptions.construct(None, **options))

    def receive(self) -> Connection:
        """Return the protocol of a new connection."""
        return asyncssh.SSHServerConnection(asyncio.get_running_loop(), self._options)

    def update(self, **options: object) -> None:
        """Exchange *options* for the connections that come from now on."""
        options.pop("backlog", None)
        self._options.update(**options)


class Farewells:
    """Ends connections that have just been made, with a sentence that their users read.

    A DISCONNECT behind the version is what OpenSSH's and PuTTY's clients, WinSCP, rclone and asyncssh print; they drop
    a line in front of it.  No key exchange is begun.  Our side of the connection is closed, and the rest when the
    client closes his: where bytes of his were left unread, the system would answer with a reset that can overtake
    the sentence.
    """

    def __init__(self) -> None:
        """Begin with nobody who lingers."""
        self._lingering: dict[asyncio.Transport, None] = {}

    def bid(self, conn: Connection, sentence: str) -> None:
        """Send *conn* away; to be called in `SSHServer.connection_made`."""
        unwrapped: Any = conn
        transport: Any = unwrapped._transport
        unwrapped._send_version()
        unwrapped._send_disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, sentence, "en")
        unwrapped._transport = None

        def discard() -> None:
            unwrapped._inpbuf = b""

        unwrapped._recv_data = discard
        loop = asyncio.get_running_loop()
        loop.call_soon(unwrapped._cleanup, None)
        if len(self._lingering) >= LINGERING_MOST:
            self._lingering = {each: None for each in self._lingering if not each.is_closing()}
        if len(self._lingering) >= LINGERING_MOST:
            # Who came first has had the most time to read.
            self._let_go(next(iter(self._lingering)))
        self._lingering[transport] = None
        with contextlib.suppress(OSError, RuntimeError):
            transport.write_eof()
        loop.call_later(LINGER_SECONDS, self._let_go, transport)

    def _let_go(self, transport: asyncio.Transport) -> None:
        self._lingering.pop(transport, None)
        transport.abort()


def is_login_timeout(exc: Exception | None) -> bool:
    """Tell whether a connection was lost because its login took too long."""
    return isinstance(exc, asyncssh.ConnectionLost) and exc.reason == "Login timeout expired"


def is_keepalive_timeout(exc: Exception | None) -> bool:
    """Tell whether a connection was lost because its client gave no sign of life."""
    return isinstance(exc, asyncssh.ConnectionLost) and exc.reason == "Client not responding to keepalive"


def load_host_keys(pairs: Iterable[tuple[bytes, bytes]]) -> list[asyncssh.SSHKeyPair]:
    """Return key pairs for `asyncssh.listen` from (private key file, certificate line), without SHA-1 signatures."""
    loaded = [
        (asyncssh.import_private_key(private), asyncssh.import_certificate(certificate))
        for private, certificate in pairs
    ]
    keypairs: list[Any] = list(asyncssh.load_keypairs(loaded))
    for keypair in keypairs:
        keypair.host_key_algorithms = [name for name in keypair.host_key_algorithms if name in _HOST_KEY_ALGORITHMS]
    return keypairs
