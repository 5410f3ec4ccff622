"""Sending units (送信単位): which files belong together, and what a set of them still lacks (standard, section 3).

Files of the standard with one sender, recipient, pair of service types and serial are a unit.  ``units.csv`` is the
table of the sets that are allowed; `judge_unit` compares a set of files with it.  A set that fits several rows (the
same kinds are listed for long-term and for preventive care) is all of them.

Everything found is a warning by default: a relay delivers each file at once and holds nothing back, since the missing
one may follow.  Persons are opaque keys, compared and never shown, so that a ledger can hand in what it keeps of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from relay.errors import Finding, finding
from relay.model import Address, Grammar, OfficeNumber
from relay.standard.kinds import KINDS, STANDARD_32, STANDARD_41
from relay.standard.serials import NO_MONTH
from relay.standard.tables import read_table

SUPPLEMENT = "UPHOSOKU"
PLAN = "UP1KYO"
SLIP = "UPPLAN"
SLIP_ANNEX = "UPSIKYU"
PREVENTIVE_PLAN = "UPYOBO"
PREVENTIVE_ANNEX = "UPYOBO_SUB"
# Within a unit these are imported before what depends on them (standard, section 3).
BASE_KINDS = frozenset({PLAN, SLIP, "UPKIHON", PREVENTIVE_PLAN})


@dataclass(frozen=True, slots=True)
class UnitForm:
    """One row of ``units.csv``; *required* and *optional* in the order in which they are imported."""

    id: str
    standard: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    title_ja: str
    title_en: str
    source: str

    def allows(self, kinds: frozenset[str]) -> bool:
        """Say whether *kinds* hold nothing that this form lacks."""
        return kinds <= {*self.required, *self.optional}

    def missing(self, kinds: frozenset[str]) -> tuple[str, ...]:
        """Return the required kinds that *kinds* lack."""
        return tuple(kind for kind in self.required if kind not in kinds)


@dataclass(frozen=True, slots=True)
class UnitKey:
    """What the files of one unit have in common."""

    sender: OfficeNumber
    recipient: OfficeNumber
    sender_service: str | None
    recipient_service: str | None
    serial: str

    @property
    def standard(self) -> str:
        """The standard whose form the names have: those of 3.2 lack the service types."""
        return STANDARD_32 if self.sender_service is None else STANDARD_41


@dataclass(frozen=True, slots=True)
class UnitFile:
    """What the rules need to know of one file of a unit.

    *month* is the one of the name.  *persons* says for each person in the file the line where it first occurs (0 where
    that is not known); None where nobody looked.
    """

    kind: str
    month: str | None = None
    persons: Mapping[bytes, int] | None = None


@dataclass(frozen=True, slots=True)
class UnitVerdict:
    """What a set of files is: the *forms* it fits, or the one it comes nearest to and what is *missing* for that.

    No form at all means that the set is none of the standard's.
    """

    forms: tuple[UnitForm, ...]
    missing: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def is_complete(self) -> bool:
        """True where the set is an allowed unit with everything required."""
        return bool(self.forms) and not self.missing


def _load_forms() -> tuple[UnitForm, ...]:
    return tuple(
        UnitForm(
            id=row["unit_id"],
            standard=row["standard"],
            required=_split(row["required_kinds"]),
            optional=_split(row["optional_kinds"]),
            title_ja=row["title_ja"],
            title_en=row["title_en"],
            source=row["source"],
        )
        for row in read_table("units")
    )


def _split(kinds: str) -> tuple[str, ...]:
    return tuple(kinds.split("|")) if kinds else ()


UNIT_FORMS: tuple[UnitForm, ...] = _load_forms()

_KIND_ORDER = {kind: place for place, kind in enumerate(KINDS)}


def find_unit_key(address: Address) -> UnitKey | None:
    """Return the unit that *address* is part of; None where it is no file of the standard."""
    if address.grammar not in (Grammar.STANDARD_32, Grammar.STANDARD_41):
        return None
    assert address.sender is not None
    assert address.serial is not None
    return UnitKey(address.sender, address.recipient, address.sender_service, address.recipient_service, address.serial)


def belongs_to(address: Address, key: UnitKey) -> bool:
    """Say whether *address* travels with the unit *key*: a file of it, or its message or report of the same serial.

    The general form may leave out the service types; then any of the unit's will do.
    """
    own = find_unit_key(address)
    if own is not None:
        return own == key
    return (address.sender, address.recipient, address.serial) == (key.sender, key.recipient, key.serial) and all(
        mine is None or mine == theirs
        for mine, theirs in (
            (address.sender_service, key.sender_service),
            (address.recipient_service, key.recipient_service),
        )
    )


def import_rank(kind: str) -> tuple[int, int]:
    """Return what files of one unit are sorted by to be imported: base files first."""
    return (0 if kind in BASE_KINDS else 1, _KIND_ORDER.get(kind, len(_KIND_ORDER)))


def judge_unit(standard: str, files: Sequence[UnitFile]) -> UnitVerdict:
    """Say which unit of *standard* (``3.2``, ``4.1``) *files* are, whether anything is missing and what does not fit.

    *files* are all that arrived under one `UnitKey`, in any order, at least one.
    """
    kinds = frozenset(file.kind for file in files)
    forms = _find_forms(standard, files)
    missing: tuple[str, ...] = ()
    found: list[Finding] = []
    if not forms:
        found.append(_not_allowed(kinds))
    elif missing := forms[0].missing(kinds):
        found.append(finding("unit.incomplete", missing_ja=_name_ja(missing), missing=" + ".join(missing)))
    found += _find_repeats(files)
    found += _find_months(files)
    if PREVENTIVE_PLAN in kinds and PREVENTIVE_ANNEX not in kinds:
        found.append(finding("unit.annex_missing"))
    found += _find_unrelated(files)
    return UnitVerdict(forms, missing, tuple(found))


def _find_forms(standard: str, files: Sequence[UnitFile]) -> tuple[UnitForm, ...]:
    """Return the forms that *files* fit, or the one they come nearest to, or none."""
    kinds = frozenset(file.kind for file in files)
    allowed = [form for form in UNIT_FORMS if form.standard == standard and form.allows(kinds)]
    fitting = tuple(form for form in allowed if not form.missing(kinds))
    if fitting or not allowed:
        return fitting
    # A supplement alone says by its month whether it waits for a plan or for a use slip.
    wants_plan = any(file.kind == SUPPLEMENT and file.month == NO_MONTH for file in files)
    # min() takes the first of equals, so the order of the table decides last.
    return (min(allowed, key=lambda form: ((PLAN in form.required) != wants_plan, len(form.missing(kinds)))),)


def _not_allowed(kinds: frozenset[str]) -> Finding:
    shown = sorted(kinds, key=import_rank)
    return finding(
        "unit.not_allowed",
        why_ja="・".join(shown) + " は一緒に送れません",
        why=" + ".join(shown) + " are no unit together",
    )


def _name_ja(kinds: Sequence[str]) -> str:
    return "と".join(f"{kind}「{KINDS[kind].title_ja}」" for kind in kinds)


def _find_repeats(files: Sequence[UnitFile]) -> Iterator[Finding]:
    """A kind stands once in a unit, images aside: two slips of one serial cannot be told apart in order."""
    for kind, count in Counter(file.kind for file in files).items():
        if count > 1 and not KINDS[kind].is_image:
            yield finding("unit.not_allowed", why_ja=f"{kind} が{count}個あります", why=f"there are {count} {kind}")


def _find_months(files: Sequence[UnitFile]) -> Iterator[Finding]:
    months = {file.kind: file.month for file in files}
    base = NO_MONTH if PLAN in months else months.get(SLIP)
    if SUPPLEMENT in months and base is not None and months[SUPPLEMENT] != base:
        yield finding("unit.supplement_mismatch", month=months[SUPPLEMENT], expected=base)
    if SLIP in months and SLIP_ANNEX in months and months[SLIP] != months[SLIP_ANNEX]:
        yield finding(
            "unit.not_allowed",
            why_ja=f"{SLIP} は {months[SLIP]}、{SLIP_ANNEX} は {months[SLIP_ANNEX]} で、年月が違います",
            why=f"{SLIP} is for {months[SLIP]}, {SLIP_ANNEX} for {months[SLIP_ANNEX]}",
        )


def _find_unrelated(files: Sequence[UnitFile]) -> Iterator[Finding]:
    """Compare the persons of supplement and annex with those of the use slip, where all were looked at."""
    slips = [file.persons for file in files if file.kind == SLIP and file.persons is not None]
    if not slips:
        return
    known = frozenset[bytes]().union(*slips)
    for file in files:
        if file.kind not in (SUPPLEMENT, SLIP_ANNEX) or file.persons is None:
            continue
        strangers = [line for person, line in file.persons.items() if person not in known]
        if strangers:
            yield _unrelated(file.kind, min(strangers), len(strangers))


def _unrelated(kind: str, line: int, count: int) -> Finding:
    where_ja, where = f"{count}人", f"{count} {'person' if count == 1 else 'persons'}"
    title = KINDS[kind].title_ja
    if not line:
        return finding("unit.unrelated_person", kind=kind, kind_ja=title, where_ja=where_ja, where=where)
    where_ja, where = f"{line}行目から{where_ja}", f"{where} from line {line} on"
    return finding("unit.unrelated_person", kind=kind, kind_ja=title, where_ja=where_ja, where=where, line=line)
