"""What the ledger keeps of the files of a unit: enough to tell them together, nothing that names anybody."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import NOW, SECOND, A, B, C, Shop, open_shop
from unit_files import SLIP, deliver, draft, insured_numbers, make_files, message

from relay.errors import Refused
from relay.standard.making import MadeFile
from relay.standard.roster import Subject
from relay.unitparts import UnitPart

SERIAL = "20250630100000"
LETTER = "佐藤様の予定が変わりました"


async def _parts(shop: Shop, *, is_readable: bool = True) -> dict[str, UnitPart]:
    parts = await shop.ledger.list_unit_parts(sender=A, is_readable=is_readable)
    return {part.transfer.kind: part for part in parts}


async def test_who_is_in_a_file_is_committed_with_it(tmp_path: Path) -> None:
    """Each person once, with the month or date of its subject; the same person is known again in the other files."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        files = make_files(*SLIP)
        await deliver(shop, files)
        parts = await _parts(shop)
        entries = {kind: part.entries or () for kind, part in parts.items()}
        assert {len(each) for each in entries.values()} == {2}
        assert len({entry.person for each in entries.values() for entry in each}) == 2
        assert {(entry.subject, entry.key) for each in entries.values() for entry in each} == {(Subject.SLIP, "202507")}
        assert {entry.insured for entry in entries["UPPLAN"]} == insured_numbers(files[0])
        assert parts["UPPLAN"].sender_service == "43"


async def test_no_number_of_a_person_and_no_word_of_a_message_is_in_the_clear(tmp_path: Path) -> None:
    """Neither in the store nor in its log, while it is open and after."""
    shop = await open_shop(tmp_path)
    files = make_files(*SLIP, persons=30)
    numbers = {number for file in files for number in insured_numbers(file)}
    assert len(numbers) == 30
    secrets = [*(number.encode() for number in numbers), LETTER.encode(), LETTER.encode("cp932")]

    def is_clear() -> bool:
        return any(secret in path.read_bytes() for path in tmp_path.iterdir() for secret in secrets)

    async with shop.ledger:
        await deliver(shop, [*files, message(LETTER.encode("cp932"))])
        assert (await _parts(shop))["MESSAGE"].first_line == LETTER
        assert not is_clear()
    assert not is_clear()


async def test_nothing_is_opened_unless_asked(tmp_path: Path) -> None:
    """For the command line persons are digests and a message has no line."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        await deliver(shop, [*make_files("UPJSK"), message(b"secret")])
        parts = await _parts(shop, is_readable=False)
        assert {(each.insurer, each.insured, each.provider) for each in parts["UPJSK"].entries or ()} == {(None,) * 3}
        assert parts["MESSAGE"].first_line is None


async def test_numbers_die_with_the_payload(tmp_path: Path) -> None:
    """After it was destroyed the digests still compare, and nobody can be read."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        (sent, letter) = await deliver(shop, [*make_files("UPJSK"), message(b"secret")])
        await shop.collect(sent)
        await shop.collect(letter)
        with closing(sqlite3.connect(shop.path, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE transfer SET state = 'destroyed', payload = NULL, released = id, shelf = 'none', withdrawn = id"
            )
            connection.execute("DELETE FROM payload")
        parts = await _parts(shop)
        assert all(entry.insured is None and len(entry.person) == 16 for entry in parts["UPJSK"].entries or ())
        assert parts["UPJSK"].entries
        assert parts["MESSAGE"].first_line is None
        assert await shop.ledger.list_first_lines(sender=A, since=NOW) == {}


async def test_a_file_sent_twice_is_one_part(tmp_path: Path) -> None:
    """A repeat answers with the transfer that is there, and adds nothing."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        (file,) = make_files("UPJSK")
        first = await shop.ledger.commit_transfer(draft(shop, file), now=NOW)
        again = await shop.ledger.commit_transfer(draft(shop, file), now=NOW + SECOND)
        assert (again.is_repeat, again.transfer.id) == (True, first.transfer.id)
        assert len(await shop.ledger.list_unit_parts()) == 1


async def test_parts_are_found_by_office_and_by_unit(tmp_path: Path) -> None:
    """By sender, by recipient, by serial; what is older than asked for is left out."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        await deliver(shop, make_files("UPJSK"))
        await deliver(shop, make_files("UPJSK", serial="20250630100001"), now=NOW + SECOND)
        listed = shop.ledger.list_unit_parts
        assert len(await listed(sender=A)) == len(await listed(recipient=B)) == 2
        assert await listed(sender=B) == await listed(recipient=A) == await listed(sender=C) == []
        assert len(await listed(sender=A, recipient=B, serial=SERIAL)) == 1
        assert len(await listed(sender=A, since=NOW + SECOND)) == 1


async def test_a_commit_that_fails_keeps_no_part(tmp_path: Path) -> None:
    """A refusal in the transaction leaves neither transfer nor part."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        (file,) = make_files("UPJSK")
        await deliver(shop, [file])
        with pytest.raises(Refused, match="conflict"):
            await deliver(shop, [MadeFile(file.name, file.content + b"\r\n")])
        assert len(await shop.ledger.list_unit_parts()) == 1
