"""Three offices do anything at all under any name: none ever reaches what is another's.

One real server for all examples.  A secret lies in the shelves of HOME_HELP and in the out-tray of CARE_MANAGER; the
intruder DAY_CARE plays generated sequences over every operation and every shape of path.  Whatever it is answered
holds nothing of the others', and afterwards everything of theirs is where it was, byte for byte.
"""

from __future__ import annotations

import asyncio
import posixpath
import unicodedata
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, LETTERED, House, general_name, plan_csv, plan_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_sftp import NO_ATTRIBUTES, Field, Long, Raw, RawSftp, Reply, open_raw, size_attribute

ATTRIBUTES = Raw(NO_ATTRIBUTES)
SECRET = plan_csv(3_000)
# The bytes of no other file, and no part of any name or path.
FREE_SECRET = "秘密の提供票です。".encode() * 50
STANDARD = plan_name(CARE_MANAGER, HOME_HELP, 900)
GENERAL = general_name("txt", CARE_MANAGER, HOME_HELP, 901, label="SECRET")
FREE = "ガイダンス秘密.txt"
OWN = plan_name(DAY_CARE, LETTERED, 902)
NAMES = (STANDARD, GENERAL, FREE, OWN, "README.txt", "sent.csv", "received.csv", "offices.csv", "*", "")


@dataclass(frozen=True)
class Scene:
    """A served house, and what of the others' there is in it."""

    house: House
    delivered: dict[str, bytes]


