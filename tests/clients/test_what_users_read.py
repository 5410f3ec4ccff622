"""What staff read when a name is refused, for every fault of it.

What each program shows around the sentence is in `what_users_read.txt`, for `test_matrix.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from house import (
    CARE_MANAGER,
    DAY_CARE,
    HOME_HELP,
    SUSPENDED,
    UNREGISTERED,
    House,
    general_name,
    plan_csv,
    plan_name,
)
from programs import Paramiko, Program, Psftp, Sftp, need

NO_MONTH = f"UPPLAN_{CARE_MANAGER}_{HOME_HELP}_20260622080000.CSV"
REFUSED = {
    plan_name(recipient=UNREGISTERED): (
        "route.recipient_unknown: 宛先の事業所 0178503736 は登録されていません"
        " / recipient office 0178503736 is not registered here"
    ),
    plan_name(recipient=SUSPENDED): (
        "route.recipient_suspended: 宛先の事業所 0178536215 は現在、受信を停止しています"
        " / recipient office 0178536215 is suspended at present"
    ),
    plan_name(sender=HOME_HELP, recipient=DAY_CARE): (
        "name.sender_mismatch: ファイル名の送信元 0178529384 は、接続中の事業所 0178515854 ではありません"
        " / the name says sender 0178529384, but office 0178515854 is connected"
    ),
    plan_name(sender=CARE_MANAGER, recipient=CARE_MANAGER): (
        "name.same_office: 送信元と宛先が同じ事業所 0178515854 です"
        " / sender and recipient are the same office 0178515854"
    ),
    "見積書.csv": (
        "name.malformed: ファイル名が決まりの形ではありません（宛先の事業所番号が名前にありません）"
        " / the file name follows no known rule (the name says no recipient)"
    ),
    NO_MONTH: (
        "name.malformed: ファイル名が決まりの形ではありません（年月がありません）"
        " / the file name follows no known rule (the month is missing)"
    ),
    f"{DAY_CARE}/{plan_name()}": (
        "route.folder_mismatch: フォルダーは 0178512687、ファイル名の宛先は 0178529384 で、一致しません"
        " / the folder says 0178512687, the name says 0178529384"
    ),
    general_name("exe"): (
        "name.malformed: ファイル名が決まりの形ではありません（最後が .exe のファイルは送れません）"
        " / the file name follows no known rule (the extension .exe is not allowed)"
    ),
    "a:b.csv": (
        "name.illegal: このファイル名は使えません（記号「:」は使えません） / the file name cannot be used (: is not allowed)"
    ),
}


@pytest.fixture
def slip(tmp_path: Path) -> Path:
    """Return a good use slip on the disk of an office."""
    file = tmp_path / "slip.csv"
    file.write_bytes(plan_csv())
    return file


@pytest.mark.parametrize("program", [Sftp(), Psftp(), Paramiko()], ids=lambda program: program.name)
def test_every_wrong_name_is_refused_in_both_languages_and_kept(program: Program, house: House, slip: Path) -> None:
    """Each fault of a name has its sentence, Japanese first; nothing is relayed, and each refusal is on record."""
    need(*program.needs)
    for name, sentence in REFUSED.items():
        said = program.put(house, CARE_MANAGER, slip, f"send/{name}")
        assert not said.is_done, name
        assert sentence in said.text
    assert house.transfers() == []
    codes = sorted(refusal.finding.code for refusal in house.refusals())
    assert codes == sorted(sentence.partition(":")[0] for sentence in REFUSED.values())


def test_upload_beside_send_tells_where_files_belong(house: House, slip: Path) -> None:
    """Who forgets to change into send/ reads where to put the file."""
    need("sftp")
    name = plan_name()
    for target in (name, f"receive/{name}", f"new/{name}", f"done/{name}", f"status/{name}", f"nosuch/{name}"):
        done = house.sftp(CARE_MANAGER, f'put "{slip}" {target}')
        assert done.returncode == 1
        assert "送るファイルは send/ に入れてください / nothing can be written here; upload into send/" in done.stderr
