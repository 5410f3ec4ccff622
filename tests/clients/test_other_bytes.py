"""Other bytes under a name that is taken: what each program's user reads, what it exits with, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bulk_programs import curl, lftp, rclone
from house import CARE_MANAGER, HOME_HELP, House, general_name
from programs import PROGRAMS, Program, Said, need

from relay.lifecycle import State

NAME = general_name("txt")
# No multiple of a WRITE's length, which would look cut off.
LENGTH = 600_007
GOOD = bytes(32 + n * n % 91 for n in range(1, LENGTH + 1))
OTHERS = {
    "same size, another end": GOOD[:-1] + b"#",
    "another size and beginning": b"#" + GOOD[1:-1000],
}
SENTENCE = "transfer.conflict: 同じ名前で内容の違うファイルを "

Put = Callable[[House, Path], Said]


def _program(program: Program) -> Put:
    return lambda house, file: program.put(house, CARE_MANAGER, file, f"send/{NAME}")


def _pscp(house: House, file: Path) -> Said:
    done = house.pscp(CARE_MANAGER, file, f":send/{NAME}")
    return Said(done.returncode == 0, done.stderr)


def _lftp(house: House, file: Path) -> Said:
    done = lftp(house, f"put -O send {file} -o {NAME}")
    return Said(done.returncode == 0, done.stderr)


def _rclone(house: House, file: Path) -> Said:
    done = rclone(house, "copyto", "--ignore-times", str(file), f"relay:send/{NAME}")
    return Said(done.returncode == 0, done.stderr)


def _curl(house: House, file: Path) -> Said:
    done = curl(house, "-T", str(file), path=f"send/{NAME}")
    return Said(done.returncode == 0, done.stderr)


def _paramiko_pipelined(house: House, file: Path) -> Said:
    with house.paramiko() as client:
        try:
            with client.open(f"send/{NAME}", "wb") as remote:
                remote.set_pipelined(True)
                remote.write(file.read_bytes())
            client.stat(f"send/{NAME}")
        except OSError as error:
            return Said(is_done=False, text=str(error))
    return Said(is_done=True, text="")


PUTS: dict[str, tuple[Put, tuple[str, ...]]] = {
    **{program.name: (_program(program), program.needs) for program in PROGRAMS},
    "paramiko, pipelined": (_paramiko_pipelined, ()),
    "pscp": (_pscp, ("pscp", "puttygen")),
    "lftp": (_lftp, ("lftp",)),
    "rclone": (_rclone, ("rclone",)),
    "curl": (_curl, ("curl",)),
}
# libssh2 drops the text of every status (CLIENTS.md): its user has the note beside the file.
WORDLESS = {"curl"}


@pytest.mark.parametrize("by", PUTS)
def test_the_good_file_stays_and_the_user_is_told(by: str, house: House, tmp_path: Path) -> None:
    """Same size or another one: the program fails, its user reads why, and the recipient gets the first file."""
    put, needs = PUTS[by]
    need(*needs)
    file = tmp_path / "file.txt"
    file.write_bytes(GOOD)
    for _ in range(2):
        assert put(house, file).is_done, "the same bytes once more are no conflict"
    for what, content in OTHERS.items():
        file.write_bytes(content)
        said = put(house, file)
        assert not said.is_done, what
        assert by in WORDLESS or SENTENCE in said.text, (what, said.text)
    (transfer,) = house.transfers()
    assert transfer.state is State.ACCEPTED
    (refusal,) = house.refusals()
    assert (refusal.finding.code, refusal.count) == ("transfer.conflict", len(OTHERS))
    with house.paramiko(HOME_HELP) as client, client.open(f"new/{NAME}") as received:
        assert received.read() == GOOD
