"""The configuration: the template says the defaults, and every fault is told at once, in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from relay.config import GIB, MIB, Config, describe_size
from relay.configfile import FILE_NAME, load_config, load_template
from relay.errors import ConfigError, Severity


def write(home: Path, text: str) -> Path:
    """Make *text* the configuration of *home*."""
    (home / FILE_NAME).write_text(text, encoding="utf-8")
    return home


def faults_of(home: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Return the faults that keep the configuration in *home* from being used."""
    with pytest.raises(ConfigError) as caught:
        load_config(home, environ or {})
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def test_the_template_says_exactly_the_defaults(tmp_path: Path) -> None:
    """Leaving a setting out and leaving it as it came mean the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    by_template = load_config(write(tmp_path / "a", load_template()), {})
    by_default = load_config(write(tmp_path / "b", ""), {})
    elsewhere = {"home", "store", "audit"}
    assert by_template.model_dump(exclude=elsewhere) == by_default.model_dump(exclude=elsewhere)
    assert by_template.audit.anchor_seconds == by_default.audit.anchor_seconds
    assert by_template.audit.anchor.relative_to(tmp_path / "a") == by_default.audit.anchor.relative_to(tmp_path / "b")
    assert by_template.store.model_dump(exclude={"path"}) == by_default.store.model_dump(exclude={"path"})
    assert by_template.store.path.relative_to(tmp_path / "a") == by_default.store.path.relative_to(tmp_path / "b")


def test_the_template_holds_every_setting_with_a_comment_before_it() -> None:
    """An operator finds what can be set, and why, without any other text."""
    lines = load_template().splitlines()
    for section, field in Config.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        assert f"[{section}]" in lines
        for key in model.model_fields:
            place = re.compile(rf"(# )?(\[+{section}\.)?{key}(\]+| =)")
            assert any(place.match(line) for line in lines), f"{section}.{key}"


def test_the_relay_listens_on_this_machine_alone_by_default(tmp_path: Path) -> None:
    """Opening the relay to a network is a decision."""
    server = load_config(write(tmp_path, ""), {}).server
    assert (server.host, server.port) == ("127.0.0.1", 2222)


def test_paths_are_absolute_and_inside_the_home(tmp_path: Path) -> None:
    """What the configuration says does not depend on where a command is run."""
    config = load_config(write(tmp_path, ""), {})
    assert config.store.path == tmp_path / "data" / "relay.db"
    assert config.audit.anchor == tmp_path / "audit.anchor"
    assert config.keys_path == tmp_path / "keys"


def test_an_absolute_path_of_the_store_stays_as_it_is(tmp_path: Path) -> None:
    """The store may lie on a disk of its own."""
    config = load_config(write(tmp_path, '[store]\npath = "/srv/relay.db"\n'), {})
    assert config.store.path == Path("/srv/relay.db")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Nobody has to start the relay five times to find five mistakes, whichever place they are in."""
    write(tmp_path, '[server]\nport = 70000\nhost = 5\n[journal]\nlevel = "loud"\n[limit]\nx = 1\n')
    faults = faults_of(tmp_path, {"RELAY_TREE__REMOVE_UNCOLLECTED": "perhaps", "RELAY_SERVER__PROT": "1"})
    assert sorted(faults) == [
        "RELAY_SERVER__PROT: there is no such setting; did you mean RELAY_SERVER__PORT?",
        "RELAY_TREE__REMOVE_UNCOLLECTED: must be true or false (it is 'perhaps')",
        "relay.toml: [journal] level: must be one of 'debug', 'info', 'warning' or 'error' (it is 'loud')",
        'relay.toml: [server] host: must be text in "quotes" (it is 5)',
        "relay.toml: [server] port: must be at most 65535 (it is 70000)",
        "relay.toml: limit: there is no such section; did you mean limits?",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[server]\nprot = 1", "relay.toml: [server] prot: there is no such setting; did you mean port?"),
        (
            "port = 2222",
            "relay.toml: port: stands outside of any section; it belongs under [server] or [mail] or [metrics]",
        ),
        ('home = "/"', "relay.toml: home: stands outside of any section"),
        ("server = 1", "relay.toml: [server]: must be a table (it is 1)"),
        (
            "[[names.grammars]]\nlable = 'X'\nlabel = 'X'\npattern = '(?P<recipient>.)'",
            "relay.toml: [names] grammars 1 lable: there is no such setting; did you mean label?",
        ),
    ],
)
def test_a_key_that_is_not_known_is_refused_with_what_was_meant(tmp_path: Path, text: str, fault: str) -> None:
    """A misspelt limit cannot quietly not hold."""
    assert faults_of(write(tmp_path, text)) == [fault]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[server]\nport = true", "whole number"),
        ('[server]\nport = "2222"', "whole number"),
        ("[server]\nport = 22.0", "whole number"),
        ("[server]\nport = -1", "at least 0"),
        ('[server]\nhost = ""', "an address or the name of a host"),
        ('[server]\nhost = "a b"', "an address or the name of a host"),
        ("[server]\nlogin_seconds = 0", "more than 0"),
        ("[server]\nlogin_seconds = inf", "finite"),
        ("[server]\nlogin_seconds = true", "a number"),
        ("[server]\nkeepalive_count = 0", "at least 1"),
        ("[store]\npage_bytes = 5000", "power of two"),
        ("[store]\npage_bytes = 131072", "at most 65536"),
        ("[store]\npath = 3", "path"),
        ('[limits]\nupload_bytes = "2 GB"', "such as"),
        ('[limits]\nupload_bytes = "-2 GiB"', "such as"),
        ("[limits]\nupload_bytes = 0", "at least 1"),
        ("[limits]\nupload_bytes = true", "whole number"),
        ('[limits]\nupload_bytes = "30 GiB"', "more than stored_bytes_per_office"),
        ("[limits]\nunauthenticated_per_network = 900", "more than unauthenticated_total"),
        ('[operator]\nname = "a\\nb"', "one line"),
        ('[tree]\noffices_shown = "some"', "must be one of 'all', 'partners' or 'none'"),
        ("[tree]\nremove_uncollected = 1", "true or false"),
        ("[names]\nextensions = []", "empty"),
        ('[names]\nextensions = [".csv"]', "without a dot"),
        ('[names]\nextensions = ["CSV"]', "lower-case"),
        ('[names]\nextensions = "csv"', "list"),
        ('[content.severities]\n"content.truncatd" = "warn"', "did you mean content.truncated?"),
        ('[content.severities]\n"name.malformed" = "warn"', "no check whose severity"),
        ('[content.severities]\n"name.check_digit" = "refuse"', "real office numbers break it"),
        ('[content.severities]\n"content.empty" = "maybe"', "must be one of 'refuse', 'warn' or 'off'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_words(tmp_path: Path, text: str, part: str) -> None:
    """Types and ranges are checked strictly, and the fault says what would do."""
    (fault,) = faults_of(write(tmp_path, text))
    assert part in fault


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """A setting can be changed where the file cannot; the rest of its section stays."""
    write(tmp_path, '[server]\nport = 1\nkeepalive_count = 9\n[operator]\ntelephone = "1"\n')
    config = load_config(
        tmp_path,
        {
            "RELAY_HOME": "/elsewhere",
            "RELAY_SERVER__PORT": "0",
            "RELAY_SERVER__HOST": "::",
            "RELAY_OPERATOR__TELEPHONE": "0312345678",
            "RELAY_OPERATOR__NAME": '"窓口"',
            "RELAY_OPERATOR__HOURS": "24",
            "RELAY_LIMITS__UPLOAD_BYTES": "5 MiB",
            "RELAY_NAMES__EXTENSIONS": '["csv", "pdf"]',
            "RELAY_CONTENT__SEVERITIES": '{ "content.truncated" = "warn" }',
            "RELAY_STORE__PATH": "other/store.db",
            "PATH": "/bin",
        },
    )
    assert (config.server.port, config.server.host, config.server.keepalive_count) == (0, "::", 9)
    assert (config.operator.telephone, config.operator.name, config.operator.hours) == ("0312345678", "窓口", "24")
    assert config.limits.upload_bytes == 5 * MIB
    assert config.names.extensions == ("csv", "pdf")
    assert config.content.severities == {"content.truncated": Severity.WARN}
    assert config.store.path == tmp_path / "other" / "store.db"


def test_a_setting_written_with_one_underscore_is_refused(tmp_path: Path) -> None:
    """The slip that would otherwise go unseen is told, while what an orchestrator sets for itself is left alone."""
    write(tmp_path, "")
    assert faults_of(tmp_path, {"RELAY_SERVER_PORT": "2022"}) == [
        "RELAY_SERVER_PORT: a setting is written with two underscores: RELAY_SERVER__PORT"
    ]
    load_config(tmp_path, {"RELAY_SERVER_PORT": "tcp://10.0.0.7:22", "RELAY_SERVICE_HOST": "10.0.0.7"})


def test_a_home_without_a_file_is_told_what_to_do(tmp_path: Path) -> None:
    """The commonest first mistake has an answer."""
    (fault,) = faults_of(tmp_path / "nowhere")
    assert "relay init" in fault
    assert "--home" in fault


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"[server\n", "no TOML"), (b"# \x83\x5c\x83\x5c\n", "not UTF-8 (byte 2)")],
)
def test_a_file_that_cannot_be_parsed_is_one_fault(tmp_path: Path, content: bytes, part: str) -> None:
    """A broken file is told as such and not as a hundred missing things."""
    (tmp_path / FILE_NAME).write_bytes(content)
    (fault,) = faults_of(tmp_path)
    assert part in fault


