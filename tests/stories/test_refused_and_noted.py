"""What a refusal leaves behind: a note beside the name, and a REMOVE that means the attempt and no transfer."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, general_name, pdf, plan_csv, plan_name
from raw_sftp import NO_ATTRIBUTES, Long, Raw, RawSftp, open_raw

from relay.errors import finding
from relay.ledger.sqlite import SqliteLedger

NAME = plan_name()
BROKEN = plan_csv()[:-40]
FREE = "提供票 山田花子.pdf"


def shown(names: list[str]) -> list[str]:
    """Return what a person sees of a directory."""
    return [name for name in names if name not in (".", "..") and not name.startswith("宛先")]


def times(mtime: int) -> Raw:
    """Return ATTRS that hold a time and nothing else."""
    return Raw(struct.pack(">III", 0x08, mtime, mtime))


@pytest.mark.parametrize("folder", ["/send", f"/send/{HOME_HELP}"])
async def test_a_refused_file_leaves_a_note_until_it_is_accepted(house: House, folder: str) -> None:
    """It says what, why, what to do and whom to call, in Japanese and in English; accepted, it is gone."""
    name, broken, whole = (NAME, BROKEN, plan_csv()) if folder == "/send" else (FREE, pdf()[:-30], pdf())
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"{folder}/{name}", broken)).text.startswith("content.truncated: ")
        assert f"{name}.refused.txt" in shown(await ours.list(folder))
        assert (await ours.put(f"{folder}/{name}", broken)).text.startswith("content.truncated: ")
        note = await ours.get(f"{folder}/{name}.refused.txt")
        assert (await ours.call(sftp.STAT, f"{folder}/{name}.refused.txt")).size == len(note)
        text = note.decode("utf-8-sig")
        for part in (name, "content.truncated", "途中で切れています", "cut off", "お問い合わせ", "Help", "JST"):
            assert part in text, part
        assert text.index("理由") < text.index("Why")
        assert (await ours.put(f"{folder}/{name}", whole)).code == sftp.OK
        assert shown(await ours.list(folder)) == [name]
        assert (await ours.call(sftp.STAT, f"{folder}/{name}.refused.txt")).code == sftp.NO_SUCH_FILE
    assert [(refusal.name, refusal.count) for refusal in house.refusals()] == [(name, 2)]


async def test_the_same_refusal_again_counts_up_and_its_size_stays_for_a_minute(house: House) -> None:
    """What a session was told holds; another session reads the new count; there is one note and one row."""
    path = f"/send/{NAME}"
    async with house.dial() as one, house.dial() as two, open_raw(one) as ours, open_raw(two) as later:
        await ours.put(path, BROKEN)
        first = await ours.get(f"{path}.refused.txt")
        for _ in range(10):
            await later.put(path, BROKEN)
        assert await ours.get(f"{path}.refused.txt") == first
        assert "（11回）" in (await later.get(f"{path}.refused.txt")).decode()
        assert shown(await later.list("/send")) == [f"{NAME}.refused.txt"]
    (refusal,) = house.refusals()
    assert refusal.count == 11


async def test_a_note_is_gone_after_a_week_and_the_refusal_stays_in_status(house: House) -> None:
    """What was refused eight days ago has no note any more, what was refused six days ago has; both are in status/."""
    ages = {plan_name(number=1): timedelta(days=8), plan_name(number=2): timedelta(days=6)}
    for name, age in ages.items():
        at = datetime.now(UTC) - age

        async def refuse(ledger: SqliteLedger, name: str = name, at: datetime = at) -> int:
            return await ledger.record_refusal(CARE_MANAGER, name, finding("content.empty"), has_note=True, now=at)

        assert house.ask(refuse) == 1
    old, young = (f"{name}.refused.txt" for name in ages)
    async with house.dial() as one, open_raw(one) as ours:
        assert shown(await ours.list("/send")) == [young]
        assert (await ours.call(sftp.STAT, f"/send/{old}")).code == sftp.NO_SUCH_FILE
        assert (await ours.call(sftp.REMOVE, f"/send/{young}")).code == sftp.OK
        told = json.loads(await ours.get("/status/refused.json"))["refused"]
        assert {row["name"] for row in told} == {*ages}


async def test_a_note_can_be_removed_and_comes_again_with_the_next_refusal(house: House) -> None:
    """Removing it leaves the refusal in status/refused; a second REMOVE finds nothing."""
    note = f"/send/{NAME}.refused.txt"
    async with house.dial() as one, open_raw(one) as ours:
        await ours.put(f"/send/{NAME}", BROKEN)
        assert len(await ours.get(note)) > 500
        assert (await ours.call(sftp.REMOVE, note)).code == sftp.OK
        assert shown(await ours.list("/send")) == []
        assert (await ours.call(sftp.STAT, note)).code == sftp.NO_SUCH_FILE
        assert (await ours.call(sftp.REMOVE, note)).code == sftp.NO_SUCH_FILE
        assert len(house.refusals()) == 1
        await ours.put(f"/send/{NAME}", BROKEN)
        assert shown(await ours.list("/send")) == [f"{NAME}.refused.txt"]


async def test_a_name_that_cannot_be_shown_has_no_note(house: House) -> None:
    """Illegal or too long: it is in status/refused and nowhere else."""
    async with house.dial() as one, open_raw(one) as ours:
        for name in ("a<b.pdf", "長" * 90 + ".pdf", "x" * 248 + ".pdf"):
            opened = await ours.call(sftp.OPEN, f"/send/{HOME_HELP}/{name}", sftp.WRITING, Raw(NO_ATTRIBUTES))
            assert opened.code == sftp.FAILURE, name
        assert shown(await ours.list(f"/send/{HOME_HELP}")) == []
        assert shown(await ours.list("/send")) == []


async def test_a_path_that_is_no_text_leaves_a_row_with_an_escaped_name_and_no_note(house: House) -> None:
    """Bytes that are no UTF-8, a NUL, an endless path, at OPEN and at RENAME: told in status/refused alone, counted."""
    shift_jis = "提供票.pdf".encode("cp932")
    paths = (b"/send/" + shift_jis, b"/send/" + shift_jis, b"/send/a\0b.pdf", b"/send/" + b"x" * 5_000)
    async with house.dial() as one, open_raw(one) as ours:
        for path in paths:
            assert (await ours.put(path, pdf())).text.startswith("name.illegal: ")
        assert (await ours.put(f"/send/{NAME}.part", plan_csv())).code == sftp.OK
        moved = await ours.call(sftp.RENAME, f"/send/{NAME}.part", b"/send/\xff.csv")
        assert moved.text.startswith("name.illegal: ")
        for path in (b"/receive/\xfe.pdf", b"/send/\xfd.pdf"):
            assert (await ours.call(sftp.STAT, path)).type == sftp.STATUS
        assert shown(await ours.list("/send")) == [f"{NAME}.part"]
        told = json.loads(await ours.get("/status/refused.json"))["refused"]
        table = (await ours.get("/status/refused.csv")).decode("utf-8-sig")
    assert {row["name"]: row["count"] for row in told} == {
        shift_jis.decode(errors="backslashreplace"): 2,
        r"a\x00b.pdf": 1,
        "x" * 255 + "…": 1,
        r"\xff.csv": 1,
    }
    assert {row["code"] for row in told} == {"name.illegal"}
    assert all(row["name"] in table for row in told)


async def test_a_name_that_misleads_its_reader_is_escaped_in_status(house: House) -> None:
    """A line end or an override in a refused name is shown, not obeyed."""
    async with house.dial() as one, open_raw(one) as ours:
        for name in ("a\r\nb.pdf", "a\u202efdp.exe"):
            assert (await ours.put(f"/send/{name}", pdf())).text.startswith("name.illegal: ")
        table = (await ours.get("/status/refused.csv")).decode("utf-8-sig")
    assert r"a\r\nb.pdf" in table
    assert r"a\u202efdp.exe" in table
    assert len(table.splitlines()) == 3


async def test_a_note_for_a_temporary_name_lies_beside_the_final_one(house: House) -> None:
    """What is refused at OPEN of `NAME.filepart` is refused as NAME."""
    name = plan_name(sender=HOME_HELP)
    async with house.dial() as one, open_raw(one) as ours:
        opened = await ours.call(sftp.OPEN, f"/send/{name}.filepart", sftp.WRITING, Raw(NO_ATTRIBUTES))
        assert opened.text.startswith("name.sender_mismatch: ")
        assert shown(await ours.list("/send")) == [f"{name}.refused.txt"]


# --- REMOVE in send/ ---------------------------------------------------------------------------------------------


async def test_remove_after_a_refusal_means_the_attempt_and_never_the_transfer(house: House) -> None:
    """As rclone does after a refused CLOSE, on whatever connection: OK, and what was accepted stays."""
    path = f"/send/{NAME}"
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(path, plan_csv())).code == sftp.OK
        assert (await ours.call(sftp.REMOVE, path)).text.startswith("transfer.accepted: ")
        assert (await ours.put(path, plan_csv(9_000))).text.startswith("transfer.conflict: ")
        assert (await ours.call(sftp.REMOVE, path)).code == sftp.OK
        assert (await ours.call(sftp.STAT, path)).text.startswith("transfer.conflict: ")
    async with house.dial() as two, open_raw(two) as again, house.dial(HOME_HELP) as three, open_raw(three) as theirs:
        for _ in range(2):
            assert (await again.call(sftp.REMOVE, path)).code == sftp.OK
        assert (await again.call(sftp.STAT, path)).size == len(plan_csv())
        assert await theirs.get(f"/new/{NAME}") == plan_csv()


async def test_remove_of_what_was_being_sent_again_leaves_the_transfer(house: House) -> None:
    """An attempt that was given up, by its client or by its connection, is what a REMOVE within ten minutes means."""
    path, other = f"/send/{NAME}", f"/send/{plan_name(number=1)}"
    async with house.dial() as one, open_raw(one) as ours:
        for each in (path, other):
            assert (await ours.put(each, plan_csv())).code == sftp.OK
        handle = await ours.open(path)
        await ours.call(sftp.WRITE, handle, Long(0), b"part")
        for _ in range(2):
            assert (await ours.call(sftp.REMOVE, path)).code == sftp.OK
    async with house.dial() as two, open_raw(two) as again:
        assert (await again.call(sftp.REMOVE, path)).code == sftp.OK
        assert (await again.call(sftp.REMOVE, other)).text.startswith("transfer.accepted: ")
        assert {NAME, plan_name(number=1)} <= set(await again.list("/send"))
    assert len(house.transfers()) == 2


@pytest.mark.parametrize("temporary", [f"{NAME}.filepart", f".in.{NAME}", f"{NAME}.0a1b2c3d.partial"])
async def test_remove_before_the_final_rename_leaves_transfer_and_staged_file(house: House, temporary: str) -> None:
    """WinSCP and lftp remove the old file before they give the new one its name: OK, and the RENAME decides."""
    path = f"/send/{NAME}"
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(path, plan_csv())).code == sftp.OK
        assert (await ours.put(f"/send/{temporary}", plan_csv())).code == sftp.OK
    async with house.dial() as two, open_raw(two) as again:
        assert (await again.call(sftp.REMOVE, path)).code == sftp.OK
        assert (await again.call(sftp.RENAME, f"/send/{temporary}", path)).code == sftp.OK
    (transfer,) = house.transfers()
    assert transfer.name == NAME


# --- names that the relay gives ----------------------------------------------------------------------------------


async def send_back(ours: RawSftp, path: str, data: bytes) -> None:
    """Upload as a synchroniser does and look whether everything agrees: SETSTAT behind CLOSE, then STAT."""
    assert (await ours.put(path, data)).code == sftp.OK
    assert (await ours.call(sftp.SETSTAT, path, times(1_700_000_000))).code == sftp.OK
    stat = await ours.call(sftp.STAT, path)
    assert stat.size == len(data)
    assert struct.unpack(">I", stat.rest[-4:]) == (1_700_000_000,)


@pytest.mark.parametrize(
    "path",
    ["/README.txt", "/お知らせ.txt", "/send/README.txt", "/send/x.csv.refused.txt", f"/send/{HOME_HELP}/README.txt",
     f"/send/{HOME_HELP}/提供票.pdf.refused.txt", f"/send/{HOME_HELP}/宛先 みほん野ヘルパーステーション.txt"],
)  # fmt: skip
async def test_what_only_the_relay_writes_is_taken_and_kept_nowhere(house: House, path: str) -> None:
    """A two-way synchroniser that sends notes back hears OK, sees what it sent, and nothing is kept or refused."""
    async with house.dial() as one, open_raw(one) as ours:
        before = await ours.call(sftp.STAT, path)
        await send_back(ours, path, b"an old note " * 5_000)
        temporary = f"{path}.0a1b2c3d.partial"
        await send_back(ours, temporary, b"shorter")
        assert (await ours.call(sftp.RENAME, temporary, path)).code == sftp.OK
        assert (await ours.call(sftp.STAT, path)).size == len(b"shorter")
        assert (await ours.call(sftp.REMOVE, path)).code == sftp.OK
        assert (await ours.call(sftp.STAT, path)).type == before.type
    async with house.dial() as two, open_raw(two) as again:
        assert (await again.call(sftp.STAT, path)).type == before.type
        assert "refused.txt" not in "".join(await again.list("/send"))
    assert house.transfers() == []
    assert house.refusals() == []


async def test_a_real_note_is_read_though_an_old_one_was_sent_back(house: House) -> None:
    """What was swallowed hides nothing from a reader."""
    note = f"/send/{NAME}.refused.txt"
    async with house.dial() as one, open_raw(one) as ours:
        await ours.put(f"/send/{NAME}", BROKEN)
        await send_back(ours, note, b"old")
        assert "content.truncated" in (await ours.get(note)).decode()


def test_staff_see_the_note_in_the_directory(house: House) -> None:
    """With OpenSSH's sftp: the upload is refused, `ls` shows the note, `get` reads it, `rm` takes it away."""
    (house.path / general_name("txt")).touch()
    assert house.sftp(CARE_MANAGER, f"put {general_name('txt')} send/\n").returncode == 1
    note = f"{general_name('txt')}.refused.txt"
    done = house.sftp(CARE_MANAGER, f"ls -l send\nget send/{note}\nrm send/{note}\n")
    assert done.returncode == 0, done.stderr
    assert note in done.stdout
    assert "中身が空です" in (house.path / note).read_text("utf-8-sig")
