"""The journal: one typed function per event, nothing personal, nothing forged, never in the way."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from relay import journal as events
from relay.errors import Refused
from relay.journal import Journal, configure_journal, new_journal
from relay.model import OfficeNumber, TransferId

OFFICE = OfficeNumber("0178515854")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """A stream that the journal writes to as JSON."""
    stream = io.StringIO()
    configure_journal("json", "info", stream)
    yield stream
    structlog.reset_defaults()


def test_a_line_is_one_json_object_with_event_level_time_and_facts(written: io.StringIO) -> None:
    """A machine reads every line by itself."""
    events.server_listening(new_journal(), host="127.0.0.1", port=2222)
    line = json.loads(written.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "server.listening", "level": "info", "host": "127.0.0.1", "port": 2222}


def test_bound_facts_are_on_every_line_and_only_there(written: io.StringIO) -> None:
    """Binding makes a new journal and leaves the old one as it was."""
    plain = new_journal()
    bound = plain.bind(connection="c3f2").bind(office=OFFICE)
    events.connection_closed(bound, reason="by the client")
    events.connection_closed(plain, reason="by the client")
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert (first["connection"], first["office"]) == ("c3f2", OFFICE)
    assert "connection" not in second


def test_what_a_client_says_cannot_forge_a_line(written: io.StringIO) -> None:
    """Line ends, escape sequences and endless text arrive escaped and shortened."""
    forged = "SSH-2.0-x\r\n\x1b[2J{}\u202e" + "y" * 9_000
    events.login_accepted(new_journal(), office=OFFICE, serial=7, key_id="鍵", client_version=forged)
    (line,) = written.getvalue().splitlines()
    told = json.loads(line)["client_version"]
    assert told.startswith(r"SSH-2.0-x\r\n\x1b[2J{}\u202e")
    assert len(told) < 600


def test_text_for_a_terminal_holds_no_control_character_of_a_client() -> None:
    """An operator's terminal runs nothing that came over the network."""
    stream = io.StringIO()
    configure_journal("text", "info", stream)
    events.protocol_error(new_journal(), crime="\x1b]0;owned\x07\nlogin.accepted")
    structlog.reset_defaults()
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()


def test_levels_below_the_configured_one_are_not_written(written: io.StringIO) -> None:
    """The default level leaves out what only a developer asks for."""
    events.upload_opened(new_journal(), kind="PDF", recipient=OFFICE)
    assert written.getvalue() == ""


def _refuse_by_name() -> None:
    raise Refused("name.malformed", detail="山田太郎.pdf")


def test_an_exception_is_told_without_its_message(written: io.StringIO) -> None:
    """A message may quote a file's name; the class and the place in the code do not."""
    with pytest.raises(Refused) as caught:
        _refuse_by_name()
    events.unexpected_error(new_journal(), reference="F-1", exception=caught.value)
    assert "山田" not in written.getvalue()
    line = json.loads(written.getvalue())
    assert line["exception"] == "Refused"
    assert "_refuse_by_name" in line["frames"]


def test_the_system_s_own_message_is_kept(written: io.StringIO) -> None:
    """What the operating system says is what the operator needs."""
    events.unexpected_error(new_journal(), reference="F-1", exception=OSError(28, "No space left on device"))
    assert "No space left on device" in json.loads(written.getvalue())["exception"]


class _FullDisk(io.StringIO):
    def write(self, _text: str, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_journal_that_cannot_be_written_stops_nothing() -> None:
    """A full disk, or a stream that is closed, costs lines and nothing else."""
    closed = io.StringIO()
    full = _FullDisk()
    for stream in (full, closed):
        configure_journal("json", "info", stream)
        closed.close()
        events.connection_opened(new_journal(), peer="192.0.2.1")
    structlog.reset_defaults()


def test_an_unconfigured_journal_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line's answers are not mixed with events."""
    structlog.reset_defaults()
    events.connection_opened(new_journal(), peer="192.0.2.1")
    structlog.reset_defaults()
    out, err = capsys.readouterr()
    assert out == ""
    assert "connection.opened" in err


def test_facts_that_are_not_known_are_left_out(written: io.StringIO) -> None:
    """An unknown fact is no fact."""
    events.limit_reached(new_journal(), limit="unauthenticated_total", scope="all", until=events.LimitEnd.CAUGHT_UP)
    assert "repeats" not in json.loads(written.getvalue())


def test_every_event_takes_the_journal_and_named_facts_only() -> None:
    """Facts cannot be passed in the wrong order, and none of them is a file's name."""
    functions = [
        function
        for name, function in inspect.getmembers(events, inspect.isfunction)
        if function.__module__ == events.__name__ and not name.startswith("_")
        # An event returns nothing.
        if inspect.signature(function).return_annotation == "None" and "journal" not in name
    ]
    assert len(functions) > 20
    for function in functions:
        first, *facts = inspect.signature(function).parameters.values()
        assert first.name == "journal", function.__name__
        assert all(fact.kind is inspect.Parameter.KEYWORD_ONLY for fact in facts), function.__name__
        assert not {fact.name for fact in facts} & {"name", "path", "filename", "content"}, function.__name__


def test_an_accepted_transfer_is_told_by_number_kind_and_offices(written: io.StringIO) -> None:
    """The journal can be read beside the ledger without knowing any name."""
    journal: Journal = new_journal()
    events.transfer_accepted(
        journal,
        transfer=TransferId(17),
        kind="UPPLAN",
        sender=OFFICE,
        recipient=OfficeNumber("0178529384"),
        size_bytes=10_240,
        seconds=0.0123456789,
        is_repeat=False,
    )
    line = json.loads(written.getvalue())
    assert (line["transfer"], line["kind"], line["seconds"]) == (17, "UPPLAN", 0.012346)


def test_a_limit_is_told_once_for_each_time_that_it_holds(written: io.StringIO) -> None:
    """Ten thousand who run into it make one line, the next one says how many, and nothing is kept of what is over."""
    log, now = events.LimitLog(), datetime(2026, 7, 1, tzinfo=UTC)
    until = now + timedelta(seconds=30)
    for _ in range(10_000):
        log.reached(new_journal(), limit="a", scope="all", until=until, now=now)
    log.reached(new_journal(), limit="a", scope="other", until=events.LimitEnd.CAUGHT_UP, now=now)
    log.reached(new_journal(), limit="a", scope="other", until=events.LimitEnd.CAUGHT_UP, now=until)
    log.reached(new_journal(), limit="a", scope="all", until=until + timedelta(seconds=9), now=until)
    told = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["scope"], line["until"], line.get("repeats")) for line in told] == [
        ("all", "2026-07-01T00:00:30+00:00", None),
        ("other", "the server has caught up", None),
        ("all", "2026-07-01T00:00:39+00:00", 9_999),
    ]
    for number in range(5_000):
        later = until + timedelta(minutes=number)
        log.reached(new_journal(), limit="a", scope=f"{number}", until=events.LimitEnd.CAUGHT_UP, now=later)
    assert len(log._told) <= 1_024