def test_a_byte_order_mark_before_the_file_means_nothing(tmp_path: Path) -> None:
    """An operator may edit the file with Notepad."""
    (tmp_path / FILE_NAME).write_bytes(b"\xef\xbb\xbf[server]\r\nport = 22\r\n")
    assert load_config(tmp_path, {}).server.port == 22


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("(", "no regular expression"),
        ("x", "needs a group (?P<recipient>…)"),
        ("(?P<recipient>x)(?P<who>y)", "unknown meaning: who"),
    ],
)
def test_a_grammar_that_cannot_route_is_refused(tmp_path: Path, pattern: str, part: str) -> None:
    """A pattern must compile and find a recipient, and mean something by its groups."""
    (fault,) = faults_of(write(tmp_path, f"[[names.grammars]]\nlabel = 'X'\npattern = '{pattern}'"))
    assert part in fault


def test_two_grammars_of_one_label_are_refused(tmp_path: Path) -> None:
    """A label names one grammar."""
    one = "[[names.grammars]]\nlabel = 'X'\npattern = '(?P<recipient>.*)'\n"
    (fault,) = faults_of(write(tmp_path, one + one))
    assert "label X" in fault


def test_grammars_and_extensions_reach_the_naming_rules(tmp_path: Path) -> None:
    """What is configured is what names are judged by."""
    text = "[names]\nextensions = ['pdf']\n[[names.grammars]]\nlabel = 'BILL'\npattern = '(?P<recipient>.*)'\n"
    rules = load_config(write(tmp_path, text), {}).naming_rules
    assert rules.extensions == frozenset({"pdf"})
    assert [(grammar.label, grammar.pattern.pattern) for grammar in rules.grammars] == [("BILL", "(?P<recipient>.*)")]


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    """What was checked is what holds."""
    config = load_config(write(tmp_path, ""), {})
    with pytest.raises(ValidationError):
        config.server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1536, "1536 B"), (5 * MIB, "5 MiB"), (2 * GIB, "2 GiB")],
)
def test_a_size_is_said_as_it_is_written(size_bytes: int, text: str) -> None:
    """A limit is told to an office in the words of the settings."""
    assert describe_size(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x509 = true", "no rule in x509_offices"),
        ('x509_offices = [{ field = "subject.CN", pattern = "[0-9]+" }]', "needs a group (?P<office>…)"),
        ('x509_offices = [{ field = "subject.CN", pattern = "(" }]', "is no regular expression"),
        ('x509_offices = [{ field = "subject.X", pattern = "(?P<office>.*)" }]', "must be one of 'subject.CN'"),
        ('x509_offices = [{ feld = "subject.CN", pattern = "(?P<office>.*)" }]', "did you mean field?"),
        ('x509_crl = "never"', "must be one of 'require' or 'if_present'"),
    ],
)
def test_outside_certificates_are_not_let_in_by_a_slip_of_the_pen(tmp_path: Path, text: str, fault: str) -> None:
    """A rule that cannot find an office, or a road that is open without one, is told before the start."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, f"[certificates]\n{text}\n"), {})
    assert fault in str(caught.value)
