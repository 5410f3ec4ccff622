"""The server: builds every part of one worker, serves, drains.

The one composition root.  A worker is a process of its own; the supervisor (`relay.supervisor`) starts as many as are
wanted and gives each a `Post`.  Nothing is accepted before the store was opened and checked, and nothing is torn down
before the requests that were received have been answered: told to stop, a worker takes no new connection, uploads in
progress get their grace time, then everybody is told and disconnected.

What is to be done once for all workers, is done by the one that leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import cast

import uvloop

from relay import auditor, housekeeping, journal, mailing
from relay.acceptor import Acceptor
from relay.auth import OfficeServer
from relay.authority import open_user_ca
from relay.census import Gauges, Sight, Usage, measure_processor, measure_usage, tally
from relay.collection import Collection
from relay.common import Common
from relay.config import Config
from relay.crew import Crew
from relay.edge import Welcomer
from relay.enrolment import EnrolmentDesk, EnrolmentSession
from relay.errors import ConfigError
from relay.exposition import Exposition
from relay.intake import Intake
from relay.keyring import Keyring, load_keyring, stamp_keyring
from relay.lease import Lease
from relay.ledger import Ledger
from relay.ledger.auditing import ensure_audit_key
from relay.ledger.sqlite import open_ledger
from relay.lineup import Lineup
from relay.listening import Entrances, socket_path
from relay.lookout import Lookout
from relay.meters import Meters
from relay.model import Identity
from relay.news import NewsDesk
from relay.orders import Line, Word
from relay.receipts import ReceiptDesk
from relay.reception import WATCH_SECONDS, ConnectionFacts, Reception
from relay.renewal import RenewalDesk
from relay.sftp.desks import Desks
from relay.sftp.limits import Shares
from relay.sftp.session import SftpSession
from relay.status import StatusDesk
from relay.vault import Vault

_DRAIN_POLL_SECONDS = 0.05
_BEAT_SECONDS = 1.0
# The store, its threads, and connections that are being sent away.
_OTHER_FILES = 512
# So many new objects, and not 700, before the garbage collector looks through them: files that wait for one commit have
# thousands, which all are in use and go by themselves.  Some megabytes at most.
_YOUNG_OBJECTS = 10_000


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is given by its supervisor: its place, where it is reached, and whom it listens to.

    *index* is its place in *crew*, *place* that in *common*, which is None where it is the only one.  *is_first* is the
    one that the server starts with; *detail* is what history says of the start.
    """

    index: int
    place: int
    crew: Crew
    entrances: Entrances
    line: Line
    common: Common | None = None
    is_first: bool = False
    detail: str = ""


def work(config: Config, post: Post) -> None:
    """Serve until told to stop; ConfigError where that cannot be as things stand."""
    _allow_open_files(config.limits.connections_total + _OTHER_FILES)
    gc.set_threshold(_YOUNG_OBJECTS)
    uvloop.run(run_worker(config, post))


