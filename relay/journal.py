"""The journal: what the operator reads, one function per event.

Every line has an event's name, a time in UTC, a level and named facts; nothing is ever said in free text.  A new
event is a new function here, with keyword parameters for exactly the facts that it tells: the signatures are where
one sees that no payload, no personal data and no secret can be written.  A transfer is told by its number, kind and
offices, never by its name; an exception by its class and its place in the code, because its message may quote an
upload (only messages of the operating system and of SQLite are kept).

Text that came over the network is escaped, so that no client can forge a line or move an operator's cursor.

Writing a line never fails: a full disk under the journal must not cost anybody a file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final, Literal, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

from relay.common import Common
from relay.model import OfficeNumber, TransferId

JournalFormat = Literal["auto", "json", "text"]
JournalLevel = Literal["debug", "info", "warning", "error"]

# A client may introduce itself at any length; a line must stay one that a person can read.
_FACT_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Journal:
    """A way to write lines that all carry the same facts; *logger* is used by this module alone."""

    logger: FilteringBoundLogger

    def bind(
        self, *, connection: str | None = None, office: OfficeNumber | None = None, session: int | None = None
    ) -> Journal:
        """Return a journal whose lines carry these facts as well."""
        facts = {"connection": connection, "office": office, "session": session}
        return Journal(self.logger.bind(**{name: fact for name, fact in facts.items() if fact is not None}))


def configure_journal(
    format: JournalFormat = "auto",  # noqa: A002 - the word of relay.toml
    level: JournalLevel = "info",
    stream: TextIO | None = None,
    *,
    worker: int | None = None,
) -> None:
    """Say how journals made from now on write: to *stream*, or to standard error as it is now.

    ``auto`` is text on a terminal and JSON anywhere else.  Every line names the *worker*, where there are several.
    """
    out = sys.stderr if stream is None else stream
    as_text = format == "text" or (format == "auto" and out.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if as_text
        else structlog.processors.JSONRenderer(serializer=_write_json)
    )
    structlog.configure(
        processors=[
            *([] if worker is None else [partial(_name_worker, worker)]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            _make_printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        context_class=dict,
        logger_factory=_LineWriter.factory(out),
        cache_logger_on_first_use=False,
    )


def new_journal() -> Journal:
    """Return a journal that knows no facts yet; unconfigured, it writes as `configure_journal` does by default."""
    if not structlog.is_configured():
        # structlog's own default would write to standard output, which belongs to the command line's answers.
        configure_journal()
    # bind() settles what the configuration is now, once, instead of at every line.
    return Journal(cast(FilteringBoundLogger, structlog.get_logger().bind()))


# --- the server ------------------------------------------------------------------------------------------------


def server_listening(journal: Journal, *, host: str, port: int, workers: int | None = None) -> None:
    """Tell that connections are accepted, and by how many processes."""
    journal.logger.info("server.listening", host=host, port=port, workers=workers)


def server_draining(journal: Journal, *, sessions: int, seconds: float) -> None:
    """Tell that no more connections are accepted and that open sessions have *seconds* to end."""
    journal.logger.info("server.draining", sessions=sessions, seconds=seconds)


def server_leaving(journal: Journal, *, connections: int, seconds: float) -> None:
    """Tell that another server takes new connections from now on, and that those here may go on for *seconds*."""
    journal.logger.info("server.leaving", connections=connections, seconds=seconds)


def handover_begun(journal: Journal, *, pid: int) -> None:
    """Tell that a successor is starting; nothing has changed yet."""
    journal.logger.info("handover.begun", successor=pid)


def handover_failed(journal: Journal, *, reason: str) -> None:
    """Tell why no successor takes over: this server goes on as it was."""
    journal.logger.error("handover.failed", reason=reason)


def handover_done(journal: Journal, *, pid: int) -> None:
    """Tell that the successor takes connections; this server ends with the sessions that it still has."""
    journal.logger.info("handover.done", successor=pid)


def settings_adopted(journal: Journal, *, changed: Sequence[str], later: Sequence[str]) -> None:
    """Tell which settings hold from now on, and which only with a hand-over or a restart."""
    journal.logger.info("settings.adopted", changed=[*changed], need_restart=[*later] or None)


def settings_unusable(journal: Journal, *, reason: str) -> None:
    """Tell why the settings cannot be used: those from before go on."""
    journal.logger.error("settings.unusable", reason=reason)


def server_stopped(journal: Journal, *, reason: str = "asked to") -> None:
    """Tell that the server has let go of its socket and of the store."""
    journal.logger.info("server.stopped", reason=reason)


def worker_ready(journal: Journal, *, worker: int, pid: int) -> None:
    """Tell that a worker takes connections that is there for one that ended."""
    journal.logger.info("worker.ready", worker=worker, pid=pid)


def worker_ended(journal: Journal, *, worker: int, pid: int) -> None:
    """Tell that a worker has ended in peace though the server goes on; another one comes at once."""
    journal.logger.info("worker.ended", worker=worker, pid=pid)


def worker_died(journal: Journal, *, worker: int, pid: int, cause: str, others: int, again_in_seconds: float) -> None:
    """Tell that a worker died, how many *others* go on, and when another one is started in its place.

    Its connections are lost, and nothing that was answered OK.
    """
    journal.logger.error(
        "worker.died", worker=worker, pid=pid, cause=cause, others=others, again_in_seconds=again_in_seconds
    )


_NOT_READY = (
    "It is ended, and another one is started in its place. If that happens again, look at the disk of the store and of keys/; "
    "where the machine is only slow, raise server.start_seconds in relay.toml."
)


def worker_hung(journal: Journal, *, worker: int, pid: int, seconds: float) -> None:
    """Tell that a worker has done nothing for so long and is ended, so that another one can take its place."""
    journal.logger.error("worker.hung", worker=worker, pid=pid, seconds=seconds)


def worker_not_ready(journal: Journal, *, worker: int, pid: int, seconds: float) -> None:
    """Tell that a worker takes no connections so long after its start and is ended, so that another one is started."""
    journal.logger.error("worker.not_ready", worker=worker, pid=pid, seconds=seconds, advice=_NOT_READY)


def lease_failed(journal: Journal, *, cause: str) -> None:
    """Tell that the lease beside the store cannot be had: housekeeping, mails and the anchor wait, and files go on."""
    journal.logger.error("lease.failed", cause=cause)


def supervisor_lost(journal: Journal) -> None:
    """Tell that the process that started this worker is gone, so that it drains and ends as well."""
    journal.logger.error("supervisor.lost")


def accept_failed(journal: Journal, *, cause: str, seconds: float) -> None:
    """Tell that connections cannot be taken; they wait, and are tried again every *seconds*."""
    advice = (
        "let the relay open more files (LimitNOFILE= of its service, ulimit -n) and give it more memory (MemoryMax=), or lower "
        "limits.connections_total; connections wait meanwhile"
    )
    journal.logger.error("connection.not_accepted", cause=cause, again_in_seconds=seconds, advice=advice)


def accept_recovered(journal: Journal) -> None:
    """Tell that connections are taken again, after `accept_failed`."""
    journal.logger.info("connection.accepted_again")


def store_warned(journal: Journal, *, warning: str) -> None:
    """Tell of something about the store's place that works but may lose what was promised."""
    journal.logger.warning("store.warned", warning=warning)


