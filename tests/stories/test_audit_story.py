"""A day of offices and an operator in history: who did what is there by name, and whoever rewrites it is found out."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from house import (
    CARE_MANAGER,
    DAY_CARE,
    HOME_HELP,
    UNREGISTERED,
    Completed,
    House,
    general_name,
    pdf,
    plan_csv,
    plan_name,
    relay_command,
    run_program,
    wait_for,
)

from relay.cli.audit import _describe_event
from relay.cli.audit_verify import _judge_export, _judge_store, _read_head
from relay.cli.audit_words import say_fault, say_moment
from relay.cli.terminal import CommandRefused
from relay.keyring import load_keyring
from relay.ledger.auditing import Wanted, open_history

OPERATOR = f"operator {os.environ.get('SUDO_USER') or getpass.getuser()}"


def relay(house: House, *arguments: str | Path, env: dict[str, str] | None = None) -> Completed:
    """Run a command of the relay at this house, in a zone that is told apart from UTC."""
    command = [*relay_command(house.path), *map(str, arguments)]
    return run_program(command, env={**house.environment, "TZ": "Asia/Tokyo", **(env or {})})


def listed(house: House, **wanted: Any) -> list[dict[str, Any]]:
    """Return what `relay audit list` tells, oldest first."""
    with open_history(house.config.store.path) as history:
        return [_describe_event(event) for event in history.select(Wanted(**wanted), None, oldest_first=True)]


def faults(house: House, *heads: str, anchor: Path | None = None) -> list[str]:
    """Return the faults that `relay audit verify` names."""
    key = load_keyring(house.path / "keys").audit_key
    marks = [_read_head(head, key) for head in heads]
    chosen = anchor or house.config.audit.anchor
    return [
        say_fault(fault) for fault in _judge_store(house.config.store.path, chosen, key, marks, is_quiet=True).faults
    ]


def export_faults(house: House, path: Path) -> list[str]:
    """Return the faults that `relay audit verify --export` names; a file that is no export is one."""
    key = load_keyring(house.path / "keys").audit_key
    try:
        return [say_fault(fault) for fault in _judge_export(path, key, [], is_quiet=True).faults]
    except CommandRefused as refused:
        return [str(refused)]


def tamper(house: House, *statements: str) -> None:
    """Change the store as somebody does who may write to it: without its guards."""
    with closing(sqlite3.connect(house.config.store.path, isolation_level=None)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%append_only%'").fetchall():
            (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
            connection.execute(f"DROP TRIGGER {name}")
            statements = (*statements, sql)
        for statement in statements:
            connection.execute(statement)


async def test_everything_that_matters_is_told_with_who_did_it(make_house: Callable[..., House]) -> None:
    """Logins and refused ones, files on all their ways, commands, what was revealed, and a revocation."""
    house = make_house()
    house.start()
    one, two, part = (general_name(number=number) for number in range(3))
    for number, name in enumerate((one, two, part)):
        (house.path / name).write_bytes(pdf(600 + number))
    (house.path / "wrong.csv").write_bytes(plan_csv())
    house.sftp(CARE_MANAGER, "".join(f"put {name} send/\n" for name in (one, two, part)))
    house.sftp(
        CARE_MANAGER, f"-put wrong.csv send/{plan_name(recipient=UNREGISTERED)}\nrename send/{two} recall/{two}\n"
    )
    house.sftp(HOME_HELP, f"get receive/{one} fetched\n")
    async with house.connect(HOME_HELP) as caller, caller.sftp.open(f"receive/{part}", "rb") as file:
        await file.read(10)
    house.sftp(HOME_HELP, f"get receive/{one} again\n")
    refused = house.sftp(CARE_MANAGER, "", "-o", f"User={DAY_CARE}")
    assert refused.returncode != 0
    numbers = {transfer.name: transfer.id for transfer in house.transfers()}
    assert relay(house, "transfer", "show", str(numbers[one]), "--reveal").returncode == 0
    assert relay(house, "office", "suspend", DAY_CARE, "--yes").returncode == 0
    (pass_serial,) = [line["detail"] for line in listed(house, kind="certificate.issued", office=DAY_CARE)]
    assert relay(house, "cert", "revoke", pass_serial, "--reason", "lost", "--yes").returncode == 0
    house.stop()

    told = {(line["kind"], line["actor"], line["transfer"]) for line in listed(house)}
    assert told >= {
        ("login", CARE_MANAGER, None),
        ("login", HOME_HELP, None),
        *(("accepted", CARE_MANAGER, numbers[name]) for name in (one, two, part)),
        ("refused", CARE_MANAGER, None),
        ("recalled", CARE_MANAGER, numbers[two]),
        ("collected", HOME_HELP, numbers[one]),
        ("read", HOME_HELP, numbers[part]),
        ("read", HOME_HELP, numbers[one]),
        ("login.refused", "127.0.0.0/24", None),
        ("names.revealed", OPERATOR, None),
        ("office.suspended", OPERATOR, None),
        ("certificate.revoked", OPERATOR, None),
        ("server.started", "relay", None),
        ("server.stopped", "relay", None),
    }
    commands = [line["detail"] for line in listed(house, kind="command", actor=OPERATOR.split()[1])]
    assert f"transfer show {numbers[one]} --reveal" in commands
    assert f"cert revoke {pass_serial} --reason … --yes" in commands
    (detail,) = [line["detail"] for line in listed(house, kind="login.refused")]
    assert detail.endswith(": wrong_principal 1") or " refused: " in detail
    assert [line["kind"] for line in listed(house, transfer=numbers[two])] == ["accepted", "recalled"]
    everything = json.dumps(listed(house))
    assert one not in everything
    assert "lost" in everything
    done = relay(house, "audit", "verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"History holds: {len(listed(house))} events in ")
    assert "JST" in done.stdout
    shown = relay(house, "audit", "list", "--office", DAY_CARE, "--since", "1d", "-n", "1").stdout.splitlines()
    assert "certificate.revoked" in shown[2]
    assert "JST" in shown[0]


async def test_a_flood_of_wrong_logins_writes_one_line_a_minute(make_house: Callable[..., House]) -> None:
    """Forty refused logins of one network: nothing is written while they come."""
    house = make_house()
    house.start()
    wrong = house.certificate(CARE_MANAGER)
    before = len(listed(house))
    for _ in range(10):
        with pytest.raises(Exception, match=r"(?i)permission denied|disconnect"):
            async with house.dial(DAY_CARE, pass_=wrong):
                pass
    assert len(house.journal_lines("login.rejected")) >= 10
    assert len(listed(house)) == before or {line["kind"] for line in listed(house)[before:]} == {"login.refused"}
    house.stop()
    lines = listed(house, kind="login.refused")
    # Each worker tells its own, once or at the turn of a minute twice.
    assert 1 <= len(lines) <= 2 * house.config.server.worker_count
    assert sum(int(line["detail"].split()[0]) for line in lines) >= 10


# --- found out ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lived(make_house: Callable[..., House]) -> House:
    """Return a house in which two files were sent, with nobody serving it."""
    house = make_house()
    house.start()
    for number in range(2):
        (house.path / general_name(number=number)).write_bytes(pdf(600 + number))
        house.sftp(CARE_MANAGER, f"put {general_name(number=number)} send/\n")
    house.stop()
    assert faults(house) == []
    return house


def test_verify_says_in_plain_words_what_was_done_and_where(lived: House) -> None:
    """A changed row, a missing one, one that was put in, a missing batch, a forged one; and the place of each."""
    accepted = [line["event"] for line in listed(lived, kind="accepted")]
    sealed = json.loads(relay(lived, "audit", "show", str(accepted[0]), "--json").stdout)["sealed"]
    with open_history(lived.config.store.path) as history:
        batch = history.find_batch_of(accepted[0])
    assert batch is not None
    place = f"batch {sealed['batch']}, number {sealed['number']} of writer {sealed['writer']}, {say_moment(batch.at)}"
    store = lived.config.store.path
    good = store.read_bytes()

    def after(*statements: str) -> list[str]:
        store.write_bytes(good)
        tamper(lived, *statements)
        return faults(lived)

    one, many = f"event {batch.first_event}", f"events {batch.first_event} to {batch.last_event}"
    events = one if batch.first_event == batch.last_event else many
    assert after(f"UPDATE event SET actor = '{HOME_HELP}' WHERE id = {accepted[0]}") == [
        f"{events} ({place}): not as written; one of them, or what the batch says of itself, was changed or exchanged"
    ]
    assert after(f"DELETE FROM event WHERE id = {accepted[0]}") == [f"event {accepted[0]} is missing ({place})"]
    assert after("INSERT INTO event VALUES (9000, 1, 'collected', 'x', NULL, 1, '')")[0].startswith(
        "event 9000 is in no batch and was put in by somebody else (behind all that was sealed, after 2"
    )
    assert f"batch {sealed['batch']} is missing, right before batch {sealed['batch'] + 1}, number " in "\n".join(
        after(f"DELETE FROM audit_batch WHERE id = {sealed['batch']}")
    )
    assert after(f"UPDATE audit_batch SET mac = head WHERE id = {sealed['batch']}") == [
        f"{place}: the batch was not sealed with this relay's key; somebody else wrote it, or changed it"
    ]
    store.write_bytes(good)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("DROP TRIGGER event_is_append_only_delete")
    (told,) = faults(lived)
    assert told == "the store's own guard event_is_append_only_delete is gone: somebody took it away to change history"
    done = relay(lived, "audit", "verify")
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == ["History does not hold: 1 fault.", f"  - {told}"]


def test_an_older_copy_put_back_is_found_and_stays_found_until_it_is_accepted(lived: House) -> None:
    """Before anybody starts the relay, and after it was started on it: the anchor is not written over."""
    store, anchor = lived.config.store.path, lived.config.audit.anchor
    older = store.read_bytes()
    head = relay(lived, "audit", "head").stdout.strip()
    (lived.path / "third.pdf").write_bytes(pdf(700))
    lived.start()
    lived.sftp(CARE_MANAGER, f"put third.pdf send/{general_name(number=9)}\n")
    lived.stop()
    newest = relay(lived, "audit", "head").stdout.strip()
    kept = anchor.read_bytes()
    done = relay(lived, "audit", "verify", "--head", head, "--head", newest)
    assert done.returncode == 0
    assert "agrees; it names batch " in done.stdout
    store.write_bytes(older)
    (told,) = faults(lived)
    assert told.startswith("the end of history is missing: it ends before batch ")
    assert told.endswith("it was cut off, or an older copy of the store was put back")
    assert any("the head that was kept elsewhere knows batch" in fault for fault in faults(lived, newest))

    lived.start()
    (told,) = wait_for(lambda: lived.journal_lines("audit.anchor_failed"), "the journal tells of the anchor")
    assert "restored from a backup" in told["cause"]
    lived.stop()
    assert anchor.read_bytes() == kept
    assert faults(lived)
    done = relay(lived, "audit", "accept", "--reason", "backup of Monday restored", "--yes")
    assert done.returncode == 0, done.stderr
    assert faults(lived) == []
    (event,) = listed(lived, kind="anchor.accepted")
    assert event["actor"] == OPERATOR
    assert event["detail"].startswith("backup of Monday restored (the anchor before is kept as audit.anchor.2")
    (before,) = lived.path.glob("audit.anchor.2*")
    assert before.read_bytes() == kept
    assert faults(lived, anchor=before)


def test_a_missing_anchor_is_told(lived: House) -> None:
    """Removed together with what it would have told of: verify says that nobody can tell, and history that it was begun."""
    anchor = lived.config.audit.anchor
    anchor.unlink()
    assert faults(lived) == [f"there is no anchor {anchor}; nobody can tell whether the end of history was cut off"]
    anchor.write_bytes(b"nonsense")
    assert faults(lived) == [f"{anchor} is no anchor that was written with this relay's keys/audit.key"]
    anchor.unlink()
    lived.restart()
    lived.stop()
    assert [line["actor"] for line in listed(lived, kind="anchor.begun")] == ["relay"]
    assert faults(lived) == []


def test_looking_at_history_changes_nothing(lived: House) -> None:
    """Not the store, not the anchor: evidence can be looked at."""
    store, anchor = lived.config.store.path, lived.config.audit.anchor
    before = store.read_bytes(), anchor.read_bytes()
    out = lived.path / "history.jsonl"
    for arguments in (["verify"], ["list"], ["show", "3"], ["head"], ["export", out]):
        assert relay(lived, "audit", *arguments).returncode == 0
    assert (store.read_bytes(), anchor.read_bytes()) == before
    done = relay(lived, "audit", "verify", "--export", out)
    assert done.returncode == 0
    assert "An export ends where it was made" in done.stdout
    lines = out.read_text().splitlines()
    changed = lived.path / "changed.jsonl"
    for spoilt in (
        lines[:-1],
        lines[:-2] + lines[-1:],
        [line.replace(CARE_MANAGER, HOME_HELP) if '"accepted"' in line else line for line in lines],
        [*lines[:3], *lines[4:]],
        [*lines[:2], lines[3], lines[2], *lines[4:]],
    ):
        changed.write_text("\n".join(spoilt) + "\n")
        assert export_faults(lived, changed)
    assert relay(lived, "audit", "export", out).returncode == 2


def test_a_head_that_was_misread_is_no_tampering(lived: House) -> None:
    """It is refused as what it is, with exit code 2."""
    head = relay(lived, "audit", "head").stdout.strip()
    done = relay(lived, "audit", "verify", "--head", head[:-1] + ("0" if head[-1] != "0" else "1"))
    assert done.returncode == 2
    assert "a character of it is wrong" in done.stderr


def test_a_relay_from_before_the_audit_gets_its_key_at_the_first_start(make_house: Callable[..., House]) -> None:
    """The journal says that keys/ must be backed up again; a key that is lost later is never made anew."""
    house = make_house()
    tamper(house, "DELETE FROM audit_batch")
    (house.path / "keys" / "audit.key").unlink()
    house.config.audit.anchor.unlink(missing_ok=True)
    house.start()
    house.stop()
    assert [line["advice"] for line in house.journal_lines("audit.key_made")] == ["back up keys/ again"]
    assert faults(house) == []
    key = house.path / "keys" / "audit.key"
    kept = house.path / "kept.key"
    shutil.move(key, kept)
    for command in (["serve"], ["office", "list"], ["init"]):
        done = relay(house, *command)
        assert done.returncode == 1
        assert "audit.key" in done.stderr
        assert "put it back from your backup" in done.stderr
    assert not key.exists()
