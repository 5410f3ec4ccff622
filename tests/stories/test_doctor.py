"""`relay doctor` on relays that are well and on relays that are not: what it finds, what it advises, how it exits."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from house import HOME_HELP, HOST, House, MakeHouse
from keyboard import Terminal
from outside_cas import DAY, make_root, now, publish_lists, trust
from rich.cells import cell_len

from relay.cli.doctor_outside import read_address
from relay.cli.terminal import CommandRefused
from relay.ledger.storefile import StoreLock

WELL = {"operator": {"name": "みほん", "telephone": "03-0000-0000"}}
Told = Mapping[str, list[tuple[str, str, str]]]


def examine(house: House, *options: str) -> tuple[int, Told]:
    """Run the doctor; return its exit code and, for each check, level, text and advice of what it found."""
    done = house.relay("doctor", "--json", *options)
    assert done.stdout, done.stderr
    told: dict[str, list[tuple[str, str, str]]] = {}
    for each in json.loads(done.stdout):
        told.setdefault(each["check"], []).append((each["level"], each["text"], each["advice"]))
    return done.returncode, told


def levels(told: Told) -> dict[str, str]:
    """Return the worst level of each check."""
    order = ("well", "look", "broken")
    return {check: max((level for level, _, _ in found), key=order.index) for check, found in told.items()}


@contextlib.contextmanager
def clock(offset_seconds: float, *, stratum: int = 2, echo: bool = True) -> Iterator[str]:
    """Answer NTP on loopback with a clock that is off by so many seconds; yield where."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    question, caller = server.recvfrom(512)
                    if not question:
                        return
                    at = time.time() + offset_seconds + 2_208_988_800
                    stamp = struct.pack(">II", int(at), int(at % 1 * 2**32))
                    cookie = question[40:48] if echo else bytes(8)
                    server.sendto(
                        struct.pack(">BBbb", 0x24, stratum, 6, -20) + bytes(12) + stamp + cookie + stamp + stamp, caller
                    )

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"{HOST}:{server.getsockname()[1]}"
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", server.getsockname())
            thread.join()


def test_a_relay_that_is_well_is_told_so_and_its_door_is_found(make_house: MakeHouse, tmp_path: Path) -> None:
    """With a help desk, a young backup, a good clock and an open door nothing is broken; each check has a word."""
    house = make_house(**WELL)
    house.start()
    backups = tmp_path / "backups"
    backups.mkdir()
    assert house.relay("backup", str(backups / f"relay-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")).returncode == 0
    with clock(0.0) as good:
        code, told = examine(
            house, "--full", "--reach", f"{HOST}:{house.port}", "--clock", good, "--backups", str(backups)
        )
    found = levels(told)
    # A test's home has its anchor on the disk of its store, and machines differ in their disks and limits.
    for check in ("disk", "open files"):
        found.pop(check)
    assert set(found.values()) == {"well"}, told
    assert found.keys() >= {
        "keys",
        "store",
        "history",
        "certificates",
        "host certificates",
        "settings",
        "server",
        "backups",
    }
    assert (f"reach ({HOST}:{house.port})" in found, f"clock ({good})" in found) == (True, True)
    assert code in (0, 1)


def test_every_setting_that_is_legal_and_unwise_is_told(make_house: MakeHouse) -> None:
    """What is kept too long or not long enough, patience without end, programs let through: each with what to do."""
    unwise = {
        "housekeeping": {"uncollected_days": 0, "collected_days": 3},
        "certificates": {"valid_days": 7, "renewal": False},
        "server": {"login_seconds": 3600.0, "drain_seconds": 900.0, "keepalive_count": 100},
        "store": {"lock_wait_seconds": 0.1, "checkpoint_bytes": "2 GiB"},
        "audit": {"anchor_seconds": 3600.0},
        "names": {"extensions": ["pdf", "exe"]},
        "mail": {"host": "mail.example.jp", "sender": "relay@example.jp", "tls": "none"},
        "limits": {"upload_bytes": "900 TiB", "stored_bytes_per_office": "900 TiB"},
    }
    code, told = examine(make_house(**WELL, **unwise))
    assert code == 1
    found = {text: advice for level, text, advice in told["settings"] if level == "look"}
    for word in (
        "uncollected_days is 0", "collected_days is 3", "good for 7 days", "renewal is off", "login_seconds is 3,600",
        "drain_seconds is 900", "keepalive_count is over", "lock_wait_seconds is 0.1", "checkpoint_bytes is 2.0 GiB",
        "anchor_seconds is 3,600", "programs through: exe", 'tls is "none"', "are free for the store",
    ):  # fmt: skip
        assert any(word in text and advice for text, advice in found.items()), (word, found)
    ((level, text, _),) = told["housekeeping"]
    assert (level, "no round" in text) == ("well", True)
    longer = examine(make_house(**WELL, housekeeping={"uncollected_days": 30, "collected_days": 60}))[1]["settings"]
    assert ["more than uncollected_days" in text for _, text, _ in longer] == [True]