def _allow_open_files(needed: int) -> None:
    """Let this process have *needed* files open, as far as the system lets it: often no more than 1,024 are usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def run_worker(config: Config, post: Post) -> None:
    """Serve until told to stop, then drain; says to the supervisor when connections are taken."""
    line = journal.new_journal()
    asyncio.get_running_loop().set_exception_handler(partial(_tell_loose, line))
    common = Common.alone() if post.common is None else Common.attach(post.common.fileno(), post.place)
    common.on_full = partial(_tell_full, line, set())
    if post.is_first and ensure_audit_key(config.keys_path, config.store.path):
        journal.audit_key_made(line)
    keyring = load_keyring(config.keys_path)
    vault = keyring.open_vault()
    meters = Meters()
    ledger = await open_ledger(
        config.store.path,
        vault,
        keyring.audit_key,
        anchor=config.audit.anchor,
        lock_wait_seconds=config.store.lock_wait_seconds,
        checkpoint_bytes=config.store.checkpoint_bytes,
        sent_listed=timedelta(seconds=config.tree.sent_listed_seconds),
        mail=config.mail.rhythm,
        on_trouble=partial(_tell_trouble, line, meters),
        meters=meters,
        lineup=Lineup(common),
    )
    async with ledger:
        if post.is_first:
            await auditor.note_start(ledger, config.audit, _now, line, detail=post.detail)
        desks = _set_desks(ledger, keyring, vault, config, common, meters)
        sessions: dict[SftpSession, None] = {}

        def open_session(identity: Identity, facts: ConnectionFacts) -> SftpSession:
            session = SftpSession(identity, facts, desks, lambda ended: sessions.pop(ended, None))
            sessions[session] = None
            return session

        # The keys as they are then: a CA may have been exchanged since the start.
        enrolling = EnrolmentDesk(ledger, config, lambda: load_keyring(config.keys_path), _now)
        reception = Reception(
            OfficeServer,
            ledger,
            keyring,
            config,
            open_session,
            open_enrolment=partial(EnrolmentSession, enrolling),
            meters=meters,
            common=common,
        )
        _open_ca(desks.renewal, keyring, line)
        with desks.intake.reachable():
            await _Worker(config, post, reception, sessions, desks, line).serve()


def _set_desks(ledger: Ledger, keyring: Keyring, vault: Vault, config: Config, common: Common, meters: Meters) -> Desks:
    """Make what answers for each part of the tree."""
    may_discard = config.tree.remove_uncollected
    return Desks(
        ledger=ledger,
        intake=Intake(ledger, vault, config, _now, meters, common),
        collection=Collection(ledger, vault, _now, may_discard=may_discard, meters=meters, common=common),
        status=StatusDesk(ledger, config),
        receipts=ReceiptDesk(ledger, config, keyring.receipt_key, keyring.receipt_line),
        news=NewsDesk(ledger, config),
        renewal=RenewalDesk(ledger, config, _now, common),
        config=config,
        clock=_now,
        shares=Shares(config.limits, common),
        meters=meters,
    )


def _tell_full(line: journal.Journal, told: set[str], table: str) -> None:
    """Tell once of each table: what does not fit goes on not fitting."""
    if table not in told:
        told.add(table)
        journal.common_full(line, table=table)


def _tell_loose(line: journal.Journal, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Tell of an exception that nobody waits for, in the journal's own form."""
    error = context.get("exception")
    known = error if isinstance(error, BaseException) else RuntimeError(context.get("message"))
    journal.unexpected_error(line, reference="loop", exception=known)


def _tell_trouble(line: journal.Journal, meters: Meters, cause: str | None) -> None:
    meters.note_trouble(is_troubled=cause is not None)
    if cause is None:
        journal.store_recovered(line)
    else:
        journal.store_failed(line, cause=cause)


