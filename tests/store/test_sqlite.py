"""What the embedded engine promises beyond the contract: its schema, its plans, its log and its file."""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import AUDIT_KEY, NOW, SECOND, B, Shop, identity, large, new_vault, open_shop, plan_name

from relay.common import Common
from relay.errors import ConfigError
from relay.ledger import Shelf, storefile
from relay.ledger.certificates import _HELD_BY_OFFICE
from relay.ledger.sqlite import create_store, open_ledger
from relay.ledger.statements import SQL
from relay.ledger.store import transfer_sql
from relay.lifecycle import State
from relay.lineup import Lineup
from relay.model import TransferId


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


# --- what the schema forbids -------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "an unknown state": "UPDATE transfer SET state = 'lost'",
    "a negative size": "UPDATE transfer SET size_bytes = -1",
    "an empty file": "UPDATE transfer SET size_bytes = 0",
    "half a digest": "UPDATE transfer SET sha256 = substr(sha256, 1, 16)",
    "no name at all": "UPDATE transfer SET name = NULL",
    "two names": "UPDATE transfer SET name_sealed = x'00'",
    "an unknown sender": "UPDATE transfer SET sender = '9999999999'",
    "an unknown recipient": "UPDATE transfer SET recipient = '9999999999'",
    "no payload while it lives": "UPDATE transfer SET payload = NULL",
    "a payload that is not there": "UPDATE transfer SET payload = 999",
    "two transfers of one payload": "UPDATE transfer SET payload = (SELECT min(payload) FROM transfer)",
    "released while accepted": "UPDATE transfer SET released = id",
    "released to somebody else": "UPDATE transfer SET state = 'recalled', released = id + 1",
    "recalled and still holding its name": "UPDATE transfer SET state = 'recalled'",
    "withdrawn and still on a shelf": "UPDATE transfer SET withdrawn = id",
    "on no shelf and not withdrawn": "UPDATE transfer SET shelf = 'none'",
    "collected at no time": "UPDATE transfer SET state = 'collected'",
    "collected and still accepted": "UPDATE transfer SET collected_at = 1",
    "returned and still with its recipient": "UPDATE transfer SET state = 'returned', released = id, ended_at = 1",
    "returned by somebody who had it": "UPDATE transfer SET state = 'returned', released = id, withdrawn = id, shelf = 'none', ended_at = 1, collected_at = 1",
    "reported before it was collected": "UPDATE transfer SET reported_at = 1, shelf = 'none', withdrawn = id",
    "an incident of no transfer": "INSERT INTO incident VALUES (999, 'held', 'a', 'b', 1, '')",
    "an unknown incident": "INSERT INTO incident VALUES (1, 'lost', 'a', 'b', 1, '')",
    "ended and still accepted": "UPDATE transfer SET ended_at = 1",
    "two live transfers of one identity": "UPDATE transfer SET identity_key = x'00'",
    "two visible files of one name": "UPDATE transfer SET delivered_key = x'00'",
    "persons without their keys": "INSERT INTO unit_part VALUES (1, '', '', NULL, zeroblob(16), 0, NULL, NULL)",
    "half a person": "INSERT INTO unit_part VALUES (1, '', '', '[]', zeroblob(17), 0, NULL, NULL)",
    "a text for a number": "UPDATE transfer SET accepted_at = 'today'",
    "a payload of a transfer removed": "DELETE FROM payload",
    "a sealed payload without its master key": "UPDATE payload SET master_id = NULL",
    "a sealed payload of no length": "UPDATE payload SET size_bytes = 0",
    "a short uid": "UPDATE payload SET uid = x'00'",
    "an unknown status of an office": "UPDATE office SET status = 'gone'",
    "a certificate of nobody": "INSERT INTO certificate_office VALUES ('1', 'SHA256:none', 1)",
    "history rewritten": "UPDATE event SET actor = 'me'",
    "history removed": "DELETE FROM event",
    "a part of no transfer": "INSERT INTO unit_part VALUES (999, '', '', NULL, NULL, 0, NULL, NULL)",
    "served parts of no transfer": "INSERT INTO served VALUES (999, '[]')",
}


