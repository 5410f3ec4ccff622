"""Files of the standard for tests about their content: small conforming ones, and the samples that came with it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from relay.content import start_check
from relay.errors import Finding, Refused, Severity
from relay.model import Address, Office, OfficeNumber, OfficeStatus
from relay.naming import NamingRules, decode_name, parse_name
from relay.routing import resolve_route

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
HAS_SAMPLES = SAMPLES.is_dir()
JUDGED_AT = datetime(2026, 12, 1, tzinfo=UTC)
RULES = NamingRules(frozenset({"csv", "pdf", "jpg", "jpeg"}))

MANAGER, HELPERS, DAY_CARE = "0178515854", "0178529384", "0178512687"
SLIP = f"UPPLAN_202607_{MANAGER}_43_{HELPERS}_11_20260622084203.CSV"
RESULTS = f"UPJSK_202607_{HELPERS}_11_{MANAGER}_43_20260622084203.CSV"
ANNEX = f"UPSIKYU_202607_{MANAGER}_43_{HELPERS}_11_20260622084203.CSV"
SUPPLEMENT = f"UPHOSOKU_202607_{MANAGER}_43_{HELPERS}_11_20260622084203.CSV"
PLAN_SUPPLEMENT = SUPPLEMENT.replace("202607", "000000", 1)
PLAN_LINES = f"UP2KYO_{MANAGER}_43_{HELPERS}_11_20260622084203.CSV"
OLD_SLIP = f"UPPLAN_202502_{MANAGER}_{HELPERS}_20250127084203.CSV"
OLD_RESULTS = f"UPJSK_202502_{HELPERS}_{MANAGER}_20250227084203.CSV"
DELETION = f"DLT1KYO_{MANAGER}_43_{HELPERS}_11_20260622084203.CSV"
RESULTS_DELETION = f"DLTJSK_202607_{HELPERS}_11_{MANAGER}_43_20260622084203.CSV"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a file: ``accept``, ``warn`` or ``refuse``, and everything that is said."""

    verdict: str
    findings: tuple[Finding, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings, in order."""
        return tuple(found.code for found in self.findings)


def judge(
    name: str,
    *pieces: bytes,
    severities: Mapping[str, Severity] | None = None,
    recipient_services: tuple[str, ...] = (),
    sender_services: tuple[str, ...] = (),
) -> Verdict:
    """Judge the content of a file of these *pieces*."""
    return judge_address(
        parse_name(name, RULES),
        pieces,
        severities=severities or {},
        recipient_services=recipient_services,
        sender_services=sender_services,
    )


def judge_address(
    address: Address,
    pieces: Iterable[bytes],
    *,
    severities: Mapping[str, Severity],
    recipient_services: tuple[str, ...] = (),
    sender_services: tuple[str, ...] = (),
) -> Verdict:
    """Judge the content of *pieces* under *address*."""
    check = start_check(address, severities, recipient_services=recipient_services, sender_services=sender_services)
    try:
        for piece in pieces:
            check.feed(piece)
        findings = check.finish()
    except Refused as refused:
        return Verdict("refuse", (refused.finding,))
    return Verdict("warn" if findings else "accept", findings)


def slip(*rows: tuple[str, str, str], month: str = "202607", version: str = "202407") -> list[list[str]]:
    """Return records of table 6; each row is an insured number, a day and a provider."""
    equipment = ",,," if version == "202407" else ""
    texts = (
        f"{version},019992,{insured},{month}01,{month},{MANAGER},仮名　ケア子,387,0,{month}{day},,0900,0945,1,111211,"
        f"{equipment},{provider},みほん,,0,{MANAGER},"
        for insured, day, provider in rows
    )
    return [text.split(",") for text in texts]


def write(records: Iterable[Iterable[str]], end: str = "\r\n") -> bytes:
    """Return *records* as a CSV in MS932; quoting is in the items already."""
    return "".join(",".join(record) + end for record in records).encode("cp932")


# --- the samples -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of ``expected.csv``."""

    label: str
    name: bytes
    path: Path
    uploader: str
    verdict: str
    reason: str
    is_after: bool


@cache
def samples() -> tuple[Sample, ...]:
    """Return the rows of ``expected.csv``; none where the samples are not beside this checkout."""
    if not HAS_SAMPLES:
        return ()
    with (SAMPLES / "expected.csv").open(encoding="utf-8-sig", newline="") as file:
        return tuple(_read_sample(row) for row in csv.DictReader(file))


def _read_sample(row: Mapping[str, str]) -> Sample:
    escaped = row["name_escaped"]
    name = json.loads(escaped).encode("utf-8", "surrogatepass") if escaped else bytes.fromhex(row["name_bytes_hex"])
    return Sample(
        label=row["file"] or f"{row['reason_code']} {row['note']}",
        name=name,
        path=SAMPLES / (row["file"] or row["content_from"]),
        uploader=row["uploader_office"],
        verdict=row["verdict"],
        reason=row["reason_code"],
        is_after=bool(row["offer_after"]),
    )


@cache
def register() -> Mapping[str, Office]:
    """Return the offices of the samples."""
    with (SAMPLES / "offices.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["office_number"]: _read_office(row) for row in csv.DictReader(file)}


def _read_office(row: Mapping[str, str]) -> Office:
    services = tuple(row["service_types"].split("|"))
    number = OfficeNumber(row["office_number"])
    return Office(number, row["name_ja"], row["prefecture"], services, OfficeStatus(row["status"]))


def judge_sample(sample: Sample, *pieces: bytes) -> Verdict:
    """Judge name, route and content of *sample* as the relay does, the content as it is or of these *pieces*."""
    try:
        address = parse_name(decode_name(sample.name), RULES)
        recipient = register().get(address.recipient)
        sender = register()[sample.uploader]
        route = resolve_route(address, sender=sender, recipient=recipient, now=JUDGED_AT)
    except Refused as refused:
        return Verdict("refuse", (refused.finding,))
    content = judge_address(
        address,
        pieces or (sample.path.read_bytes(),),
        severities={},
        recipient_services=route.recipient_services,
        sender_services=route.sender_services,
    )
    if content.verdict == "refuse":
        return content
    findings = (*route.findings, *content.findings)
    return Verdict("warn" if findings else "accept", findings)
