"""Routing: who may send what where, in which order the questions come, and the samples' verdicts."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from relay.errors import Refused, Severity
from relay.model import Address, Grammar, Office, OfficeEnd, OfficeNumber, OfficeStatus
from relay.naming import NamingRules, decode_name, parse_name
from relay.routing import resolve_route

DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 12, 1, tzinfo=timezone(timedelta(hours=9)))
RULES = NamingRules(frozenset({"csv", "pdf", "jpg", "jpeg", "txt"}))


def _read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


REGISTER = {
    row["office_number"]: Office(
        OfficeNumber(row["office_number"]),
        row["name_ja"],
        row["prefecture"],
        tuple(row["service_types"].split("|")),
        OfficeStatus(row["status"]),
    )
    for row in _read("offices.csv")
}
SAMPLES = _read("names.csv")

A = REGISTER["0178515854"]
B = REGISTER["0178529384"]
SUSPENDED = REGISTER["0178536215"]
ADDRESS = Address("x.pdf", Grammar.GENERAL, "PDF", B.number, A.number, "43", "11", "20261201000000")


def _offer(row: dict[str, str]) -> tuple[str, set[str]]:
    raw = bytes.fromhex(row["name_bytes_hex"]) or json.loads(row["name_escaped"]).encode()
    try:
        address = parse_name(decode_name(raw), RULES)
        route = resolve_route(
            address, sender=REGISTER[row["uploader_office"]], recipient=REGISTER.get(address.recipient), now=NOW
        )
    except Refused as refused:
        return "refuse", {refused.code}
    codes = {found.code for found in route.findings}
    return ("warn", codes) if codes else ("accept", {"ok"})


@pytest.mark.parametrize("row", SAMPLES, ids=range(len(SAMPLES)))
def test_every_sample_name_gets_its_verdict(row: dict[str, str]) -> None:
    """Name and route alone give each sample the verdict and the one code that it should get."""
    assert _offer(row) == (row["verdict"], {row["reason_code"]}), row["note"]


def test_a_route_holds_both_offices_and_every_finding() -> None:
    """What the name showed and what the register showed come together."""
    address = parse_name("UPJSK_202607_0178529384_15_2778507637_15_20991231235959.CSV", RULES)
    route = resolve_route(address, sender=B, recipient=REGISTER["2778507637"], now=NOW)
    assert (route.address, route.sender, route.recipient) == (address, B.number, "2778507637")
    assert [found.code for found in route.findings] == ["name.check_digit", "name.service_type", "name.serial_future"]
    assert dict(route.findings[1].facts) == {"office": B.number, "service_type": "15"}


def _code(address: Address, sender: Office, recipient: Office | None) -> str:
    with pytest.raises(Refused) as caught:
        resolve_route(address, sender=sender, recipient=recipient, now=NOW)
    return caught.value.code


def test_the_sender_in_the_name_is_asked_first() -> None:
    """Somebody else's name is refused as such, also when it is addressed to the one logged in or to nobody known."""
    assert _code(ADDRESS, B, B) == "name.sender_mismatch"
    assert _code(ADDRESS, SUSPENDED, None) == "name.sender_mismatch"


def test_nobody_sends_to_itself() -> None:
    """Neither by a name that says so nor through its own folder."""
    assert _code(replace(ADDRESS, recipient=A.number), A, A) == "name.same_office"
    assert _code(Address("x.pdf", Grammar.FOLDER, "PDF", A.number), A, A) == "name.same_office"


def test_the_senders_suspension_is_told_before_anything_of_the_recipient() -> None:
    """An office that may not send learns nothing about who is registered."""
    free = Address("x.pdf", Grammar.FOLDER, "PDF", B.number)
    assert _code(free, SUSPENDED, None) == "office.suspended"
    assert _code(free, A, None) == "route.recipient_unknown"
    assert _code(free, A, replace(B, status=OfficeStatus.SUSPENDED)) == "route.recipient_suspended"


def test_an_answer_about_another_office_is_a_defect() -> None:
    """A caller that asked the register for the wrong number must not get a route."""
    with pytest.raises(ValueError, match="asked about"):
        resolve_route(ADDRESS, sender=A, recipient=SUSPENDED, now=NOW)


