"""The embedded ledger: SQLite in one file, beside the keys.

WAL, ``synchronous=FULL``, one writer a process, one file lock over all writers and checkpoints and one over what is
copied ahead of those.  What the engine guarantees is said in `relay.ledger`; how, in `commit`, `storefile` and ``sql/``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from relay.audit import AuditKey
from relay.errors import ConfigError, Deferred
from relay.ledger import migrations, storefile
from relay.ledger.anchor import AnchorKeeper
from relay.ledger.auditing import AuditVerbs
from relay.ledger.board import BoardVerbs
from relay.ledger.certificates import CertificateVerbs
from relay.ledger.closings import ClosingVerbs
from relay.ledger.commit import Writer
from relay.ledger.counting import CountingVerbs
from relay.ledger.doubt import let_log_go
from relay.ledger.interventions import InterventionVerbs
from relay.ledger.invitations import InvitationVerbs
from relay.ledger.mail import MailVerbs
from relay.ledger.migrations import Step
from relay.ledger.partials import PartialVerbs
from relay.ledger.register import RegisterVerbs
from relay.ledger.retention import RetentionVerbs
from relay.ledger.rotation import RotationVerbs
from relay.ledger.store import Store
from relay.ledger.trouble import TroubleLog
from relay.ledger.units import UnitVerbs
from relay.letters import Rhythm
from relay.lifecycle import LIVE
from relay.lineup import Lineup
from relay.meters import Meters
from relay.vault import Vault, VaultError

CHECKPOINT_BYTES = 16 * 1024 * 1024
# Of 4, 8 and 16 KiB the one with which 10 KB files cost least (scripts/bench b).
PAGE_BYTES = 8192
# Of so many of the newest transfers some are still there to be looked up by name.
_LOOKED_AT = 20


class SqliteLedger(
    RegisterVerbs,
    CertificateVerbs,
    InvitationVerbs,
    MailVerbs,
    PartialVerbs,
    InterventionVerbs,
    UnitVerbs,
    RotationVerbs,
    RetentionVerbs,
    BoardVerbs,
    ClosingVerbs,
    AuditVerbs,
    CountingVerbs,
):
    """`relay.ledger.Ledger` on SQLite; made by `open_ledger`, closed by leaving its ``async with``."""

    def __init__(self, store: Store, sent_listed: timedelta, mail: Rhythm | None) -> None:
        self._store = store
        self._mail = mail
        self._sent_listed = sent_listed

    async def close(self) -> None:
        """Write what is waiting, then let go of the store."""
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def create_store(path: Path, *, page_bytes: int = PAGE_BYTES) -> None:
    """Make an empty store; FileExistsError where there is one, ConfigError on a network file system."""
    storefile.create_file(path, page_bytes)


def plan_upgrade(path: Path) -> tuple[Step, ...]:
    """Return the steps that the store at *path* lacks, changing nothing; ConfigError as `upgrade_store`."""
    with storefile.peeked(path) as reader:
        return migrations.missing_steps(path, migrations.read_form(reader))


def upgrade_store(path: Path, on_step: Callable[[Step], None], *, lock_wait_seconds: float = 10.0) -> int:
    """Bring the store to the form this program needs (see `relay.ledger.migrations`)."""
    path = path.resolve()
    lock = storefile.StoreLock(path, lock_wait_seconds)
    try:
        with lock.held():
            storefile.settle(path, lock, is_open=False)
            # A look of this very process may have kept it, which would count as somebody who has the store open.
            let_log_go(path)
            steps = migrations.upgrade_store(path, on_step)
            # Not before nobody else has the store open, for whom something may be in doubt that was not looked at here.
            lock.doubt_no_more()
            return steps
    finally:
        lock.close()


async def open_ledger(
    path: Path,
    vault: Vault,
    audit_key: AuditKey,
    *,
    anchor: Path | None = None,
    lock_wait_seconds: float = 10.0,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    sent_listed: timedelta = timedelta(days=1),
    mail: Rhythm | None = None,
    on_trouble: Callable[[str | None], None] = lambda _cause: None,
    meters: Meters | None = None,
    lineup: Lineup | None = None,
) -> SqliteLedger:
    """Open the store at *path* for this event loop; ConfigError where it is missing, foreign or on a network disk.

    History is sealed with *audit_key*, and how far it has come is kept in the file *anchor*, if one is named.
    Offices are told of arrivals in the rhythm of *mail*, or not at all.
    *on_trouble* hears what the store suffers from and what to do, once, and None when it works again.  *meters* count commits.
    In *lineup* the workers of a server wait for each other.
    """
    storefile.check_disk(path)
    # Lock, log and store lie side by side, whatever link led here.
    path = path.resolve()  # noqa: ASYNC240 - once, before anything is served
    reader = storefile.open_checked(path, lock_wait_seconds)
    lock = storefile.StoreLock(path, lock_wait_seconds)
    troubles = TroubleLog(path, on_trouble)
    writer = Writer(
        path, lock, audit_key, checkpoint_bytes=checkpoint_bytes, troubles=troubles, meters=meters, lineup=lineup
    )
    keeper = None if anchor is None else AnchorKeeper(anchor, path, audit_key)
    store = Store(path, vault, writer, lock, reader, keeper, troubles)
    ledger = SqliteLedger(store, sent_listed, mail)
    try:
        store.check_master()
        store.check_audit_key(audit_key)
        await _check_index_key(ledger, path)
    except (ConfigError, Deferred):
        await store.close()
        raise
    return ledger


async def _check_index_key(ledger: SqliteLedger, path: Path) -> None:
    """ConfigError where files do not lie under their names: another key would take a repeated file for a new one."""
    live = []
    # What cannot be read is told when somebody asks for it.
    with contextlib.suppress(Deferred, VaultError):
        live = [each for each in await ledger.list_transfers(limit=_LOOKED_AT) if each.state in LIVE]
        if not live or any([await ledger.find_sent(each.sender, each.recipient, each.name) for each in live]):
            return
    if live:
        raise ConfigError(
            f"The files in the store {path} lie under names that another keys/index.key has made: with this one the same "
            "file could be delivered twice. Put back the index.key that belongs to the store, from your backup of keys/."
        )
