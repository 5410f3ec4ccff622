"""What the scripts that measure reckon with: figures and verdicts, the country's offices, its busiest hour, the long cable."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from relay.model import OfficeNumber
from relay.standard.offices import has_check_digit, parse_office_number

# The scripts are no package that is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from relay.cli.register_file import parse_register
from relay.configfile import load_config
from rig.country import find_partners, make_country, read_prefectures, render_country
from rig.delay import delayed
from rig.figures import Figure, percentile, read_figures, write_markdown
from rig.peakhour import country_rates
from rig.published import BEGIN, END, README, Run, add_run, show_in_readme, write_runs
from rig.sides import SESSIONS_OF_ONE


@pytest.mark.parametrize(
    ("ours", "theirs", "target", "is_floor", "verdict"),
    [
        (2.0, 4.0, 0.5, False, "met"),
        (2.1, 4.0, 0.5, False, "missed"),
        (3.4, 4.0, 0.85, True, "met"),
        (3.3, 4.0, 0.85, True, "missed"),
        (20.0, None, 20.0, False, "met"),
        (21.0, None, 20.0, False, "missed"),
        (2.0, 4.0, None, False, ""),
    ],
)
def test_a_target_is_met_or_missed(
    ours: float, theirs: float | None, target: float | None, *, is_floor: bool, verdict: str
) -> None:
    """The ratio is judged where there is somebody beside us, else the figure itself."""
    others = {} if theirs is None else {"theirs": theirs}
    assert Figure("x", "work", "ms", ours, others, target, is_floor=is_floor).verdict == verdict


def test_a_ratio_is_to_the_first_of_theirs_and_all_stand_in_the_table() -> None:
    """Every line says workload, ours, theirs, ratio, target, and what came of it."""
    figure = Figure("a", "login", "ms", 3.0, {"OpenSSH": 12.0, "ProFTPD": 6.0}, 0.22)
    assert write_markdown([figure]).splitlines()[-1] == (
        "| (a) | login | 3.00 ms | OpenSSH 12.00, ProFTPD 6.00 | 0.25 | ≤ 0.22 | missed |"
    )


def test_readme_has_a_place_for_the_figures_that_have_a_target() -> None:
    """What was between the marks gives way to what was measured, and everything around them stays."""
    text = README.read_text(encoding="utf-8")
    judged, other = Figure("a", "login", "ms", 3.0, {"OpenSSH": 12.0}, 0.3), Figure("k", "sftp", "s", 1.0)
    shown = show_in_readme(text, [judged, other], ["`./scripts/bench --publish` on this machine."])
    assert "| (a) | login |" in shown
    assert "| (k) |" not in shown
    assert shown.partition(BEGIN)[0] == text.partition(BEGIN)[0]
    assert shown.partition(END)[2] == text.partition(END)[2]


def test_a_run_of_some_workloads_leaves_the_figures_of_the_others() -> None:
    """What was measured anew is published once, the rest with the command and the day that it is of."""
    first = Run(
        "`all` on Monday.", [Figure("a", "login", "ms", 3.0), Figure("e 1,000", "list", "ms", 9.0, {}, 10.0)], {}
    )
    second = Run("`some` on Friday.", [Figure("a", "login", "ms", 2.0, {"OpenSSH": 12.0}, 0.3, is_floor=True)], {})
    runs = add_run([first], second)
    assert [run.describe() for run in runs] == ["(e): `all` on Monday.", "(a): `some` on Friday."]
    page, raw = write_runs(runs)
    assert "3.00 ms" not in page
    told = json.loads(raw)["runs"]
    assert [read_figures(run["figures"]) for run in told] == [run.figures for run in runs]
    assert add_run(runs, first)[0].figures == first.figures


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The 99th of a hundred values is the second largest, whatever their order."""
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50.0, 99.0, 99.9, 100.0)] == [50.0, 99.0, 100.0, 100.0]
    assert percentile([7.0], 99.9) == 7.0


def test_the_country_has_as_many_offices_in_each_prefecture_as_the_published_table() -> None:
    """All 181,566 have numbers of their own, and a fifth of them are care managers."""
    country = make_country()
    assert len(country) == len({party.number for party in country}) == 181_566
    for prefecture in read_prefectures():
        assert sum(party.prefecture is prefecture for party in country) == prefecture.offices
    assert abs(sum(party.is_manager for party in country) - 36_459) < len(read_prefectures())


def test_a_part_of_the_country_can_be_imported_and_has_partners_in_its_own_prefecture() -> None:
    """Numbers are legal, with their check digit; every care manager knows providers of its neighbourhood."""
    country = make_country(0.01)
    assert not parse_register(render_country(country).encode()).faults
    for party in country:
        assert parse_office_number(party.number) is not None
        assert has_check_digit(OfficeNumber(party.number))
    parties = {party.number: party for party in country}
    for manager, partners in find_partners(country).items():
        assert parties[manager].is_manager
        assert partners
        for partner in partners:
            assert not parties[partner].is_manager
            assert parties[partner].prefecture is parties[manager].prefecture


def test_the_busiest_hour_is_reckoned_as_it_is_written_down() -> None:
    """By hand: 36,459 × 15 × 4 × 0.2 × 0.2 files, and 181,566 × 2.25 polls, in 3,600 seconds."""
    rates = country_rates()
    assert rates.files == pytest.approx(24.306, abs=0.001)
    assert rates.sendings == pytest.approx(4.861, abs=0.001)
    assert rates.polls == pytest.approx(113.479, abs=0.001)
    assert rates.cold_logins == pytest.approx(0.8 * (4.861 + 113.479), abs=0.01)


def test_the_crowd_of_the_bench_stays_within_what_one_certificate_may_open(tmp_path: Path) -> None:
    """No limit is raised for the bench: so many sessions of one office are what any may have."""
    (tmp_path / "relay.toml").touch()
    assert load_config(tmp_path).limits.sessions_per_certificate >= SESSIONS_OF_ONE


def test_what_goes_through_the_long_cable_comes_out_whole_and_in_order() -> None:
    """A megabyte goes up, a half-closed connection goes on listening, and a megabyte comes down."""
    sent = bytes(range(256)) * 4096
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            far, _ = listener.accept()
            with far, far.makefile("rb") as incoming:
                far.sendall(incoming.read()[::-1])

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            delayed(listener.getsockname()[1], 0.02) as port,
            socket.create_connection(("127.0.0.1", port), timeout=60) as near,
        ):
            near.sendall(sent)
            near.shutdown(socket.SHUT_WR)
            with near.makefile("rb") as incoming:
                assert incoming.read() == sent[::-1]
        thread.join()