@pytest.fixture
async def two(tmp_path: Path) -> Path:
    """Return a closed store with two transfers."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        await shop.send()
        await shop.send(name=plan_name(1))
    return shop.path


@pytest.mark.parametrize("statement", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
async def test_the_schema_rejects(two: Path, statement: str) -> None:
    """No caller can write a row that cannot be, whatever its mistake."""
    with closing(_connect(two)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)


async def test_the_form_of_the_store(two: Path) -> None:
    """Page size, vacuum, log and readers' rights are those of DESIGN section 2, and foreign keys hold."""
    with closing(_connect(two)) as connection:
        pragma = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "auto_vacuum", "journal_mode")
        }
        assert pragma == {"page_size": 8192, "auto_vacuum": 2, "journal_mode": "wal"}
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert two.stat().st_mode & 0o777 == 0o600
    with closing(storefile.open_writer(two)) as writer:
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert writer.execute("PRAGMA secure_delete").fetchone() == (1,)
        assert writer.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert writer.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    with closing(storefile.open_reader(two)) as reader, pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM served")


def test_a_command_waits_for_who_has_the_store_for_a_moment(two: Path) -> None:
    """Nobody can read while the log is read after a crash, or written back by who leaves last: that is soon over."""
    found: list[int] = []

    def look() -> None:
        with storefile.peeked(two) as reader:
            found.append(reader.execute("SELECT count(*) FROM transfer").fetchone()[0])

    with closing(_connect(two)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        looking = threading.Thread(target=look)
        looking.start()
        # Long enough for one who does not wait to fail.
        looking.join(0.2)
        other.execute("COMMIT")
    looking.join(60)
    assert found == [2]


# --- how statements are carried out ------------------------------------------------------------------------------

# Run by hand, at night or over a handful of rows: the command line's overviews, and an office's own status.
# Housekeeping looks in a thread, and at the few that there are of notes and notices.
# Of the master keys there is one a rotation; what counts rows for one is read by the command line alone.
MAY_SCAN = {
    "cancel_invitations_of",
    "holdings",
    "forget_old_notes",
    "list_notices",
    "list_notices_for",
    "list_old_refusals",
    "list_over_notices",
    "list_unnoticed",
    "use_by_software",
    "transfers_by_kind",
    "transfers_by_month",
    "use_by_month",
    "use_by_prefecture",
    "waiting_by_age",
    "waiting_in_all",
    "any_master_of_payload",
    "count_of_others",
    "count_offices",
    "foresee_expired",
    "foresee_leftovers",
    "foresee_names",
    "foresee_noticed",
    "foresee_notes",
    "foresee_over_notices",
    "foresee_refusals",
    "foresee_unfinished",
    "list_uncollected",
    "destroy_masters",
    "end_master",
    "list_active_numbers",
    "list_certificates",
    "list_events",
    "list_invitations",
    "list_mail_waiting",
    "list_masters",
    "list_newest_history",
    "list_oldest_history",
    "list_receipt_months",
    "list_revoked_keys",
    "list_transfer_ids",
    "list_transfers",
    "master_in_use",
}
# A row that stands in the statement, a list that was handed in, and what another step of the same statement found.
NO_TABLE = ("SCAN CONSTANT ROW", "SCAN json_each", "SCAN (subquery")
MAY_SORT = {
    "list_partners",
    "foresee_over_notices",
    "list_incidents",
    "list_noticed",
    "list_notices",
    "list_notices_for",
    "transfers_of_identity",
    "use_by_software",
    "transfers_by_kind",
    "transfers_by_month",
    "use_by_month",
    "count_offices",
    "list_transfers",
    "list_transfer_ids",
    "list_certificates",
    "list_masters",
    "list_receipted",
    "list_receipt_months",
}
_OF_ONE_SERIAL = (
    "t.sender = :sender AND t.recipient = :recipient AND t.serial = :serial AND t.shelf IN ('receive', 'done', 'none')"
)
CHOICES = {
    "list_certificates": ["1", "c.serial = :serial", _HELD_BY_OFFICE],
    "list_events": ["1", "transfer = :transfer"],
    "list_newest_history": ["1", "transfer = :transfer"],
    "list_oldest_history": ["1"],
    "list_first_lines": ["t.sender = :sender AND t.accepted_at >= :since", "t.recipient = :recipient"],
    "list_transfers": ["1", "t.sender = :sender", "t.recipient = :recipient AND t.state = :state"],
    "list_transfer_ids": ["1", "t.sender = :sender AND t.accepted_at >= :since", "t.recipient = :recipient"],
    "list_unit_parts": [
        "t.sender = :sender AND t.accepted_at >= :since",
        "t.recipient = :recipient AND t.accepted_at >= :since",
        _OF_ONE_SERIAL,
    ],
}


def _plans(connection: sqlite3.Connection) -> Iterator[tuple[str, str, list[str]]]:
    for name in SQL:
        for where in CHOICES.get(name, [""]):
            sql = transfer_sql(name, where=where) if "{" in SQL[name] else SQL[name]
            named = set(re.findall(r":(\w+)", sql))
            numbered = [int(number) for number in re.findall(r"\?(\d)", sql)]
            values = dict.fromkeys(named, 1) if named else [1] * (max(numbered) if numbered else sql.count("?"))
            yield name, where, [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


async def test_no_statement_reads_through_a_table_or_sorts(two: Path) -> None:
    """Every look-up goes by a key and every listing comes in the order of its index, foreign keys included."""
    with closing(_connect(two)) as connection:
        for name, where, plan in _plans(connection):
            scans = [step for step in plan if step.startswith("SCAN") and not step.startswith(NO_TABLE)]
            assert not scans or (name in MAY_SCAN and where in ("", "1")), (name, where, plan)
            assert name in MAY_SORT or not any("TEMP B-TREE" in step for step in plan), (name, plan)


async def test_each_listing_uses_the_index_made_for_it(two: Path) -> None:
    """new/ is not found by reading through all that was ever collected, and send/ not through all that was sent."""
    indexes = {
        "list_shelf": "transfer_shelf",
        "list_new": "transfer_new",
        "list_outbox": "transfer_outbox",
        "leave_outbox": "transfer_leaving",
        "list_abandoned": "payload_staged",
        "list_recalled": "transfer_recalled",
        "find_recalled": "transfer_recall",
        "list_undestroyed": "transfer_ended",
        "list_readable": "transfer_ended",
        "list_refusals": "refusal_office",
        "find_by_identity": "transfer_identity",
        "list_incidents": "incident_recipient",
    }
    with closing(_connect(two)) as connection:
        plans = {name: " ".join(plan) for name, _, plan in _plans(connection)}
    for name, index in indexes.items():
        assert index in plans[name], plans[name]


# --- names whose payload is gone ---------------------------------------------------------------------------------


async def test_a_name_whose_payload_was_destroyed_is_told_as_its_kind(tmp_path: Path) -> None:
    """With the key the name goes; the record stays readable, and sending the name again is a new transfer."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        sent = await shop.collect(await shop.send(name="山田花子.pdf", is_free=True))
        fixed = await shop.collect(await shop.send())
        with closing(_connect(shop.path)) as connection:
            connection.execute(
                """UPDATE transfer SET state = 'destroyed', payload = NULL, released = id, shelf = 'none', withdrawn = id"""
            )
            connection.execute("DELETE FROM payload")
        found = await shop.ledger.find_transfer(sent.id)
        assert found is not None
        assert (found.state, found.name) == (State.DESTROYED, "*.pdf")
        with pytest.raises(LookupError):
            await shop.ledger.open_payload(sent.id)
        assert (await shop.send(b"next", "山田花子.pdf", is_free=True)).id not in (sent.id, fixed.id)
        with pytest.raises(Exception, match=r"transfer\.already_collected"):
            await shop.send()


# --- the log -----------------------------------------------------------------------------------------------------


async def test_the_log_is_emptied_when_it_is_long(tmp_path: Path) -> None:
    """After its limit the log is folded into the file and cut to nothing, while the relay works on."""
    shop = await open_shop(tmp_path, checkpoint_bytes=1_000_000)
    async with shop.ledger:
        for number in range(12):
            await shop.send(large(2), plan_name(number))
        assert storefile.wal_bytes(shop.path) < 2_000_000


async def test_the_log_is_folded_early_where_nobody_waits(tmp_path: Path) -> None:
    """Small files that come one by one let it grow to a quarter of its limit, so that each folding is short."""
    shop = await open_shop(tmp_path, checkpoint_bytes=4_000_000)
    async with shop.ledger:
        for number in range(60):
            await shop.send(bytes(10_000), plan_name(number))
        assert storefile.wal_bytes(shop.path) < 2_000_000


async def test_a_reader_that_stays_holds_up_nobody(tmp_path: Path) -> None:
    """A backup that reads for long lets the log grow; commits go on, and after it the log is emptied."""
    shop = await open_shop(tmp_path, checkpoint_bytes=500_000)
    async with shop.ledger:
        with closing(_connect(shop.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM transfer").fetchone()
            for number in range(12):
                await shop.send(large(2), plan_name(number))
            assert storefile.wal_bytes(shop.path) > 2_000_000
            reader.execute("ROLLBACK")
        shop.ledger._store._writer._checkpoint_after = 0.0
        shop.ledger._store._writer._lineup._emptied_at = -math.inf
        await shop.send(b"after", plan_name(99))
        await asyncio.wait_for(_until_emptied(shop), 20)


async def test_a_log_that_fills_again_and_again_is_overwritten(tmp_path: Path) -> None:
    """What lies behind its end counts for nothing, whatever the file's length, and all that was sent is in the store."""
    shop = await open_shop(tmp_path, checkpoint_bytes=500_000)
    content = large(2)
    async with shop.ledger:
        for number in range(6):
            await shop.send(content, plan_name(number))
        async with asyncio.timeout(20):
            while storefile.is_wal_longer(shop.path, 500_000):
                number += 1
                await shop.send(b"small", plan_name(number))
        assert 500_000 < storefile.wal_bytes(shop.path) < 2_000_000
        assert not storefile.is_wal_longer(shop.path, 500_000)
        assert storefile.is_wal_longer(shop.path, 4_000)
    again = await shop.reopen()
    async with again.ledger:
        contents = [await again.content(each.id) for each in await again.ledger.list_transfers()]
    assert contents.count(content) == 6
    assert len(contents) == number + 1


async def test_a_log_that_one_worker_emptied_is_overwritten_by_the_others(tmp_path: Path) -> None:
    """Emptying holds up all workers, so it is done once for all of them, not by each in turn."""
    supervisor = Common.create(2)
    lineups = [Lineup(Common.attach(supervisor.fileno(), index)) for index in range(2)]
    one = await open_shop(tmp_path, checkpoint_bytes=500_000, lineup=lineups[0])
    another = await one.reopen(checkpoint_bytes=500_000, lineup=lineups[1])
    async with one.ledger, another.ledger:
        lineups[0].emptied()
        await another.send(large(3), plan_name(0))
        async with asyncio.timeout(20):
            number = 0
            while storefile.is_wal_longer(one.path, 500_000):
                number += 1
                await another.send(b"small", plan_name(number))
        assert storefile.wal_bytes(one.path) > 500_000
    supervisor.close()


async def _until_emptied(shop: Shop) -> None:
    while storefile.wal_bytes(shop.path) > 500_000:  # noqa: ASYNC110 - the writer tells nobody
        await asyncio.sleep(0)


async def test_closing_leaves_one_file_to_back_up(two: Path) -> None:
    """After the last one has closed there is no log beside the store."""
    assert sorted(each.name for each in two.parent.iterdir()) == ["relay.db", "relay.db.lock"]


async def test_looking_does_not_close_the_log_of_another(tmp_path: Path) -> None:
    """A second process that opens, reads and closes leaves the log of the first alone."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        await shop.send()
        for _ in range(3):
            other = await shop.reopen()
            assert len(await other.ledger.list_transfers()) == 1
            await other.ledger.close()
        await shop.send(name=plan_name(1))
        assert len((await shop.ledger.list_shelf(B, Shelf.NEW)).entries) == 2


# --- the file ----------------------------------------------------------------------------------------------------


async def test_a_store_is_never_made_over_another(two: Path) -> None:
    """Neither over a store nor over a log that lost its store: that log would be played into the new one."""
    before = two.read_bytes()
    with pytest.raises(FileExistsError):
        create_store(two)
    assert two.read_bytes() == before
    lost = two.with_name("lost.db")
    lost.with_name("lost.db-wal").write_bytes(b"frames")
    with pytest.raises(FileExistsError):
        create_store(lost)


async def test_a_store_behind_a_link_has_one_lock_and_one_log(tmp_path: Path) -> None:
    """Who comes by a symbolic link shares the lock with who comes by the real path."""
    shop = await open_shop(tmp_path)
    link = tmp_path / "elsewhere" / "linked.db"
    link.parent.mkdir()
    link.symlink_to(shop.path)
    async with shop.ledger, await open_ledger(link, shop.vault, AUDIT_KEY) as other:
        await shop.send()
        await other.record_served(TransferId(1), [(0, 7)], identity=identity(B), now=NOW + SECOND)
    assert [each.name for each in link.parent.iterdir()] == ["linked.db"]


@pytest.mark.parametrize("damage", ["missing", "foreign", "another schema", "no store"])
async def test_a_store_that_cannot_be_served_is_told_in_words(two: Path, damage: str) -> None:
    """Missing, not SQLite's, of another schema, or SQLite's but not ours: ConfigError that says what to do."""
    if damage == "missing":
        two.unlink()
    elif damage == "foreign":
        two.write_bytes(b"this is no database, but a text that somebody saved here" * 200)
    elif damage == "another schema":
        with closing(_connect(two)) as connection:
            connection.execute("UPDATE meta SET value = 99 WHERE key = 'schema_version'")
    else:
        two.unlink()
        with closing(_connect(two)) as connection:
            connection.execute("CREATE TABLE x (y)")
    with pytest.raises(ConfigError) as caught:
        await open_ledger(two, new_vault(), AUDIT_KEY)
    assert str(two) in str(caught.value)
    assert str(caught.value).endswith(".")


# --- the disk ----------------------------------------------------------------------------------------------------

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:5 / /dev rw - devtmpfs udev rw
40 22 0:40 / /srv rw - nfs4 server:/srv rw
41 40 254:1 / /srv/local rw,relatime shared:3 - xfs /dev/vdb rw
42 22 0:41 / /mnt/care\\040plans rw - cifs //server/plans rw
43 22 0:42 / /mnt/a\\134b\\011c rw master:1 propagate_from:2 - fuse.sshfs host: rw
44 22 0:43 / /data rw - ext4 /dev/vdc rw
45 22 0:44 / /data rw - 9p share rw
46 22 0:45 / /tmp rw - tmpfs tmpfs rw
47 22 0:46 / /mnt/bücher rw - smb3 //x/y rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/relay/relay.db", "ext4"),
        ("/srv/relay.db", "nfs4"),
        ("/srv/local/relay.db", "xfs"),
        ("/srv", "nfs4"),
        ("/srvx/relay.db", "ext4"),
        ("/mnt/care plans/relay.db", "cifs"),
        ("/mnt/a\\b\tc/relay.db", "fuse.sshfs"),
        ("/data/relay.db", "9p"),
        ("/tmp/relay.db", "tmpfs"),
        ("/mnt/bücher/relay.db", "smb3"),
    ],
)
def test_the_file_system_under_a_path_is_read_from_the_mounts(path: str, kind: str) -> None:
    """The deepest mount counts, of several on one point the last, and odd characters are written as octals."""
    assert storefile.parse_file_system(MOUNTS, Path(path)) == kind


def test_mounts_that_tell_nothing() -> None:
    """Where nothing can be read nothing is claimed."""
    assert storefile.parse_file_system("", Path("/x")) == ""


@pytest.mark.parametrize(
    ("mount", "expected"),
    [("nfs4", ConfigError), ("cifs", ConfigError), ("9p", ConfigError), ("fuse.sshfs", ConfigError), ("tmpfs", "tmpfs"),
     ("fuse.something", "fuse"), ("ext4", None), ("xfs", None), ("btrfs", None), ("overlay", None)],
)  # fmt: skip
def test_a_start_on_a_network_disk_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mount: str, expected: type[Exception] | str | None
) -> None:
    """A network's is refused in words, a disk that may forget is warned about, a local one is silent."""
    monkeypatch.setattr(storefile, "_mount_table", lambda: f"22 1 0:1 / / rw - {mount} x rw\n")
    if expected is ConfigError:
        with pytest.raises(ConfigError, match=mount):
            storefile.check_disk(tmp_path / "relay.db")
        with pytest.raises(ConfigError, match="local disk"):
            create_store(tmp_path / "relay.db")
        assert not (tmp_path / "relay.db").exists()
    else:
        warning = storefile.check_disk(tmp_path / "relay.db")
        assert (warning is None) if expected is None else (str(expected) in str(warning))
