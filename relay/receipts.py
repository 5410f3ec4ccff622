"""Receipts: what happened to an office's files, signed, as files that it can keep and show.

Nothing is written when something happens: a receipt is made of the ledger's facts when it is read, and signing the
same text again gives the same bytes (see `relay.sshsig`).  Both offices of a transfer find its receipts; those of a
refusal are the sender's alone.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from relay.config import Config
from relay.errors import ConfigError
from relay.ledger import Ledger
from relay.model import OfficeNumber, TransferId
from relay.receipttext import (
    ALLOWED_SIGNERS,
    NAMESPACE,
    Receipt,
    ReceiptStep,
    list_steps,
    month_of,
    render_allowed_signers,
    render_receipt,
    render_receipts_readme,
    span_of,
)
from relay.sshsig import sign
from relay.welcome import tell_help

README = "README.txt"
_SIGNATURE = ".sig"
_NAME = re.compile(r"[0-9]{8}-(R?)([0-9]{8,18})-([a-z]+)\.txt")
_STEPS = frozenset(step.value for step in ReceiptStep)
# Transfers whose receipts are made at once: some milliseconds of the event loop.
_PAGE_TRANSFERS = 64


class ReceiptDesk:
    """Answers for the files in ``receipts/``."""

    FILES = (README, ALLOWED_SIGNERS)

    def __init__(self, ledger: Ledger, config: Config, receipt_key: bytes, receipt_line: str) -> None:
        key = load_ssh_private_key(receipt_key, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("keys/receipt_key is no Ed25519 key: remove it, and `relay init` makes one")
        self._ledger = ledger
        self._config = config
        self._key = key
        self._line = receipt_line
        # Every signature by one key in one namespace is as long as every other.
        self._signature_bytes = len(self._sign(b""))

    def render_top(self, name: str) -> bytes:
        """Return a file of ``receipts/`` itself (one of `FILES`)."""
        if name == ALLOWED_SIGNERS:
            return render_allowed_signers(self._line)
        return render_receipts_readme(*tell_help(self._config))

    async def months(self, office: OfficeNumber) -> list[str]:
        """Return the months of which there are receipts."""
        return sorted(
            {month for number in await self._own(office) for month in await self._ledger.list_receipt_months(number)}
        )

    async def _own(self, office: OfficeNumber) -> Sequence[OfficeNumber]:
        """Return the number of *office* and those it had before."""
        return (office, *await self._ledger.list_former(office))

    async def find(self, office: OfficeNumber, month: str, name: str) -> tuple[bytes, datetime]:
        """Return a receipt or its signature, and since when it is there; LookupError where there is none."""
        receipt = await self._find(office, name.removesuffix(_SIGNATURE))
        if receipt is None or receipt.month != month or receipt.name != name.removesuffix(_SIGNATURE):
            raise LookupError(name)
        text = render_receipt(receipt)
        return (self._sign(text) if name.endswith(_SIGNATURE) else text), receipt.at

    async def _find(self, office: OfficeNumber, name: str) -> Receipt | None:
        match = _NAME.fullmatch(name)
        if match is None or match[3] not in _STEPS:
            return None
        number = int(match[2])
        if match[1]:
            for one in await self._own(office):
                refusal = await self._ledger.find_refusal(one, number)
                if refusal is not None:
                    return Receipt(ReceiptStep.REFUSED, refusal.first_at, refusal)
            return None
        transfer = await self._ledger.find_transfer(TransferId(number))
        if transfer is None or not {transfer.sender, transfer.recipient}.intersection(await self._own(office)):
            return None
        return next((each for each in list_steps(transfer) if each.step == match[3]), None)

    async def list_month(self, office: OfficeNumber, month: str) -> ReceiptList:
        """Begin to list the receipts of a month."""
        since, until = span_of(month)
        receipts: list[Receipt] = []
        numbers: set[TransferId] = set()
        for one in await self._own(office):
            refusals = await self._ledger.list_refusals(one, since=since)
            receipts += [Receipt(ReceiptStep.REFUSED, refusal.first_at, refusal) for refusal in refusals]
            numbers.update(await self._ledger.list_receipted(one, since=since, until=until))
        return ReceiptList(self, month, sorted(numbers), [each for each in receipts if each.month == month])

    async def transfers_receipts(self, numbers: Sequence[TransferId], month: str) -> list[Receipt]:
        """Return the receipts of that month of these transfers."""
        found: list[Receipt] = []
        for number in numbers:
            transfer = await self._ledger.find_transfer(number)
            if transfer is not None:
                found += [each for each in list_steps(transfer) if month_of(each.at) == month]
        return found

    def files_of(self, receipt: Receipt) -> Iterator[tuple[str, int, int]]:
        """Yield name, size in bytes and time (seconds since 1970) of a receipt and of its signature."""
        text = render_receipt(receipt)
        changed = int(receipt.at.timestamp())
        yield receipt.name, len(text), changed
        yield receipt.name + _SIGNATURE, self._signature_bytes, changed

    def _sign(self, text: bytes) -> bytes:
        return sign(text, self._key, namespace=NAMESPACE)


class ReceiptList:
    """A listing of one month under way: eight bytes a transfer, and a page of receipts at a time."""

    def __init__(
        self, desk: ReceiptDesk, month: str, numbers: Sequence[TransferId], refused: Sequence[Receipt]
    ) -> None:
        self._desk = desk
        self._month = month
        self._numbers = array("q", numbers)
        self._refused = refused
        self._at = 0

    async def next_files(self) -> list[tuple[str, int, int]]:
        """Return name, size and time of the next files; empty at the end."""
        receipts, self._refused = [*self._refused], ()
        while not receipts and self._at < len(self._numbers):
            page = [TransferId(number) for number in self._numbers[self._at : self._at + _PAGE_TRANSFERS]]
            self._at += len(page)
            receipts = await self._desk.transfers_receipts(page, self._month)
        return [file for receipt in receipts for file in self._desk.files_of(receipt)]
