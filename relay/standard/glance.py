"""Glance: a small file that is right in everything is known to be so before anything is taken apart.

Slips and results hold one line after the other that differ in nothing but the day and what is done: the rest of a
line, its *frame*, is the same for a person and a provider.  So lines of one length are taken to be of one frame, what
stands between its two parts is cut out of each, and both put together again must be the file.  Then the few frames,
the days and the few things done are judged, each once.

`glance` only ever says that nothing whatsoever is to be found in a file, and who is in it.  None says nothing: the
file is then read as any other.  The time it takes grows with the length of the file, and it remembers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from operator import itemgetter

from relay.model import Address
from relay.standard.characters import is_plain, is_utf8
from relay.standard.items import ANYTHING
from relay.standard.plans import VERSION, Plan, plan_for
from relay.standard.roster import TYPE_CHARACTERS, Roster
from relay.standard.shapes import CLOSED

# Longer files are read as they arrive.
GLANCE_BYTES = 1 << 16
# Where one frame follows another so often, telling them apart costs what it spares.
_MOST_TURNS = 64
# So many lines are taken to be of one frame at once.
_MOST_LINES = 64
_MONTHS_KEPT = 32
_DAYS = range(1, 32)

# The two parts of a frame, the second with its line end, and what stands between them in each of its lines.
_Frames = Mapping[tuple[bytes, bytes], Sequence[bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """How lines of one kind and edition are cut, and what is right in them beyond doubt, quotation marks taken out.

    *line* has the groups: the items before the day, the day, what is done, the rest.  *frame* matches the first and the
    last of them, *done* many of the third with LF between.  *month*, *office* (which results must be of) and *told*
    are the plan's, as places in a frame; what a *service* says, which is a place in what is done, stands behind it.
    """

    plan: Plan
    line: re.Pattern[bytes]
    frame: re.Pattern[bytes]
    day: re.Pattern[bytes]
    done: re.Pattern[bytes]
    month: int
    office: int | None
    service: int | None
    told: tuple[int, ...]


@cache
def outline_for(kind: str, standard: str) -> Outline | None:
    """Return how to cut lines of *kind* in *standard*; None where they hold no day, or are compared with each other."""
    plan = plan_for(kind, standard)
    if plan is None or plan.date is None or plan.month is None or plan.plan_date is not None or plan.line:
        return None
    run = plan.where[plan.date][0]
    start, end = plan.runs[run + 1]
    if plan.service is not None and not start <= plan.service < end:
        return None
    rules = dict(plan.rules)
    values = [rules[place].right_value if place in rules else ANYTHING for place in range(len(plan.items))]
    kept = [place for place in range(len(plan.items)) if not plan.date <= place < end]
    done = b",".join([*values[start:end], b""])
    item = rb"[^,\r\n]*"
    return Outline(
        plan=plan,
        line=re.compile(
            rb"((?:%b,){%d})(%b),((?:%b,){%d})([^\r\n]*\r?\n)" % (item, plan.date, item, item, end - start)
        ),
        frame=re.compile(b",".join([values[place] for place in kept])),
        day=plan.right_runs[run],
        done=re.compile(b"%b(?:\n%b)*" % (done, done)),
        month=kept.index(plan.month),
        office=None if plan.result_office is None else kept.index(plan.result_office),
        service=None if plan.service is None else plan.service - start,
        told=tuple(len(kept) if place == plan.service else kept.index(place) for place in plan.told),
    )


def glance(data: bytes, address: Address, outline: Outline) -> Roster | None:
    """Return who is in *data*, a whole file, if nothing is to be found in it; None where that is not plain to see."""
    month = address.month
    found = _cut(data, outline) if month and outline.plan.version.holds_in(month) else None
    if month is None or found is None:
        return None
    cuts, day_bytes = found
    frames = _undo_frames(cuts)
    between = set().union(*cuts.values())
    done = _undo_done(set(map(itemgetter(slice(day_bytes + 1, None)), between)))
    if frames is None or done is None:
        return None
    days = map(itemgetter(slice(day_bytes + 1)), between)
    is_right = (
        outline.done.fullmatch(done) is not None
        and all(map(outline.frame.fullmatch, frames))
        and _days_of(month, outline).issuperset(days)
        and not is_utf8(data)
        and is_plain(b",".join([*frames, done]))
    )
    return _read(frames, done, address, outline) if is_right else None


def _cut(data: bytes, outline: Outline) -> tuple[_Frames, int] | None:
    """Cut *data* into frames and what is between; return them with the length of every day, None where it is unlike."""
    frames: dict[tuple[bytes, bytes], list[bytes]] = {}
    at, day_bytes, is_alike = 0, 0, True
    for _ in range(_MOST_TURNS):
        match = outline.line.match(data, at)
        if match is None:
            return None
        head, day, _, tail = match.groups()
        (start, end), length = (match.start(2), match.end(3)), match.end() - at
        if is_alike:
            # What stands where lines end that are as long.
            ends = data[at + length - 1 : at + length * _MOST_LINES : length]
            count = len(ends) - len(ends.lstrip(b"\n"))
        else:
            count = _count_alike(data, at, length, (head, tail))
        between = [data[place : place + end - start] for place in range(start, start + count * length, length)]
        if not data.startswith(head + (tail + head).join(between) + tail, at):
            is_alike = False
            continue
        day_bytes = day_bytes or len(day)
        if len(day) != day_bytes:
            return None
        known = frames.setdefault((head, tail), between)
        if known is not between:
            known += between
        at += count * length
        if at == len(data):
            return frames, day_bytes
    return None


def _count_alike(data: bytes, at: int, length: int, frame: tuple[bytes, bytes]) -> int:
    """Return how many lines of this *length* from *at* on are of *frame*; the first is."""
    head, tail = frame
    for count in range(1, _MOST_LINES):
        begin = at + count * length
        if not data.startswith(head, begin) or not data.startswith(tail, begin + length - len(tail)):
            return count
    return _MOST_LINES


def _undo_done(done: Collection[bytes]) -> bytes | None:
    """Return *done* with LF between, without quotation marks; None where one then says the same as another."""
    joined = b"".join(done)
    if b"\n" in joined or b"\r" in joined:
        return None
    if b'"' not in joined:
        return b"\n".join(done)
    # A text with a comma is none that is closed; if one of *done* does not end with a comma, that is not right.
    if not CLOSED.fullmatch(joined):
        return None
    undone = b"\n".join(done).replace(b'"', b"")
    return undone if len(set(undone.split(b"\n"))) == len(done) else None


def _undo_frames(cuts: _Frames) -> Sequence[bytes] | None:
    """Return the frames without quotation marks and line ends; None where two are the same, or two of their lines."""
    if sum(map(len, map(set, cuts.values()))) != sum(map(len, cuts.values())):
        return None
    frames = [(head + tail[:-1]).removesuffix(b"\r") for head, tail in cuts]
    marked = b",".join(frames)
    if b'"' in marked:
        if not CLOSED.fullmatch(marked):
            return None
        frames = [frame.replace(b'"', b"") for frame in frames]
    return frames if len(set(frames)) == len(frames) else None


@lru_cache(_MONTHS_KEPT)
def _days_of(month: str, outline: Outline) -> frozenset[bytes]:
    """Return the days of *month* as they may stand in a line, quoted or not, with the comma behind."""
    days = [f"{month}{day:02}".encode() for day in _DAYS]
    right = [day for day in days if outline.day.fullmatch(day)]
    return frozenset([day + b"," for day in right] + [b'"' + day + b'",' for day in right])


def _read(frames: Sequence[bytes], done: bytes, address: Address, outline: Outline) -> Roster | None:
    """Return who is in a file whose items are right; None where month, version, office or provider are not."""
    plan, month, office = outline.plan, (address.month or "").encode(), (address.sender or "").encode()
    types: set[bytes] = set()
    if outline.service is not None:
        types = {line.split(b",")[outline.service][:TYPE_CHARACTERS] for line in done.split(b"\n")}
        if len(types) > 1:
            return None
    rows = []
    for frame in frames:
        items = frame.split(b",")
        told = items[VERSION], items[outline.month], office if outline.office is None else items[outline.office]
        if told != (plan.version_bytes, month, office):
            return None
        items += types
        rows.append(tuple([items[place] for place in outline.told]))
    if plan.provider is not None:
        recipient = address.recipient.encode()
        served = {row[:2] for row in rows if row[-1] == recipient}
        if not all(row[:2] in served for row in rows):
            return None
    roster = Roster(address.kind)
    roster.note(plan, rows)
    return roster
