"""A server is watched: metrics, health and readiness, on this machine alone and without a name in them."""

from __future__ import annotations

import json
import re
import stat

import pytest
from house import (
    CARE_MANAGER,
    HOME_HELP,
    OFFICES,
    PATIENCE_SECONDS,
    House,
    MakeHouse,
    general_name,
    pdf,
    plan_csv,
    plan_name,
)
from watching import ask, dial_port, dial_socket, read_metrics

from relay.configfile import load_config
from relay.errors import ConfigError


async def test_every_step_of_a_file_is_measured_and_no_office_is_named(house: House) -> None:
    """After one file was sent, listed, read and another refused, each meter has moved, and no label names an office."""
    name, bad = plan_name(), general_name().replace("REPORT_", "")
    async with house.connect(CARE_MANAGER) as sender, sender.sftp.open(f"send/{name}", "wb") as file:
        await file.write(plan_csv())
    async with house.connect(CARE_MANAGER) as sender:
        with pytest.raises(Exception, match="name"):
            await sender.sftp.open(f"send/{bad}", "wb")
    async with house.connect(HOME_HELP) as recipient:
        assert name in await recipient.sftp.listdir("new")
        async with recipient.sftp.open(f"new/{name}", "rb") as file:
            await file.read()
    stranger = house.certificate(HOME_HELP, is_known=False)
    with pytest.raises(Exception, match=r"denied|closed|lost"):
        async with house.dial(HOME_HELP, pass_=stranger):
            pass
    metrics = read_metrics(house)
    for meter in ("accept_seconds", "first_visible_seconds", "collection_age_seconds"):
        assert metrics[f"relay_{meter}_count", ()] == 1, meter
        assert metrics[f"relay_{meter}_bucket", (("le", "+Inf"),)] == 1, meter
    assert metrics["relay_commit_seconds_count", ()] >= 2
    assert metrics["relay_logins_total", ()] == 3
    assert metrics["relay_logins_rejected_total", (("reason", "unknown_serial"),)] >= 1
    assert sum(value for (meter, _), value in metrics.items() if meter == "relay_refusals_total") == 1
    assert metrics["relay_received_bytes_total", ()] > len(plan_csv())
    assert metrics["relay_sent_bytes_total", ()] > len(plan_csv())
    text = " ".join(f"{sample} {labels}" for sample, labels in metrics)
    assert not [office for office in OFFICES if office in text]
    assert not re.search(r"\d{10}", text)


async def test_limits_sessions_and_handles_are_told_as_they_are(make_house: MakeHouse) -> None:
    """A session with a listing open shows as a session and a handle, and a limit that it meets is counted by its setting."""
    house = make_house(limits={"handles_per_session": 1})
    house.start()
    async with house.connect() as caller:
        await caller.sftp.realpath(".")
        async with caller.sftp.open("README.txt", "rb"):
            with pytest.raises(Exception, match=r"limit\.handles"):
                await caller.sftp.open("README.txt", "rb")
            metrics = read_metrics(house)
            state = json.loads(ask(dial_socket(house), "/state")[1])
    assert (metrics["relay_sessions", ()], metrics["relay_handles", ()]) == (1, 1)
    assert metrics["relay_limits_reached_total", (("limit", "handles_per_session"),)] == 1
    assert [(each["office"], each["sessions"], each["handles"]) for each in state["present"]] == [(CARE_MANAGER, 1, 1)]


async def test_what_waits_is_counted_by_age(make_house: MakeHouse) -> None:
    """A server that starts over two files that nobody has collected says that two wait, both young."""
    house = make_house()
    house.start()
    async with house.connect(CARE_MANAGER) as sender:
        for number in range(2):
            async with sender.sftp.open(f"send/{general_name(number=number)}", "wb") as file:
                await file.write(pdf())
    house.restart()
    house.wait_for(lambda: read_metrics(house)["relay_looked_at_seconds", ()], "a look at what waits")
    metrics = read_metrics(house)
    ages = {labels: value for (meter, labels), value in metrics.items() if meter == "relay_waiting_transfers"}
    assert sum(ages.values()) == 2
    assert ages[("age", "5m"),] == 2 or ages[("age", "1h"),] == 2
    assert metrics["relay_store_bytes", ()] > 0
    assert metrics["relay_store_free_bytes", ()] > 0


def test_the_port_answers_what_it_knows_and_nothing_else(make_house: MakeHouse) -> None:
    """The port tells metrics, health and readiness; it hides who is here, takes no POST, and hangs up on noise."""
    house = make_house(metrics={"port": 0})
    house.start()
    assert ask(dial_port(house), "/metrics")[0] == 200
    assert ask(dial_port(house), "/healthz")[0] == 200
    assert ask(dial_port(house), "/readyz") == (200, "ready\n")
    assert ask(dial_port(house), "/state")[0] == 404
    assert ask(dial_port(house), b"POST /metrics HTTP/1.1\r\n\r\n")[0] == 405
    assert ask(dial_port(house), b"SSH-2.0-nobody\r\n\r\n")[0] == 400
    with dial_port(house) as noisy:
        noisy.sendall(b"x" * 20_000)
        assert not _read_to_end(noisy)
    with dial_port(house) as silent:
        assert not _read_to_end(silent)
    assert ask(dial_port(house), "/readyz")[0] == 200


def _read_to_end(caller: object) -> bytes:
    caller.settimeout(PATIENCE_SECONDS)  # type: ignore[attr-defined]
    try:
        return caller.recv(10)  # type: ignore[attr-defined, no-any-return]
    except ConnectionResetError:
        return b""


def test_callers_who_keep_silent_cannot_keep_others_out_for_long(make_house: MakeHouse) -> None:
    """Sixteen silent callers fill the places; they are hung up on, and the next one is answered."""
    house = make_house(metrics={"port": 0})
    house.start()
    crowd = [dial_port(house) for _ in range(16)]
    for silent in crowd:
        assert not _read_to_end(silent)
        silent.close()
    assert ask(dial_port(house), "/healthz")[0] == 200


def test_a_relay_whose_keys_are_gone_is_alive_and_not_ready(house: House) -> None:
    """Without its master key the server still answers /healthz, and /readyz says in words that the keys cannot be used."""
    assert ask(dial_socket(house), "/readyz")[0] == 200
    keys = house.path / "keys"
    hidden = keys.rename(house.path / "keys-hidden")
    try:
        status, text = house.wait_for(
            lambda: answer if (answer := ask(dial_socket(house), "/readyz"))[0] == 503 else None, "not ready"
        )
        assert ask(dial_socket(house), "/healthz")[0] == 200
    finally:
        hidden.rename(keys)
    assert (status, "keys cannot be used" in text) == (503, True)


def test_the_socket_is_the_relays_own_and_goes_with_it(house: House) -> None:
    """Nobody but the relay's user can open the socket beside the store, and it is gone when the server has ended."""
    path = house.config.store.path.with_name("relay.db.watch")
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    house.stop()
    assert not path.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "relay.example.jp"])
def test_an_address_of_a_network_is_refused_for_metrics_in_words(make_house: MakeHouse, host: str) -> None:
    """Metrics have no password: any address but this machine's own is a fault of the configuration that says so."""
    with pytest.raises(ConfigError, match="this machine alone"):
        load_config(make_house().path, {"RELAY_METRICS__HOST": host})