def test_what_is_unwise_or_not_there_is_told_with_what_to_do(make_house: MakeHouse) -> None:
    """A stopped relay with odd settings, a wrong clock and nobody at its address: each is named, with advice, in one run."""
    house = make_house(
        journal={"level": "error"},
        tree={"remove_uncollected": True, "sent_listed_seconds": 0},
        limits={"sessions_per_office": 100_000},
        content={"severities": '{"content.truncated" = "off"}'},
    )
    with socket.socket() as reserved, clock(90.0) as late, clock(5.0) as odd, clock(0.0, stratum=16) as unsure:
        # Bound and not listening: nobody else gets the port, and nobody answers there.
        reserved.bind((HOST, 0))
        where = f"{HOST}:{reserved.getsockname()[1]}"
        code, told = examine(house, "--reach", where, "--clock", late, "--clock", odd, "--clock", unsure)
    assert code == 2
    settings = " ".join(text for _, text, _ in told["settings"])
    for word in (
        "telephone",
        "content.truncated",
        "journal.level",
        "remove_uncollected",
        "sent_listed",
        "sessions_per_office",
    ):
        assert word in settings, word
    assert levels(told)[f"reach ({where})"] == "broken"
    assert [levels(told)[f"clock ({each})"] for each in (late, odd, unsure)] == ["broken", "look", "look"]
    assert re.search(r"(89|90)\.\d{3} s behind", told[f"clock ({late})"][0][1])
    assert levels(told)["server"] == "look"
    assert all(advice for found in told.values() for level, _, advice in found if level != "well"), told


def test_an_answer_that_was_not_asked_for_sets_no_clock(make_house: MakeHouse) -> None:
    """An NTP answer that does not carry what was sent is not believed: it could come from anybody."""
    house = make_house(**WELL)
    with clock(90.0, echo=False) as forged:
        _, told = examine(house, "--clock", forged)
    assert levels(told)["store"] == "well", told["store"]
    assert told[f"clock ({forged})"][0][:2] == ("look", "no time from there: what answers there speaks no NTP")


def test_keys_that_others_can_read_and_a_damaged_store_are_broken(make_house: MakeHouse) -> None:
    """A key with mode 644 is named with its chmod; a store with a page overwritten is told as damaged; both exit with 2.

    Where the disk may have forgotten something, a start comes before any backup.
    """
    house = make_house(**WELL)
    (house.path / "keys" / "master.key").chmod(0o644)
    code, told = examine(house)
    assert (code, "chmod 600" in told["keys"][0][1]) == (2, True)
    (house.path / "keys" / "master.key").chmod(0o600)
    store = house.config.store.path
    with store.open("r+b") as file:
        file.seek(8192 * 3)
        file.write(os.urandom(8192 * 4))
    code, told = examine(house)
    assert (code, levels(told)["store"]) == (2, "broken")
    assert "restore" in " ".join(told["store"][0][1:]).lower()
    lock = StoreLock(store, 1.0)
    lock.doubt()
    with lock.held():
        code, told = examine(house)
    lock.close()
    assert (code, "start it again, and look once more. Only" in " ".join(told["store"][0][1:])) == (2, True)


def test_a_disk_that_could_not_keep_what_was_written_is_told(make_house: MakeHouse) -> None:
    """As long as nobody could write it anew; whoever finds the store free and the disk in order has done so."""
    house = make_house()
    lock = StoreLock(house.config.store.path, 1.0)
    lock.doubt()
    with lock.held():
        code, told = examine(house)
        assert code == 2
        assert any("a sync of the disk" in text and "replace it" in advice for _, text, advice in told["disk"])
    lock.close()
    _, told = examine(house)
    assert levels(told)["disk"] != "broken"
    assert house.config.store.path.with_name("relay.db.lock").stat().st_size == 0


