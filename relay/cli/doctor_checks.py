"""What ``relay doctor`` looks at on this machine; each check is a function that returns what it found."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.doctor_settings import find_unwise_spans
from relay.cli.terminal import say_size, say_time
from relay.config import Config, LimitSettings

if TYPE_CHECKING:
    from relay.keyring import Keyring

_GIB = 1024**3
# A store that is written to death recovers badly: warn while there is time, complain before it is over.
_FREE_LOOK, _FREE_BROKEN = 5 * _GIB, _GIB
_SHARE_LOOK = 0.1
# The newest so many batches of history: a second.
_BATCHES = 2_000
_SOON = timedelta(days=30)
_HOST_SOON = timedelta(days=60)
# Lists are renewed every few days: one that ends tomorrow may still be in time.
_LIST_SOON = timedelta(days=1)
_FILES_BESIDE = 512
_BACKUP_LOOK, _BACKUP_BROKEN = timedelta(days=1), timedelta(days=7)
# A limit set so many times above or below its default is worth a second look.
_FAR = 10
_LONG_DAYS = 2 * 365
_NAMES_TOLD = 5
# There is a round every ten minutes.
_ROUNDS_LATE = timedelta(hours=1)


class Level(StrEnum):
    """How it stands with what was looked at."""

    WELL = "well"
    LOOK = "look"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; *advice* says what to do."""

    check: str
    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Patient:
    """The relay that is examined."""

    config: Config
    is_full: bool = False
    backups: Path | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def keyring(self) -> Keyring:
        """Its keys; ConfigError where they are not all there and in order."""
        from relay.keyring import load_keyring

        return load_keyring(self.config.keys_path)


Check = Callable[[Patient], list[Finding]]


def list_checks() -> tuple[tuple[str, Check], ...]:
    """Return every check by its name, in the order in which they are told."""
    return (
        ("keys", check_keys),
        ("store", check_store),
        ("history", check_history),
        ("disk", check_disk),
        ("certificates", check_certificates),
        ("host certificates", check_host_certificates),
        ("outside CAs", check_outside),
        ("settings", check_settings),
        ("housekeeping", check_housekeeping),
        ("open files", check_files),
        ("server", check_server),
        ("backups", check_backups),
    )


def check_keys(patient: Patient) -> list[Finding]:
    """Every key is there, in order, and only its owner can read it."""
    keyring = patient.keyring
    finding = f"all there, and readable by their owner alone; the master key in use is {keyring.master.id}"
    found = [Finding("keys", Level.WELL, finding)]
    if keyring.older_masters:
        found.append(
            Finding(
                "keys",
                Level.LOOK,
                "a rotation of the master key was not finished",
                "Run `relay key rotate --master` again.",
            )
        )
    return found


def check_store(patient: Patient) -> list[Finding]:
    """The store has the form that this version needs, and its pages hold together."""
    from relay.ledger import storefile
    from relay.ledger.migrations import check_form, read_form

    path = patient.config.store.path
    is_doubted = storefile.is_doubted(path)
    with storefile.peeked(path) as reader:
        check_form(path, form := read_form(reader))
        faults = [*islice(_find_damage(reader, is_full=patient.is_full), _NAMES_TOLD)]
        lost = reader.execute("PRAGMA foreign_key_check").fetchone() if patient.is_full else None
    if lost is not None:
        faults.append(f"a row of {lost[0]} refers to nothing")
    if faults:
        text = "; ".join(faults)
        if is_doubted:
            return [Finding("store", Level.BROKEN, f"{path} has a gap: {text}", storefile.GAP_ADVICE)]
        return [
            Finding(
                "store", Level.BROKEN, f"{path} is damaged: {text}", "Stop the relay, keep a copy, restore a backup."
            )
        ]
    mode = path.stat().st_mode
    if mode & 0o077:
        return [Finding("store", Level.LOOK, f"{path} can be read by others", f"chmod 600 {path}")]
    depth = "read whole" if patient.is_full else "quick look; --full reads it whole"
    return [Finding("store", Level.WELL, f"form {form}, {say_size(path.stat().st_size)}, undamaged ({depth})")]