class _Worker:
    """One worker at work, from when it is built until it has drained."""

    def __init__(
        self,
        config: Config,
        post: Post,
        reception: Reception,
        sessions: dict[SftpSession, None],
        desks: Desks,
        line: journal.Journal,
    ) -> None:
        self._config = config
        self._post = post
        self._reception = reception
        self._sessions = sessions
        self._desks = desks
        self._line = line
        exposition = Exposition(version("careplan-relay"), post.crew.started_at)
        self._lookout = Lookout(config, desks.ledger, exposition, post.crew, line)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lead = asyncio.Event()
        self._welcomer: Welcomer
        # A successor is at work already, so that there is no hurry.
        self._is_leaving = False

    async def serve(self) -> None:
        """Take connections until told to stop, then drain."""
        post, reception, line = self._post, self._reception, self._line
        self._welcomer = welcomer = await Welcomer.prepare(**reception.listen_options())
        acceptor = Acceptor(post.entrances.doors, welcomer, post.crew, post.index, self._count, line)
        with self._listen_to_orders():
            async with asyncio.TaskGroup() as group:
                leading = group.create_task(self._lead_when_told())
                chores = [
                    group.create_task(self._beat()),
                    group.create_task(reception.watch_register()),
                    group.create_task(reception.attendance.watch_load()),
                    group.create_task(_watch_keys(self._config, reception, welcomer, self._desks.renewal, line)),
                    group.create_task(reception.tell_refused()),
                ]
                acceptor.open()
                post.line.say(Word.READY)
                await self._stop.wait()
                await acceptor.close()
                self._lookout.is_draining = True
                if self._is_leaving:
                    # What is to be done once is the successor's from now on.
                    leading.cancel()
                    await self._take_leave()
                await self._drain()
                reception.dismiss("The relay is being restarted; please connect again in a minute")
                # Sessions end by themselves, each in its own time; there is no one event to wait for.
                while self._sessions:  # noqa: ASYNC110
                    await asyncio.sleep(_DRAIN_POLL_SECONDS)
                for chore in (*chores, leading):
                    chore.cancel()
        reception.note_refused()

    def _count(self) -> int:
        return len(self._reception.attendance.connections)

    @contextlib.contextmanager
    def _listen_to_orders(self) -> Iterator[None]:
        loop, line = asyncio.get_running_loop(), self._post.line
        crew, index = self._post.crew, self._post.index
        loop.add_reader(line.fileno(), self._hear)
        loop.add_reader(crew.bell(index), self._show)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        try:
            yield
        finally:
            loop.remove_reader(line.fileno())
            loop.remove_reader(crew.bell(index))
            loop.remove_signal_handler(signal.SIGTERM)

    def _hear(self) -> None:
        try:
            heard = self._post.line.hear()
        except EOFError:
            asyncio.get_running_loop().remove_reader(self._post.line.fileno())
            journal.supervisor_lost(self._line)
            self._stop.set()
            return
        match heard:
            case (Word.LEAD, _):
                self._lead.set()
            case (Word.STOP, _):
                self._is_leaving = False
                self._stop.set()
            case (Word.LEAVE, _):
                self._is_leaving = True
                self._stop.set()
            case (Word.ADOPT, data):
                # Only the supervisor has the other end of the line.
                self._adopt(cast(Config, pickle.loads(data)))  # noqa: S301
            case (Word.NOW, _):
                self._stop.set()
                self._hurry.set()

    def _adopt(self, new: Config) -> None:
        """Go by *new* in all that can change at once; the supervisor tells of the rest."""
        self._config.adopt(new)
        self._desks.intake.adopt_settings()
        self._desks.collection.may_discard = self._config.tree.remove_uncollected
        self._welcomer.update(**self._reception.adopt_settings())

    def _show(self) -> None:
        """Let the others see what this worker is doing."""
        crew, index = self._post.crew, self._post.index
        crew.hush(index)
        crew.write(index, _sight(self._post, self._reception, self._sessions, self._desks).pack())

    async def _beat(self) -> None:
        """Show that this process does what it has to do; never returns."""
        crew, index = self._post.crew, self._post.index
        while True:
            crew.beat(index)
            crew.note_connections(index, self._count())
            kept = Sight(
                at=time.monotonic(),
                meters=self._desks.meters,
                limits=_limits(self._reception, self._desks),
                usage=Usage(cpu_seconds=measure_processor()),
            )
            crew.keep(index, kept.pack())
            await asyncio.sleep(_BEAT_SECONDS)

    async def _lead_when_told(self) -> None:
        """Do what is to be done once for all workers, once told to; never returns."""
        await self._lead.wait()
        config, ledger, line = self._config, self._desks.ledger, self._line
        lease = Lease(config.store.path, line)
        try:
            await self._lookout.open(self._post.entrances)
        except OSError as error:
            journal.unwatched(line, socket=str(socket_path(config)), cause=str(error))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lookout.look())
                await lease.take()
                group.create_task(auditor.keep_anchor(ledger, config.audit.anchor_seconds, line))
                group.create_task(housekeeping.keep_house(ledger, config.housekeeping, _now, line))
                group.create_task(mailing.carry_mail(ledger, config, _now, line))
        finally:
            lease.release()
            await self._lookout.close()
            auditor.note_stop(ledger, _now, detail="handed over" if self._is_leaving else "")

    async def _take_leave(self) -> None:
        """Go on with everybody who is here, for as long as a hand-over may take, or until somebody wants it ended."""
        seconds = self._config.server.handover_seconds
        journal.server_leaving(self._line, connections=self._count(), seconds=seconds)
        deadline = asyncio.get_running_loop().time() + seconds

        def is_worth_waiting() -> bool:
            is_late = asyncio.get_running_loop().time() >= deadline or self._hurry.is_set()
            return self._is_leaving and not is_late and bool(self._count() or self._sessions)

        while is_worth_waiting():  # noqa: ASYNC110 - no one event ends it
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    async def _drain(self) -> None:
        """Let uploads and replies in progress finish, for a time."""
        seconds = self._config.server.drain_seconds
        journal.server_draining(self._line, sessions=len(self._sessions), seconds=seconds)
        deadline = asyncio.get_running_loop().time() + seconds

        def is_worth_waiting() -> bool:
            is_late = asyncio.get_running_loop().time() >= deadline or self._hurry.is_set()
            return not is_late and any(session.is_busy for session in self._sessions)

        while is_worth_waiting():  # noqa: ASYNC110 - no one event ends it
            await asyncio.sleep(_DRAIN_POLL_SECONDS)


