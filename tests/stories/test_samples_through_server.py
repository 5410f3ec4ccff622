"""The samples of the standard, uploaded by their offices through the real server: each gets its verdict and its reason.

Serials are judged by the real clock here, which is later than all of the samples' but the one of 2099.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pytest
from house import House, run_aside
from raw_sftp import open_raw
from standard_files import HAS_SAMPLES, SAMPLES, Sample, samples

from relay.model import OfficeNumber

pytestmark = [
    pytest.mark.skipif(not HAS_SAMPLES, reason="the shared samples are not beside this checkout"),
    pytest.mark.skipif(shutil.which("sftp") is None, reason="OpenSSH's sftp is not installed"),
]

# Whoever is told why he is refused is told the code first.
TOLD_CODE = re.compile(r"^([a-z]+\.[a-z_]+): ", re.MULTILINE)
# Refused as expected, but for what the server sees before the reason in the table: a path through ``..`` names a place
# outside send/, and a file that ends within a record where a client's block of 32 KiB ends was cut off on its way.
SEEN_BEFORE = {
    "name.illegal parent directory": "tree.read_only",
    "refuse/cut-at-32768-bytes/UPPLAN_202607_0178515854_43_0178529384_11_20260622125844.CSV": "upload.looks_cut",
}

Outcome = tuple[str, tuple[str, ...]]


def prepare(house: House, uploaders: Sequence[OfficeNumber]) -> None:
    """Register the offices of the samples and issue a certificate to each of *uploaders*."""
    imported = house.relay("office", "import", str(SAMPLES / "offices.csv"))
    assert imported.returncode == 0, imported.stderr
    for office in uploaders:
        if not (house.path / "issued" / office).exists():
            issued = house.relay("cert", "issue", office)
            assert issued.returncode == 0, issued.stderr


def is_typable(sample: Sample) -> bool:
    """Say whether a batch of `sftp` can hold the name, and `sftp` sends it as it is."""
    return not set(sample.name) & set(b"/\0\r\n")


def upload_with_sftp(house: House, office: OfficeNumber, offered: Sequence[Sample]) -> str:
    """Offer the samples in one batch that goes on after a refusal, as a clerk's script does; return what it complained."""
    # Within quotes, only a backslash means something else to sftp.
    names = [sample.name.decode().replace("\\", r"\\") for sample in offered]
    lines = [f'-put "{sample.path}" "send/{name}"' for sample, name in zip(offered, names, strict=True)]
    return house.sftp(office, "\n".join(lines) + "\n").stderr


async def upload_raw(house: House, office: OfficeNumber, offered: Sequence[Sample]) -> list[str]:
    """Offer the samples as a program does that types no names; return what it was told of each."""
    async with house.dial(office) as connection, open_raw(connection) as raw:
        return [(await raw.put(b"send/" + sample.name, sample.path.read_bytes())).text for sample in offered]


def upload(house: House, office: OfficeNumber, offered: Sequence[Sample]) -> Mapping[Sample, Outcome]:
    """Offer all samples of an office, in order; return the outcomes that only its programs were told."""
    said = upload_with_sftp(house, office, [sample for sample in offered if is_typable(sample)])
    if "Permission denied" in said:
        return dict.fromkeys(offered, ("refuse", tuple(TOLD_CODE.findall(said))))
    untypable = [sample for sample in offered if not is_typable(sample)]
    told = run_aside(upload_raw(house, office, untypable)) if untypable else []
    return {
        sample: ("refuse" if codes else "accept", codes)
        for sample, text in zip(untypable, told, strict=True)
        for codes in [tuple(TOLD_CODE.findall(text))]
    }


def read_ledger(house: House, office: OfficeNumber, offered: Sequence[Sample]) -> Mapping[Sample, Outcome]:
    """Return what the ledger holds of the samples of an office: a transfer with its findings, or a refusal."""
    accepted = {
        transfer.name: tuple(finding.code for finding in transfer.findings)
        for transfer in house.transfers()
        if transfer.sender == office
    }
    refused = {refusal.name: refusal.finding.code for refusal in house.refusals(office)}
    outcomes: dict[Sample, Outcome] = {}
    for sample in offered:
        name = sample.name.decode()
        # A second file of a name is beside the transfer of the first.
        if name in accepted and not sample.is_after:
            outcomes[sample] = ("warn" if accepted[name] else "accept", accepted[name])
        else:
            outcomes[sample] = ("refuse", (refused[name],)) if name in refused else ("nothing", ())
    return outcomes


def expect(sample: Sample) -> Outcome:
    """Return what ``expected.csv`` says of the sample."""
    if sample.verdict == "accept":
        return "accept", ()
    return sample.verdict, (SEEN_BEFORE.get(sample.label, sample.reason),)


def test_every_sample_uploaded_by_its_office_gets_its_verdict(house: House) -> None:
    """With the real sftp where it can type the name: accepted, accepted with the finding, or refused for the reason."""
    by_uploader: dict[OfficeNumber, list[Sample]] = defaultdict(list)
    for sample in samples():
        by_uploader[OfficeNumber(sample.uploader)].append(sample)
    prepare(house, list(by_uploader))
    outcomes: dict[Sample, Outcome] = {}
    for office, offered in by_uploader.items():
        told = upload(house, office, offered)
        kept = [sample for sample in offered if sample not in told]
        outcomes |= {**told, **read_ledger(house, office, kept)}
    wrong = {
        sample.label: (found, expected) for sample, found in outcomes.items() if found != (expected := expect(sample))
    }
    assert wrong == {}
    assert len(outcomes) == len(samples()) > 100
