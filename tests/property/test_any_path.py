"""Any path in the tree: it means one of the few places that there are, or it is refused; there is no third way."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from relay import tree
from relay.errors import Refused
from relay.model import Office, OfficeNumber, fold_name
from relay.tree import Directory, Folder, GeneratedFile, Nowhere, Place, RecalledFile, SentFile, ShelfFile

OFFICE = OfficeNumber("0178529384")
LETTERED = OfficeNumber("01A8516384")
parts = st.one_of(
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "send",
            "receive",
            "new",
            "done",
            "status",
            "receipts",
            "2026-11",
            "recall",
            "README.txt",
            "SEND",
            "~",
            OFFICE,
            LETTERED,
            "01a8516384",
            "017852938",
            "宛先 x.txt",
            "がく.csv",
            "が",
            "sent.csv",
        ]
    ),
    st.text(max_size=6),
)
paths = st.builds(
    lambda start, rest: start + "/".join(rest), st.sampled_from(["", "/", "//"]), st.lists(parts, max_size=6)
)


def resolve(raw: bytes) -> Place | None:
    """Return the place, or None where the path is refused as illegal; nothing else may happen."""
    try:
        return tree.resolve_path(raw)
    except Refused as refused:
        if refused.code != "name.illegal":
            raise
        return None


def check(place: Place) -> None:
    """Check what holds for every place."""
    assert place.path.startswith("/")
    pieces = place.path[1:].split("/") if place.path != "/" else []
    assert not {"", ".", ".."} & set(pieces)
    assert "\0" not in place.path
    assert unicodedata.is_normalized("NFC", place.path)
    match place:
        case Directory(folder=Folder.ROOT):
            assert not pieces
        case Directory(folder=Folder.RECEIPTS, month=str() as month):
            assert pieces == ["receipts", month]
        case Directory(folder=folder, address=None):
            assert pieces == [folder.value]
        case Directory(address=address):
            assert pieces == ["send", address]
        case SentFile(name=name, address=None):
            assert pieces == ["send", name]
        case SentFile(name=name, address=address):
            assert pieces == ["send", address, name]
        case ShelfFile(shelf=shelf, name=name):
            assert pieces == [shelf.value, name]
            assert shelf in tree.SHELVES
        case GeneratedFile(name=name):
            assert pieces[-1] == name
            assert pieces[0] in ("README.txt", "status", "send", "receipts")
        case RecalledFile(name=name):
            assert pieces == ["recall", name]
        case _:
            assert type(place) is Nowhere


@given(st.one_of(st.binary(max_size=60), paths.map(lambda text: text.encode(errors="surrogatepass"))))
def test_any_bytes_are_a_place_or_illegal(raw: bytes) -> None:
    """And the place says of itself what its path says."""
    place = resolve(raw)
    if place is not None:
        check(place)


@given(paths)
def test_a_normalised_path_means_the_same_again(text: str) -> None:
    """Whatever REALPATH answers can be asked for, and its answer is its own."""
    try:
        normal = tree.normalise_path(text.encode(errors="surrogatepass"))
    except Refused:
        return
    assert tree.normalise_path(normal.encode()) == normal
    place = tree.resolve_path(text.encode())
    again = tree.resolve_path(normal.encode())
    assert again == place
    assert resolve(place.path.encode()) == place


@given(st.lists(parts, max_size=5), st.integers(0, 8))
def test_no_number_of_dots_leaves_the_tree(rest: list[str], count: int) -> None:
    """`..` from the root is the root, as often as you like."""
    tail = "/".join(rest).encode(errors="replace")
    assert resolve(b"/" + b"../" * count + tail) == resolve(b"/" + tail)
    assert resolve(b"../" * count + tail) == resolve(tail)


@given(
    st.text(min_size=1, max_size=8),
    st.sampled_from(["receive", "new", "done"]),
    st.sampled_from(["receive", "new", "done"]),
)
def test_one_thing_has_one_lane_whatever_it_is_called(name: str, one: str, other: str) -> None:
    """Shelves, letter case, Unicode form, and send/ with or without the address folder: all in one lane."""
    here = resolve(f"/{one}/{name}".encode(errors="surrogatepass"))
    if not isinstance(here, ShelfFile):
        return
    for form in (name, unicodedata.normalize("NFD", name), name.upper(), name.casefold()):
        there = resolve(f"{other}//./{form}".encode())
        if isinstance(there, ShelfFile) and fold_name(there.name) == fold_name(here.name):
            assert there.lane == here.lane
    top, below = resolve(f"/send/{name}".encode()), resolve(f"/send/{OFFICE}/{name}".encode())
    if isinstance(top, SentFile) and isinstance(below, SentFile):
        assert top.lane == below.lane
        assert top.key != below.key


@given(paths, paths)
def test_lanes_tell_apart_what_differs(one: str, other: str) -> None:
    """Two files on shelves share a lane only under one name; two in send/ likewise."""
    first, second = resolve(one.encode(errors="replace")), resolve(other.encode(errors="replace"))
    if isinstance(first, (ShelfFile, SentFile)) and type(first) is type(second):
        assert isinstance(second, (ShelfFile, SentFile))
        assert (first.lane == second.lane) == (fold_name(first.name) == fold_name(second.name))


names = st.text(st.characters(codec="utf-8"), max_size=30)


@given(names, st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_long_name_is_what_ls_would_print(name: str, size: int, mtime: int, now: int) -> None:
    """Nine words and the name, which may hold spaces of its own."""
    for mode, letters in (
        (tree.FILE_MODE, "-r--r-----"),
        (tree.INBOX_MODE, "drwxrwx---"),
        (tree.DIRECTORY_MODE, "drwxr-x---"),
    ):
        line = tree.long_name(name, mode=mode, size=size, mtime=mtime, owner=OFFICE, group=LETTERED, now=float(now))
        words = line[: len(line) - len(name)].split()
        assert line.endswith(f" {name}")
        assert words[:5] == [letters, "1", OFFICE, LETTERED, str(size)]
        assert words[5] in "JanFebMarAprMayJunJulAugSepOctNovDec"
        assert 1 <= int(words[6]) <= 31
        is_recent = ":" in words[7]
        assert is_recent == (-60 <= now - mtime // 60 * 60 < 182 * 86_400 - 60)


@given(
    st.lists(st.tuples(names, st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.sampled_from([OFFICE, LETTERED]))),
    st.integers(0, 2**32 - 1),
)
def test_a_file_among_many_has_the_line_that_it_has_alone(files: list[tuple[str, int, int, str]], now: int) -> None:
    """What the lines of a page have in common is written once, and each says what it would say by itself."""
    lines = tree.FileLines(float(now))
    for name, size, mtime, owner in files:
        alone = tree.long_name(
            name, mode=tree.FILE_MODE, size=size, mtime=mtime, owner=owner, group=OFFICE, now=float(now)
        )
        assert lines.line(name.encode(), size=size, mtime=mtime, owner=owner, group=OFFICE) == alone.encode()


@given(st.text(max_size=30))
def test_the_notice_of_a_folder_is_found_under_its_own_name(name: str) -> None:
    """Whatever an office is called, its notice has a name that a path can hold and that a PC can keep."""
    office = Office(OFFICE, name, "東京都", ())
    notice = tree.notice_name(office)
    assert not set(notice) & set('<>:"/\\|?*\0')
    place = resolve(f"/send/{OFFICE}/{notice}".encode())
    assert isinstance(place, GeneratedFile)
    assert place.address == OFFICE
    assert place.name == unicodedata.normalize("NFC", notice)
