"""The tree: what each path means, by table."""

from __future__ import annotations

import pytest

from relay import tree
from relay.errors import Refused
from relay.model import Office, OfficeNumber
from relay.tree import Directory, Folder, GeneratedFile, Nowhere, Place, RecalledFile, SentFile, ShelfFile

OFFICE = OfficeNumber("0178529384")


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("", "/"),
        (".", "/"),
        ("/", "/"),
        ("..", "/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("send", "/send"),
        ("send/", "/send"),
        ("//send///x.csv//", "/send/x.csv"),
        ("send/./a/../b", "/send/b"),
        ("none/such", "/none/such"),
        ("か\u3099", "/が"),
        ("...", "/..."),
        ("a b/ c ", "/a b/ c "),
    ],
)
def test_paths_are_normalised_as_text(path: str, normal: str) -> None:
    """Nothing need exist, and nothing is looked up."""
    assert tree.normalise_path(path.encode()) == normal


@pytest.mark.parametrize(
    ("path", "kind", "folder"),
    [
        ("/", Directory, Folder.ROOT),
        ("/send", Directory, Folder.SEND),
        ("receive/", Directory, Folder.RECEIVE),
        ("new", Directory, Folder.NEW),
        ("done", Directory, Folder.DONE),
        ("status", Directory, Folder.STATUS),
        ("recall/", Directory, Folder.RECALL),
        ("recall/提供票.pdf", RecalledFile, None),
        ("recall/a/b.pdf", Nowhere, None),
        ("README.txt", GeneratedFile, Folder.ROOT),
        ("status/sent.csv", GeneratedFile, Folder.STATUS),
        ("send/0178529384", Directory, Folder.SEND),
        ("send/01a8516384/", Directory, Folder.SEND),
        ("send/0178529384/宛先 みほん.txt", GeneratedFile, Folder.SEND),
        ("send/x.csv", SentFile, None),
        ("send/0178529384/x.csv", SentFile, None),
        ("new/x.csv", ShelfFile, None),
        ("SEND", Nowhere, None),
        ("readme.txt", Nowhere, None),
        ("お知らせ.txt", GeneratedFile, Folder.ROOT),
        ("README.txt.0a1b2c3d.partial", GeneratedFile, Folder.ROOT),
        ("send/x.csv.refused.txt", GeneratedFile, Folder.SEND),
        ("send/X.REFUSED.TXT", GeneratedFile, Folder.SEND),
        ("send/.in.README.txt", GeneratedFile, Folder.SEND),
        ("send/0178529384/提供票.pdf.refused.txt.filepart", GeneratedFile, Folder.SEND),
        ("send/refused.txt", SentFile, None),
        ("send/none/x.csv", Nowhere, None),
        ("send/0178529384/a/b", Nowhere, None),
        ("receive/a/b", Nowhere, None),
        ("status/a/b", Nowhere, None),
        ("0178529384/receive", Nowhere, None),
        ("etc/passwd", Nowhere, None),
    ],
)
def test_a_path_means_a_place(path: str, kind: type[Place], folder: Folder | None) -> None:
    """One of the few that there are, or nowhere."""
    place = tree.resolve_path(path.encode())
    assert type(place) is kind
    assert getattr(place, "folder", None) == folder


def test_an_address_folder_has_one_spelling() -> None:
    """An office number typed in lower case, or in NFKC's sense, is the office's own."""
    assert tree.resolve_path(b"send/01a8516384").path == "/send/01A8516384"
    file = tree.resolve_path(b"send/01a8516384/X.pdf")
    assert isinstance(file, SentFile)
    assert (file.path, file.address) == ("/send/01A8516384/X.pdf", "01A8516384")


@pytest.mark.parametrize("raw", [b"a\0b", b"\xff", "か".encode("cp932"), b"x" * 4097, b"\xed\xa0\x80"])
def test_what_is_no_path_is_refused_in_words(raw: bytes) -> None:
    """NUL, another encoding, a surrogate, and what is too long."""
    with pytest.raises(Refused) as caught:
        tree.resolve_path(raw)
    assert caught.value.code == "name.illegal"


def test_a_file_name_takes_no_directorys_lane() -> None:
    """`send/NAME` is ordered for itself, not with all of `send/`."""
    assert tree.resolve_path(b"send/a.csv").lane != tree.resolve_path(b"send/b.csv").lane
    assert tree.resolve_path(b"send/a.csv").lane.startswith(tree.resolve_path(b"send").lane + "/")
    assert tree.resolve_path(b"new/a.csv").lane == tree.resolve_path(b"done/A.CSV").lane


def test_long_names_show_the_hour_of_recent_files_and_the_year_of_old_ones() -> None:
    """In Japan's time, whatever the server's zone is."""
    noon = 1_782_097_200  # 2026-06-22 12:00 JST
    facts = {"mode": tree.FILE_MODE, "size": 5, "owner": OFFICE, "group": OFFICE}
    line = tree.long_name("a b.csv", mtime=noon, now=noon + 5, **facts)  # type: ignore[arg-type]
    assert line == "-r--r-----    1 0178529384 0178529384          5 Jun 22 12:00 a b.csv"
    assert "Jun 22  2026" in tree.long_name("a", mtime=noon, now=noon + 200 * 86_400, **facts)  # type: ignore[arg-type]
    assert "Jun 22  2026" in tree.long_name("a", mtime=noon, now=noon - 86_400, **facts)  # type: ignore[arg-type]


def test_the_notice_tells_the_office_in_a_name_that_windows_can_keep() -> None:
    """What a PC cannot have in a name becomes a wide underscore."""
    office = Office(OFFICE, 'みほん/野:"ケア"\t①', "北海道", ("11",))
    assert tree.notice_name(office) == "宛先 みほん＿野＿＿ケア＿＿①.txt"


@pytest.mark.parametrize("name", ["提供票.pdf", "提供票　７月.pdf", "a.refused.txt", "x" * 243])
def test_a_note_is_named_after_the_file_it_tells_of(name: str) -> None:
    """And from its name one finds that file again."""
    note = tree.note_name(name)
    assert note is not None
    assert tree.noted_name(note) == name
    assert tree.is_generated_name(note)


@pytest.mark.parametrize("name", ["x" * 244, "供" * 82, "a\nb", "a\u202eb", "a\u2028b", "a/b"])
def test_some_names_can_have_no_note(name: str) -> None:
    """Too long with its ending, or nothing that a directory can show."""
    assert tree.note_name(name) is None
