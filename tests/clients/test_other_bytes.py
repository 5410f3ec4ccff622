"""Other bytes under a name that is taken, written by a library that does not wait for the answers to its WRITEs.

What each program's user reads and what stays is in `test_matrix.py`.
"""

from __future__ import annotations

from pathlib import Path

from house import CARE_MANAGER, HOME_HELP, House, general_name
from programs import Said

from relay.lifecycle import State

NAME = general_name("txt")
# No multiple of a WRITE's length, which would look cut off.
LENGTH = 600_007
GOOD = bytes(32 + n * n % 91 for n in range(1, LENGTH + 1))
OTHERS = {
    "same size, another end": GOOD[:-1] + b"#",
    "another size and beginning": b"#" + GOOD[1:-1000],
}
SENTENCE = "transfer.conflict: 同じ名前で内容の違うファイルを、"


def put_pipelined(house: House, file: Path) -> Said:
    """Upload as many scripts with paramiko do: all WRITEs at once, and a look at the end."""
    with house.paramiko(CARE_MANAGER) as client:
        try:
            with client.open(f"send/{NAME}", "wb") as remote:
                remote.set_pipelined(True)
                remote.write(file.read_bytes())
            client.stat(f"send/{NAME}")
        except OSError as error:
            return Said(is_done=False, text=str(error))
    return Said(is_done=True, text="")


def test_the_good_file_stays_and_the_user_is_told(house: House, tmp_path: Path) -> None:
    """Same size or another one: the program fails, its user reads why, and the recipient gets the first file."""
    file = tmp_path / "file.txt"
    file.write_bytes(GOOD)
    for _ in range(2):
        assert put_pipelined(house, file).is_done, "the same bytes once more are no conflict"
    for what, content in OTHERS.items():
        file.write_bytes(content)
        said = put_pipelined(house, file)
        assert not said.is_done, what
        assert SENTENCE in said.text, (what, said.text)
    (transfer,) = house.transfers()
    assert transfer.state is State.ACCEPTED
    (refusal,) = house.refusals()
    assert (refusal.finding.code, refusal.count) == ("transfer.conflict", len(OTHERS))
    with house.paramiko(HOME_HELP) as client, client.open(f"new/{NAME}") as received:
        assert received.read() == GOOD
