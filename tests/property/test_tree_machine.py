"""Any sequence of what two offices can do, against a model of the tree, on a real server over real connections.

Hypothesis plays both offices, with two sessions each: it uploads in pieces, resumes, renames, takes back, removes,
reads, loses connections, and sends requests of two sessions before it reads either answer.  Each answer, and after each
step every directory of both offices, must be what `treemodel` says; where two requests were under way at once, what it
says for one of the two orders.  At the end both offices read everything, and status files and ledger agree.

Sixteen examples of thirty steps, each with a past of its own, are played in every run, hundreds by hand:

    RELAY_MACHINE_EXAMPLES=300 .venv/bin/python -m pytest tests/property/test_tree_machine.py
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import raw_sftp as sftp
from house import wait_for
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from treemodel import COLLECTED, Answer, Reading, Session, World, final_path
from treeplay import (
    ATTRIBUTES,
    LARGE,
    READ_BYTES,
    SERIALS,
    SHELVES,
    Client,
    MakeHouse,
    Op,
    Requests,
    Stage,
    close_op,
    list_all,
    open_op,
    plan_routes,
    read_op,
    write_op,
)

EXAMPLES = int(os.environ.get("RELAY_MACHINE_EXAMPLES", "16"))
SHRINKS = os.environ.get("RELAY_MACHINE_SHRINKS", "no")
STEPS = 30
CONTENTS = (b"", b"alpha", b"alpha beta", b"alpha beta gamma", b"other", LARGE, LARGE + b"and more")


class TreeMachine(Requests, RuleBasedStateMachine):
    """Two offices, two sessions each; *worlds* are the models that fit everything that was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage.current
        a, b = self.stage.next_pair()
        self.offices = (a, b)
        self.routes = {a: plan_routes(a, b), b: plan_routes(b, a)}
        self.worlds = [World(self.routes)]
        self.clients: dict[str, Client] = {}
        self.opened = 0
        self.lookers = {office: self.stage.run(Client(self.stage, office).enter()) for office in self.offices}

    def teardown(self) -> None:
        """Read everything, compare status and ledger, and leave."""
        try:
            if self.worlds:
                self.collect_all()
                self.compare_status()
        finally:
            for client in (*self.clients.values(), *self.lookers.values()):
                self.stage.run(client.leave("abort"))

    # --- how requests are played ----------------------------------------------------------------------------------

    def client(self, session: str) -> Client:
        """Return a session, which logs in now if it has not."""
        if session not in self.clients:
            office = self.offices[session[0] == "b"]
            self.clients[session] = self.stage.run(Client(self.stage, office).enter())
            for world in self.worlds:
                world.sessions[session] = Session(office)
        return self.clients[session]

    def play(self, *ops: Op) -> None:
        """Send requests before any answer is read, and keep the worlds in which the answers came in some order."""
        clients = [self.client(op.session) for op in ops]

        async def work() -> list[Answer]:
            numbers = [client.ask(op) for client, op in zip(clients, ops, strict=True)]
            return [await client.answer(op, n) for client, op, n in zip(clients, ops, numbers, strict=True)]

        answers = dict(zip(ops, self.stage.run(work()), strict=True))
        note(
            "; ".join(
                f"{op.session} {op.verb} {op.arguments} {op.options}: {answer!r:.40}" for op, answer in answers.items()
            )
        )
        orders = [ops] if len(ops) == 1 else [ops, ops[::-1]]
        told: list[object] = []
        worlds = []
        for order in orders:
            for world in self.worlds:
                after = world.branch()
                said = {op: fit(after, op, answers[op]) for op in order}
                told.append(said)
                if all(said[op] == answers[op] for op in ops):
                    worlds.append(after)
        assert worlds, f"{answers}, but the model says {told}"
        self.worlds = worlds

    def leave(self, session: str, how: str, *ops: Op) -> None:
        """End a connection behind requests whose answers nobody reads; what was sent may or may not have arrived."""
        client = self.clients.pop(session)
        before = self.stage.count_closed()

        async def work() -> None:
            for op in ops:
                client.ask(op)
            await client.leave(how)

        note(f"{session} leaves ({how}) behind {[(op.verb, op.arguments, op.options) for op in ops]}")
        self.stage.run(work())
        wait_for(lambda: self.stage.count_closed() > before, "the end of a session")
        worlds = []
        for world in self.worlds:
            for arrived in range(len(ops) + 1):
                after = world.branch()
                for op in ops[:arrived]:
                    op.play(after)
                after.lose(session)
                worlds.append(after)
        self.worlds = worlds

    # --- rules ----------------------------------------------------------------------------------------------------

    sessions = st.sampled_from(["a1", "b1", "a2", "b2"])

    @rule(data=st.data(), session=sessions)
    def one_request(self, data: st.DataObject, session: str) -> None:
        """One request, then its answer."""
        self.play(self.draw_op(data, session))

    @rule(data=st.data(), one=sessions, other=sessions)
    def two_requests_at_once(self, data: st.DataObject, one: str, other: str) -> None:
        """A request of each of two sessions before either answer is read."""
        if one != other:
            self.play(self.draw_op(data, one), self.draw_op(data, other))

    @initialize(data=st.data())
    def what_happened_before(self, data: st.DataObject) -> None:
        """Some of both offices' files have been sent, fetched, put away or taken back already."""
        for session, reader in (("a1", "b1"), ("b1", "a1")):
            names = self.finals(session)
            for path in data.draw(st.lists(st.sampled_from(names[: SERIALS + 1]), unique=True, min_size=2)):
                self.send(session, path, data.draw(st.sampled_from([b"alpha", b"alpha beta"])), "close")
            office = self.client(reader).office
            self.see(office)
            for name in sorted(self.shown(office)):
                past = data.draw(st.sampled_from(["nothing", "nothing", "fetched", "put away"]))
                if past in ("fetched", "put away"):
                    self.take(reader, self.open_shown(reader, "new", name), [(0, READ_BYTES)], "close")
                if past == "put away":
                    self.play(Op(reader, "shelve", (name, "new", ""), sftp.REMOVE, (f"/new/{name}",)))

    @rule(data=st.data(), session=sessions, end=st.sampled_from(["close", "close", "close", "rename", "wait", "lose"]))
    def upload(self, data: st.DataObject, session: str, end: str) -> None:
        """A file, whole, under its own name or a temporary one, and perhaps its RENAME; or left unfinished."""
        path, office = self.draw_path(data, session), self.client(session).office
        held = self.worlds[0].held(office, self.routes[office].get(final_path(path)))
        choice = CONTENTS if held is None else (held.data, held.data, held.data + b" more", held.data[:-1], *CONTENTS)
        mode = data.draw(st.sampled_from(["afresh", "on", "append"]))
        self.send(session, path, data.draw(st.sampled_from(choice)), end, mode)

    @precondition(lambda self: self.worlds[0].partials)
    @rule(data=st.data(), mode=st.sampled_from(["on", "append"]), end=st.sampled_from(["close", "rename", "lose"]))
    def go_on(self, data: st.DataObject, mode: str, end: str) -> None:
        """An upload that waits, taken up again."""
        office, path = data.draw(st.sampled_from(sorted(self.worlds[0].partials)))
        session = "ab"[self.offices.index(office)] + data.draw(st.sampled_from("12"))
        there = self.worlds[0].partials[office, path].data
        self.send(session, path, there + b" more of it", end, mode)

    def send(self, session: str, path: str, content: bytes, end: str, mode: str = "afresh") -> None:
        """Upload *content* in two pieces or so, or what is missing of it behind what waits."""
        label = self.next_label()
        self.play(open_op(session, label, path, mode))
        handle = self.clients[session].handles.get(label)
        if handle is None:
            return
        begun = len(self.worlds[0].writing(session, label).data)
        size = 8 if len(content) < 100 else 200_000
        for offset in range(begun, len(content), size):
            told = offset - begun if mode == "append" else offset
            self.play(write_op(session, label, handle, told, content[offset : offset + size]))
        if end == "lose":
            self.leave(session, "abort")
        elif end != "wait":
            self.play(close_op(session, "close", label, handle))
        if end == "rename" and path != final_path(path):
            fields = (f"/send/{path}", f"/send/{final_path(path)}")
            self.play(Op(session, "rename", (path, final_path(path)), sftp.RENAME, fields))
        if end != "lose":
            # Programs look whether it is there.
            self.play(Op(session, "stat", (path,), sftp.STAT, (f"/send/{path}",)))

    @precondition(lambda self: any(self.readers()))
    @rule(data=st.data(), end=st.sampled_from(["close", "close", "close", "wait", "lose"]))
    def fetch(self, data: st.DataObject, end: str) -> None:
        """A file from one of the shelves, whole or nearly so."""
        session = data.draw(st.sampled_from(self.readers()))
        op = self.make_open_to_read(data, session)
        file = self.shown(self.client(session).office)[op.arguments[1]]
        size, served = len(file.data), file.served
        whole = [(0, READ_BYTES), (READ_BYTES, READ_BYTES)]
        rest = [((~served & served + 1).bit_length() - 1, READ_BYTES)]
        nearly = [[(0, size - 1)], [(1, size)], [(0, 1), (2, size)], [(0, 3)], [(size - 1, 1)]]
        self.take(session, op, data.draw(st.sampled_from([whole, whole, rest, rest, *nearly])), end)

    def open_shown(self, session: str, shelf: str, name: str) -> Op:
        """OPEN for reading."""
        fields = (f"/{shelf}/{name}", sftp.READING, ATTRIBUTES)
        return Op(session, "open_to_read", (self.next_label(), name, shelf), sftp.OPEN, fields)

    def take(self, session: str, op: Op, parts: list[tuple[int, int]], end: str) -> None:
        """Read parts of a file."""
        self.play(op)
        label = op.arguments[0]
        handle = self.clients[session].handles.get(label)
        if handle is None:
            return
        for offset, length in parts:
            self.play(read_op(session, label, handle, offset, min(length, READ_BYTES)))
        if end == "lose":
            self.leave(session, "abort")
        elif end == "close":
            self.play(close_op(session, "close_reading", label, handle))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), how=st.sampled_from(["channel", "close", "abort", "reset"]), count=st.integers(0, 2))
    def lose_a_connection(self, data: st.DataObject, how: str, count: int) -> None:
        """A session ends behind requests that nobody waits for."""
        session = data.draw(st.sampled_from(sorted(self.clients)))
        drawn = [self.draw_op(data, session) for _ in range(count)]
        # What an OPEN opened would have no name in the model; two that follow from each other were drawn as if not.
        ops = [op for op in drawn if not op.verb.startswith(("open", "close"))]
        self.leave(session, how, *ops)

    # --- what must be seen ----------------------------------------------------------------------------------------

    @invariant()
    def every_directory_is_what_the_model_says(self) -> None:
        """Listings of both offices, looked at from sessions that do nothing else."""
        for office in self.offices:
            self.see(office)

    def see(self, office: str) -> None:
        """Look at every directory of an office, and keep the worlds that show the same."""
        other = next(each for each in self.offices if each != office)
        paths = ["send", f"send/{other}", "recall", *SHELVES]
        found = self.stage.run(list_all(self.lookers[office].raw, paths))
        for world in self.worlds:
            bind(world, office, {*found["receive"], *found["done"]})
        fits = [world for world in self.worlds if told(world, office, other) == sort(found)]
        assert fits, f"{office} sees {sort(found)}, but the model says {[told(w, office, other) for w in self.worlds]}"
        self.worlds = without_doubles(fits)

    def collect_all(self) -> None:
        """Read every file on both offices' shelves, and compare its bytes."""
        for office in self.offices:
            looker = self.lookers[office]
            shelves = self.stage.run(list_all(looker.raw, ["receive", "done"]))
            for shelf, names in shelves.items():
                for name in names:
                    data = self.stage.run(looker.raw.get(f"/{shelf}/{name}"))
                    for world in self.worlds:
                        file = next(
                            each
                            for each in world.files
                            if each.route.recipient == office and each.shown == name and each.is_there
                        )
                        assert file.data == data
                        file.state = COLLECTED

    def compare_status(self) -> None:
        """Both offices' status files and the ledger tell of each transfer what the model says."""
        everything = sorted(self.stage.house.transfers(), key=lambda each: each.id)
        kept = [
            (each.sender, each.recipient, each.name, each.size_bytes, str(each.state), each.is_removed)
            for each in everything
            if each.sender in self.offices
        ]
        sides: dict[str, tuple[str, Callable[[Any], str]]] = {
            "sent": ("recipient", lambda each: each.sender),
            "received": ("sender", lambda each: each.route.recipient),
        }
        tables = {
            (office, side): json.loads(self.stage.run(self.lookers[office].raw.get(f"/status/{side}.json")))[side]
            for office in self.offices
            for side in sides
        }
        worlds = [world for world in self.worlds if facts(world) == kept and self.status_fits(world, tables)]
        assert worlds, f"the ledger says {kept}, but the model says {[facts(world) for world in self.worlds]}"

    def status_fits(self, world: World, tables: dict[tuple[str, str], Any]) -> bool:
        """True where what both offices read of transfers in ``status/`` is what the model says."""
        for (office, side), table in tables.items():
            rows = sorted(table, key=lambda row: row["number"])
            mine = [each for each in world.files if office == (each.sender if side == "sent" else each.route.recipient)]
            if [(row["size_bytes"], row["state"]) for row in rows] != [(len(each.data), each.state) for each in mine]:
                return False
        return True