def _sight(post: Post, reception: Reception, sessions: Iterable[SftpSession], desks: Desks) -> Sight:
    """Return what this worker is doing at this moment."""
    attendance = reception.attendance
    gauges = Gauges(
        sessions=sum(1 for _ in sessions),
        connections=len(attendance.connections),
        strangers=len(attendance.strangers),
        handles=sum(session.handle_count for session in sessions),
        uploads=sum(session.upload_count for session in sessions),
        lag_seconds=attendance.load.lag_seconds,
        is_anchor_behind=desks.ledger.anchor_trouble is not None,
    )
    return Sight(
        at=time.monotonic(),
        index=post.index,
        pid=os.getpid(),
        meters=desks.meters,
        gauges=gauges,
        limits=_limits(reception, desks),
        present=tuple(tally([session.presence for session in sessions])),
        usage=measure_usage(),
    )


def _limits(reception: Reception, desks: Desks) -> Counter[str]:
    return reception.attendance.limit_log.counts + desks.shares.limit_log.counts


def _open_ca(renewal: RenewalDesk, keyring: Keyring, line: journal.Journal) -> None:
    """Open the CA that renews certificates; where that cannot be, offices are told to ask the operator."""
    renewal.host_cas = keyring.host_cas
    try:
        renewal.ca = open_user_ca(keyring)
    except ConfigError as error:
        renewal.ca = None
        journal.renewal_unavailable(line, reason=str(error))


async def _watch_keys(
    config: Config,
    reception: Reception,
    welcomer: Welcomer,
    renewal: RenewalDesk,
    line: journal.Journal,
) -> None:
    """Take up what was changed in ``keys/`` within seconds; never returns.

    What cannot be loaded, perhaps because it is being written, leaves everything as it was and is tried again.
    """
    known, is_told = stamp_keyring(config.keys_path), False
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        stamp = stamp_keyring(config.keys_path)
        if stamp == known:
            continue
        try:
            keyring = await asyncio.to_thread(load_keyring, config.keys_path)
        except ConfigError as error:
            if not is_told:
                journal.keys_unreadable(line, reason=str(error))
            is_told = True
            continue
        known, is_told = stamp, False
        welcomer.update(server_host_keys=reception.adopt(keyring))
        # A passphrase takes a quarter of a second on purpose.
        await asyncio.to_thread(_open_ca, renewal, keyring, line)
        journal.keys_reloaded(line, user_cas=len(keyring.trusted_user_cas), host_cas=len(keyring.host_cas))


def _now() -> datetime:
    return datetime.now(UTC)