def _find_damage(reader: sqlite3.Connection, *, is_full: bool) -> Iterator[str]:
    """Yield what SQLite finds wrong with the pages.

    quick_check of SQLite 3.40 sees NULL in columns of tables without rowid whose key has another order than the table, where
    integrity_check sees none: what only it says is no damage, and must not use up the faults that it tells.
    """
    pragma = "integrity_check" if is_full else "quick_check(1000000000)"
    for (text,) in reader.execute(f"PRAGMA {pragma}"):
        if text != "ok" and (is_full or not text.startswith("NULL value in ")):
            yield text


def check_history(patient: Patient) -> list[Finding]:
    """The newest part of history holds, and ends where the anchor says; all of it with --full."""
    from relay.audit import FaultKind, judge_history
    from relay.cli.audit_words import say_fault
    from relay.ledger.anchor import AnchorDamagedError, read_anchor
    from relay.ledger.auditing import open_history

    config, key = patient.config, patient.keyring.audit_key
    advice = "Keep copies of store, anchor and journal; then `relay audit verify` tells all of it."
    try:
        anchor = read_anchor(config.audit.anchor, key)
    except (AnchorDamagedError, ValueError):
        return [Finding("history", Level.BROKEN, f"{config.audit.anchor} is no anchor of this relay", advice)]
    with open_history(config.store.path) as history:
        if anchor is None and history.newest_batch:
            return [Finding("history", Level.BROKEN, f"there is no anchor {config.audit.anchor}", advice)]
        before = 0 if patient.is_full else max(0, history.newest_batch - _BATCHES)
        first = next(iter(islice(history.batches(before), 1)), None)
        events = history.events(0 if first is None else first.first_event - 1)
        marks = [] if anchor is None or anchor.mark.batch <= before else [("the anchor", anchor.mark)]
        faults = [
            fault
            for fault in judge_history(history.batches(before), events, key, marks)
            # What is left out on purpose looks as if it was missing.
            if not (before and fault.kind is FaultKind.BATCH_MISSING and (fault.first, fault.last) == (1, before))
        ]
        guards = history.missing_guards()
        seen = history.newest_batch - before
    if guards:
        return [Finding("history", Level.BROKEN, f"the store's guards are gone: {', '.join(sorted(guards))}", advice)]
    if faults:
        return [Finding("history", Level.BROKEN, f"{say_fault(faults[0])} ({len(faults)} in all)", advice)]
    return [Finding("history", Level.WELL, f"the newest {seen:,} batches hold, and agree with the anchor")]


def check_disk(patient: Patient) -> list[Finding]:
    """There is room, on a disk that keeps what it was told to keep."""
    from relay.ledger import storefile

    folder = patient.config.store.path.parent
    found = []
    if warning := storefile.check_disk(patient.config.store.path):
        found.append(Finding("disk", Level.LOOK, warning, "Set store.path in relay.toml to a folder on a local disk."))
    usage = shutil.disk_usage(folder)
    room = f"{say_size(usage.free)} of {say_size(usage.total)} are free under {folder}"
    advice = "Make room, or move the store: uploads are put off when it is full."
    if usage.free < _FREE_BROKEN:
        found.append(Finding("disk", Level.BROKEN, room, advice))
    elif usage.free < _FREE_LOOK and usage.free < _SHARE_LOOK * usage.total:
        found.append(Finding("disk", Level.LOOK, room, advice))
    else:
        found.append(Finding("disk", Level.WELL, room))
    if storefile.is_doubted(patient.config.store.path):
        text = f"a sync of the disk of {folder} failed, and what it may have forgotten could not yet be written anew"
        advice = "Make a backup on another disk now (`relay backup FILE`), look at this one (`dmesg`, `smartctl -a`), and replace it."
        found.append(Finding("disk", Level.BROKEN, text, advice))
    anchor = patient.config.audit.anchor
    if anchor.exists() and anchor.stat().st_dev == folder.stat().st_dev:
        text = "the audit's anchor lies on the disk of the store: who takes the one takes the other"
        found.append(Finding("disk", Level.LOOK, text, "Set audit.anchor in relay.toml to a place on another disk."))
    return found


