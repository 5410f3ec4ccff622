"""Workload (k): the programs that offices use, near the relay and far from it.

Each puts some slips in one session, and the recipient fetches them; then one larger file.  A cable of `rig.delay` makes the
way long.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rig.delay import delayed
from rig.figures import Figure
from rig.inside import issue_logins
from rig.load import FILE_BYTES, Login
from rig.machine import tell
from rig.offices import name_report, name_slip, render_report, render_serial, render_slip
from rig.programs import Call, find_fingerprints, installed_programs, run_program
from rig.servers import RigError, Running
from rig.sides import Bench
from rig.workloads import FULL, Side, warm_up

_WAYS_MS = (0, 10, 50)
_SLIPS, _SLIPS_QUICK = 20, 5
_LARGE_BYTES, _LARGE_BYTES_QUICK = 8 * 1024 * 1024 + 7, 1024 * 1024 + 7


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Files that lie ready, and where they go."""

    sender: Login
    reader: Login
    files: Sequence[Path]


def measure_round_trips(bench: Bench) -> tuple[list[Figure], float]:
    """Run every program that is installed over every way, on the relay and on OpenSSH's server."""
    is_full = bench.amounts == FULL
    slips, large = (_SLIPS, _LARGE_BYTES) if is_full else (_SLIPS_QUICK, _LARGE_BYTES_QUICK)
    works = {f"{slips} slips": (slips, 0), f"{large / 2**20:.0f} MB": (1, large)}
    found: dict[tuple[str, int, str], dict[str, float]] = {}
    for side in _with_keys_for_all(bench):
        with side.start() as server:
            warm_up(side, server)
            fingerprints = find_fingerprints(server.port)
            for way in _WAYS_MS if is_full else (_WAYS_MS[0], _WAYS_MS[-1]):
                with delayed(server.port, way / 1000) as port:
                    for name in installed_programs():
                        tell(f"(k) {name}, {side.label}, {way} ms")
                        for work, (count, size) in works.items():
                            parcel = _make_parcel(side, count, size)
                            try:
                                took = _carry(name, side, server, port, parcel, fingerprints)
                            except RigError as error:
                                tell(f"(k) left out: {error}")
                                continue
                            found.setdefault((name, way, work), {})[side.label] = took
    return [
        Figure(
            "k", f"{name}, {way} ms away: {work} put, then fetched", "s", walls["relay"], {"OpenSSH": walls["OpenSSH"]}
        )
        for (name, way, work), walls in found.items()
        if len(walls) == 2  # noqa: PLR2004 - both servers
    ], 0.0


def _with_keys_for_all(bench: Bench) -> list[Side]:
    """Return both servers with clients whose keys every one of the programs can use: curl's library knows no ed25519."""
    numbers = [bench.relay.senders[0].office, bench.relay.readers[0].office]
    folder = bench.home.clients / "programs"
    sender, reader = issue_logins(bench.home.home, numbers, folder, algorithm="ecdsa-sha2-nistp256")
    return [replace(side, senders=[sender], readers=[reader]) for side in (bench.relay, bench.openssh)]


def _make_parcel(side: Side, count: int, large_bytes: int) -> _Parcel:
    first = side.numbers.take(count)
    sender, reader = side.senders[0], side.readers[0]
    folder = side.scratch / "parcel"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = []
    for index in range(first, first + count):
        give_name = name_report if large_bytes else name_slip
        files.append(folder / give_name(sender.office, reader.office, render_serial(index)))
        slip = render_report(large_bytes) if large_bytes else render_slip(sender.office, reader.office, FILE_BYTES)
        files[-1].write_bytes(slip)
    return _Parcel(sender, reader, files)


def _carry(name: str, side: Side, server: Running, port: int, parcel: _Parcel, fingerprints: Sequence[str]) -> float:
    out = side.scratch / "fetched"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    sender, reader = parcel.sender, parcel.reader
    started = time.perf_counter()
    run_program(name, Call(port, server.user or sender.office, sender, parcel.files, fingerprints))
    run_program(
        name, Call(port, server.user or reader.office, reader, parcel.files, fingerprints, source=side.new, out=out)
    )
    return time.perf_counter() - started