def fit(world: World, op: Op, answer: Answer) -> Answer:
    """Play a request in a world; where the design leaves the relay a choice, it is *answer* that was chosen."""
    handles = world.sessions[op.session].handles
    reading = handles.get(op.arguments[0]) if op.verb == "read" else None
    said = op.play(world)
    # What was on its way out of the store when its sender took it back may still arrive: it counts for nothing.
    is_ended = isinstance(reading, Reading) and not reading.file.is_there
    return answer if is_ended and answer in (said, f"transfer.{reading.file.state}") else said  # type: ignore[union-attr]


def bind(world: World, office: str, names: set[str]) -> None:
    """Tell the model under which names its recipient sees what is delivered with sender and time in front."""
    free = names - {each.shown for each in world.files if each.route.recipient == office and each.is_there}
    for file in world.files:
        if file.route.recipient == office and file.is_there and file.shown is None:
            form = re.compile(rf"{file.sender}_[0-9]{{14}}_{re.escape(file.route.name)}")
            fitting = sorted(name for name in free if form.fullmatch(name))
            if fitting:
                file.shown = fitting[0]
                free.remove(file.shown)


def told(world: World, office: str, other: str) -> dict[str, list[str]]:
    """Return the directories that a world shows."""
    shelves = {shelf: [name or "?" for name in world.shelf(office, shelf)] for shelf in SHELVES}
    sent = {"send": [*world.send(office)], f"send/{other}": [*world.send(office, other)]}
    return sort({**sent, "recall": [*world.recalled(office)], **shelves})