def check_certificates(patient: Patient) -> list[Finding]:
    """No office is about to stand before a closed door."""
    from relay.ledger import storefile

    now, soon = (round(at.timestamp() * 1_000_000) for at in (patient.now, patient.now + _SOON))
    with storefile.peeked(patient.config.store.path) as reader:
        # An office that has a later one as well is not in need.
        rows = reader.execute(
            "SELECT o.number, max(c.valid_before) FROM office AS o JOIN certificate_office AS p ON p.office = o.number "
            "JOIN certificate AS c ON c.ca_fingerprint = p.ca_fingerprint AND c.serial = p.serial "
            "WHERE o.status = 'active' AND c.revoked_at IS NULL GROUP BY o.number "
            "HAVING max(c.valid_before) > ? AND max(c.valid_before) <= ? ORDER BY 2",
            (now, soon),
        ).fetchall()
    if not rows:
        return [Finding("certificates", Level.WELL, f"no office's last certificate ends within {_SOON.days} days")]
    told = ", ".join(
        f"{number} {say_time(datetime.fromtimestamp(end / 1_000_000, UTC))}" for number, end in rows[:_NAMES_TOLD]
    )
    more = f" and {len(rows) - _NAMES_TOLD} more" if len(rows) > _NAMES_TOLD else ""
    text = f"the last certificate of {len(rows)} offices ends within {_SOON.days} days: {told}{more}"
    return [
        Finding(
            "certificates", Level.LOOK, text, "They can renew in certificate/, or you issue one: `relay cert issue`."
        )
    ]


def check_host_certificates(patient: Patient) -> list[Finding]:
    """What the server proves itself with goes on holding."""
    from relay.certificates import FOREVER, parse_certificate_line

    found = []
    for host_key in patient.keyring.host_keys:
        certificate = parse_certificate_line(host_key.certificate.decode("ascii"))
        end = certificate.valid_before
        text = f"{host_key.algorithm}: " + ("holds for ever" if end >= FOREVER else f"holds until {say_time(end)}")
        advice = "`relay key rotate --host-key all` makes new ones; nobody is interrupted."
        if end <= patient.now:
            found.append(Finding("host certificates", Level.BROKEN, text, advice))
        else:
            level = Level.LOOK if end <= patient.now + _HOST_SOON else Level.WELL
            found.append(Finding("host certificates", level, text, advice if level is Level.LOOK else ""))
    return found


def check_outside(patient: Patient) -> list[Finding]:
    """Outside CAs and their revocation lists, where that road is open, go on holding."""
    settings, name = patient.config.certificates, "outside CAs"
    if not settings.x509:
        return []
    trust, now, found = patient.keyring.x509, patient.now, []
    if not trust.anchors:
        found.append(
            Finding(name, Level.LOOK, "none is trusted, so nobody comes in that way", "See [certificates] x509.")
        )
    advice = "Put the newer one beside it in keys/; it is read within seconds."
    for anchor in trust.anchors:
        text = f"the CA {anchor.subject.rfc4514_string()} ends {say_time(anchor.valid_before)}"
        found += _tell_end(name, text, anchor.valid_before - now, _HOST_SOON, advice)
    required = settings.x509_crl == "require"
    if trust.anchors and required and not trust.lists:
        text = "there is no revocation list, and one is required: nobody comes in that way"
        found.append(Finding(name, Level.BROKEN, text, "Put the CAs' lists into keys/x509_crls/."))
    for file, each in trust.lists.items():
        text = f"the revocation list {file} holds until {say_time(each.next_update)}"
        found += _tell_end(name, text, each.next_update - now, _LIST_SOON, advice)
    found += [Finding(name, Level.LOOK, f"the list {file}: {why}", advice) for file, why in trust.unusable.items()]
    return found or [Finding(name, Level.WELL, f"{len(trust.anchors)} trusted, {len(trust.lists)} lists, all hold")]


def _tell_end(name: str, text: str, left: timedelta, soon: timedelta, advice: str) -> list[Finding]:
    if left > soon:
        return []
    return [Finding(name, Level.BROKEN if left <= timedelta(0) else Level.LOOK, text, advice)]


def check_settings(patient: Patient) -> list[Finding]:
    """Nothing is set that is legal and unwise."""
    unwise = [*_find_unwise(patient.config), *find_unwise_spans(patient.config), *_find_far(patient.config.limits)]
    found = [Finding("settings", Level.LOOK, text, advice) for text, advice in unwise]
    return found or [Finding("settings", Level.WELL, "nothing unusual")]


