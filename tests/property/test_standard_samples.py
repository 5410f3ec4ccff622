"""The samples of the standard: every verdict is the expected one, and a file cut anywhere is not taken for a whole one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from standard_files import Sample, judge_sample, samples

CSV_LIMIT_BYTES = 20_000
# A name offered a second time with other bytes is refused by the ledger, which is not asked here.
OFFERED = [sample for sample in samples() if not sample.is_after]
CONFORMING = [sample for sample in OFFERED if sample.verdict == "accept" and sample.path.suffix.lower() == ".csv"]

# By the largest sample looked at: how many cuts there are at every byte of all conforming CSV, and how many beginnings
# are let in.
CUTS = {2_200: (39_327, 409), CSV_LIMIT_BYTES: (97_343, 1_062)}


@pytest.mark.parametrize("sample", OFFERED, ids=[sample.label for sample in OFFERED])
def test_a_sample_gets_the_expected_verdict_for_the_expected_reason(sample: Sample) -> None:
    """Name, route and content together say what ``expected.csv`` says."""
    found = judge_sample(sample)
    assert found.verdict == sample.verdict, found
    assert found.codes == ((sample.reason,) if sample.verdict != "accept" else ())


@pytest.mark.parametrize("sample", OFFERED, ids=[sample.label for sample in OFFERED])
def test_the_verdict_on_a_sample_does_not_depend_on_how_it_is_split(sample: Sample) -> None:
    """In pieces of a few sizes, byte by byte where that is not long, the same is found, with the same places."""
    data = sample.path.read_bytes()
    whole = judge_sample(sample)
    for size in (1, 7, 97, 1024) if len(data) < CSV_LIMIT_BYTES else (1000, 4096):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert judge_sample(sample, *pieces or [b""]) == whole, size


def is_conforming(beginning: bytes, records: Sequence[bytes]) -> bool:
    """Say whether the *beginning* of a file of *records*, with their line ends, is itself a conforming file.

    It is where its last record has its line end, or all its items and the last one is as it was; or is empty and
    was a text or nothing, because nothing then tells the cut from a record that was written so.
    """
    for record in records:
        if len(beginning) <= len(record):
            return beginning in (record, record.rstrip(b"\r\n")) or is_without_last(beginning, record)
        beginning = beginning[len(record) :]
    raise AssertionError("more than the file")


def is_without_last(beginning: bytes, record: bytes) -> bool:
    """Say whether *beginning* is *record* up to its last item, and the record may as well be written so."""
    last = record.rstrip(b"\r\n")[len(beginning) :]
    is_text = last[:1] == last[-1:] == b'"' and b'"' not in last[1:-1].replace(b'""', b"") and not last[1:-1].isdigit()
    return is_text and record.startswith(beginning) and beginning.endswith(b",")


def split_records(data: bytes) -> list[bytes]:
    """Return the records of *data*, with their line ends, read byte by byte."""
    records, start, is_open = [], 0, False
    for place, byte in enumerate(data):
        is_open ^= byte == ord('"')
        if byte == ord("\n") and not is_open:
            records.append(data[start : place + 1])
            start = place + 1
    return [*records, data[start:]] if start < len(data) else records


@pytest.mark.skipif(not CONFORMING, reason="the samples are not beside this checkout")
@pytest.mark.parametrize("limit", [2_200, pytest.param(CSV_LIMIT_BYTES, marks=pytest.mark.long)])
def test_a_conforming_sample_cut_at_any_byte_is_let_in_only_where_what_is_left_conforms(limit: int) -> None:
    """Of all beginnings of all samples, those let in are whole records, and no other harm is seen in them."""
    cuts = let_in = 0
    for sample in CONFORMING:
        data = sample.path.read_bytes()
        if len(data) > limit:
            continue
        records = split_records(data)
        for length in range(len(data)):
            found = judge_sample(sample, data[:length])
            cuts += 1
            if found.verdict != "refuse":
                let_in += 1
                assert is_conforming(data[:length], records), (sample.label, length, found)
            elif is_conforming(data[:length], records):
                # A cut between records can take away the recipient's lines of a person.
                assert found.codes == ("content.unrelated_person",), (sample.label, length, found)
            else:
                assert found.codes[0] in ("content.truncated", "content.empty"), (sample.label, length, found)
    assert (cuts, let_in) == CUTS[limit]