@pytest.mark.parametrize(
    ("serial", "now", "is_ahead"),
    [("20261202000000", NOW, False), ("20261202000001", NOW, True),
     ("20261201090000", datetime(2026, 11, 30, 0, 0, 0, tzinfo=UTC), False),
     ("20261201090001", datetime(2026, 11, 30, 0, 0, 0, tzinfo=UTC), True),
     ("19990101000000", NOW, False), (None, NOW, False)],
)  # fmt: skip
def test_a_serial_more_than_a_day_ahead_is_warned_about(
    serial: str | None,
    now: datetime,
    is_ahead: bool,  # noqa: FBT001 - a fact of the table
) -> None:
    """Serials are Japan time; exactly a day is still fine, whatever zone *now* comes in."""
    route = resolve_route(replace(ADDRESS, serial=serial), sender=A, recipient=B, now=now)
    assert [found.code for found in route.findings] == (["name.serial_future"] if is_ahead else [])


def test_service_types_are_not_judged_without_a_register_of_them() -> None:
    """An office that was added by number and name alone would else be warned about with every file."""
    bare = replace(B, service_types=())
    assert resolve_route(ADDRESS, sender=A, recipient=bare, now=NOW).findings == ()
    assert resolve_route(replace(ADDRESS, recipient_service=None), sender=A, recipient=B, now=NOW).findings == ()


def test_an_operator_may_sharpen_or_silence_a_warning() -> None:
    """Set to refuse the finding is raised with its facts, set to off it is not even recorded."""
    address = replace(ADDRESS, recipient_service="99")

    def route(severity: Severity) -> int:
        severities = {"name.service_type": severity}
        return len(resolve_route(address, sender=A, recipient=B, now=NOW, severities=severities).findings)

    assert (route(Severity.WARN), route(Severity.OFF)) == (1, 0)
    with pytest.raises(Refused, match=r"name\.service_type.*99"):
        route(Severity.REFUSE)


NEW = replace(A, number=OfficeNumber("0178503736"))
MOVED = replace(
    B, status=OfficeStatus.MOVED, end=OfficeEnd(NOW - timedelta(days=1), NOW + timedelta(days=1), NEW.number)
)


def test_an_old_number_is_taken_for_a_while_with_the_new_one_named() -> None:
    """Its sender is warned, or refused where the operator wants that; when its time is over it is always refused."""
    route = resolve_route(ADDRESS, sender=A, recipient=MOVED, successor=NEW, now=NOW)
    assert [(found.code, dict(found.facts)["new"]) for found in route.findings] == [
        ("route.recipient_moved", NEW.number)
    ]
    assert route.recipient == B.number, "nothing of what was sent changes its number"
    off = {"route.recipient_moved": Severity.OFF}
    for severities, now in (({"route.recipient_moved": Severity.REFUSE}, NOW), (off, NOW + timedelta(days=1))):
        with pytest.raises(Refused) as refused:
            resolve_route(ADDRESS, sender=A, recipient=MOVED, successor=NEW, now=now, severities=severities)
        assert refused.value.code == "route.recipient_moved"
        assert NEW.number in refused.value.client_text
        assert len(refused.value.client_text) < 200


def test_what_follows_an_old_number_must_be_able_to_receive() -> None:
    """A new number that has closed or is suspended is what the sender hears of; and nobody sends to itself."""
    closed = replace(NEW, status=OfficeStatus.CLOSED, end=OfficeEnd(NOW, NOW))
    suspended = replace(NEW, status=OfficeStatus.SUSPENDED)
    own = replace(ADDRESS, sender=None)
    for sender, successor, code in (
        (A, closed, "route.recipient_closed"),
        (A, suspended, "route.recipient_suspended"),
        (NEW, NEW, "name.same_office"),
    ):
        with pytest.raises(Refused) as refused:
            resolve_route(own, sender=sender, recipient=MOVED, successor=successor, now=NOW)
        assert refused.value.code == code
    back = replace(own, recipient=NEW.number)
    with pytest.raises(Refused, match="same_office"):
        resolve_route(back, sender=MOVED, recipient=NEW, now=NOW)


def test_who_has_ended_sends_no_more() -> None:
    """A closed office reads that it may still collect; an old number sends as long as it goes on."""
    to_a = replace(ADDRESS, sender=None, recipient=A.number)
    assert resolve_route(to_a, sender=MOVED, recipient=A, now=NOW).sender == B.number
    closed = replace(MOVED, status=OfficeStatus.CLOSED, end=OfficeEnd(NOW, NOW + timedelta(days=1)))
    for sender, now, code in ((MOVED, NOW + timedelta(days=1), "office.moved"), (closed, NOW, "office.collect_only")):
        with pytest.raises(Refused) as refused:
            resolve_route(to_a, sender=sender, recipient=A, now=now)
        assert refused.value.code == code