def store_failed(journal: Journal, *, cause: str) -> None:
    """Tell that the store could not do what it was asked; clients are told to try again."""
    journal.logger.error("store.failed", cause=cause)


def housekeeping_put_off(journal: Journal, *, cause: str) -> None:
    """Tell that a round of housekeeping could not be made; the next one makes up for it."""
    journal.logger.warning("housekeeping.put_off", cause=cause)


def housekeeping_waits(journal: Journal, *, last: datetime, now: datetime, until: datetime) -> None:
    """Tell that days are between two rounds: the relay stood still, or its clock is wrong and files would expire for it."""
    advice = "put the clock right if it is wrong; if it is right, nothing need be done, or `relay housekeeping run`"
    journal.logger.warning(
        "housekeeping.waits", last=last.isoformat(), now=now.isoformat(), until=until.isoformat(), advice=advice
    )


def payload_damaged(journal: Journal, *, transfer: TransferId, cause: str) -> None:
    """Tell that the bytes of an accepted file cannot be read any more; only a backup has them, or its sender."""
    advice = "let `relay doctor` look through the store; a backup may have it, or its sender sends it again"
    journal.logger.error("payload.damaged", transfer=transfer, cause=cause, advice=advice)


def store_recovered(journal: Journal, *, seconds: float | None = None) -> None:
    """Tell that the store works again, and how long it did not."""
    journal.logger.info("store.recovered", seconds=seconds)