@pytest.fixture(scope="module")
def scene(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Return a relay in which CARE_MANAGER has sent three files to HOME_HELP, and the intruder one of its own."""
    house = House.copy(prepared_home, tmp_path_factory.mktemp("isolation") / "house", {})
    house.start()

    async def send() -> dict[str, bytes]:
        async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
            for path, content in (
                (f"/send/{STANDARD}", SECRET),
                (f"/send/{GENERAL}", FREE_SECRET),
                (f"/send/{HOME_HELP}/{FREE}", FREE_SECRET),
            ):
                assert (await raw.put(path, content)).code == sftp.OK
        async with house.dial(DAY_CARE) as connection, open_raw(connection) as raw:
            assert (await raw.put(f"/send/{OWN}", plan_csv(500, LETTERED, DAY_CARE))).code == sftp.OK
        async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
            names = [name for name in await raw.list("/receive") if not name.startswith(".")]
            assert len(names) == 3
            # One of them is read and put away, so that done/ holds something too.
            return {name: await raw.get(f"/receive/{name}") for name in names}

    yield Scene(house, asyncio.run(send()))
    house.close()


def reshape(name: str) -> st.SearchStrategy[str]:
    """Return *name* as it is, in other cases, decomposed, and with things around it."""
    return st.sampled_from([name, name.lower(), name.upper(), name.swapcase(), unicodedata.normalize("NFD", name),
                            f"{name}/", f"./{name}", f"{name}.part", f"{name}/..", f"x/../{name}", f"{name}\0"])  # fmt: skip


folders = st.sampled_from(["", "/", "send", "receive", "new", "done", "status", "receipts", "recall", "RECEIVE", "Send/", "..",
                           f"send/{HOME_HELP}", f"send/{CARE_MANAGER}", f"send/{DAY_CARE}", f"{CARE_MANAGER}/send",
                           f"/{HOME_HELP}/receive", f"../{HOME_HELP}/receive", f"receive/../../{HOME_HELP}/receive",
                           f"send/../{CARE_MANAGER}", f"send/{HOME_HELP}/../../receive", "//receive//", "receive/./",
                           f"receive/{CARE_MANAGER}", f"done/{HOME_HELP}", "data", "/etc", "keys"])  # fmt: skip
names = st.one_of(st.sampled_from(NAMES).flatmap(reshape), st.text(max_size=8))
paths = st.builds(lambda folder, name: f"{folder}/{name}", folders, names)
verbs = ["stat", "lstat", "list", "read", "remove", "rmdir", "mkdir", "realpath", "touch", "write", "shorten"]
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(verbs), paths, st.just("")),
        st.tuples(st.sampled_from(["rename", "posix-rename", "symlink"]), paths, paths),
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_an_office_reaches_nothing_of_anothers_by_any_path(scene: Scene, steps: list[tuple[str, str, str]]) -> None:
    """Nothing of it is listed, told, read, moved, removed or overwritten."""
    asyncio.run(intrude(scene, steps))
    asyncio.run(check_untouched(scene))


async def intrude(scene: Scene, steps: list[tuple[str, str, str]]) -> None:
    """Play the intruder's steps and look at everything it is told."""
    async with scene.house.dial(DAY_CARE) as connection, open_raw(connection) as raw:
        for verb, path, other in steps:
            for told in await play(raw, verb, path.encode(errors="replace"), other.encode(errors="replace")):
                check_answer(verb, path, told)


Use = Callable[[bytes], Awaitable[Reply]]
TIMES = Raw(b"\0\0\0\x08" + b"\0\0\1\0" * 2)


async def play(raw: RawSftp, verb: str, path: bytes, other: bytes) -> list[Reply]:
    """Do one thing; return every reply."""
    opening: dict[str, tuple[int, tuple[Field, ...], Use]] = {
        "list": (sftp.OPENDIR, (), lambda handle: raw.call(sftp.READDIR, handle)),
        "read": (sftp.OPEN, (sftp.READING, ATTRIBUTES), lambda handle: raw.call(sftp.READ, handle, Long(0), 100_000)),
        "write": (sftp.OPEN, (sftp.WRITING, ATTRIBUTES), lambda handle: raw.call(sftp.WRITE, handle, Long(0), b"mine")),
    }
    single: dict[str, tuple[Field, ...]] = {
        "stat": (sftp.STAT, path),
        "lstat": (sftp.LSTAT, path),
        "remove": (sftp.REMOVE, path),
        "rmdir": (sftp.RMDIR, path),
        "mkdir": (sftp.MKDIR, path, ATTRIBUTES),
        "touch": (sftp.SETSTAT, path, TIMES),
        "shorten": (sftp.SETSTAT, path, size_attribute(1)),
        "realpath": (sftp.REALPATH, path),
        "rename": (sftp.RENAME, path, other),
        "symlink": (sftp.SYMLINK, path, other),
        "posix-rename": (sftp.EXTENDED, "posix-rename@openssh.com", path, other),
    }
    if verb in opening:
        kind, fields, use = opening[verb]
        return await play_handle(raw, await raw.call(kind, path, *fields), use)
    kind_, *rest = single[verb]
    assert isinstance(kind_, int)
    reply = await raw.call(kind_, *rest)
    # REALPATH says nothing but what it was asked.
    return [] if verb == "realpath" else [reply]


async def play_handle(raw: RawSftp, opened: Reply, use: Use) -> list[Reply]:
    """Use a handle three times and close it; return every reply."""
    if opened.type != sftp.HANDLE:
        return [opened]
    replies = [await use(opened.handle) for _ in range(3)]
    return [*replies, await raw.call(sftp.FSTAT, opened.handle), await raw.call(sftp.CLOSE, opened.handle)]


def check_answer(verb: str, path: str, reply: Reply) -> None:
    """Fail where a reply holds anything of the others', or says that something was done to it."""
    if reply.type == sftp.NAME:
        shown = {name.decode() for name in reply.names}
        assert not shown & {STANDARD, GENERAL, FREE}, path
        assert not any("SECRET" in name.upper() or "秘密" in name for name in shown), path
    elif reply.type == sftp.DATA:
        assert FREE_SECRET[:30] not in reply.data, path
        assert SECRET[:30] not in reply.data, path
        assert "SECRET" not in reply.data.decode(errors="replace").upper(), path
    elif reply.type == sftp.ATTRS:
        assert reply.size not in (len(SECRET), len(FREE_SECRET)), path
    elif reply.code == sftp.OK and verb in ("remove", "rename", "posix-rename", "touch", "shorten", "rmdir"):
        # The intruder's own transfer, or a place of the tree, may be touched; NAME/.. is such a place.
        meant = posixpath.normpath(path).casefold()
        assert STANDARD.casefold() not in meant, path
        assert GENERAL.casefold() not in meant, path


async def check_untouched(scene: Scene) -> None:
    """Prove that the owners see what they saw before."""
    async with scene.house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert {name for name in await raw.list("/receive") if not name.startswith(".")} == set(scene.delivered)
        for name, content in scene.delivered.items():
            assert await raw.get(f"/receive/{name}") == content
    async with scene.house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
        assert (await raw.call(sftp.STAT, f"/send/{STANDARD}")).size == len(SECRET)
        assert (await raw.call(sftp.STAT, f"/send/{HOME_HELP}/{FREE}")).size == len(FREE_SECRET)
        assert {STANDARD, GENERAL} <= set(await raw.list("/send"))
        assert not {name for name in await raw.list("/receive") if not name.startswith(".")}


async def test_an_upload_in_progress_is_seen_by_nobody_else(scene: Scene) -> None:
    """Neither its recipient nor a stranger sees a file that is being uploaded, by any question."""
    name = plan_name(CARE_MANAGER, HOME_HELP, 950)
    async with scene.house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{name}")
        assert (await raw.call(sftp.WRITE, handle, Long(0), SECRET)).code == sftp.OK
        for office in (HOME_HELP, DAY_CARE):
            async with scene.house.dial(office) as other_connection, open_raw(other_connection) as other:
                for folder in ("send", "receive", "new", "done"):
                    assert (await other.call(sftp.STAT, f"/{folder}/{name}")).code == sftp.NO_SUCH_FILE
                    assert name not in await other.list(f"/{folder}")
                # A handle is a number of its own session.
                assert (await other.call(sftp.WRITE, handle, Long(0), b"x")).code != sftp.OK
                assert (await other.call(sftp.CLOSE, handle)).code != sftp.OK
        assert (await raw.call(sftp.REMOVE, f"/send/{name}")).code == sftp.OK


async def test_no_answer_tells_whether_a_name_is_another_offices(scene: Scene) -> None:
    """For what is another's and for what is nobody's, a stranger gets the same answer to every question."""
    unknown = plan_name(CARE_MANAGER, HOME_HELP, 999)
    async with scene.house.dial(DAY_CARE) as connection, open_raw(connection) as raw:
        for folder in ("send", "receive", "new", "done"):
            for kind in (sftp.STAT, sftp.REMOVE, sftp.OPENDIR, sftp.SETSTAT, sftp.RMDIR, sftp.MKDIR):
                answers = {
                    ((reply := await raw.call(kind, f"/{folder}/{name}", ATTRIBUTES)).code, reply.text)
                    for name in (STANDARD, unknown)
                }
                assert len(answers) == 1, (folder, kind, answers)
            for flags in (sftp.READING, sftp.WRITING):
                answers = {
                    ((reply := await raw.call(sftp.OPEN, f"/{folder}/{name}", flags, ATTRIBUTES)).code, reply.text)
                    for name in (STANDARD, unknown)
                }
                assert len(answers) == 1, (folder, flags, answers)
