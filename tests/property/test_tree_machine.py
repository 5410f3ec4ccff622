"""Any sequence of what two offices can do, against a model of the tree, on a real server over real connections.

Hypothesis plays both offices, with two sessions each: it uploads in pieces, resumes, renames, takes back, removes,
reads, loses connections, and sends requests of two sessions before it reads either answer.  Each answer, and after each
step every directory of both offices, must be what `treemodel` says; where two requests were under way at once, what it
says for one of the two orders.  At the end both offices read everything, and status files and ledger agree.

A dozen examples of thirty steps are played in every run, hundreds by hand:

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
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from raw_sftp import Long
from treemodel import COLLECTED, OK, Answer, Reading, Session, World
from treeplay import LARGE, SHELVES, Client, MakeHouse, Op, Requests, Stage, list_all, open_op, plan_routes, write_op

EXAMPLES = int(os.environ.get("RELAY_MACHINE_EXAMPLES", "12"))
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
        self.seen: dict[str, list[str]] = {}
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

    @rule(data=st.data(), session=sessions, content=st.sampled_from(CONTENTS), piece=st.sampled_from([5, 32_000]))
    def upload(self, data: st.DataObject, session: str, content: bytes, piece: int) -> None:
        """A file, whole, under its own name or a temporary one."""
        label, path = self.next_label(), self.draw_path(data, session)
        self.play(open_op(session, label, path, "afresh"))
        handle = self.clients[session].handles.get(label)
        if handle is not None:
            size = piece if len(content) < 100 else 32_000
            for offset in range(0, len(content), size):
                self.play(write_op(session, label, handle, offset, content[offset : offset + size]))
            self.play(Op(session, "close", (label,), sftp.CLOSE, (handle,)))

    @precondition(lambda self: any(self.readers()))
    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        """A file, whole, from one of the shelves."""
        session = data.draw(st.sampled_from(self.readers()))
        op = self.make_open_to_read(data, session)
        self.play(op)
        label = op.arguments[0]
        handle = self.clients[session].handles.get(label)
        if handle is not None:
            for offset in (0, 250_000):
                self.play(Op(session, "read", (label, offset, 250_000), sftp.READ, (handle, Long(offset), 250_000)))
            self.play(Op(session, "close_reading", (label,), sftp.CLOSE, (handle,)))

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
            other = next(each for each in self.offices if each != office)
            paths = ["send", f"send/{other}", "recall", *SHELVES]
            found = self.stage.run(list_all(self.lookers[office].raw, paths))
            for shelf in SHELVES:
                self.seen[f"{office}/{shelf}"] = found[shelf]
            for world in self.worlds:
                bind(world, office, {*found["receive"], *found["done"]})
            fits = [world for world in self.worlds if (office, told(world, office, other)) == (office, sort(found))]
            assert fits, (
                f"{office} sees {sort(found)}, but the model says {[told(w, office, other) for w in self.worlds]}"
            )
            self.worlds = without_doubles(fits)

    def collect_all(self) -> None:
        """Read every file on both offices' shelves, and compare its bytes."""
        for office in self.offices:
            looker = self.lookers[office]
            for shelf in ("receive", "done"):
                for name in self.seen.get(f"{office}/{shelf}", []):
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
    if op.verb == "write" and answer == "transfer.conflict" and not world._writing(op.session, op.arguments[0]).failed:
        op.play(world)
        if world.may_conflict(op.session, op.arguments[0]):
            world.fail(op.session, op.arguments[0], "transfer.conflict")
            return answer
        return OK
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
