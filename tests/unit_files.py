"""Units for tests: conforming files about nobody, from A to B, checked and sealed as an upload is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ledgers import NOW, A, B, Parcel, Shop

from relay.content import start_check
from relay.ledger import TransferDraft
from relay.model import OfficeNumber, Route, Transfer
from relay.naming import NamingRules, parse_name
from relay.standard.invented import name_office
from relay.standard.making import MadeFile, Order, Partners, make_unit
from relay.unitparts import seal_part

SLIP = ("UPPLAN", "UPSIKYU", "UPHOSOKU")
RULES = NamingRules(frozenset({"csv", "txt", "pdf", "jpg"}))


def make_files(
    *kinds: str,
    serial: str = "20250630100000",
    persons: int = 2,
    seed: int = 1,
    month: str = "202507",
    sender: OfficeNumber = A,
    recipient: OfficeNumber = B,
    services: tuple[str, str] = ("43", "11"),
) -> list[MadeFile]:
    """Return the files of a unit; the same seed makes the same persons."""
    ends = name_office(sender, services[0]), name_office(recipient, services[1])
    return list(make_unit(Order("4.1", kinds, Partners(*ends), month, serial, persons, seed)))


def draft(shop: Shop, file: MadeFile) -> TransferDraft:
    """Return the draft that an upload of *file* ends with."""
    address = parse_name(file.name, RULES)
    assert address.sender is not None
    check = start_check(address, {})
    check.feed(file.content)
    check.finish()
    parcel = Parcel(shop.vault, file.content, file.name, address.sender, address.recipient, not address.is_standard)
    return replace(
        parcel.draft(),
        route=Route(address, address.sender, address.recipient),
        in_folder=False,
        part=seal_part(address, address.sender, check.gist, shop.vault, parcel.sealer),
    )


async def deliver(shop: Shop, files: Sequence[MadeFile], *, now: datetime = NOW) -> list[Transfer]:
    """Make *files* transfers."""
    return [(await shop.ledger.commit_transfer(draft(shop, file), now=now)).transfer for file in files]


def message(text: bytes, serial: str = "20250630100000", *, services: bool = True) -> MadeFile:
    """Return a unit's message; its name may leave out the services."""
    ends = f"{A}_43_{B}_11" if services else f"{A}_{B}"
    return MadeFile(f"MESSAGE_{ends}_{serial}.txt", text)


def insured_numbers(file: MadeFile) -> set[str]:
    """Return the insured numbers in a CSV."""
    return {
        line.split(b",")[2].strip(b'"').decode()
        for line in file.content.splitlines()
        if line.startswith((b'"2024', b"2024"))
    }
