"""Receipts as texts and signatures: which steps leave one, how they are named, and what breaks a signature."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import finding
from relay.lifecycle import State
from relay.model import Grammar, OfficeNumber, Refusal, Transfer, TransferId
from relay.receipttext import (
    NAMESPACE,
    PRINCIPAL,
    Receipt,
    ReceiptStep,
    list_steps,
    month_of,
    render_allowed_signers,
    render_receipt,
    span_of,
)
from relay.sshsig import SignatureInvalid, sign, signer_line, verify

# In Japan it is the first of August already.
AT = datetime(2026, 7, 31, 15, 30, tzinfo=UTC)
SENT = Transfer(
    id=TransferId(12),
    sender=OfficeNumber("0178515854"),
    recipient=OfficeNumber("0178529384"),
    name="見本\u202e.pdf",
    delivered_name="0178515854_20260801003000_見本.pdf",
    grammar=Grammar.FOLDER,
    kind="PDF",
    serial=None,
    month=None,
    in_folder=True,
    state=State.ACCEPTED,
    is_removed=False,
    size_bytes=5_000,
    sha256=bytes(range(32)),
    accepted_at=AT,
)
KEY = Ed25519PrivateKey.generate()
LINE = KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (State.ACCEPTED, ["accepted"]),
        (State.RECALLED, ["accepted", "recalled"]),
        (State.EXPIRED, ["accepted", "expired"]),
        (State.SUPERSEDED, ["accepted", "superseded"]),
        (State.DISCARDED, ["accepted", "discarded"]),
    ],
)
def test_each_step_leaves_its_receipt(state: State, steps: list[str]) -> None:
    """What has ended says how, in both languages, with number and digest."""
    ended = None if state is State.ACCEPTED else AT + timedelta(days=93)
    receipts = list(list_steps(replace(SENT, state=state, ended_at=ended)))
    assert [receipt.step for receipt in receipts] == steps
    for receipt in receipts:
        text = render_receipt(receipt).decode("utf-8-sig")
        assert text.count("受付番号: 12") == text.count("Number: 12") == 1
        assert SENT.sha256.hex() in text
        assert "\u202e" not in text


@pytest.mark.parametrize("state", [State.COLLECTED, State.DESTROYED])
def test_what_was_collected_stays_collected(state: State) -> None:
    """Also when its bytes are gone; that is no step of its own."""
    ended = AT + timedelta(days=31) if state is State.DESTROYED else None
    collected = replace(SENT, state=state, collected_at=AT + timedelta(hours=1), ended_at=ended)
    assert [receipt.step for receipt in list_steps(collected)] == ["accepted", "collected"]


def test_a_receipt_is_named_by_the_day_in_japan() -> None:
    """And lies in that day's month; a refusal's number is told apart from a transfer's."""
    (receipt,) = list_steps(SENT)
    assert (receipt.name, receipt.month) == ("20260801-00000012-accepted.txt", "2026-08")
    refusal = Refusal(SENT.sender, "x.pdf", finding("content.empty"), AT, AT, 3, 7)
    assert Receipt(ReceiptStep.REFUSED, AT, refusal).name == "20260801-R00000007-refused.txt"


@given(st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_a_moment_lies_in_its_month(at: datetime) -> None:
    """The span of a month holds exactly its moments, in Japan's time."""
    since, until = span_of(month_of(at))
    assert since <= at < until
    assert month_of(until) != month_of(since)


@given(st.binary(max_size=300), st.integers(0, 10_000), st.integers(1, 255))
def test_whatever_is_changed_a_signature_notices(message: bytes, place: int, flip: int) -> None:
    """A byte of the text, of the signature, another key, another purpose: none stands; untouched it does."""
    signature = sign(message, KEY, namespace=NAMESPACE)
    signers = render_allowed_signers(LINE).decode().splitlines()
    assert verify(message, signature, signers, namespace=NAMESPACE).principal == PRINCIPAL
    assert sign(message, KEY, namespace=NAMESPACE) == signature
    changed = bytearray(message or b"x")
    changed[place % len(changed)] ^= flip
    with pytest.raises(SignatureInvalid):
        verify(bytes(changed) if message else b"x", signature, signers, namespace=NAMESPACE)
    with pytest.raises(SignatureInvalid):
        verify(message, sign(message, Ed25519PrivateKey.generate(), namespace=NAMESPACE), signers, namespace=NAMESPACE)
    with pytest.raises(SignatureInvalid):
        verify(message, sign(message, KEY, namespace="file"), signers, namespace=NAMESPACE)
    with pytest.raises(SignatureInvalid):
        verify(message, signature, [signer_line(PRINCIPAL, LINE, namespace="file")], namespace=NAMESPACE)


@given(st.one_of(st.binary(max_size=400), st.text(max_size=200).map(str.encode)))
def test_what_is_no_signature_is_told_so(rubbish: bytes) -> None:
    """Nothing but SignatureInvalid leaves the check, whatever it is given."""
    for armoured in (rubbish, b"-----BEGIN SSH SIGNATURE-----\n" + rubbish + b"\n-----END SSH SIGNATURE-----\n"):
        with pytest.raises(SignatureInvalid):
            verify(b"message", armoured, [], namespace=NAMESPACE)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_signature_with_another_byte_does_not_stand(place: int, flip: int) -> None:
    """Wherever it is: in the frame, the key, the lengths or the signature itself."""
    signature = bytearray(sign(b"message", KEY, namespace=NAMESPACE))
    place %= len(signature)
    was = signature[place]
    signature[place] ^= flip
    if chr(was).isspace() or chr(signature[place]).isspace():
        return
    with pytest.raises(SignatureInvalid):
        verify(b"message", bytes(signature), render_allowed_signers(LINE).decode().splitlines(), namespace=NAMESPACE)
