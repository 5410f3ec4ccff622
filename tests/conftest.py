"""What every floor of the tests shares: a relay that is prepared once and copied for each test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import House, MakeHouse, prepare_home
from hypothesis import settings
from matrix_cells import show_matrix

# A shell that starts the tests in the background lets them ignore Ctrl-C, and every program that they start would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No example is too slow on a busy machine.  By hand every run tries new ones; the same commit is judged by the same.
settings.register_profile("relay", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("relay")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End with the table of programs and deeds."""
    show_matrix(terminalreporter)


MakeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> MakeOnce:
    """Return how to make a folder once for all workers of this run: ``make_once("name", make)``."""
    base = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each worker a folder below the run's.
    shared = base.parent if hasattr(request.config, "workerinput") else base

    def make_folder(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                draft = shared / f"{name}.draft"
                make(draft)
                draft.rename(folder)
        return folder

    return make_folder


@pytest.fixture(scope="session")
def prepared_home(make_once: MakeOnce) -> Path:
    """Return a home that nobody serves, made once for all workers of this run."""
    return make_once("prepared-home", prepare_home)


@pytest.fixture
def make_house(prepared_home: Path, tmp_path: Path) -> Iterator[MakeHouse]:
    """Return how to make a house with settings of one's own: ``make_house(limits={"upload_bytes": 5})``, not started."""
    with contextlib.ExitStack() as stack:

        def make(**settings: dict[str, object]) -> House:
            house = House.copy(prepared_home, tmp_path / f"house-{len(made)}", settings)
            made.append(house)
            stack.callback(house.close)
            return house

        made: list[House] = []
        yield make


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    """Return a relay that serves."""
    started = make_house()
    started.start()
    return started