def sort(directories: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return directories whose order does not matter."""
    return {path: sorted(names) for path, names in sorted(directories.items())}


def facts(world: World) -> list[tuple[str, str, str, int, str, bool]]:
    """Return what the ledger should hold of a world's transfers, in the order of their acceptance."""
    return [
        (each.sender, each.route.recipient, each.route.name, len(each.data), each.state, each.is_done)
        for each in world.files
    ]


def without_doubles(worlds: list[World]) -> list[World]:
    """Return worlds of which no two are the same."""
    kept: list[World] = []
    for world in worlds:
        if world not in kept:
            kept.append(world)
    return kept


@pytest.fixture
def stage(make_house: MakeHouse) -> Iterator[Stage]:
    """Return where the machine plays."""
    Stage.current = Stage(make_house)
    yield Stage.current
    Stage.current.loop.close()


@pytest.mark.timeout(0 if "RELAY_MACHINE_EXAMPLES" in os.environ else 400)
def test_the_tree_is_what_the_model_says_whatever_two_offices_do(stage: Stage) -> None:
    """For any interleaving of uploads, renames, removals, reads and disconnects of two offices, model and ledger agree."""
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        # Thirty steps are read in less time than it takes to play them shorter again and again.
        phases=(Phase.reuse, Phase.generate) if SHRINKS == "no" else tuple(Phase),
    )
    run_state_machine_as_test(TreeMachine, settings=chosen)
