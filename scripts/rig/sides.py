"""The servers of the bench, prepared: offices, certificates, and what is to be listed."""

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rig.figures import Figure
from rig.inside import issue_logins
from rig.load import FILE_BYTES, LoadError, Login
from rig.machine import tell
from rig.offices import (
    CARE_MANAGER,
    HOME_HELP,
    Office,
    make_office,
    name_slip,
    render_register,
    render_serial,
    render_slip,
)
from rig.proftpd import ProFtpdHome, find_proftpd
from rig.servers import OpenSshHome, RelayHome, RigError
from rig.workloads import WORKLOADS, Amounts, Measure, Numbers, Side, fill

SENDERS = 8
READERS = 16
# As many sessions as one office may have come from one certificate: 32.
SESSIONS_OF_ONE = 32

# What each line of (a) to (e) shows: in which unit, what of it, and the most that it may be to OpenSSH's.
_LINES: Mapping[str, Sequence[tuple[str, str, float | None]]] = {
    "a": (("connect, put 10 KB, disconnect: server CPU", "cpu", 0.22), ("the same: wall time", "wall", None)),
    "b": (("10 KB file, open session: server CPU", "cpu", 1.0), ("the same: wall time", "wall", None)),
    "c put": (("put one large file (PDF): wall time", "wall", 1.5), ("the same: server CPU", "cpu", None)),
    "c get": (("get one large file (PDF): wall time", "wall", 1.0), ("the same: server CPU", "cpu", None)),
    "d": (("memory of an idle session", "memory", 0.03),),
    "e 1,000": (("list 1,000 files: server CPU", "cpu", 1.0),),
    "e 10,000": (("list 10,000 files: server CPU", "cpu", 1.0),),
}
_UNITS: Mapping[str, tuple[str, str, float]] = {
    "cpu": ("ms", "cpu_seconds", 1000.0),
    "wall": ("ms", "wall_seconds", 1000.0),
    "memory": ("KB", "memory_bytes", 1 / 1024),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that a workload may need; *sides* begin with the relay and OpenSSH's server."""

    folder: Path
    home: RelayHome
    sides: Sequence[Side]
    amounts: Amounts

    @property
    def relay(self) -> Side:
        """The relay."""
        return self.sides[0]

    @property
    def openssh(self) -> Side:
        """OpenSSH's own server."""
        return self.sides[1]

    @property
    def whole(self) -> Side:
        """The relay as it runs for offices: a worker for each processor."""
        return self.with_workers(os.cpu_count() or 1)

    def with_workers(self, workers: int) -> Side:
        """The relay as it is served by so many workers."""
        return replace(self.relay, start=partial(self.home.serve, workers=workers))


def make_relay(folder: Path, home: RelayHome, listed: Sequence[int]) -> tuple[Side, list[Login]]:
    """Initialise a relay with the offices of the bench; returns also the logins of all of them."""
    offices = _make_offices(len(listed))
    register = folder / "offices.csv"
    register.write_text(render_register(offices), encoding="utf-8")
    home.initialise(register)
    logins = issue_logins(home.home, [office.number for office in offices], home.clients / "keys")
    senders, readers, listing = logins[:SENDERS], logins[SENDERS : SENDERS + READERS], logins[SENDERS + READERS :]
    folders = {files: (login, "receive") for files, login in zip(listed, listing, strict=True)}
    side = Side(
        "relay", home.serve, senders, readers[0], folders, Numbers(), home.known_hosts, folder, readers[1:], "new"
    )
    return side, logins


def _make_offices(listed: int) -> list[Office]:
    senders = [make_office(2000 + n, f"ケアプランみほん野{n}", CARE_MANAGER) for n in range(SENDERS)]
    readers = [make_office(3000 + n, f"ヘルパーみほん野{n}", HOME_HELP) for n in range(READERS + listed)]
    return [*senders, *readers]


def prepare(folder: Path, amounts: Amounts, *, listings: bool) -> Bench:
    """Make the relay, OpenSSH's server and, where it is installed, ProFTPD's, with the same clients for each."""
    tell("preparing the servers")
    home = RelayHome(folder / "relay")
    relay, logins = make_relay(folder, home, amounts.listed)
    sshd = OpenSshHome(folder / "openssh", home.home / "keys", [login.office for login in logins])
    sides = [relay, _beside(relay, "OpenSSH", sshd, folder)]
    if find_proftpd():
        proftpd = ProFtpdHome(folder / "proftpd", [Path(f"{login.key}.pub") for login in logins])
        sides.append(_beside(relay, "ProFTPD", proftpd, folder, is_bare=True))
    else:
        tell(
            "ProFTPD's mod_sftp is not installed (Debian: proftpd-core and proftpd-mod-crypto): the bench goes on without"
        )
    if listings:
        tell("uploading what is going to be listed")
        for files, (reader, _) in relay.folders.items():
            fill(relay, reader, files)
            for home_beside in (sshd.files, *([proftpd.files] if len(sides) > 2 else [])):  # noqa: PLR2004 - the third
                _fill_directory(home_beside / f"listed-{files}", relay.senders[0].office, reader.office, files)
    return Bench(folder, home, sides, amounts)


def _beside(relay: Side, label: str, home: OpenSshHome | ProFtpdHome, folder: Path, *, is_bare: bool = False) -> Side:
    folders = {files: (login, f"listed-{files}") for files, (login, _) in relay.folders.items()}
    return Side(
        label,
        home.serve,
        relay.senders,
        relay.recipient,
        folders,
        Numbers(),
        relay.known_hosts,
        folder,
        relay.readers,
        "send",
        is_bare,
    )


def _fill_directory(directory: Path, sender: str, reader: str, files: int) -> None:
    directory.mkdir()
    content = render_slip(sender, reader, FILE_BYTES)
    for index in range(files):
        (directory / name_slip(sender, reader, render_serial(index))).write_bytes(content)


def compare(bench: Bench, workload: str) -> tuple[list[Figure], float]:
    """Run one of (a) to (e) on every server in turn; returns its lines, and how busy the load program was at most."""
    found: dict[str, dict[str, list[Measure]]] = {side.label: {} for side in bench.sides}
    for turn in range(bench.amounts.rounds):
        for side in bench.sides:
            if side.label not in found:
                continue
            tell(f"({workload}) {side.label}, {turn + 1} of {bench.amounts.rounds}")
            try:
                for line, measure in WORKLOADS[workload](side, bench.amounts).items():
                    found[side.label].setdefault(line, []).append(measure)
            except (RigError, LoadError) as error:
                # Without the two that targets are about there is nothing to compare.
                if side in bench.sides[:2]:
                    raise
                tell(f"({workload}) {side.label} is left out: {error}")
                del found[side.label]
    ours = found.pop(bench.relay.label)
    busiest = max(
        (each.load_share for seen in (ours, *found.values()) for measures in seen.values() for each in measures),
        default=0.0,
    )
    figures = [
        Figure(
            line,
            text,
            _UNITS[kind][0],
            _value(ours[line], kind),
            {label: _value(seen[line], kind) for label, seen in found.items()},
            target,
        )
        for line in ours
        for text, kind, target in _LINES[line]
    ]
    return figures, busiest


def _value(measures: Sequence[Measure], kind: str) -> float:
    """Take the best times, which a busy neighbour disturbed least, and the median memory."""
    _, field, scale = _UNITS[kind]
    values: list[float] = [getattr(measure, field) for measure in measures]
    return scale * (statistics.median(values) if kind == "memory" else min(values))
