"""Revoking in the register: what goes with a certificate, what a key may never do again, and what a thief gains by it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from ledgers import CA, NOW, SECOND, A, B, Shop, certificate

from relay.errors import Refused
from relay.model import Certificate, CertificateId, EventKind, OfficeNumber, RevocationCause

KEYS = iter(range(10**9))


def renewed(parent: Certificate, serial: int, **changes: object) -> Certificate:
    """Return a certificate that was renewed from *parent*, for a key of its own."""
    one = certificate(parent.offices[0], serial, *parent.offices[1:])
    return replace(one, parent=parent.id, key_fingerprint=f"SHA256:{next(KEYS)}", **changes)  # type: ignore[arg-type]


async def family(shop: Shop) -> tuple[Certificate, ...]:
    """Record a certificate, its child, its grandchild and one that has nothing to do with them."""
    first = replace(certificate(A, 1), key_fingerprint="SHA256:first")
    child = renewed(first, 2)
    grandchild = renewed(child, 3)
    other = replace(certificate(A, 4), key_fingerprint="SHA256:other")
    for one in (first, child, grandchild, other):
        await shop.ledger.record_certificate(one, actor="test")
    return first, child, grandchild, other


async def standing(shop: Shop, *members: Certificate) -> list[bool]:
    """Return which of them are good still."""
    found = [await shop.ledger.find_certificate(*one.id) for one in members]
    return [one is not None and one.revoked_at is None for one in found]


async def test_what_was_renewed_goes_with_what_it_was_renewed_from(shop: Shop) -> None:
    """All generations, in one go, with cause and reason; another certificate of the same office stays."""
    members = await family(shop)
    revoked = await shop.ledger.revoke_certificates(
        [members[0].id], cause=RevocationCause.LEFT, reason="closed", actor="op", now=NOW
    )
    assert {one.serial for one in revoked} == {1, 2, 3}
    assert await standing(shop, *members) == [False, False, False, True]
    found = await shop.ledger.find_certificate(*members[2].id)
    assert found is not None
    assert (found.revoke_cause, found.revoke_reason, found.parent) == (RevocationCause.LEFT, "closed", members[1].id)
    events = [event for event in await shop.ledger.list_events() if event.kind is EventKind.CERTIFICATE_REVOKED]
    assert sorted(event.detail for event in events) == ["1 closed", "2 closed", "3 closed"]


async def test_what_was_renewed_stays_where_the_operator_says_so(shop: Shop) -> None:
    """An old PC was given away, the renewed certificate is on the new one."""
    members = await family(shop)
    revoked = await shop.ledger.revoke_certificates([members[0].id], keep_renewed=True, actor="op", now=NOW)
    assert [one.serial for one in revoked] == [1]
    assert await standing(shop, *members) == [False, True, True, True]


async def test_offspring_of_a_certificate_that_was_given_up_before_is_revoked_all_the_same(shop: Shop) -> None:
    """A thief who renewed and then gave the stolen certificate up has gained nothing."""
    members = await family(shop)
    await shop.ledger.revoke_certificates([members[0].id], keep_renewed=True, actor=A, now=NOW)
    await shop.ledger.revoke_certificates([members[1].id], keep_renewed=True, actor=A, now=NOW)
    revoked = await shop.ledger.revoke_certificates([members[0].id], actor="op", now=NOW + SECOND)
    assert [one.serial for one in revoked] == [3]
    assert await standing(shop, *members) == [False, False, False, True]


async def test_key_that_was_stolen_is_never_certified_again(shop: Shop) -> None:
    """Revoked by its certificate or by itself: every certificate of it is gone, and no new one is recorded."""
    members = await family(shop)
    await shop.ledger.revoke_certificates([members[3].id], cause=RevocationCause.STOLEN, actor="op", now=NOW)
    revoked = await shop.ledger.revoke_certificates([], keys=["SHA256:first", "SHA256:never seen"], actor="op", now=NOW)
    assert {one.serial for one in revoked} == {1, 2, 3}
    assert await shop.ledger.list_revoked_keys() == ["SHA256:first", "SHA256:never seen", "SHA256:other"]
    for serial, key in enumerate(await shop.ledger.list_revoked_keys(), 10):
        with pytest.raises(Refused, match=r"certificate\.revoked_key"):
            await shop.ledger.record_certificate(replace(certificate(A, serial), key_fingerprint=key), actor="test")
    banned = [event.detail for event in await shop.ledger.list_events() if event.kind is EventKind.KEY_REVOKED]
    assert banned == ["SHA256:other stolen", "SHA256:first unspecified", "SHA256:never seen unspecified"]


async def test_replaced_certificate_leaves_its_key_alone(shop: Shop) -> None:
    """Only lost and stolen say that somebody else may hold the key."""
    members = await family(shop)
    await shop.ledger.revoke_certificates([members[3].id], cause=RevocationCause.REPLACED, actor="op", now=NOW)
    assert await shop.ledger.list_revoked_keys() == []
    await shop.ledger.record_certificate(replace(certificate(A, 9), key_fingerprint="SHA256:other"), actor="test")


async def test_unknown_target_revokes_nothing_of_the_others(shop: Shop) -> None:
    """One transaction, whole or not at all."""
    members = await family(shop)
    with pytest.raises(LookupError):
        await shop.ledger.revoke_certificates([members[0].id, CertificateId(CA, 99)], actor="op", now=NOW)
    assert await standing(shop, *members) == [True] * 4


async def test_renewal_that_races_the_revocation_of_its_parent_is_one_or_the_other(shop: Shop) -> None:
    """Whichever comes first: either the renewed one is revoked with its parent, or it was never recorded."""
    for round_ in range(8):
        parent = replace(certificate(B, 100 + round_), key_fingerprint=f"SHA256:race {round_}")
        await shop.ledger.record_certificate(parent, actor="test")
        child = renewed(parent, 200 + round_)
        work = [
            shop.ledger.record_certificate(child, actor=B),
            shop.ledger.revoke_certificates([parent.id], actor="op", now=NOW),
        ]
        results = await asyncio.gather(*(work[::-1] if round_ % 2 else work), return_exceptions=True)
        assert await standing(shop, parent, child) == [False, False]
        assert [str(each)[:14] for each in results if isinstance(each, Exception)] in ([], ["office.revoked"])


async def test_renewal_of_what_is_over_or_unknown_is_refused(shop: Shop) -> None:
    """The parent has to be good in the transaction that records its child."""
    parent = replace(certificate(A, 50), key_fingerprint="SHA256:50")
    with pytest.raises(Refused, match=r"office\.revoked"):
        await shop.ledger.record_certificate(renewed(parent, 51), actor=A)
    await shop.ledger.record_certificate(parent, actor="test")
    with pytest.raises(Refused, match=r"office\.expired"):
        await shop.ledger.record_certificate(renewed(parent, 52, issued_at=parent.valid_before), actor=A)


async def test_valid_certificates_of_an_office_are_counted(shop: Shop) -> None:
    """Those that are revoked or over take no place, in any of the offices that a certificate names."""
    record = shop.ledger.record_certificate
    await record(certificate(A, 60), actor="test", most=2)
    with pytest.raises(Refused, match=r"certificate\.too_many") as caught:
        await record(certificate(B, 61, A), actor="test", most=2)
    assert "2" in caught.value.client_text
    await shop.ledger.revoke_certificate(CA, 60, reason="", actor="op", now=NOW)
    await record(certificate(B, 61, A), actor="test", most=2)
    later = replace(certificate(A, 62), issued_at=NOW + timedelta(days=2), valid_before=NOW + timedelta(days=9))
    await record(later, actor="test", most=1)


async def test_key_that_has_a_certificate_is_no_new_key(shop: Shop) -> None:
    """A renewal is for a new key, also where two of them come at once."""
    one = replace(certificate(A, 70), key_fingerprint="SHA256:new")
    results = await asyncio.gather(
        *(
            shop.ledger.record_certificate(replace(one, serial=serial), actor=A, needs_new_key=True)
            for serial in (70, 71, 72)
        ),
        return_exceptions=True,
    )
    assert [type(each) for each in results].count(Refused) == 2
    assert len(await shop.ledger.list_certificates(key_fingerprint="SHA256:new")) == 1


async def test_certificates_are_found_by_key_key_id_and_standing(shop: Shop) -> None:
    """The questions that revoking asks."""
    members = await family(shop)
    ask = shop.ledger.list_certificates
    assert [one.serial for one in await ask(key_fingerprint="SHA256:first")] == [1]
    assert [one.serial for one in await ask(key_id=members[3].key_id)] == [4]
    await shop.ledger.revoke_certificate(CA, 4, reason="", actor="op", now=NOW)
    assert [one.serial for one in await ask(is_revoked=True)] == [4]
    assert 4 not in [one.serial for one in await ask(is_revoked=False, office=OfficeNumber(A))]
