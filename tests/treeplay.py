"""What two offices can do to a tree, for a test that plays them: requests, the clients that send them, and a stage.

`Requests` draws what a session can ask for at the moment; `treemodel` says what should come of it.  It draws a state
that something is in before it draws what is in it, so that the one file that was collected is asked for as often as
the many that are not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import asyncssh
import raw_sftp as sftp
from house import PATIENCE_SECONDS, UNREGISTERED, House, Pass, general_name
from hypothesis import strategies as st
from raw_sftp import NO_ATTRIBUTES, Field, Long, Raw, RawSftp, Reply, open_raw, size_attribute
from treemodel import OK, Answer, File, Reading, Route, World, Writing, final_path

from relay.model import OfficeNumber

# Fresh offices for every example; a certificate holds no more.
PAIRS = 100
ATTRIBUTES = Raw(NO_ATTRIBUTES)
TIMES = Raw(struct.pack(">III", 0x08, 1_780_000_000, 1_780_000_000))
SHELVES = ("receive", "new", "done")
# Names of files that an office may send, beside a free one.
SERIALS = 5
TEMPORARY = ("{}.filepart", ".in.{}", "{}.TMP")
LARGE = bytes(range(256)) * 1_200
READ_BYTES = 250_000
PIECES = (b"alpha", b" beta", b" gamma", b"other", b"x", b"", LARGE[:30_000])
T = TypeVar("T")
MakeHouse = Callable[..., House]


@dataclass(frozen=True)
class Op:
    """One request: what the model is told and what goes over the wire."""

    session: str
    verb: str
    arguments: tuple[Any, ...]
    kind: int
    fields: tuple[Field, ...]
    options: tuple[tuple[str, bool], ...] = ()

    def play(self, world: World) -> Answer:
        """Return what the model answers; it changes with it."""
        answer: Answer = getattr(world, self.verb)(self.session, *self.arguments, **dict(self.options))
        return answer


class Stage:
    """A served house with many offices, a pair of them for each example, and the loop on which their clients run."""

    current: ClassVar[Stage]

    def __init__(self, make_house: MakeHouse) -> None:
        self.loop = asyncio.new_event_loop()
        self._make_house = make_house
        self._offices: list[OfficeNumber] = []
        self._read_bytes = self.closed = 0
        self.house: House
        self.pass_: Pass

    def next_pair(self) -> tuple[OfficeNumber, OfficeNumber]:
        """Return two offices that nobody has used, in a new house where there are none left."""
        if not self._offices:
            self._open_house()
        return self._offices.pop(), self._offices.pop()

    def _open_house(self) -> None:
        if hasattr(self, "house"):
            self.house.stop()
        self.house = self._make_house()
        numbers = [OfficeNumber(f"01{number:08d}") for number in range(20_000_000, 20_000_000 + 2 * PAIRS)]
        lines = [f"{number},事業所{number},北海道,11,active" for number in numbers]
        register = self.house.path / "many.csv"
        register.write_text("\n".join(["office_number,name_ja,prefecture,service_types,status", *lines, ""]))
        done = self.house.relay("office", "import", str(register))
        assert done.returncode == 0, done.stderr
        self.pass_ = self.house.certificate(numbers[0], offices=tuple(numbers))
        self.house.start()
        self._offices, self._read_bytes, self.closed = numbers, 0, 0

    def count_closed(self) -> int:
        """Return how many sessions have ended, by the journal, of which only the news is read."""
        with self.house.journal.open("rb") as journal:
            journal.seek(self._read_bytes)
            news = journal.read()
        whole = news[: news.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        self.closed += whole.count(b'"session.closed"')
        return self.closed

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the clients work."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 2 * PATIENCE_SECONDS))


class Client:
    """A session of an office on a connection of its own."""

    def __init__(self, stage: Stage, office: OfficeNumber) -> None:
        self._stage = stage
        self.office = office
        self.handles: dict[str, bytes] = {}
        self._stack = contextlib.AsyncExitStack()
        self.connection: asyncssh.SSHClientConnection
        self.raw: RawSftp

    async def enter(self) -> Client:
        """Log in."""
        dialled = self._stage.house.dial(self.office, pass_=self._stage.pass_)
        self.connection = await self._stack.enter_async_context(dialled)
        self.raw = await self._stack.enter_async_context(open_raw(self.connection))
        return self

    async def leave(self, how: str) -> None:
        """End the connection: ``channel``, ``close``, ``abort`` or ``reset``; whatever is unsent may be lost."""
        if how == "reset":
            socket = self.connection.get_extra_info("socket")
            socket.setsockopt(1, 13, struct.pack("ii", 1, 0))
        if how == "channel":
            self.raw.channel.close()
            await self.raw.wait_closed()
        elif how == "close":
            self.connection.close()
        else:
            self.connection.abort()
        await self._stack.aclose()

    def ask(self, op: Op) -> int:
        """Send a request."""
        return self.raw.ask(op.kind, *op.fields)

    async def answer(self, op: Op, number: int) -> Answer:
        """Return the reply as the model says it."""
        reply = await self.raw.reply_to(number)
        if reply.type == sftp.HANDLE:
            self.handles[op.arguments[0]] = reply.handle
        return read_answer(reply)


def read_answer(reply: Reply) -> Answer:
    """Return a reply as the model says it."""
    if reply.type == sftp.DATA:
        return reply.data
    if reply.type == sftp.ATTRS:
        return reply.size
    if reply.type == sftp.HANDLE or reply.code == sftp.OK:
        return OK
    return "eof" if reply.code == sftp.EOF else reply.text.partition(":")[0]


def plan_routes(office: str, other: str) -> dict[str, Route | str]:
    """Return what an office may upload, and what becomes of it."""
    serials = [general_name("txt", office, other, number) for number in range(SERIALS)]
    return {
        **{name: Route(other, name) for name in serials},
        f"{other}/memo.txt": Route(other, "memo.txt", in_folder=True, is_free=True),
        general_name("txt", other, office): "name.sender_mismatch",
        general_name("txt", office, UNREGISTERED): "route.recipient_unknown",
        "x.exe": "name.malformed",
        "a?.txt": "name.illegal",
    }


class Requests:
    """What the sessions of two offices can ask for, as they stand in the first of the *worlds*."""

    offices: tuple[OfficeNumber, OfficeNumber]
    routes: dict[OfficeNumber, dict[str, Route | str]]
    worlds: list[World]
    clients: dict[str, Client]
    opened = 0

    def client(self, session: str) -> Client:
        """Return a session, which logs in now if it has not."""
        raise NotImplementedError

    def draw_op(self, data: st.DataObject, session: str) -> Op:
        """Return one request of a session, of those that it can make now."""
        client = self.client(session)
        makers: dict[str, Callable[[st.DataObject, str], Op]] = {
            "open": self.make_open,
            "remove": self.make_remove,
            "rename": self.make_rename,
            "recall": self.make_recall,
            "note": self.make_remove_note,
            "stat": self.make_stat,
            "touch": self.make_touch,
            "directory": self.make_directory,
            "open own": self.make_open_own,
        }
        handles = self.worlds[0].sessions[session].handles
        if any(isinstance(each, Writing) for each in handles.values()):
            makers |= {"write": self.make_write, "close": self.make_close, "resize": self.make_resize}
        if any(isinstance(each, Reading) for each in handles.values()):
            makers |= {"read": self.make_read, "close read": self.make_close_reading}
        if self.shown(client.office):
            makers |= {"fetch": self.make_open_to_read, "shelve": self.make_shelve, "put away": self.make_put_away}
        return makers[data.draw(st.sampled_from(sorted(makers)))](data, session)

    def finals(self, session: str) -> list[str]:
        """Return the paths that an office uploads to."""
        return list(self.routes[self.client(session).office])

    def draw_final(self, data: st.DataObject, session: str) -> str:
        """Return a final path below ``send/``: seldom one that nothing can be sent to."""
        office = self.client(session).office
        routes = self.routes[office]
        if data.draw(st.integers(0, 7)) == 7:
            return data.draw(st.sampled_from([path for path, route in routes.items() if isinstance(route, str)]))
        good = [path for path, route in routes.items() if isinstance(route, Route)]
        return draw_by_state(data, {path: self.worlds[0].describe(office, path) for path in good})

    def draw_path(self, data: st.DataObject, session: str) -> str:
        """Return a final path below ``send/`` or a temporary one, that of an unfinished upload if there is one."""
        path = self.draw_final(data, session)
        folder, slash, name = path.rpartition("/")
        forms = [path, path, *(f"{folder}{slash}{form.format(name)}" for form in TEMPORARY)]
        unfinished = self.worlds[0].unfinished(self.client(session).office)
        return data.draw(st.sampled_from(forms + 2 * [each for each in unfinished if each in forms]))

    def draw_handle(self, data: st.DataObject, session: str, kind: type) -> tuple[str, bytes]:
        """Return an open handle, as the model and as the relay names it."""
        handles = self.worlds[0].sessions[session].handles
        label: str = data.draw(st.sampled_from(sorted(key for key, each in handles.items() if isinstance(each, kind))))
        return label, self.clients[session].handles[label]

    def readers(self) -> list[str]:
        """Return the sessions of the offices that have something to read."""
        return [
            f"{'ab'[place]}{number}"
            for place, office in enumerate(self.offices)
            for number in (1, 2)
            if self.shown(office)
        ]

    def shown(self, office: str) -> dict[str, File]:
        """Return what an office sees on its shelves."""
        here = [each for each in self.worlds[0].files if each.route.recipient == office and each.is_there]
        return {each.shown: each for each in here if each.shown is not None}

    def draw_seen(self, data: st.DataObject, session: str) -> tuple[str, str]:
        """Return a shelf, mostly one that it is on, and the name of a file that this office sees."""
        files = self.shown(self.client(session).office)
        name = draw_by_state(
            data, {name: f"{each.state} {each.is_done} {each.served > 0}" for name, each in files.items()}
        )
        right = ["done"] if files[name].is_done else ["receive", "new"]
        return data.draw(st.sampled_from([*SHELVES, *right, *right])), name

    def next_label(self) -> str:
        """Return a name for a handle that is about to be opened."""
        self.opened += 1
        return f"h{self.opened}"

    def make_open(self, data: st.DataObject, session: str) -> Op:
        """OPEN for writing."""
        path, mode = self.draw_path(data, session), data.draw(st.sampled_from(["afresh", "afresh", "on", "append"]))
        return open_op(session, self.next_label(), path, mode)

    def make_write(self, data: st.DataObject, session: str) -> Op:
        """WRITE: at the end mostly, or before or behind it."""
        label, handle = self.draw_handle(data, session, Writing)
        writing = self.worlds[0].sessions[session].handles[label]
        assert isinstance(writing, Writing)
        # Where a program appends, what it says of the offset means nothing.
        away = [-len(writing.data), 0] if writing.is_appending else [0, 0, 0, 0, -5, -2, 3, 5]
        offset = max(0, len(writing.data) + data.draw(st.sampled_from(away)))
        piece = data.draw(st.sampled_from(PIECES))
        return write_op(session, label, handle, offset, piece)

    def make_resize(self, data: st.DataObject, session: str) -> Op:
        """FSETSTAT with a size."""
        label, handle = self.draw_handle(data, session, Writing)
        size = data.draw(st.sampled_from([0, 3, 5, 10, 16]))
        return Op(session, "resize", (label, size), sftp.FSETSTAT, (handle, size_attribute(size)))

    def make_close(self, data: st.DataObject, session: str) -> Op:
        """CLOSE of an upload."""
        return close_op(session, "close", *self.draw_handle(data, session, Writing))

    def make_remove(self, data: st.DataObject, session: str) -> Op:
        """REMOVE in ``send/``."""
        path = self.draw_path(data, session)
        return Op(session, "remove", (path,), sftp.REMOVE, (f"/send/{path}",))

    def make_rename(self, data: st.DataObject, session: str) -> Op:
        """RENAME of a temporary name to its own final one mostly: of what waits, of what was renamed, or of nothing."""
        office, final = self.client(session).office, self.draw_final(data, session)
        folder, slash, name = final.rpartition("/")
        forms = [f"{folder}{slash}{form.format(name)}" for form in TEMPORARY]
        waiting = {each for each in self.worlds[0].unfinished(office) if each != final_path(each)}
        known = waiting | self.worlds[0].renamed(office)
        own = [each for each in forms if each in known]
        temporary: str = data.draw(st.sampled_from((own or sorted(known) or forms) + forms[:1]))
        fields = (f"/send/{temporary}", f"/send/{final}")
        if data.draw(st.booleans()):
            return Op(session, "rename", (temporary, final), sftp.EXTENDED, ("posix-rename@openssh.com", *fields))
        return Op(session, "rename", (temporary, final), sftp.RENAME, fields)

    def make_recall(self, data: st.DataObject, session: str) -> Op:
        """RENAME into ``recall/``."""
        path = self.draw_final(data, session)
        return Op(session, "recall", (path,), sftp.RENAME, (f"/send/{path}", f"/recall/{path.rpartition('/')[2]}"))

    def make_remove_note(self, data: st.DataObject, session: str) -> Op:
        """REMOVE of a note."""
        office = self.client(session).office
        noted = sorted(path for owner, path in self.worlds[0].notes if owner == office)
        path = data.draw(st.sampled_from(2 * noted + self.finals(session)))
        return Op(session, "remove_note", (path,), sftp.REMOVE, (f"/send/{path}.refused.txt",))

    def make_stat(self, data: st.DataObject, session: str) -> Op:
        """STAT or LSTAT in ``send/``."""
        path = self.draw_path(data, session)
        kind = data.draw(st.sampled_from([sftp.STAT, sftp.LSTAT]))
        return Op(session, "stat", (path,), kind, (f"/send/{path}",))

    def make_touch(self, data: st.DataObject, session: str) -> Op:
        """SETSTAT of a time in ``send/``."""
        path = self.draw_path(data, session)
        return Op(session, "touch", (path,), sftp.SETSTAT, (f"/send/{path}", TIMES))

    def make_directory(self, data: st.DataObject, session: str) -> Op:
        """MKDIR or RMDIR."""
        verb, kind = data.draw(st.sampled_from([("mkdir", sftp.MKDIR), ("rmdir", sftp.RMDIR)]))
        path: str = data.draw(st.sampled_from(["folder", *self.offices]))
        return Op(session, verb, (path,), kind, (f"/send/{path}", ATTRIBUTES))

    def make_open_own(self, data: st.DataObject, session: str) -> Op:
        """OPEN for reading in ``send/``."""
        path = self.draw_path(data, session)
        fields = (f"/send/{path}", sftp.READING, ATTRIBUTES)
        return Op(session, "open_own", (self.next_label(), path), sftp.OPEN, fields)

    def make_open_to_read(self, data: st.DataObject, session: str) -> Op:
        """OPEN for reading."""
        shelf, name = self.draw_seen(data, session)
        fields = (f"/{shelf}/{name}", sftp.READING, ATTRIBUTES)
        return Op(session, "open_to_read", (self.next_label(), name, shelf), sftp.OPEN, fields)

    def make_read(self, data: st.DataObject, session: str) -> Op:
        """READ of all or of a part."""
        label, handle = self.draw_handle(data, session, Reading)
        reading = self.worlds[0].sessions[session].handles[label]
        assert isinstance(reading, Reading)
        size = len(reading.file.data)
        parts = [(0, size), (0, size - 1), (size - 1, 1), (1, size), (0, 3), (4, size), (size, 90), (0, READ_BYTES)]
        offset, length = data.draw(st.sampled_from(parts))
        return read_op(session, label, handle, offset, min(length, READ_BYTES))

    def make_close_reading(self, data: st.DataObject, session: str) -> Op:
        """CLOSE of a download."""
        return close_op(session, "close_reading", *self.draw_handle(data, session, Reading))

    def make_shelve(self, data: st.DataObject, session: str) -> Op:
        """RENAME from one shelf to another."""
        here, name = self.draw_seen(data, session)
        there = data.draw(st.sampled_from(SHELVES))
        return Op(session, "shelve", (name, here, there), sftp.RENAME, (f"/{here}/{name}", f"/{there}/{name}"))

    def make_put_away(self, data: st.DataObject, session: str) -> Op:
        """REMOVE on a shelf."""
        here, name = self.draw_seen(data, session)
        return Op(session, "shelve", (name, here, ""), sftp.REMOVE, (f"/{here}/{name}",))


def open_op(session: str, label: str, path: str, mode: str) -> Op:
    """OPEN for writing: ``afresh``, to go ``on``, or to ``append``."""
    flags = {"afresh": sftp.WRITING, "on": 0x02 | 0x08, "append": 0x02 | 0x04}[mode]
    options = (("afresh", mode == "afresh"), ("appending", mode == "append"))
    return Op(session, "open", (label, path), sftp.OPEN, (f"/send/{path}", flags, ATTRIBUTES), options)


def write_op(session: str, label: str, handle: bytes, offset: int, data: bytes) -> Op:
    """WRITE."""
    return Op(session, "write", (label, offset, data), sftp.WRITE, (handle, Long(offset), data))


def read_op(session: str, label: str, handle: bytes, offset: int, length: int) -> Op:
    """READ."""
    return Op(session, "read", (label, offset, length), sftp.READ, (handle, Long(offset), length))


def close_op(session: str, verb: str, label: str, handle: bytes) -> Op:
    """CLOSE of an upload (``close``) or of a download (``close_reading``)."""
    return Op(session, verb, (label,), sftp.CLOSE, (handle,))


def draw_by_state(data: st.DataObject, states: dict[str, str]) -> str:
    """Return one of the keys of *states*; each state is as likely as any other, however few are in it."""
    state = data.draw(st.sampled_from(sorted(set(states.values()))))
    return data.draw(st.sampled_from([key for key, found in states.items() if found == state]))


async def list_all(raw: RawSftp, paths: list[str]) -> dict[str, list[str]]:
    """Return what directories hold, without what is always there."""
    asked = [raw.ask(sftp.OPENDIR, f"/{path}") for path in paths]
    handles = [(await raw.reply_to(number)).handle for number in asked]
    # A page holds all that there is here, so the second READDIR is the end.
    asked = [raw.ask(kind, handle) for handle in handles for kind in (sftp.READDIR, sftp.READDIR, sftp.CLOSE)]
    replies = [await raw.reply_to(number) for number in asked]
    assert {reply.code for reply in (*replies[1::3], *replies[2::3])} == {sftp.EOF, sftp.OK}
    pages = [[name.decode() for name in reply.names] for reply in replies[::3]]
    return {
        path: [name for name in names if name not in (".", "..") and not name.startswith("宛先 ")]
        for path, names in zip(paths, pages, strict=True)
    }
