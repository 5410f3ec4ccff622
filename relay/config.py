"""Configuration: ``relay.toml`` and the environment become one frozen, fully checked `Config`, or a list of faults.

A relay that starts has a configuration in which everything is known, of the right type, in range and fits together.
One that cannot start says everything that is wrong at once, in words, and where: an unknown key is refused, since a
misspelt limit would otherwise quietly not hold.

The environment overrides the file: ``RELAY_SERVER__PORT=2022`` is ``port`` of ``[server]``, written as in the file
(quotes around text may be left out).  Names with one underscore are left alone, because orchestrators set some of
their own for a service called relay; one that is a setting but for that underscore is refused.

Nothing secret is configured here: keys are files under ``keys/``, and the password of the mail server is a file.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time, timedelta
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from relay.errors import TABLE, ConfigError, Severity
from relay.letters import Rhythm, parse_address
from relay.naming import NamingRules, OperatorGrammar
from relay.officerules import OfficeField, OfficeRule

FILE_NAME = "relay.toml"
_PREFIX = "RELAY_"
# Says where the home is; it cannot be read from a file inside it.
_NOT_A_SETTING = "RELAY_HOME"

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
_UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB}
# What offices were seen to send each other; nothing that a double click would run.
_EXTENSIONS = (
    *("csv", "pdf", "jpg", "jpeg", "png", "tif", "tiff", "heic"),
    *("txt", "doc", "docx", "xls", "xlsx", "zip", "json", "xml"),
)
_GRAMMAR_GROUPS = frozenset({"recipient", "sender", "serial", "month"})
# Real office numbers break the check digit's rule (standard, section 6): never more than a warning.
_NEVER_REFUSED = frozenset({"name.check_digit"})
# All processes write to one store, one after the other: more of them than that wait for each other.
_WORKERS_MOST = 64
_CORES_MOST = 8
# Names that cannot be read or routed leave nothing to be lenient with; content and units do.
_ADJUSTABLE = frozenset(
    code
    for code, row in TABLE.items()
    if code.startswith(("content.", "unit.")) or (code.startswith("name.") and row.severity is Severity.WARN)
)


def describe_size(size_bytes: int) -> str:
    """Say a size in the largest unit that tells it exactly: 2147483648 is ``2 GiB``."""
    unit = next(unit for unit in reversed(_UNITS) if size_bytes % _UNITS[unit] == 0) if size_bytes else "B"
    return f"{size_bytes // _UNITS[unit]} {unit}"


def _parse_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]+) ?(B|KiB|MiB|GiB|TiB)", value.strip())
    if match is None:
        raise ValueError('must be a number of bytes, or a text such as "500 MiB" (B, KiB, MiB, GiB, TiB)')
    return int(match[1]) * _UNITS[match[2]]


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def check_host(host: str) -> str:
    """Return *host* where it can be an address or a name; ValueError otherwise."""
    if not re.fullmatch(r"[0-9A-Za-z.:_%-]+", host):
        raise ValueError("must be an address or the name of a host")
    return host


def _check_loopback(host: str) -> str:
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise ValueError(
            "must be an address of this machine alone, such as 127.0.0.1 or ::1: metrics have no password. To read them "
            "from another machine, let its Prometheus come through a proxy that asks for one, or through ssh"
        )
    return host


def _parse_port(value: object) -> object:
    return None if value == "off" else value


def _parse_workers(value: object) -> object:
    return None if value == "cores" else value


def _check_mail_host(host: str) -> str:
    return check_host(host) if host else host


def _check_mail_sender(address: str) -> str:
    return parse_address(address) if address else address


def _check_extension(extension: str) -> str:
    if not re.fullmatch(r"[a-z0-9]{1,16}", extension):
        raise ValueError("must be lower-case letters and digits, without a dot")
    return extension


def _check_extensions(extensions: tuple[str, ...]) -> tuple[str, ...]:
    if not extensions:
        raise ValueError("must not be empty: nothing but the standard's own files could be sent")
    return extensions


def _check_page(page_bytes: int) -> int:
    if page_bytes & (page_bytes - 1):
        raise ValueError("must be a power of two")
    return page_bytes


def _check_severities(severities: Mapping[str, Severity]) -> Mapping[str, Severity]:
    faults = []
    for code, severity in severities.items():
        if code not in _ADJUSTABLE:
            faults.append(f"{code} is no check whose severity can be set{_suggest(code, sorted(_ADJUSTABLE))}")
        elif code in _NEVER_REFUSED and severity is Severity.REFUSE:
            faults.append(f'{code} can be "warn" or "off" only, because real office numbers break it')
    if faults:
        raise ValueError("; ".join(faults))
    return severities


Bytes = Annotated[int, BeforeValidator(_parse_size), Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Line = Annotated[str, Field(max_length=200), AfterValidator(_check_line)]


class _Section(BaseModel):
    # Strict: a port of true or "2222" is a slip of the pen, not a port.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ServerSettings(_Section):
    """Where the relay listens, with how many processes (*workers* None: one a core), and how patient it is."""

    host: Annotated[str, AfterValidator(check_host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 2222
    workers: Annotated[Annotated[int, Field(ge=1, le=_WORKERS_MOST)] | None, BeforeValidator(_parse_workers)] = None
    login_seconds: Seconds = 30.0
    keepalive_seconds: Seconds = 30.0
    keepalive_count: Count = 4
    unused_seconds: Seconds = 300.0
    busy_seconds: Seconds = 0.2
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    handover_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 600.0
    hang_seconds: Annotated[float, Field(ge=3, allow_inf_nan=False)] = 60.0
    start_seconds: Annotated[float, Field(ge=3, allow_inf_nan=False)] = 60.0
    rekey_bytes: Annotated[Bytes, Field(ge=65_536)] = 1024 * MIB

    @property
    def worker_count(self) -> int:
        """How many processes serve."""
        return self.workers or min(_CORES_MOST, len(os.sched_getaffinity(0)))


class StoreSettings(_Section):
    """Where the store lies and how it is written; *path* is absolute once loaded."""

    path: Annotated[Path, Field(strict=False)] = Path("data/relay.db")
    lock_wait_seconds: Seconds = 10.0
    checkpoint_bytes: Bytes = 16 * MIB
    page_bytes: Annotated[Bytes, Field(ge=512, le=65_536), AfterValidator(_check_page)] = 8192


class AuditSettings(_Section):
    """Where it is noted how far history has come; *anchor* is absolute once loaded."""

    anchor: Annotated[Path, Field(strict=False)] = Path("audit.anchor")
    anchor_seconds: Seconds = 10.0


class HousekeepingSettings(_Section):
    """For how long files are kept, in days (0 keeps them for ever), and closed offices and old numbers go on."""

    uncollected_days: Annotated[int, Field(ge=0, le=36_500)] = 93
    collected_days: Annotated[int, Field(ge=0, le=36_500)] = 31
    refusals_days: Annotated[int, Field(ge=93, le=36_500)] = 731
    closed_days: Annotated[int, Field(ge=0, le=3_650)] = 31
    moved_days: Annotated[int, Field(ge=0, le=3_650)] = 93


class OperatorSettings(_Section):
    """Whom an office calls."""

    name: Line = ""
    telephone: Line = ""
    hours: Line = ""


class GrammarSettings(_Section):
    """One grammar of the operator's own: *pattern* must match a whole name and find the recipient in it."""

    label: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")]
    pattern: str

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            raise ValueError(f"the pattern is no regular expression: {error}") from None
        if "recipient" not in groups:
            raise ValueError("the pattern needs a group (?P<recipient>…)")
        if unknown := groups - _GRAMMAR_GROUPS:
            allowed = ", ".join(sorted(_GRAMMAR_GROUPS))
            raise ValueError(
                f"the pattern has groups of unknown meaning: {', '.join(sorted(unknown))} (known: {allowed})"
            )
        return self