def audit_key_made(journal: Journal) -> None:
    """Tell that a relay from before there was an audit got its key, which must be backed up with the others."""
    journal.logger.warning("audit.key_made", file="keys/audit.key", advice="back up keys/ again")


def mail_sent(journal: Journal, *, office: OfficeNumber, arrivals: int, tries: int) -> None:
    """Tell that the mail server has taken a mail to *office*."""
    journal.logger.info("mail.sent", office=office, arrivals=arrivals, tries=tries)


def mail_postponed(journal: Journal, *, office: OfficeNumber, answer: str, tries: int) -> None:
    """Tell that a mail is tried again later; *answer* is a code, because the server's text may quote the address."""
    journal.logger.warning("mail.postponed", office=office, answer=answer, tries=tries)


def mail_given_up(journal: Journal, *, office: OfficeNumber, arrivals: int, cause: str) -> None:
    """Tell that *office* will not be told of so many arrivals; *cause* is a code or our own words."""
    journal.logger.error("mail.given_up", office=office, arrivals=arrivals, cause=cause)


def mail_server_failed(journal: Journal, *, cause: str) -> None:
    """Tell once that the mail server cannot be used; mails wait."""
    journal.logger.error("mail.server_failed", cause=cause)


def mail_server_recovered(journal: Journal) -> None:
    """Tell that the mail server can be used again."""
    journal.logger.info("mail.server_recovered")


def audit_anchor_begun(journal: Journal, *, batches: int) -> None:
    """Tell that there was no anchor, though history was sealed already: somebody removed it, or it lies elsewhere now."""
    journal.logger.warning("audit.anchor_begun", batches=batches)


def audit_anchor_failed(journal: Journal, *, cause: str) -> None:
    """Tell that the anchor cannot follow history: what is cut off from now on may not be told."""
    journal.logger.error("audit.anchor_failed", cause=cause)


def audit_anchor_recovered(journal: Journal) -> None:
    """Tell that the anchor follows history again."""
    journal.logger.info("audit.anchor_recovered")


def clock_set_back(journal: Journal, *, now: datetime, latest: datetime) -> None:
    """Tell that the clock went back: ends are judged by the *latest* time seen until it catches up, or a restart."""
    advice = "see that the clock is right (NTP); if it was wrong before, and is right now, restart the relay"
    journal.logger.error("clock.set_back", now=now.isoformat(), latest=latest.isoformat(), advice=advice)


def register_changed(journal: Journal, *, version: int) -> None:
    """Tell that offices or certificates changed and that live identities are judged again."""
    journal.logger.info("register.changed", version=version)


def leftovers_removed(journal: Journal, *, uploads: int) -> None:
    """Tell how many uploads that never became a transfer were removed from the store."""
    journal.logger.info("store.leftovers_removed", uploads=uploads)


def watching(journal: Journal, *, socket: str, address: str | None = None, port: int | None = None) -> None:
    """Tell where the server can be asked how it does."""
    journal.logger.info("watch.listening", socket=socket, address=address, port=port)


def unwatched(journal: Journal, *, socket: str, cause: str) -> None:
    """Tell that `relay top` will find nothing: everything else goes on."""
    journal.logger.warning("watch.no_socket", socket=socket, cause=cause)


def files_ended(journal: Journal, *, expired: int, destroyed: int) -> None:
    """Tell how many files expired uncollected, and how many lost their bytes after they were collected."""
    journal.logger.info("store.files_ended", expired=expired, destroyed=destroyed)


def offices_ended(journal: Journal, *, ended: int, returned: int) -> None:
    """Tell how many offices closed or changed their number, and how many files went back from closed ones."""
    journal.logger.info("store.offices_ended", ended=ended, returned=returned)


# --- connections -----------------------------------------------------------------------------------------------


def connection_opened(journal: Journal, *, peer: str) -> None:
    """Tell that somebody, not known yet, has connected."""
    journal.logger.info("connection.opened", peer=peer)


def login_accepted(
    journal: Journal, *, office: OfficeNumber, serial: int, key_id: str, client_version: str = ""
) -> None:
    """Tell that an office has proven who it is."""
    journal.logger.info("login.accepted", office=office, serial=serial, key_id=key_id, client_version=client_version)


def login_rejected(journal: Journal, *, reason: str, detail: str = "") -> None:
    """Tell why a certificate was not accepted, in full; the client is told less."""
    journal.logger.warning("login.rejected", reason=reason, detail=detail)


