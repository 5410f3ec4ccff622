"""The SFTP connection: framing, order, flow control both ways, one reply for every request.

* **Order.**  Requests that touch the same thing (a *lane*: a file, a handle on it, both paths of a RENAME; a listing
  touches its whole directory) are answered in the order in which they came.  WinSCP sends SETSTAT or REMOVE right
  behind CLOSE.  Unrelated ones run beside each other, so that one slow commit holds up nothing else.
* **Backpressure out.**  While the channel or the connection below it is full, nothing more is answered and nothing
  more is read: what a client that does not read can make us hold is one reply for each request in flight.
* **Backpressure in.**  Requests in flight are bounded in number and in bytes, their replies included; beyond that
  they wait in one buffer, and the client's window is opened again only for what was taken out of it.  All sessions of
  a certificate share a number of requests as well; each may always have one.
* **Errors.**  `Refused` and `Deferred` become a STATUS with their sentence; whatever else is raised is a defect,
  journalled under a reference that the client is told, and ends nothing.  Only lost framing ends the session.

A CLOSE that has arrived is a CLOSE: requests that were received are still carried out when the connection ends
behind them (cftp does not wait for its last reply).  Handles that are still open then are given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncssh

from relay import edge, journal
from relay.census import Present
from relay.errors import FX_BAD_MESSAGE, Deferred, Refused, finding
from relay.journal import LimitEnd
from relay.model import Identity
from relay.packets import Sink, write_data
from relay.sftp import wire
from relay.sftp.begun import Begun
from relay.sftp.desks import Desks
from relay.sftp.operations import Operations
from relay.sftp.order import touches
from relay.sftp.wire import DataReply, Init, Reply, Request, WireError

if TYPE_CHECKING:
    from relay.reception import ConnectionFacts

# Bytes of requests that may be under way and of their replies: the data of WRITEs and READs is nearly all of it.
_IN_FLIGHT_BYTES = 4 * wire.PACKET_BYTES_MOST
# Requests that are begun in one go when bytes come: enough for a program that waits for its replies, and no more than
# others can wait for.
_AT_ONCE = 4
# How often a CLOSE looks whether the replies before it have left.
_DRAIN_SECONDS = 0.01
# These programs drop the text of a STATUS and print what comes on stderr (CLIENTS.md section 2b).
_READS_STDERR = ("SSH-2.0-OpenSSH_", "SSH-2.0-PuTTY_")
# Twisted's client hangs for ever on a status text that is not ASCII (CLIENTS.md, appendix B).
_ASCII_ONLY = "SSH-2.0-Twisted"
# Requests that fail in passing: asking whether something exists is no news to the user.
_QUIET = frozenset({wire.STAT, wire.LSTAT, wire.FSTAT, wire.OPENDIR, wire.READDIR, wire.REALPATH, wire.READ})
# What a large file is made of.
_BUSY = frozenset({wire.READ, wire.WRITE})
_TOLD_MOST = 64
_NOT_SENT = "An answer could not be sent; please connect again"


@dataclass(slots=True, eq=False)
class _Running:
    """A request that could not be answered at once."""

    lanes: tuple[str, ...]
    size: int
    done: asyncio.Event = field(default_factory=asyncio.Event)


class SftpSession(Sink):
    """One SFTP subsystem on one channel."""

    def __init__(
        self, identity: Identity, facts: ConnectionFacts, desks: Desks, on_end: Callable[[SftpSession], None]
    ) -> None:
        self._facts = facts
        self._journal = facts.journal
        self._on_end = on_end
        self._desks = desks
        self._meters = desks.meters
        self._office = identity.office
        self._identity = identity
        self._renewal = desks.renewal
        self._limits = desks.config.limits
        self._reads_stderr = facts.client_version.startswith(_READS_STDERR)
        self._is_ascii_only = facts.client_version.startswith(_ASCII_ONLY)
        ends_short = facts.client_version.startswith("SSH-2.0-OpenSSH_")
        self._operations = Operations(
            desks, identity, self._journal, self._has_drained, self._drained, ends_short=ends_short
        )
        self._framer = wire.Framer()
        self._running: dict[_Running, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes_in_flight = 0
        self._at_once_left = 0
        self._chan: asyncssh.SSHServerChannel[bytes] | None = None
        self._unwatch: Callable[[], None] | None = None
        self._is_started = False
        self._greeting_timer: asyncio.TimerHandle | None = None
        self._is_in_use = False
        self._is_greeted = False
        self._is_channel_full = False
        self._is_at_eof = False
        self._is_over = False
        self._told: set[tuple[bytes, str]] = set()

    @property
    def is_busy(self) -> bool:
        """True while a request is under way or an upload is open."""
        return bool(self._running) or self._operations.has_uploads

    @property
    def handle_count(self) -> int:
        """How many files and folders are open."""
        return self._operations.handle_count

    @property
    def upload_count(self) -> int:
        """How many uploads are open."""
        return self._operations.upload_count

    @property
    def presence(self) -> Present:
        """Who this is, for whoever watches."""
        software = self._facts.client_version.removeprefix("SSH-2.0-")
        return Present(self._office, software, 1, self.handle_count, self.upload_count)

    # --- asyncssh's calls ----------------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Take the channel."""
        self._chan = chan
        self._unwatch = self._facts.gate.watch(self._pump)
        seconds = self._desks.config.server.unused_seconds
        self._greeting_timer = asyncio.get_running_loop().call_later(seconds, self._end_ungreeted)

    def subsystem_requested(self, subsystem: str) -> bool:
        """Say yes: `auth` lets nothing but ``sftp`` come this far."""
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Note the beginning."""
        self._is_started = True
        self._meters.sessions_opened += 1
        journal.session_opened(self._journal)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take bytes of the stream; an exception from here would end the whole connection."""
        if datatype is None and not self._is_over:
            self._framer.feed(data)
            self._arrived(len(data))

    def room(self, size: int) -> memoryview:
        """Return where bytes of the stream may be written, for `poured`."""
        return self._framer.room(size)

    def poured(self, size: int) -> None:
        """Take bytes of the stream that were written there; an exception from here would end the whole connection."""
        if not self._is_over:
            self._framer.filled(size)
            self._arrived(size)

    def _arrived(self, size: int) -> None:
        self._meters.bytes_in += size
        self._at_once_left = _AT_ONCE
        self._pump()

    def eof_received(self) -> bool:
        """Stay half-open: replies are still to come."""
        self._is_at_eof = True
        self._pump()
        return True

    def pause_writing(self) -> None:
        """Stop answering: the client's window is full."""
        self._is_channel_full = True

    def resume_writing(self) -> None:
        """Go on answering."""
        self._is_channel_full = False
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Carry out what was received whole, then give up what is open; *exc* None does not mean clean."""
        reason = str(exc) if exc else "the client has gone"
        if self._framer.held_bytes and not self._may_answer():
            reason = f"{reason}; it asked on and did not read the replies"
        self._chan = None
        if self._unwatch is not None:
            self._unwatch()
        self._pump()
        self._note_use(False)
        self._start(self._end(reason))

    # --- the way of a request --------------------------------------------------------------------------------------

    def _may_answer(self) -> bool:
        """True while a reply can be sent, or nobody waits for one any more."""
        return self._chan is None or (not self._is_channel_full and self._facts.gate.is_open)

    def _pump(self) -> None:
        """Take requests off the stream as long as there is room for them and for their replies."""
        try:
            while self._may_answer() and self._has_room():
                packet = self._framer.next_packet()
                if packet is None:
                    break
                self._take(packet)
        except WireError as error:
            self._hang_up(error.crime)
        if self._chan is not None:
            edge.return_window(self._chan, held_bytes=self._framer.held_bytes)
        if self._is_at_eof and not self._running and self._may_answer():
            self._finish()

    def _has_room(self) -> bool:
        if not self._running:
            return True
        return (
            len(self._running) < self._limits.requests_in_flight
            and self._bytes_in_flight < _IN_FLIGHT_BYTES
            and self._operations.share.has_room_for_request
        )

    def _take(self, packet: bytes | memoryview) -> None:
        """Answer one request now, or start answering it."""
        try:
            message = wire.parse_packet(packet)
        except WireError as error:
            if error.request_id is None or not self._is_greeted:
                raise
            self._accuse(error)
            return
        if isinstance(message, Init):
            self._greet(message)
        elif not self._is_greeted:
            raise WireError("a request before INIT")
        else:
            self._dispatch(message, len(packet))

    def _greet(self, init: Init) -> None:
        if self._is_greeted:
            raise WireError("INIT twice")
        self._is_greeted = True
        self._note_use(True)
        self._send(self._operations.greet(init))
        if self._reads_stderr:
            self._start(self._announce())

    async def _announce(self) -> None:
        """Tell of an end to come where the client's program prints it, and opens no dialog for it."""
        try:
            text = await self._renewal.announce(self._identity)
        except Deferred:
            return
        if text is not None:
            self._print(text)

    def _dispatch(self, request: Request, size: int) -> None:
        self._meters.requests += 1
        before: list[_Running] = []
        lanes: tuple[str, ...] = ()
        try:
            if self._running:
                lanes = self._operations.lanes(request)
                before = [earlier for earlier in self._running if touches(lanes, earlier.lanes)]
            if not before:
                reply = self._operations.answer_now(request)
                if reply is not None:
                    self._send(reply)
                    return
            # From here on it may outlive what was fed.
            request = wire.keep_request(request)
            # Before its first steps, which may let go of the handle that it names.
            lanes = lanes or self._operations.lanes(request)
            begun = self._begin(request) if not before else None
            if begun is not None and begun.is_done:
                self._send(begun.result)
                return
        except Exception as error:  # noqa: BLE001 - the one wrapper at this edge
            self._send(self._explain_once(request, error))
            return
        running = _Running(lanes, size + _reply_bytes(request))
        self._running[running] = None
        self._operations.share.requests.add(1)
        self._bytes_in_flight += running.size
        self._start(self._run(request, running, begun, before))

    def _begin(self, request: Request) -> Begun[Reply] | None:
        """Begin to answer *request*, unless so many were begun since bytes came that it is somebody else's turn."""
        if self._at_once_left == 0:
            return None
        self._at_once_left -= 1
        return Begun(self._operations.answer(request))

    async def _run(
        self, request: Request, running: _Running, begun: Begun[Reply] | None, before: list[_Running]
    ) -> None:
        try:
            reply: Reply | None = None
            for earlier in before:
                await earlier.done.wait()
            if begun is None and request.type in _BUSY:
                # What it waited for may have brought what it needs.
                reply = self._operations.answer_now(request)
            if reply is None:
                reply = await (self._operations.answer(request) if begun is None else begun)
        except Exception as error:  # noqa: BLE001 - the one wrapper at this edge
            reply = self._explain_once(request, error)
        try:
            self._send(reply)
        finally:
            # Also where there is no memory left to send it: others wait for this one's end.
            del self._running[running]
            self._operations.share.requests.add(-1)
            self._bytes_in_flight -= running.size
            running.done.set()
        self._pump()

    def _explain_once(self, request: Request, error: Exception) -> bytes:
        """Return the STATUS for what was raised; what goes wrong with explaining it is told in its place."""
        try:
            return self._explain(request, error)
        except Exception as worse:  # noqa: BLE001 - the one wrapper at this edge
            return self._explain(request, worse)

    def _explain(self, request: Request, error: Exception) -> bytes:
        """Return the STATUS for what was raised, and tell those who will not see its text."""
        if isinstance(error, WireError):
            journal.protocol_error(self._journal, crime=error.crime)
            return wire.pack_status(request.id, FX_BAD_MESSAGE, error.crime)
        if isinstance(error, (Refused, Deferred)):
            told = error.finding
            self._desks.shares.tell(self._journal, error, self._office, self._desks.clock())
        else:
            reference = journal.new_reference()
            journal.unexpected_error(self._journal, reference=reference, exception=error)
            told = finding("server.fault", reference=reference)
        if request.type not in _QUIET:
            self._meters.refusals[told.code] += 1
            self._tell_user(request.subject, told.code, told.client_text)
        text = f"{told.code}: {told.message_en}" if self._is_ascii_only else told.client_text
        return wire.pack_status(request.id, told.row.status, text)

    def _tell_user(self, subject: bytes, code: str, text: str) -> None:
        """Print the sentence where the client's program prints stderr; once for each thing and code."""
        if not self._reads_stderr or self._chan is None or (subject, code) in self._told:
            return
        if len(self._told) >= _TOLD_MOST:
            self._told.clear()
        self._told.add((subject, code))
        self._print(text)

    def _print(self, text: str) -> None:
        if self._chan is not None:
            # Where the client closed its side, connection_lost follows.
            with contextlib.suppress(BrokenPipeError):
                self._chan.write_stderr(f"{text}\r\n".encode())

    def _accuse(self, error: WireError) -> None:
        journal.protocol_error(self._journal, crime=error.crime)
        assert error.request_id is not None
        self._send(wire.pack_status(error.request_id, FX_BAD_MESSAGE, error.crime))

    def _send(self, reply: Reply) -> None:
        if self._chan is None:
            return
        try:
            if isinstance(reply, DataReply):
                self._meters.bytes_out += len(reply.head) + len(reply.data)
                write_data(self._chan, reply.head, reply.data)
            else:
                self._meters.bytes_out += len(reply)
                self._chan.write(reply)
        except BrokenPipeError:
            return  # the client closed its side; connection_lost follows
        except Exception as error:  # noqa: BLE001 - without memory or random numbers there is no packet
            # The client would wait for it for ever; on a new connection it can ask what became of its file.
            journal.unexpected_error(self._journal, reference=journal.new_reference(), exception=error)
            self._facts.disconnect(_NOT_SENT)

    async def _drained(self) -> bool:
        """Wait until every reply so far has left for the network; False where the connection ended before that."""
        while not self._has_drained():
            # asyncssh drops what was not sent when the client closes the channel, and then calls its buffer empty.
            if self._chan is None or self._chan.is_closing():
                return False
            # Neither asyncssh nor the transport tells when its buffer is empty, only when it is low.
            await asyncio.sleep(_DRAIN_SECONDS)
        return True

    def _has_drained(self) -> bool:
        chan = self._chan
        return (
            chan is not None and not chan.is_closing() and not chan.get_write_buffer_size() and self._facts.gate.is_open
        )

    # --- the end -------------------------------------------------------------------------------------------------

    def _note_use(self, is_used: bool) -> None:  # noqa: FBT001 - a question with one meaning
        """Tell the connection, once each, that it has a session and that it has it no more."""
        if self._greeting_timer is not None:
            self._greeting_timer.cancel()
            self._greeting_timer = None
        if is_used is not self._is_in_use:
            self._is_in_use = is_used
            self._facts.note_use(is_used)

    def _end_ungreeted(self) -> None:
        """End a channel on which nobody has said INIT."""
        log, end, now = self._desks.shares.limit_log, LimitEnd.CONNECTED_AGAIN, self._desks.clock()
        log.reached(self._journal, limit="unused_seconds", scope=self._office, until=end, now=now)
        self._is_over = True
        if self._chan is not None:
            self._chan.close()

    def _finish(self) -> None:
        """Answer the client's EOF: every reply was sent, so scp may exit 0."""
        self._note_use(False)
        if self._chan is not None and not self._chan.is_closing():
            self._chan.exit(0)

    def _hang_up(self, crime: str) -> None:
        """End the session: the stream can no longer be cut into requests."""
        journal.protocol_error(self._journal, crime=crime)
        self._is_over = True
        self._note_use(False)
        self._framer = wire.Framer()
        if self._chan is not None:
            self._chan.exit(1)

    async def _end(self, reason: str) -> None:
        while self._running:
            await next(iter(self._running)).done.wait()
        self._is_over = True
        try:
            await self._operations.abandon(reason)
        except Exception as error:  # noqa: BLE001 - a session that never ends would keep the server from ending
            journal.unexpected_error(self._journal, reference=journal.new_reference(), exception=error)
        if self._is_started:
            # A channel whose connection was lost before it asked for SFTP was no session.
            journal.session_closed(self._journal, reason=reason)
        self._on_end(self)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reply_bytes(request: Request) -> int:
    """Return how long the reply may become."""
    if request.type == wire.READ:
        return min(request.length, wire.READ_BYTES_MOST)
    return wire.NAMES_BYTES_MOST if request.type == wire.READDIR else 0