class NamesSettings(_Section):
    """Which names are understood besides those of the standard."""

    extensions: Annotated[
        tuple[Annotated[str, AfterValidator(_check_extension)], ...],
        Field(strict=False),
        AfterValidator(_check_extensions),
    ] = _EXTENSIONS
    grammars: Annotated[tuple[GrammarSettings, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        labels = [grammar.label for grammar in self.grammars]
        if repeated := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two grammars have the label {', '.join(repeated)}")
        return self


class ContentSettings(_Section):
    """What a finding does, where the operator wants it otherwise than the table in `relay.errors` says."""

    severities: Annotated[Mapping[str, Annotated[Severity, Field(strict=False)]], AfterValidator(_check_severities)] = (
        Field(default_factory=dict)
    )


class LimitSettings(_Section):
    """What one office, one certificate, one session or one network can take up."""

    upload_bytes: Bytes = 2 * GIB
    stored_bytes_per_office: Bytes = 20 * GIB
    partials_per_office: Count = 1000
    transfers_per_minute: Count = 12_000
    handles_per_session: Count = 128
    handles_per_certificate: Count = 1024
    requests_in_flight: Count = 64
    requests_per_certificate: Count = 512
    sessions_per_connection: Count = 10
    sessions_per_certificate: Count = 32
    sessions_per_office: Count = 64
    connections_total: Count = 4000
    unauthenticated_total: Count = 500
    unauthenticated_per_network: Count = 50
    unauthenticated_when_busy: Count = 16
    failed_signatures: Count = 6
    key_probes: Count = 60

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.upload_bytes > self.stored_bytes_per_office:
            raise ValueError("upload_bytes is more than stored_bytes_per_office")
        if self.unauthenticated_per_network > self.unauthenticated_total:
            raise ValueError("unauthenticated_per_network is more than unauthenticated_total")
        if self.unauthenticated_total > self.connections_total:
            raise ValueError("unauthenticated_total is more than connections_total")
        return self


class OfficeRuleSettings(_Section):
    """Where an outside CA's certificates name the office: *pattern* must match the whole value of *field*."""

    field: OfficeField
    pattern: str

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            raise ValueError(f"the pattern is no regular expression: {error}") from None
        if groups != {"office"}:
            raise ValueError("the pattern needs a group (?P<office>…), and no other with a name")
        return self


class CertificateSettings(_Section):
    """How long certificates are good for, and what offices may do about theirs."""

    valid_days: Annotated[int, Field(ge=1, le=3660)] = 365
    valid_per_office: Count = 10
    renewal: bool = True
    x509: bool = False
    x509_offices: Annotated[tuple[OfficeRuleSettings, ...], Field(strict=False)] = ()
    x509_tls_client: bool = False
    x509_crl: Literal["require", "if_present"] = "require"

    @model_validator(mode="after")
    def _check_x509(self) -> Self:
        if self.x509 and not self.x509_offices:
            raise ValueError("x509 is on, and no rule in x509_offices says where the office number stands")
        return self

    @property
    def office_rules(self) -> tuple[OfficeRule, ...]:
        """What `relay.officerules` needs to know."""
        return tuple(OfficeRule(rule.field, re.compile(rule.pattern)) for rule in self.x509_offices)


class TreeSettings(_Section):
    """What an office sees."""

    sent_listed_seconds: Annotated[int, Field(ge=0)] = 86_400
    remove_uncollected: bool = False
    offices_shown: Literal["all", "partners", "none"] = "all"


class MetricsSettings(_Section):
    """Where monitoring can ask; *port* None is off, 0 any free one."""

    host: Annotated[str, AfterValidator(_check_loopback)] = "127.0.0.1"
    port: Annotated[Annotated[int, Field(ge=0, le=65_535)] | None, BeforeValidator(_parse_port)] = None


class MailSettings(_Section):
    """How offices are told by mail what arrived; not at all while *host* is empty.

    *ca_file* and *password_file* are absolute once loaded, where they are named.
    """

    host: Annotated[str, AfterValidator(_check_mail_host)] = ""
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Line = ""
    username: Line = ""
    password_file: Line = ""
    sender: Annotated[str, AfterValidator(_check_mail_sender)] = ""
    hello: Annotated[str, AfterValidator(_check_mail_host)] = ""
    gather_seconds: Seconds = 300.0
    day_at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "08:00"
    retry_seconds: Seconds = 60.0
    give_up_seconds: Seconds = 172_800.0
    timeout_seconds: Seconds = 30.0

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.host and not self.sender:
            raise ValueError("sender is missing: from which address shall mails come?")
        if self.username and self.tls == "none":
            raise ValueError('a password is never sent without TLS: set tls to "starttls" or "tls"')
        return self

    @cached_property
    def rhythm(self) -> Rhythm | None:
        """When letters go; None where nobody is told."""
        if not self.host:
            return None
        return Rhythm(
            timedelta(seconds=self.gather_seconds),
            time.fromisoformat(self.day_at),
            timedelta(seconds=self.retry_seconds),
        )


class JournalSettings(_Section):
    """How the journal is written."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Change:
    """The settings (``limits.upload_bytes``) that differ: those that can change *now*, and those that change *later*."""

    now: tuple[str, ...]
    later: tuple[str, ...]


class Config(_Section):
    """Everything that can be set, checked; sections are attributes, named as in the file."""

    home: Path
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    audit: AuditSettings = AuditSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    operator: OperatorSettings = OperatorSettings()
    names: NamesSettings = NamesSettings()
    content: ContentSettings = ContentSettings()
    limits: LimitSettings = LimitSettings()
    certificates: CertificateSettings = CertificateSettings()
    tree: TreeSettings = TreeSettings()
    mail: MailSettings = MailSettings()
    journal: JournalSettings = JournalSettings()
    metrics: MetricsSettings = MetricsSettings()

    def adopt(self, new: Config) -> Change:
        """Let what can change at once be as in *new*, and return what that was, and what has to wait.

        A Config is frozen for everybody else.  The sections stay the same objects, so that whoever holds one goes by
        what it says now; nothing runs between the first change and the last one.
        """
        change = plan_change(self, new)
        for name in change.now:
            section, _, key = name.partition(".")
            getattr(self, section).__dict__[key] = getattr(getattr(new, section), key)
        self.__dict__.pop("naming_rules", None)
        return change

    @property
    def keys_path(self) -> Path:
        """Where the keys lie; never inside the store, so that a backup of one holds nothing of the other."""
        return self.home / "keys"

    @cached_property
    def naming_rules(self) -> NamingRules:
        """What `relay.naming` needs to know."""
        return NamingRules(
            extensions=frozenset(self.names.extensions),
            grammars=tuple(
                OperatorGrammar(grammar.label, re.compile(grammar.pattern)) for grammar in self.names.grammars
            ),
        )


_SECTIONS: Mapping[str, type[_Section]] = {
    name: cast(type[_Section], field.annotation) for name, field in Config.model_fields.items() if name != "home"
}

# What is read when the server starts and never again: it changes with a hand-over or a restart.
_READ_ONCE = frozenset(
    {
        *("store", "audit", "mail", "journal", "metrics"),
        *("server.host", "server.port", "server.workers", "tree.sent_listed_seconds"),
        *("certificates.x509", "certificates.x509_offices", "certificates.x509_tls_client", "certificates.x509_crl"),
    }
)

# The settings that are lists of tables.
_TABLES_WITHIN: Mapping[str, type[_Section]] = {"grammars": GrammarSettings, "x509_offices": OfficeRuleSettings}


def plan_change(old: Config, new: Config) -> Change:
    """Return in what *new* differs from *old*, and what of it can change while the relay runs."""
    differing = [
        f"{section}.{key}"
        for section, key in _settings()
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]
    later = [name for name in differing if not {name, name.partition(".")[0]}.isdisjoint(_READ_ONCE)]
    return Change(tuple(name for name in differing if name not in later), tuple(later))


def load_template() -> str:
    """Return a ``relay.toml`` that says every default and what it is for."""
    return resources.files("relay").joinpath(FILE_NAME).read_text(encoding="utf-8")


def load_config(home: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read ``relay.toml`` in *home* and what *environ* overrides.

    ConfigError holds every fault of both, one a line.
    """
    home = home.absolute()
    faults: list[str] = []
    raw = _read_file(home / FILE_NAME, faults)
    overrides = _read_environment(environ, faults)
    for (section, key), value in overrides.items():
        table = raw.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = value
    unknown = sorted(raw.keys() - _SECTIONS.keys())
    faults.extend(f"{FILE_NAME}: {section}: {_explain_unknown(section, raw[section])}" for section in unknown)
    try:
        # A table of its own for each section: one that is left out must not be the default of all.
        known = {section: raw.get(section, {}) for section in _SECTIONS}
        config = Config.model_validate({"home": home, **known})
    except ValidationError as error:
        faults.extend(_explain(details, overrides) for details in error.errors())
    if faults:
        raise ConfigError("the configuration cannot be used:\n" + "\n".join(f"  - {fault}" for fault in faults))
    # Joining leaves an absolute path as it is.
    store = config.store.model_copy(update={"path": home / config.store.path})
    audit = config.audit.model_copy(update={"anchor": home / config.audit.anchor})
    files = {key: str(home / name) for key in ("ca_file", "password_file") if (name := getattr(config.mail, key))}
    mail = config.mail.model_copy(update=files)
    return config.model_copy(update={"store": store, "audit": audit, "mail": mail})


def _read_file(path: Path, faults: list[str]) -> dict[str, object]:
    """Return the tables of the file; what keeps it from being read is one fault, and no tables."""
    try:
        # Notepad puts a byte order mark in front; it means nothing.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        faults.append(f"there is no {path}: run 'relay init' there, or name the home with --home or {_NOT_A_SETTING}")
    except OSError as error:
        faults.append(f"{path} cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        faults.append(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{path} is no TOML: {error}")
    return {}


def _read_environment(environ: Mapping[str, str], faults: list[str]) -> dict[tuple[str, str], object]:
    found: dict[tuple[str, str], object] = {}
    settings = {_variable(section, key): (section, key) for section, key in _settings()}
    slips = {name.replace("__", "_"): name for name in settings}
    for name, text in sorted(environ.items()):
        if not name.startswith(_PREFIX) or name == _NOT_A_SETTING:
            continue
        if (setting := settings.get(name)) is not None:
            found[setting] = _read_value(text, *setting)
        elif "__" in name:
            faults.append(f"{name}: there is no such setting{_suggest(name, sorted(settings))}")
        elif name in slips and "://" not in text:
            faults.append(f"{name}: a setting is written with two underscores: {slips[name]}")
    return found


def _read_value(text: str, section: str, key: str) -> object:
    """Read *text* as the file would, with or without quotes; a telephone number stays text."""
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    default = _SECTIONS[section].model_fields[key].get_default()
    return text if isinstance(default, str | Path) and not isinstance(value, str) else value


def _settings() -> Iterator[tuple[str, str]]:
    return ((section, key) for section, model in _SECTIONS.items() for key in model.model_fields)


def _variable(section: str, key: str) -> str:
    return f"{_PREFIX}{section.upper()}__{key.upper()}"


def _explain(details: ErrorDetails, overrides: Mapping[tuple[str, str], object]) -> str:
    """Say one of pydantic's findings in the operator's words."""
    location = [str(part) for part in details["loc"]]
    section, key = location[0], location[1] if len(location) > 1 else ""
    where = _variable(section, key) if (section, key) in overrides else f"{FILE_NAME}: {_say_place(location)}"
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        model = _TABLES_WITHIN.get(key, _SECTIONS[section])
        return f"{where}: there is no such setting{_suggest(location[-1], list(model.model_fields))}"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    sentence = _SENTENCES.get(kind, details["msg"]).format_map(context)
    return f"{where}: {sentence} (it is {details['input']!r})" if kind != "missing" else f"{where}: {sentence}"


_SENTENCES: Mapping[str, str] = {
    "missing": "is missing",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": 'must be text in "quotes"',
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be capitals, digits and _ and begin with a letter, at most 32 of them",
    "path_type": 'must be a path in "quotes"',
    "tuple_type": "must be a list in [brackets]",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
}


def _say_place(location: Sequence[str]) -> str:
    """Return ``[server] port``, or ``[names] grammars 2 label`` with places counted from one."""
    head, *rest = location
    counted = [str(int(part) + 1) if part.isdecimal() else part for part in rest]
    return " ".join([f"[{head}]", *counted])


def _explain_unknown(name: str, value: object) -> str:
    if isinstance(value, dict | list):
        return f"there is no such section{_suggest(name, list(_SECTIONS))}"
    homes = [f"[{section}]" for section, key in _settings() if key == name]
    hint = f"; it belongs under {' or '.join(homes)}" if homes else ""
    return f"stands outside of any section{hint}"


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"