def enrolled(journal: Journal, *, office: OfficeNumber, invitation: str, serial: int) -> None:
    """Tell that an invitation was used, and for which certificate."""
    journal.logger.info("enrolment.done", office=office, invitation=invitation, serial=serial)


def enrolment_opened(journal: Journal, *, key: str) -> None:
    """Tell that somebody has proven a key and asks for its certificate."""
    journal.logger.info("enrolment.opened", key=key)


def enrolment_refused(journal: Journal, *, code: str, detail: str = "") -> None:
    """Tell why no certificate came of an invitation."""
    journal.logger.warning("enrolment.refused", code=code, detail=detail)


def identity_ended(journal: Journal, *, office: OfficeNumber, serial: int, reason: str) -> None:
    """Tell that a live identity stopped being one: revoked, suspended, expired."""
    journal.logger.warning("identity.ended", office=office, serial=serial, reason=reason)


def connection_closed(journal: Journal, *, reason: str) -> None:
    """Tell that a connection has ended, by whomever."""
    journal.logger.info("connection.closed", reason=reason)


def limit_reached(
    journal: Journal, *, limit: str, scope: str, until: datetime | LimitEnd, repeats: int | None = None
) -> None:
    """Tell that a limit, not a key, kept somebody out: the setting, for whom, and until when.

    *repeats* is how often the same happened unsaid since it was told last.
    """
    journal.logger.warning("limit.reached", limit=limit, scope=scope, until=_say_end(until), repeats=repeats)


def limit_slowed(journal: Journal, *, limit: str, scope: str, until: datetime) -> None:
    """Tell that somebody is served later because of a limit, and when that ends unless he goes on so."""
    journal.logger.info("limit.slowed", limit=limit, scope=scope, until=_say_end(until))


def protocol_error(journal: Journal, *, crime: str) -> None:
    """Tell what a client sent that no client may send."""
    journal.logger.warning("protocol.error", crime=crime)


def request_refused(journal: Journal, *, request: str) -> None:
    """Tell that something was asked for that the relay does not have: a shell, a forwarding, an unknown request."""
    journal.logger.info("request.refused", request=request)


def new_reference() -> str:
    """Return what a client is told, and an operator finds a defect by: no secret, so that it needs no random source."""
    return f"{time.time_ns() // 1_000 & 0xFFFF_FFFF:08x}"


def unexpected_error(journal: Journal, *, reference: str, exception: BaseException) -> None:
    """Tell a defect: where it happened and under which *reference* the client was told of it.

    That there is no memory left is none, wherever it shows first.
    """
    if isinstance(exception, MemoryError):
        advice = "give the relay more memory (MemoryMax= of its service), or lower limits.connections_total"
        journal.logger.error("memory.used_up", reference=reference, frames=_frames(exception), advice=advice)
        return
    journal.logger.error(
        "error.unexpected", reference=reference, exception=_describe(exception), frames=_frames(exception)
    )


# --- sessions and files ----------------------------------------------------------------------------------------


def session_opened(journal: Journal) -> None:
    """Tell that an SFTP session began."""
    journal.logger.info("session.opened")


def session_closed(journal: Journal, *, reason: str) -> None:
    """Tell that an SFTP session ended, cleanly or not."""
    journal.logger.info("session.closed", reason=reason)


def upload_opened(journal: Journal, *, kind: str, recipient: OfficeNumber) -> None:
    """Tell that bytes are arriving; nothing is promised yet."""
    journal.logger.debug("upload.opened", kind=kind, recipient=recipient)


def upload_refused(journal: Journal, *, code: str, detail: str = "") -> None:
    """Tell that an upload was refused, and by which row of the table; *detail* holds nothing of its name."""
    journal.logger.info("upload.refused", code=code, detail=detail)


def upload_deferred(journal: Journal, *, code: str, detail: str = "") -> None:
    """Tell that an upload has to be tried again, through no fault of its sender."""
    journal.logger.warning("upload.deferred", code=code, detail=detail)


def upload_aborted(journal: Journal, *, reason: str, size_bytes: int | None = None) -> None:
    """Tell that an upload ended without a CLOSE from its client."""
    journal.logger.info("upload.aborted", reason=reason, size_bytes=size_bytes)


def upload_left(journal: Journal, *, reason: str, size_bytes: int) -> None:
    """Tell that what arrived of an upload is kept for a day, for its owner to go on with."""
    journal.logger.info("upload.left", reason=reason, size_bytes=size_bytes)


