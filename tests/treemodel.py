"""A model of the tree: what DESIGN sections 3 and 4 say of two offices, in memory, and nothing of how it is done.

A `World` answers each request as an office would read it: ``ok``, a length, bytes, or the code of a refusal.  It knows
no names: `routes` says for every path below ``send/`` where it goes, or why nowhere.  Times are left out; everything
happens within the ten minutes and the day that the design speaks of.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.temporary import strip_temporary

ACCEPTED, COLLECTED, RECALLED, SUPERSEDED = "accepted", "collected", "recalled", "superseded"
UNFINISHED, NOT_FOUND = "upload.unfinished", "tree.not_found"
OK = "ok"
Answer = str | int | bytes


@dataclass(frozen=True)
class Route:
    """Where a final path goes; *is_free* where the name does not tell its sender and a serial."""

    recipient: str
    name: str
    in_folder: bool = False
    is_free: bool = False


@dataclass
class File:
    """A transfer.  *shown* is its name at the recipient, None until that was seen; *holds_name* as long as it is live."""

    sender: str
    route: Route
    data: bytes
    shown: str | None
    state: str = ACCEPTED
    is_done: bool = False
    holds_name: bool = True
    served: int = 0
    came_from: set[str] = field(default_factory=set)

    @property
    def is_there(self) -> bool:
        """True while its recipient sees it."""
        return self.state in (ACCEPTED, COLLECTED)

    @property
    def forbids_others(self) -> bool:
        """True where other bytes under its name are a conflict."""
        return self.is_there and not (self.route.is_free and self.state == COLLECTED)


@dataclass
class Writing:
    """An open upload: what is there without a gap, and single bytes that came ahead of their turn."""

    path: str
    data: bytes = b""
    ahead: dict[int, int] = field(default_factory=dict)
    is_appending: bool = False
    told_size: int = 0
    failed: str = ""
    is_over: bool = False
    rival: File | None = None

    def conflicts(self, offset: int, data: bytes) -> bool:
        """True where a WRITE differs from the file that was accepted under this name before, and still holds it."""
        offset = len(self.data) if self.is_appending else offset
        there = b"" if self.rival is None else self.rival.data[offset : offset + len(data)]
        if self.rival is None or data[: len(there)] == there:
            return False
        if not self.rival.forbids_others:
            self.rival = None
        return self.rival is not None

    def put(self, offset: int, data: bytes) -> None:
        """Take a WRITE; a later one over the same bytes wins."""
        offset = len(self.data) if self.is_appending else offset
        end = offset + len(data)
        if offset > len(self.data):
            self.ahead.update(enumerate(data, offset))
            return
        self.data = self.data[:offset] + data + self.data[end:]
        self.ahead = {place: byte for place, byte in self.ahead.items() if place >= end}
        while len(self.data) in self.ahead:
            self.data += bytes([self.ahead.pop(len(self.data))])

    def cut(self, size: int) -> None:
        """Forget what lies behind *size*."""
        self.data = self.data[:size]
        self.ahead = {place: byte for place, byte in self.ahead.items() if place < size}


@dataclass
class Partial:
    """An upload that waits: for its RENAME if it was closed, else for its owner to go on."""

    data: bytes
    is_closed: bool


@dataclass
class Reading:
    """An open download; *was_accepted* when it was opened; of *served*, here as above, each bit is a byte."""

    file: File
    was_accepted: bool
    served: int = 0


@dataclass
class Session:
    """One connection of an office: its handles, and the refusals that STAT repeats."""

    office: str
    handles: dict[str, Writing | Reading] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)


@dataclass
class World:
    """The tree of all offices."""

    routes: Mapping[str, Mapping[str, Route | str]]
    files: list[File] = field(default_factory=list)
    partials: dict[tuple[str, str], Partial] = field(default_factory=dict)
    notes: set[tuple[str, str]] = field(default_factory=set)
    tried: set[tuple[str, str]] = field(default_factory=set)
    folders: set[tuple[str, str]] = field(default_factory=set)
    sessions: dict[str, Session] = field(default_factory=dict)

    def branch(self) -> World:
        """Return a copy that may go another way."""
        return copy.deepcopy(self, {id(self.routes): self.routes})

    # --- looking --------------------------------------------------------------------------------------------------

    def send(self, office: str, folder: str = "") -> set[str]:
        """Return what a listing of ``send/`` or of an address folder holds."""
        prefix = f"{folder}/" if folder else ""
        own = [each for each in self.files if each.sender == office and each.holds_name]
        names = {each.route.name for each in own if each.route.in_folder == bool(folder)}
        here = [path for owner, path in self.partials if owner == office]
        noted = [f"{path}.refused.txt" for owner, path in self.notes if owner == office]
        names |= {path.removeprefix(prefix) for path in here + noted if path.count("/") == prefix.count("/")}
        return names if folder else names | {each for owner, each in self.folders if owner == office}

    def shelf(self, office: str, shelf: str) -> list[str | None]:
        """Return what ``receive/``, ``new/`` or ``done/`` lists, in order of acceptance; None for an unseen name."""
        here = [each for each in self.files if each.route.recipient == office and each.is_there]
        if shelf == "new":
            return [each.shown for each in here if each.state == ACCEPTED]
        return [each.shown for each in here if each.is_done == (shelf == "done")]

    def recalled(self, office: str) -> set[str]:
        """Return what ``recall/`` lists."""
        return {each.route.name for each in self.files if each.sender == office and each.state == RECALLED}

    def stat(self, session: str, path: str) -> Answer:
        """Return the length of what an office finds at a path below ``send/``, or the refusal."""
        who = self.sessions[session]
        live, partial = self._live_upload(who.office, path), self.partials.get((who.office, path))
        live = None if live is None or live.failed else live
        if live is None and path in who.refused:
            return who.refused[path]
        if live is not None or partial is not None:
            who.told[path] = len((live or partial).data)  # type: ignore[union-attr]
            return who.told[path]
        file = self.held(who.office, self.routes[who.office].get(path))
        return NOT_FOUND if file is None else len(file.data)

    def describe(self, office: str, path: str) -> str:
        """Return in what state a final path is, for a test to choose by."""
        newest = (self._of(office, self.routes[office][path]) or [None])[-1]
        state = "" if newest is None else f"{newest.state} {newest.is_done} {newest.served > 0} {newest.route.is_free}"
        unfinished = any(final_path(each) == path for each in self.unfinished(office))
        return f"{state} {unfinished} {(office, path) in self.tried} {(office, path) in self.notes}"

    def unfinished(self, office: str) -> set[str]:
        """Return the paths of the uploads that are open or wait."""
        waiting = {path for owner, path in self.partials if owner == office}
        return waiting | {
            each.path
            for session in self.sessions.values()
            for each in session.handles.values()
            if isinstance(each, Writing) and session.office == office and not each.is_over
        }

    def renamed(self, office: str) -> set[str]:
        """Return the temporary paths that became files."""
        return {path for each in self.files if each.sender == office for path in each.came_from}

    def touch(self, session: str, path: str) -> Answer:
        """SETSTAT of a time: taken wherever something is."""
        office = self.sessions[session].office
        found = self._live_upload(office, path) or self.partials.get((office, path))
        return OK if found or self.held(office, self.routes[office].get(path)) else NOT_FOUND

    def mkdir(self, session: str, path: str) -> Answer:  # noqa: ARG002 - it is the same for everybody
        """MKDIR below ``send/``: every registered office's folder is there already, and no other can be made."""
        return OK if path in self.routes else "tree.no_directories"

    def rmdir(self, session: str, path: str) -> Answer:  # noqa: ARG002
        """RMDIR: nothing can be taken away."""
        return "tree.read_only" if path in self.routes else NOT_FOUND

    def _live_upload(self, office: str, path: str) -> Writing | None:
        for session in self.sessions.values():
            for each in session.handles.values():
                if isinstance(each, Writing) and session.office == office and each.path == path and not each.is_over:
                    return each
        return None

    def held(self, office: str, route: Route | str | None) -> File | None:
        """Return the live transfer of that identity."""
        return next((each for each in self._of(office, route) if each.holds_name), None)

    def _of(self, office: str, route: Route | str | None) -> list[File]:
        if not isinstance(route, Route):
            return []
        wanted = (office, route.recipient, route.name)
        return [each for each in self.files if (each.sender, each.route.recipient, each.route.name) == wanted]

    # --- uploading ------------------------------------------------------------------------------------------------

    def open(self, session: str, handle: str, path: str, *, afresh: bool, appending: bool = False) -> Answer:
        """OPEN for writing: refused by the name, or begun, or gone on with."""
        who = self.sessions[session]
        who.refused.pop(path, None)
        told = who.told.pop(path, None)
        route = self.routes[who.office][final_path(path)]
        if isinstance(route, str):
            who.refused[path] = route
            return self._refuse(who.office, path, route)
        live = self._live_upload(who.office, path)
        if live is not None:
            self._give_up(who.office, live) if afresh else self._leave(who.office, live)
        if afresh and self.partials.pop((who.office, path), None) is not None:
            self.tried.add((who.office, final_path(path)))
        partial = self.partials.get((who.office, path))
        writing = Writing(path, partial.data if partial else b"")
        held = self.held(who.office, route)
        writing.rival = held if path == final_path(path) and held is not None and held.forbids_others else None
        writing.is_appending = appending and bool(writing.data)
        if writing.is_appending and told is not None:
            writing.cut(told)
        who.handles[handle] = writing
        return OK

    def write(self, session: str, handle: str, offset: int, data: bytes) -> Answer:
        """WRITE: taken, or the failure that the upload has met already."""
        writing = self.writing(session, handle)
        if not writing.failed and writing.conflicts(offset, data):
            writing.failed = self.sessions[session].refused[writing.path] = "transfer.conflict"
        if writing.failed:
            return writing.failed
        writing.put(offset, data)
        return OK

    def resize(self, session: str, handle: str, size: int) -> Answer:
        """FSETSTAT of a size: cut to it, or remember that more is to come."""
        writing = self.writing(session, handle)
        if writing.failed:
            return writing.failed
        writing.told_size = size
        writing.cut(size)
        return OK

    def close(self, session: str, handle: str) -> Answer:
        """CLOSE of an upload: a transfer, a partial that waits for its RENAME, or a refusal that keeps nothing."""
        who, writing = self.sessions[session], self.writing(session, handle)
        del who.handles[handle]
        was_over, writing.is_over = writing.is_over, True
        if was_over:
            return writing.failed
        answer = writing.failed
        if not answer and (writing.ahead or writing.told_size > len(writing.data)):
            answer = "upload.hole"
        if not answer and final_path(writing.path) != writing.path:
            self.partials[who.office, writing.path] = Partial(writing.data, is_closed=True)
        elif not answer:
            answer = self._commit(who.office, writing.path, writing.data)
        if answer in ("", OK):
            who.refused.pop(writing.path, None)
            return OK
        self.partials.pop((who.office, writing.path), None)
        who.refused[writing.path] = answer
        return self._refuse(who.office, writing.path, answer)

    def _commit(self, office: str, path: str, data: bytes, came_from: str = "") -> str:
        route = self.routes[office][path]
        if isinstance(route, str):
            return route
        if not data:
            return "content.empty"
        held = self.held(office, route)
        if held is None or held.data != data:
            if held is not None and not self._may_replace(held, data):
                return "transfer.conflict"
            if held is not None:
                self._make_room(held, data)
            held = File(office, route, data, None if route.is_free else route.name)
            self.files.append(held)
            if route.in_folder:
                self.folders.add((office, route.recipient))
        if came_from:
            held.came_from.add(came_from)
        self.partials.pop((office, came_from or path), None)
        self.notes -= {(office, route.name), (office, f"{route.recipient}/{route.name}")}
        return OK

    def _may_replace(self, held: File, data: bytes) -> bool:
        """True for the same bytes and for what begins with all of them, and for a free name that was collected."""
        return not held.forbids_others or data.startswith(held.data)

    def _make_room(self, held: File, data: bytes) -> None:
        held.holds_name = False
        if held.state == ACCEPTED:
            held.state = SUPERSEDED
        elif data.startswith(held.data) and not held.route.is_free:
            held.shown = None

    def writing(self, session: str, handle: str) -> Writing:
        """Return an open upload."""
        writing = self.sessions[session].handles[handle]
        assert isinstance(writing, Writing)
        return writing

    def _refuse(self, office: str, path: str, code: str) -> str:
        if code != "name.illegal":
            self.notes.add((office, final_path(path)))
        self.tried.add((office, final_path(path)))
        return code

    def _give_up(self, office: str, writing: Writing) -> None:
        """End an upload of which nothing is kept."""
        if writing.failed:
            self._refuse(office, writing.path, writing.failed)
        self.tried.add((office, final_path(writing.path)))
        writing.failed, writing.is_over = writing.failed or UNFINISHED, True
        self.partials.pop((office, writing.path), None)

    def _leave(self, office: str, writing: Writing) -> None:
        """Keep what an upload has without a gap, for its owner to go on with."""
        if writing.failed or not writing.data:
            self._give_up(office, writing)
        else:
            writing.failed, writing.is_over = UNFINISHED, True
            self.partials[office, writing.path] = Partial(writing.data, is_closed=False)

    # --- ends and moves -------------------------------------------------------------------------------------------

    def lose(self, session: str) -> None:
        """The connection ends, in whatever way."""
        who = self.sessions.pop(session)
        for each in who.handles.values():
            if isinstance(each, Writing) and not each.is_over:
                self._leave(who.office, each)

    def rename(self, session: str, temporary: str, final: str) -> Answer:
        """RENAME of an upload to its final name: its commit."""
        who = self.sessions[session]
        partial, route = self.partials.get((who.office, temporary)), self.routes[who.office][final]
        live = self._live_upload(who.office, temporary)
        if partial is None and live is None:
            newest = (self._of(who.office, route) or [None])[-1]
            if newest is None or temporary not in newest.came_from:
                # What was refused while it was written is not there either, for the same reason.
                answer = who.refused.get(temporary, NOT_FOUND)
                if answer != NOT_FOUND:
                    who.refused[final] = answer
                return answer
            answer = OK
        elif live is not None or partial is None or not partial.is_closed:
            answer = UNFINISHED
        else:
            answer = self._commit(who.office, final, partial.data, came_from=temporary)
            if answer != OK:
                self._refuse(who.office, final, answer)
        who.refused.pop(final, None)
        if answer != OK:
            who.refused[final] = answer
        return answer

    def recall(self, session: str, path: str) -> Answer:
        """RENAME from ``send/`` into ``recall/``."""
        who = self.sessions[session]
        newest = (self._of(who.office, self.routes[who.office][path]) or [None])[-1]
        if newest is None:
            found = self.stat(session, path)
            return found if isinstance(found, str) else "tree.no_rename"
        if newest.state == COLLECTED:
            return "transfer.already_collected"
        newest.state, newest.holds_name = RECALLED, False
        return OK

    def remove(self, session: str, path: str) -> Answer:
        """REMOVE in ``send/``: gives up what is unfinished, and never takes a transfer back."""
        who = self.sessions[session]
        live, partial = self._live_upload(who.office, path), self.partials.pop((who.office, path), None)
        if live is not None:
            self._give_up(who.office, live)
        if live is not None or partial is not None:
            self.tried.add((who.office, final_path(path)))
            return OK
        staged = map(final_path, self.unfinished(who.office))
        if path in who.refused or (who.office, path) in self.tried or path in staged:
            return OK
        return NOT_FOUND if self.held(who.office, self.routes[who.office].get(path)) is None else "transfer.accepted"

    def remove_note(self, session: str, path: str) -> Answer:
        """REMOVE of the note beside *path*."""
        key = (self.sessions[session].office, path)
        if key not in self.notes:
            return NOT_FOUND
        self.notes.remove(key)
        return OK

    def shelve(self, session: str, shown: str, here: str, there: str) -> Answer:
        """RENAME from one shelf to another, or, with *there* empty, a REMOVE."""
        file = self._seen(session, shown)
        if file is None or (file.is_done != (here == "done") and not (not there and here == "new")):
            return NOT_FOUND
        if not there and here == "done":
            return "tree.read_only"
        to_done = there in ("", "done")
        if to_done and not file.is_done and file.state == ACCEPTED:
            return "transfer.not_collected"
        file.is_done = to_done
        return OK

    def _seen(self, session: str, shown: str) -> File | None:
        office = self.sessions[session].office
        here = [each for each in self.files if each.route.recipient == office and each.is_there]
        return next((each for each in here if each.shown == shown), None)

    # --- reading --------------------------------------------------------------------------------------------------

    def open_to_read(self, session: str, handle: str, shown: str, shelf: str) -> Answer:
        """OPEN for reading of a file on a shelf."""
        file = self._seen(session, shown)
        if file is None or file.is_done != (shelf == "done"):
            return NOT_FOUND
        self.sessions[session].handles[handle] = Reading(file, file.state == ACCEPTED)
        return OK

    def open_own(self, session: str, handle: str, path: str) -> Answer:
        """OPEN for reading of what an office sent itself: its reading collects nothing."""
        who = self.sessions[session]
        file = self.held(who.office, self.routes[who.office].get(path))
        if file is None:
            return NOT_FOUND
        who.handles[handle] = Reading(file, was_accepted=False)
        return OK

    def read(self, session: str, handle: str, offset: int, length: int) -> Answer:
        """READ: bytes, ``eof``, or what became of the file meanwhile."""
        reading = self._reading(session, handle)
        data = reading.file.data[offset : offset + length]
        reading.served |= (1 << len(data)) - 1 << offset
        return data or "eof"

    def close_reading(self, session: str, handle: str) -> Answer:
        """CLOSE of a download: what was served on it counts, and all of it together is collected."""
        reading = self._reading(session, handle)
        del self.sessions[session].handles[handle]
        file = reading.file
        if not reading.served or not reading.was_accepted:
            return OK
        if not file.is_there:
            return f"transfer.{file.state}"
        file.served |= reading.served
        if file.served == (1 << len(file.data)) - 1:
            file.state = COLLECTED
        return OK

    def _reading(self, session: str, handle: str) -> Reading:
        reading = self.sessions[session].handles[handle]
        assert isinstance(reading, Reading)
        return reading


def final_path(path: str) -> str:
    """Return where an upload to *path* will be in the end."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{strip_temporary(name) or name}"
