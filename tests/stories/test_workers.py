"""Several processes serve as one: connections spread, the dead are replaced, and what is told is told of all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter

from house import CARE_MANAGER, HOME_HELP, OFFICES, House, MakeHouse, general_name, pdf, plan_csv, plan_name
from watching import ask, dial_socket, read_metrics

WORKERS = 3


def serve(make_house: MakeHouse, **settings: dict[str, object]) -> House:
    """Start a house with three workers."""
    settings["server"] = {"workers": WORKERS, **settings.get("server", {})}
    house = make_house(**settings)
    house.start()
    return house


def read_state(house: House) -> dict[str, list[dict[str, int]]]:
    """Return what `relay top` is told."""
    state: dict[str, list[dict[str, int]]] = json.loads(ask(dial_socket(house), "/state")[1])
    return state


async def test_connections_spread_evenly_over_the_workers(make_house: MakeHouse) -> None:
    """Of thirty connections, one after the other, each of three workers has ten."""
    house = serve(make_house)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(30):
            await stack.enter_async_context(house.dial(OFFICES[number % len(OFFICES)]))
        state = await asyncio.to_thread(read_state, house)
        metrics = await asyncio.to_thread(read_metrics, house)
    assert [each["connections"] for each in state["workers"]] == [10, 10, 10]
    assert {worker.pid for worker in house.workers()} == {each["pid"] for each in state["workers"]}
    for worker in range(WORKERS):
        assert metrics["relay_worker_connections", (("worker", str(worker)),)] == 10
    shown = house.relay("top", "--once").stdout
    assert all(f"{each['worker']} ({each['pid']})" in shown for each in state["workers"]), shown


async def test_what_is_counted_is_the_sum_and_never_goes_back(make_house: MakeHouse) -> None:
    """Logins and files through all workers are told in one number, also after each worker was killed in its turn."""
    house = serve(make_house)
    for number in range(6):
        async with house.connect() as caller, caller.sftp.open(f"send/{general_name(number=number)}", "wb") as file:
            await file.write(pdf())
    before = read_metrics(house)
    assert before["relay_logins_total", ()] == 6
    assert before["relay_transfers_accepted_total", ()] == 6
    assert before["relay_accept_seconds_count", ()] == 6
    assert before["relay_workers", ()] == WORKERS
    for number, worker in enumerate(house.workers()):
        worker.kill()
        house.wait_for(lambda number=number: read_metrics(house)["relay_worker_deaths_total", ()] == number + 1, "a death")
        house.wait_for(lambda: read_metrics(house)["relay_workers", ()] == WORKERS, "another worker")
    after = read_metrics(house)
    falling = [
        key
        for key, value in before.items()
        if key[0].endswith(("_total", "_count", "_bucket", "_sum")) and after[key] < value
    ]
    assert not falling
    assert (after["relay_logins_total", ()], after["relay_transfers_accepted_total", ()]) == (6, 6)
    house.expects_defects = False
