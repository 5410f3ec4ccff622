"""The server: builds every part, listens, drains.

The one composition root.  Nothing listens before the store was opened and checked, and nothing is torn down before
the requests that were received have been answered: on SIGTERM no new connection is taken, uploads in progress get
their grace time, then everybody is told and disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version

import asyncssh
import uvloop

from relay import auditor, housekeeping, journal, mailing
from relay.auth import WATCH_SECONDS, ConnectionFacts, Reception
from relay.authority import open_user_ca
from relay.collection import Collection
from relay.common import Common
from relay.config import Config
from relay.enrolment import EnrolmentDesk, EnrolmentSession
from relay.errors import ConfigError
from relay.exposition import Exposition, Gauges, Present, tally
from relay.intake import Intake
from relay.keyring import Keyring, load_keyring, stamp_keyring
from relay.ledger import storefile
from relay.ledger.auditing import ensure_audit_key
from relay.ledger.sqlite import open_ledger
from relay.lookout import Lookout, Views
from relay.meters import Meters
from relay.model import Identity
from relay.news import NewsDesk
from relay.receipts import ReceiptDesk
from relay.renewal import RenewalDesk
from relay.sftp.desks import Desks
from relay.sftp.limits import Shares
from relay.sftp.session import SftpSession
from relay.status import StatusDesk

_DRAIN_POLL_SECONDS = 0.05
# The store, its threads, and connections that are being sent away.
_OTHER_FILES = 512


def serve(config: Config) -> None:
    """Run the server until SIGTERM or SIGINT; ConfigError where it cannot start as things stand."""
    _allow_open_files(config.limits.connections_total + _OTHER_FILES)
    uvloop.run(run_server(config))


def _allow_open_files(needed: int) -> None:
    """Let this process have *needed* files open, as far as the system lets it: often no more than 1,024 are usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def run_server(config: Config, common: Common | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; *common* is what is shared with other workers, if there are any.

    Prints one line, ``listening on HOST:PORT``, to standard output once connections are taken.
    """
    journal.configure_journal(config.journal.format, config.journal.level)
    line = journal.new_journal()
    common = common or Common.alone()
    common.on_full = partial(_tell_full, line, set())
    if ensure_audit_key(config.keys_path, config.store.path):
        journal.audit_key_made(line)
    keyring = load_keyring(config.keys_path)
    vault = keyring.open_vault()
    meters = Meters()
    warning = storefile.check_disk(config.store.path)
    if warning:
        journal.store_warned(line, warning=warning)
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
    )
    async with ledger, auditor.on_duty(ledger, config.audit, _now, line):
        desks = Desks(
            ledger=ledger,
            intake=Intake(ledger, vault, config, _now, meters, common),
            collection=Collection(ledger, vault, _now, may_discard=config.tree.remove_uncollected, meters=meters),
            status=StatusDesk(ledger, config),
            receipts=ReceiptDesk(ledger, config, keyring.receipt_key, keyring.receipt_line),
            news=NewsDesk(ledger, config),
            renewal=RenewalDesk(ledger, config, _now),
            config=config,
            clock=_now,
            shares=Shares(config.limits, common),
            meters=meters,
        )
        sessions: dict[SftpSession, None] = {}

        def open_session(identity: Identity, facts: ConnectionFacts) -> SftpSession:
            session = SftpSession(identity, facts, desks, lambda ended: sessions.pop(ended, None))
            sessions[session] = None
            return session

        # The keys as they are then: a CA may have been exchanged since the start.
        enrolling = EnrolmentDesk(ledger, config, lambda: load_keyring(config.keys_path), _now)
        reception = Reception(
            ledger,
            keyring,
            config,
            open_session,
            open_enrolment=partial(EnrolmentSession, enrolling),
            meters=meters,
            common=common,
        )
        _open_ca(desks.renewal, keyring, line)
        lookout = _make_lookout(config, reception, sessions, desks, line)
        await _serve(config, reception, sessions, desks, lookout, line)


def _tell_full(line: journal.Journal, told: set[str], table: str) -> None:
    """Tell once of each table: what does not fit goes on not fitting."""
    if table not in told:
        told.add(table)
        journal.common_full(line, table=table)


def _tell_trouble(line: journal.Journal, meters: Meters, cause: str | None) -> None:
    meters.note_trouble(is_troubled=cause is not None)
    if cause is None:
        journal.store_recovered(line)
    else:
        journal.store_failed(line, cause=cause)


async def _serve(
    config: Config,
    reception: Reception,
    sessions: dict[SftpSession, None],
    desks: Desks,
    lookout: Lookout,
    line: journal.Journal,
) -> None:
    # Before anybody is told that the relay listens, because who is told may ask it to stop at once.
    with _stop_signals() as stop:
        await lookout.open()
        acceptor = await _listen(config, reception)
        async with asyncio.TaskGroup() as group:
            chores = [
                group.create_task(reception.watch_register()),
                group.create_task(reception.attendance.watch_load()),
                group.create_task(_watch_keys(config, reception, acceptor, desks.renewal, line)),
                group.create_task(reception.tell_refused()),
                group.create_task(housekeeping.keep_house(desks.ledger, config.housekeeping, _now, line)),
                group.create_task(lookout.look()),
                group.create_task(mailing.carry_mail(desks.ledger, config, _now, line)),
            ]
            port = acceptor.get_port()
            journal.server_listening(line, host=config.server.host, port=port)
            print(f"listening on {config.server.host}:{port}", flush=True)  # noqa: T201 - what scripts wait for
            await stop.wait()
            lookout.is_draining = True
            acceptor.close()
            await _drain(config.server.drain_seconds, sessions, line)
            reception.dismiss("The relay is being restarted; please connect again in a minute")
            await acceptor.wait_closed()
            # Sessions end by themselves, each in its own time; there is no one event to wait for.
            while sessions:  # noqa: ASYNC110
                await asyncio.sleep(_DRAIN_POLL_SECONDS)
            for chore in chores:
                chore.cancel()
            await lookout.close()
    reception.note_refused()
    journal.server_stopped(line)


def _make_lookout(
    config: Config, reception: Reception, sessions: dict[SftpSession, None], desks: Desks, line: journal.Journal
) -> Lookout:
    attendance = reception.attendance

    def gauges() -> Gauges:
        return Gauges(
            sessions=len(sessions),
            connections=len(attendance.connections),
            strangers=len(attendance.strangers),
            handles=sum(session.handle_count for session in sessions),
            uploads=sum(session.upload_count for session in sessions),
            lag_seconds=attendance.load.lag_seconds,
            is_anchor_behind=desks.ledger.anchor_trouble is not None,
        )

    def limits() -> dict[str, int]:
        return dict(attendance.limit_log.counts + desks.shares.limit_log.counts)

    def present() -> list[Present]:
        return tally([session.presence for session in sessions])

    exposition = Exposition(desks.meters, version("careplan-relay"))
    return Lookout(config, desks.ledger, exposition, Views(gauges, limits, present), line)


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
    acceptor: asyncssh.SSHAcceptor,
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
        acceptor.update(server_host_keys=reception.adopt(keyring))
        # A passphrase takes a quarter of a second on purpose.
        await asyncio.to_thread(_open_ca, renewal, keyring, line)
        journal.keys_reloaded(line, user_cas=len(keyring.trusted_user_cas), host_cas=len(keyring.host_cas))


async def _listen(config: Config, reception: Reception) -> asyncssh.SSHAcceptor:
    try:
        return await asyncssh.listen(config.server.host, config.server.port, **reception.listen_options())
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {config.server.host}:{config.server.port}: {error.strerror}. "
            "Is another relay running? Set server.port in relay.toml to a free port."
        ) from error


async def _drain(seconds: float, sessions: dict[SftpSession, None], line: journal.Journal) -> None:
    """Let uploads and replies in progress finish, for at most *seconds*."""
    journal.server_draining(line, sessions=len(sessions), seconds=seconds)
    deadline = asyncio.get_running_loop().time() + seconds
    while any(session.is_busy for session in sessions) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_DRAIN_POLL_SECONDS)


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _now() -> datetime:
    return datetime.now(UTC)