def transfer_accepted(
    journal: Journal,
    *,
    transfer: TransferId,
    kind: str,
    sender: OfficeNumber,
    recipient: OfficeNumber,
    size_bytes: int,
    seconds: float,
    is_repeat: bool,
) -> None:
    """Tell that a file is promised; *seconds* from its OPEN to its commit."""
    journal.logger.info(
        "transfer.accepted",
        transfer=transfer,
        kind=kind,
        sender=sender,
        recipient=recipient,
        size_bytes=size_bytes,
        seconds=round(seconds, 6),
        is_repeat=is_repeat,
    )


def transfer_collected(
    journal: Journal, *, transfer: TransferId, kind: str, sender: OfficeNumber, recipient: OfficeNumber
) -> None:
    """Tell that the recipient has read all of a file."""
    journal.logger.info("transfer.collected", transfer=transfer, kind=kind, sender=sender, recipient=recipient)


def transfer_recalled(journal: Journal, *, transfer: TransferId, kind: str, recipient: OfficeNumber) -> None:
    """Tell that the sender has taken back a file that nobody had collected."""
    journal.logger.info("transfer.recalled", transfer=transfer, kind=kind, recipient=recipient)


def transfer_removed(journal: Journal, *, transfer: TransferId, kind: str) -> None:
    """Tell that the recipient has put a file away into ``done/``."""
    journal.logger.info("transfer.removed", transfer=transfer, kind=kind)


def transfer_restored(journal: Journal, *, transfer: TransferId, kind: str) -> None:
    """Tell that the recipient has taken a file out of ``done/`` again."""
    journal.logger.info("transfer.restored", transfer=transfer, kind=kind)


def certificate_renewed(journal: Journal, *, serial: int, parent: int) -> None:
    """Tell that an office has made itself a new certificate, and with which one it was logged in."""
    journal.logger.info("certificate.renewed", serial=serial, parent=parent)


def certificate_refused(journal: Journal, *, code: str, detail: str = "") -> None:
    """Tell that a public key was not certified, and by which row of the table."""
    journal.logger.info("certificate.refused", code=code, detail=detail)


def certificate_given_up(journal: Journal, *, serial: int) -> None:
    """Tell that an office has ended a certificate that it had renewed."""
    journal.logger.info("certificate.given_up", serial=serial)


def renewal_unavailable(journal: Journal, *, reason: str) -> None:
    """Tell why offices cannot renew their certificates here."""
    journal.logger.warning("certificate.renewal_unavailable", reason=reason)


def keys_reloaded(journal: Journal, *, user_cas: int, host_cas: int) -> None:
    """Tell that ``keys/`` changed, and how many CAs are trusted and told of from now on."""
    journal.logger.info("keys.reloaded", user_cas=user_cas, host_cas=host_cas)


def outside_cas_trusted(journal: Journal, *, anchors: int, anchors_over: int, lists: int) -> None:
    """Tell how many outside CAs let offices in with X.509, how many of them are not valid now, and what lists there are."""
    level = logging.WARNING if anchors_over or not anchors else logging.INFO
    journal.logger.log(level, "x509.trusted", anchors=anchors, anchors_over=anchors_over, lists=lists)


def revocation_list_unusable(journal: Journal, *, file: str, reason: str) -> None:
    """Tell that a revocation list of an outside CA cannot be read: what was read before goes on until it ends."""
    journal.logger.error("x509.list_unusable", file=file, reason=reason)


def login_deferred(journal: Journal, *, code: str, detail: str) -> None:
    """Tell that somebody could not be let in because of the store, and was asked to try again."""
    journal.logger.warning("login.deferred", code=code, detail=detail)


def keys_unreadable(journal: Journal, *, reason: str) -> None:
    """Tell that ``keys/`` changed and cannot be loaded: what was loaded before goes on."""
    journal.logger.error("keys.unreadable", reason=reason)


def common_full(journal: Journal, *, table: str) -> None:
    """Tell that the memory that workers share holds no more: what does not fit counts for each worker apart."""
    journal.logger.warning("common.full", table=table)


# --- limits ----------------------------------------------------------------------------------------------------


class LimitEnd(StrEnum):
    """What ends a limit that no clock ends."""

    CONNECTED_AGAIN = "it connects again"
    CONNECTION_CLOSED = "a connection is closed"
    SESSION_CLOSED = "a session is closed"
    HANDLE_CLOSED = "an open file or folder is closed"
    CAUGHT_UP = "the server has caught up"
    SMALLER = "the file is smaller"
    STORED_LESS = "files are collected and destroyed, or taken back"
    FINISHED = "unfinished uploads are finished, removed or a day old"


