"""The register's contract: offices, certificates, imports, and the counter that tells others to look again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from ledgers import CA, CLOSED, NOBODY, NOW, SECOND, A, B, C, Shop, certificate

from relay.model import EventKind, Office, OfficeNumber, OfficeStatus

# All care-service offices of Japan (issue 2).
ALL_OFFICES = 181_566


def _office(number: str, name: str = "名", status: OfficeStatus = OfficeStatus.ACTIVE) -> Office:
    return Office(OfficeNumber(number), name, "北海道", ("11", "15"), status)


async def test_an_office_is_kept_as_it_was_given(shop: Shop) -> None:
    """Name, prefecture, service types and status come back; a second record changes, an equal one is no news."""
    new = _office(NOBODY)
    assert await shop.ledger.record_office(new, actor="op", now=NOW)
    assert await shop.ledger.find_office(NOBODY) == new
    changed = replace(new, name="新", service_types=())
    assert not await shop.ledger.record_office(changed, actor="op", now=NOW)
    assert await shop.ledger.find_office(NOBODY) == changed
    await shop.ledger.record_office(changed, actor="op", now=NOW)
    kinds = [event.kind for event in await shop.ledger.list_events() if event.office == NOBODY]
    assert kinds == [EventKind.OFFICE_ADDED, EventKind.OFFICE_CHANGED]
    assert await shop.ledger.find_office(OfficeNumber("9999999999")) is None


async def test_offices_are_paged_and_chosen(shop: Shop) -> None:
    """In order of their number, from behind one, by status and prefecture."""
    ask = shop.ledger.list_offices
    numbers = sorted([A, B, C, CLOSED])
    assert [office.number for office in await ask()] == numbers
    assert [office.number for office in await ask(limit=2)] == numbers[:2]
    assert [office.number for office in await ask(after=numbers[1])] == numbers[2:]
    assert [office.number for office in await ask(status=OfficeStatus.SUSPENDED)] == [CLOSED]
    assert await ask(prefecture="沖縄県") == []
    assert await shop.ledger.count_offices() == {
        OfficeStatus.ACTIVE: 3,
        OfficeStatus.SUSPENDED: 1,
        OfficeStatus.CLOSED: 0,
        OfficeStatus.MOVED: 0,
    }


async def test_suspending_and_resuming(shop: Shop) -> None:
    """A change is True and an event, the same again False and none, an unknown office a LookupError."""
    change = shop.ledger.record_office_status
    assert await change(A, OfficeStatus.SUSPENDED, actor="op", now=NOW)
    assert not await change(A, OfficeStatus.SUSPENDED, actor="op", now=NOW)
    assert await change(A, OfficeStatus.ACTIVE, actor="op", now=NOW)
    with pytest.raises(LookupError):
        await change(NOBODY, OfficeStatus.SUSPENDED, actor="op", now=NOW)
    kinds = [event.kind for event in await shop.ledger.list_events() if event.office == A][2:]
    assert kinds == [EventKind.OFFICE_SUSPENDED, EventKind.OFFICE_RESUMED]


async def test_an_import_leaves_alone_whom_it_does_not_name(shop: Shop) -> None:
    """Adds, changes and counts; only with suspend_missing are the others suspended, and only active ones."""
    listed = [_office(A, "新"), _office(NOBODY)]
    work = shop.ledger.import_offices
    counts = await work(listed, suspend_missing=False, actor="op", now=NOW)
    assert (counts.added, counts.updated, counts.unchanged, counts.suspended) == (1, 1, 0, 0)
    assert (await shop.ledger.count_offices())[OfficeStatus.ACTIVE] == 4
    counts = await work(listed, suspend_missing=True, actor="op", now=NOW)
    assert (counts.added, counts.updated, counts.unchanged, counts.suspended) == (0, 0, 2, 2)
    suspended = await shop.ledger.list_offices(status=OfficeStatus.SUSPENDED)
    assert {office.number for office in suspended} == {B, C, CLOSED}
    missing = [event for event in await shop.ledger.list_events() if event.detail == "missing from import"]
    assert {event.office for event in missing} == {B, C}


async def test_an_import_that_breaks_off_changes_nothing(shop: Shop) -> None:
    """One transaction: what raises in the middle leaves the register as it was, and the next import works."""

    def progress(_: int) -> None:
        raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError):
        await shop.ledger.import_offices(
            [_office(NOBODY)], suspend_missing=True, actor="op", now=NOW, progress=progress
        )
    assert await shop.ledger.find_office(NOBODY) is None
    assert (await shop.ledger.count_offices())[OfficeStatus.ACTIVE] == 3
    await shop.ledger.import_offices([_office(NOBODY)], suspend_missing=False, actor="op", now=NOW)
    assert await shop.ledger.find_office(NOBODY) is not None


async def test_all_offices_of_the_country_in_one_go(shop: Shop) -> None:
    """181,566 offices in one transaction, with progress; the same again changes nothing."""
    numbers = random.Random(7).sample(range(10**9, 4 * 10**9), ALL_OFFICES)
    offices = [_office(f"{number:010d}", f"事業所 {number}") for number in numbers]
    heard: list[int] = []
    counts = await shop.ledger.import_offices(
        offices, suspend_missing=False, actor="op", now=NOW, progress=heard.append
    )
    assert counts.added == ALL_OFFICES
    assert heard == sorted(heard)
    assert heard[-1] == ALL_OFFICES
    assert len(heard) > 50
    assert (await shop.ledger.count_offices())[OfficeStatus.ACTIVE] == ALL_OFFICES + 3
    again = await shop.ledger.import_offices(offices, suspend_missing=False, actor="op", now=NOW)
    assert (again.added, again.updated, again.unchanged) == (0, 0, ALL_OFFICES)


async def test_a_certificate_is_kept_as_it_was_given(shop: Shop) -> None:
    """All its fields and offices come back, and are found by office, by serial and all together."""
    one = replace(certificate(A, 2**63 - 1, B), label="受付", issued_at=NOW + SECOND)
    await shop.ledger.record_certificate(one, actor="op")
    found = await shop.ledger.find_certificate(CA, one.serial)
    assert found == replace(one, offices=tuple(sorted(one.offices)))
    for asked in ({"office": A}, {"office": B}, {"serial": one.serial}, {"limit": 1}):
        assert (await shop.ledger.list_certificates(**asked))[0] == found  # type: ignore[arg-type]
    assert found not in await shop.ledger.list_certificates(office=C)
    assert len(await shop.ledger.list_certificates()) == 5
    with pytest.raises(ValueError, match="known already"):
        await shop.ledger.record_certificate(one, actor="op")
    issued = [event for event in await shop.ledger.list_events() if event.detail == str(one.serial)]
    assert {event.office for event in issued} == {A, B}


async def test_a_serial_is_unique_within_its_ca_only(shop: Shop) -> None:
    """Another CA may have given the same number to somebody else."""
    await shop.ledger.record_certificate(replace(certificate(B, int(A)), ca_fingerprint="SHA256:other"), actor="op")
    ours, theirs = (
        await shop.ledger.find_certificate(CA, int(A)),
        await shop.ledger.find_certificate("SHA256:other", int(A)),
    )
    assert ours is not None
    assert theirs is not None
    assert (ours.offices, theirs.offices) == ((A,), (B,))


@pytest.mark.parametrize("serial", [2**63, 2**64 - 1])
async def test_a_serial_beyond_the_column_is_unknown(shop: Shop, serial: int) -> None:
    """Anybody may offer a certificate with 64 bits of serial: it is unknown, and no defect."""
    assert await shop.ledger.find_certificate(CA, serial) is None
    assert await shop.ledger.list_certificates(serial=serial) == []


async def test_revoking(shop: Shop) -> None:
    """Once is news, with time, reason and an event; twice is not; an unknown one is a LookupError."""
    assert await shop.ledger.revoke_certificate(CA, int(A), reason="lost", actor="op", now=NOW)
    assert not await shop.ledger.revoke_certificate(CA, int(A), reason="again", actor="op", now=NOW + SECOND)
    found = await shop.ledger.find_certificate(CA, int(A))
    assert found is not None
    assert (found.revoked_at, found.revoke_reason) == (NOW, "lost")
    with pytest.raises(LookupError):
        await shop.ledger.revoke_certificate(CA, 1, reason="", actor="op", now=NOW)
    revoked = [event for event in await shop.ledger.list_events() if event.kind is EventKind.CERTIFICATE_REVOKED]
    assert [(event.office, event.detail) for event in revoked] == [(A, f"{int(A)} lost")]


async def test_every_change_of_the_register_shows_in_its_version(shop: Shop) -> None:
    """Another process sees the number grow with each office and certificate; a transfer leaves it alone."""
    other = await shop.reopen()
    async with other.ledger:
        seen = [await other.ledger.register_version()]
        for change in (
            shop.ledger.record_office(_office(NOBODY), actor="op", now=NOW),
            shop.ledger.record_office(_office(NOBODY, "新"), actor="op", now=NOW),
            shop.ledger.record_office_status(A, OfficeStatus.SUSPENDED, actor="op", now=NOW),
            shop.ledger.record_office_status(A, OfficeStatus.ACTIVE, actor="op", now=NOW),
            shop.ledger.record_certificate(certificate(A, 5), actor="op"),
            shop.ledger.revoke_certificate(CA, 5, reason="", actor="op", now=NOW),
        ):
            await change
            seen.append(await other.ledger.register_version())
        assert seen == sorted(set(seen))
        await shop.send()
        assert await other.ledger.register_version() == seen[-1]