def test_history_without_its_anchor_and_an_expired_office_are_told(make_house: MakeHouse) -> None:
    """A removed anchor is broken; an office whose only other certificate was revoked and whose last ends in days is named."""
    house = make_house(**WELL)
    house.certificate(HOME_HELP, valid_before=now() + timedelta(days=9))
    (old,) = [
        each["serial"]
        for each in json.loads(house.relay("cert", "list", "--office", HOME_HELP, "--json").stdout)
        if each["label"] == "" and (now() + timedelta(days=30)).isoformat() < each["valid_before"]
    ]
    assert house.relay("cert", "revoke", str(old), "--yes", "--reason", "test").returncode == 0
    house.config.audit.anchor.unlink()
    code, told = examine(house)
    assert (code, levels(told)["history"], levels(told)["certificates"]) == (2, "broken", "look")
    assert HOME_HELP in told["certificates"][0][1]


def test_somebody_else_at_the_relays_address_is_not_taken_for_it(make_house: MakeHouse) -> None:
    """Another relay, with another CA, answers at the address: the doctor says that it does not prove itself."""
    house, other = make_house(**WELL), make_house()
    assert other.relay("key", "rotate", "--host-ca", "--yes").returncode == 0
    assert other.relay("key", "retire", "--host-ca", "--yes").returncode == 0
    other.start()
    code, told = examine(house, "--reach", f"{HOST}:{other.port}")
    assert code == 2
    assert "does not prove itself" in told[f"reach ({HOST}:{other.port})"][0][1]


def test_outside_cas_whose_lists_have_ended_are_told(make_house: MakeHouse) -> None:
    """With a CA and a list that hold all is well; with a list that has ended, and a CA that soon will, both are named."""
    offices = '[{field = "subject.CN", pattern = "(?P<office>[0-9]{10})"}]'
    house = make_house(**WELL, certificates={"x509": True, "x509_offices": offices})
    keys = house.path / "keys"
    for folder in ("trusted_x509_cas", "x509_crls"):
        (keys / folder).mkdir(mode=0o700, exist_ok=True)
    lasting = make_root(until=now() + 90 * DAY)
    trust(keys, lasting)
    publish_lists(keys, lasting.list_revoked(until=now() + 9 * DAY))
    _, told = examine(house)
    assert told["outside CAs"] == [("well", "1 trusted, 1 lists, all hold", "")]
    ending = make_root()
    trust(keys, ending)
    publish_lists(keys, ending.list_revoked(since=now() - 9 * DAY, until=now() - DAY))
    code, told = examine(house)
    assert (code, [level for level, _, _ in told["outside CAs"]]) == (2, ["look", "broken"])


@pytest.mark.parametrize("width", [80, 120])
def test_what_the_doctor_says_fits_the_terminal(make_house: MakeHouse, width: int) -> None:
    """At either width no line is longer than the terminal, and the last one counts."""
    house = make_house()
    from house import relay_command

    environment = {**house.environment, "COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}
    with Terminal([*relay_command(house.path), "doctor"], **environment) as terminal:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.read_to_end()).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert re.fullmatch(r"\d+ looked at: \d+ well, \d+ to look at, \d+ broken", lines[-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relay.example.jp", ("relay.example.jp", 22)),
        ("relay.example.jp:2222", ("relay.example.jp", 2222)),
        ("192.0.2.1:2222", ("192.0.2.1", 2222)),
        ("[2001:db8::1]:2222", ("2001:db8::1", 2222)),
        ("[2001:db8::1]", ("2001:db8::1", 22)),
        ("2001:db8::1", ("2001:db8::1", 22)),
    ],
)
def test_an_address_is_read_as_people_write_it(text: str, expected: tuple[str, int]) -> None:
    """With and without a port, with and without the brackets of IPv6."""
    assert read_address(text, 22) == expected


@pytest.mark.parametrize("text", ["", ":22", "host:", "host:0", "host:65536", "host:ssh"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(CommandRefused):
        read_address(text, 22)