def _find_unwise(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what is unwise, and what to do about it."""
    if not config.operator.telephone:
        text = "operator.telephone is empty: an office whose file was refused does not know whom to call"
        if config.server.host in ("0.0.0.0", "::"):  # noqa: S104 - read, not listened on
            text += ", and the relay listens on every address"
        yield text, "Set [operator] in relay.toml."
    off = sorted(code for code, severity in config.content.severities.items() if severity == "off")
    if off:
        yield f"checks are off: {', '.join(off)}", 'Broken files pass unseen; "warn" lets them in and says so.'
    if config.journal.level in ("warning", "error"):
        yield f'journal.level is "{config.journal.level}": logins and transfers are not in it', 'Set it to "info".'
    if config.tree.sent_listed_seconds == 0:
        yield "tree.sent_listed_seconds is 0: mirroring programs send again what they cannot list", "Leave it at a day."
    if config.tree.remove_uncollected:
        yield "tree.remove_uncollected is on: a recipient can remove what it has never read", "Leave it off."
    if config.certificates.valid_days > _LONG_DAYS:
        text = f"certificates are good for {config.certificates.valid_days} days"
        yield text, "A lost one that nobody reports is a danger for so long."


def _find_far(limits: LimitSettings) -> Iterator[tuple[str, str]]:
    for name, field_ in LimitSettings.model_fields.items():
        value, usual = getattr(limits, name), field_.get_default()
        if value > _FAR * usual or value * _FAR < usual:
            yield f"limits.{name} is {value:,}, far from the usual {usual:,}", "See Limits in README.md."


def check_housekeeping(patient: Patient) -> list[Finding]:
    """What time does to files is done."""
    from relay.housekeeping import PAUSE
    from relay.ledger import storefile

    with storefile.peeked(patient.config.store.path) as reader:
        row = reader.execute("SELECT value FROM meta WHERE key = 'housekeeping_at'").fetchone()
    if row is None:
        return [Finding("housekeeping", Level.WELL, "no round was made yet; a relay makes one at its start")]
    last_at = datetime.fromtimestamp(row[0] / 1_000_000, UTC)
    text = f"the last round was at {say_time(last_at)}"
    if patient.now - last_at > _ROUNDS_LATE:
        advice = "Start the relay; where it runs, its journal says what keeps it from them."
        if patient.now - last_at >= PAUSE:
            advice = (
                "After a pause of days, or where its clock leapt, a running relay waits for one day before it lets anything "
                "expire: see whether the clock is right. If it is, `relay housekeeping run` does it now."
            )
        return [Finding("housekeeping", Level.LOOK, text, advice)]
    return [Finding("housekeeping", Level.WELL, text)]


def check_files(patient: Patient) -> list[Finding]:
    """The system lets the relay have as many files open as it takes connections."""
    needed = patient.config.limits.connections_total + _FILES_BESIDE
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        text = f"{hard:,} may be open here, and limits.connections_total asks for {needed:,}"
        return [Finding("open files", Level.LOOK, text, f"LimitNOFILE={needed} in the unit, or fewer connections.")]
    told = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,} may be open"
    return [Finding("open files", Level.WELL, f"{told}; {needed:,} are needed at most")]


def check_server(patient: Patient) -> list[Finding]:
    """The server runs, and says itself that it can take files."""
    from relay.cli.watching import ask_server

    try:
        answer = ask_server(patient.config, "/readyz")
    except OSError:
        return [Finding("server", Level.LOOK, "no relay serves this store", "Start it: `relay serve`.")]
    if answer.status == 200:  # noqa: PLR2004 - HTTP's OK
        return [Finding("server", Level.WELL, "it runs, and can take files")]
    return [Finding("server", Level.BROKEN, answer.text.strip(), "See its journal.")]


def check_backups(patient: Patient) -> list[Finding]:
    """The newest backup is young."""
    from relay.ledger.backups import list_backups

    if patient.backups is None:
        return []
    if not patient.backups.is_dir():
        text = f"there is no folder {patient.backups}"
        return [Finding("backups", Level.BROKEN, text, "Name the folder of `relay backup --every 5m --to DIR`.")]
    paths = list_backups(patient.backups)
    if not paths:
        return [
            Finding(
                "backups", Level.BROKEN, f"there is none in {patient.backups}", "`relay backup --every 5m --to DIR`"
            )
        ]
    made_at = datetime.fromtimestamp(paths[-1].stat().st_mtime, UTC)
    age = patient.now - made_at
    text = f"{len(paths)} in {patient.backups}, the newest of {say_time(made_at)}"
    advice = "Does `relay backup --every` still run? Its journal says why it failed."
    level = Level.WELL if age < _BACKUP_LOOK else Level.LOOK if age < _BACKUP_BROKEN else Level.BROKEN
    return [Finding("backups", level, text, "" if level is Level.WELL else advice)]