class LimitLog:
    """Tells of a limit once for each time that it holds, however often somebody runs into it meanwhile.

    Once among all workers that share *common*; how often it was not said is counted by each for itself.
    """

    QUIET: Final = timedelta(minutes=1)
    _MOST = 1024

    def __init__(self, common: Common | None = None) -> None:
        """Begin with what others have told."""
        self._common = common
        self._told: dict[tuple[str, str], tuple[datetime, int]] = {}
        # How often each limit was met, said or not.
        self.counts: Counter[str] = Counter()

    def reached(self, journal: Journal, *, limit: str, scope: str, until: datetime | LimitEnd, now: datetime) -> None:
        """Write `limit_reached`, unless the same was told and has not ended; a worded end counts as a minute."""
        repeats = self._count(limit, scope, until, now)
        if repeats is not None:
            limit_reached(journal, limit=limit, scope=scope, until=until, repeats=repeats or None)

    def slowed(self, journal: Journal, *, limit: str, scope: str, until: datetime, now: datetime) -> None:
        """Write `limit_slowed`, unless the same was told in the last minute."""
        if self._count(f"slowed {limit}", scope, max(until, now + self.QUIET), now) is not None:
            limit_slowed(journal, limit=limit, scope=scope, until=until)

    def _count(self, limit: str, scope: str, until: datetime | LimitEnd, now: datetime) -> int | None:
        """Return how often it was not said since the last time, None where it is not to be said now either."""
        self.counts[limit] += 1
        key = limit, scope
        last, repeats = self._told.get(key, (now, 0))
        if last > now:
            self._told[key] = last, repeats + 1
            return None
        if len(self._told) >= self._MOST:
            self._told = {each: told for each, told in self._told.items() if told[0] > now}
        if len(self._told) >= self._MOST:
            # More who run into limits than anybody reads of: some are told once more.
            self._told.clear()
        end = until if isinstance(until, datetime) else now + self.QUIET
        if self._common is not None and not self._common.say_once(limit, scope, (end - now).total_seconds()):
            self._told[key] = end, repeats + 1
            return None
        self._told[key] = end, 0
        return repeats


def _say_end(until: datetime | LimitEnd) -> str:
    return until.isoformat() if isinstance(until, datetime) else until.value


# --- how lines are written -------------------------------------------------------------------------------------


# Kept, because the json module makes a new encoder for every call with a setting.
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=repr)


def _write_json(facts: object, **_: object) -> str:
    return _ENCODER.encode(facts)


class _LineWriter:
    """Write lines to a stream, and lose them rather than fail."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @classmethod
    def factory(cls, stream: TextIO) -> _Factory:
        """Return what structlog asks for a writer."""
        return _Factory(cls(stream))

    def write(self, line: str) -> None:
        """Write one line; a stream that is full, gone or closed swallows it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = write


@dataclass(frozen=True, slots=True)
class _Factory:
    writer: _LineWriter

    def __call__(self, *_: object) -> _LineWriter:
        return self.writer


def _name_worker(
    worker: int, _logger: WrappedLogger, _method: str, facts: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    facts.setdefault("worker", worker)
    return facts


def _make_printable(
    _logger: WrappedLogger, _method: str, facts: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Drop facts that are not known, and escape what is not printable in the others."""
    for name in [name for name, fact in facts.items() if fact is None]:
        del facts[name]
    for name, fact in facts.items():
        if isinstance(fact, str) and not (len(fact) <= _FACT_CHARACTERS and fact.isprintable()):
            facts[name] = "".join(
                character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
                for character in fact[:_FACT_CHARACTERS]
            )
    return facts


def _describe(exception: BaseException) -> str:
    kind = type(exception).__name__
    return f"{kind}: {exception}" if isinstance(exception, OSError | sqlite3.Error) else kind


def _frames(exception: BaseException) -> str:
    """Return the innermost places first, without any values, and what the exception came from."""
    places: list[str] = []
    cause: BaseException | None = exception
    while cause is not None:
        if cause is not exception:
            places.append(f"from {_describe(cause)}")
        frames = traceback.extract_tb(cause.__traceback__)
        places.extend(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        cause = cause.__cause__ or cause.__context__
    return " < ".join(places[:40])
