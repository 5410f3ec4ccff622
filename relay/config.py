"""Configuration: every setting with its type, range and default, as one frozen `Config`.

A Config is whole: everything in it is known, of the right type, in range and fits together.  What can change while the
relay runs is said here as well (`plan_change`, `Config.adopt`).  `relay.configfile` makes one from ``relay.toml`` and
the environment.

Nothing secret is configured here: keys are files under ``keys/``, and the password of the mail server is a file.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from relay.errors import TABLE, Severity
from relay.letters import Rhythm, parse_address
from relay.naming import NamingRules, OperatorGrammar
from relay.officerules import OfficeField, OfficeRule

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


def suggest(name: str, known: Sequence[str]) -> str:
    """Return what may be put behind a *name* that is not *known*: the one that was meant, or all there are."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"


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
            faults.append(f"{code} is no check whose severity can be set{suggest(code, sorted(_ADJUSTABLE))}")
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


SECTIONS: Mapping[str, type[_Section]] = {
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


def plan_change(old: Config, new: Config) -> Change:
    """Return in what *new* differs from *old*, and what of it can change while the relay runs."""
    differing = [
        f"{section}.{key}"
        for section, key in list_settings()
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]
    later = [name for name in differing if not {name, name.partition(".")[0]}.isdisjoint(_READ_ONCE)]
    return Change(tuple(name for name in differing if name not in later), tuple(later))


def list_settings() -> Iterator[tuple[str, str]]:
    """Return section and key of every setting."""
    return ((section, key) for section, model in SECTIONS.items() for key in model.model_fields)
