"""A whole country of invented offices: as many as there are, in the prefectures where they are.

How many stands in ``adoption.csv``, the published table of offices and of those that used the existing system, by prefecture,
as of 2023-11-06.  Numbers, names and partners are made up: nothing in here is a real office.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rig.offices import CARE_MANAGER, HOME_HELP, add_check_digit

ADOPTION = Path(__file__).with_name("adoption.csv")

# Care-management offices (居宅介護支援事業所) that were paid for in April 2024, the April next to the table of offices: the
# ministry's statistics of benefits (介護給付費等実態統計) counted 35,943 in April 2025, 516 fewer than the year before.
CARE_MANAGERS = 36_459
# By the same statistics 3.79 million persons had a care manager in fiscal 2021, which is 104 for each; two or three services
# a person, many of them with the same few offices of the neighbourhood.  How many such offices is an assumption.
PARTNERS_OF_ONE = 15
# What providers do: home help, day care, nursing, lending of equipment, short stays (standard, service types).
_PROVIDERS = (HOME_HELP, "15", "13", "17", "21")
# Beside the district of the rig's other offices (see `rig.offices`); more than 10,000 in a prefecture take a second letter.
_DISTRICT = "86"
_RUNNING_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Prefecture:
    """A row of the table."""

    code: str
    name: str
    offices: int
    using: int


@dataclass(frozen=True, slots=True)
class Party:
    """An office of the country."""

    number: str
    prefecture: Prefecture
    service_type: str

    @property
    def is_manager(self) -> bool:
        """True for a care manager."""
        return self.service_type == CARE_MANAGER


@cache
def read_prefectures() -> tuple[Prefecture, ...]:
    """Read the table, without its sum."""
    with ADOPTION.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["prefecture_code"] != "total"]
    return tuple(
        Prefecture(row["prefecture_code"], row["prefecture_ja"], int(row["offices"]), int(row["using_offices"]))
        for row in rows
    )


@cache
def make_country(fraction: float = 1.0) -> tuple[Party, ...]:
    """Make *fraction* of all offices, in each prefecture its part, every so manyth of them a care manager."""
    return tuple(_make_parties(fraction))


def _make_parties(fraction: float) -> Iterator[Party]:
    total = sum(prefecture.offices for prefecture in read_prefectures())
    every = total / CARE_MANAGERS
    for prefecture in read_prefectures():
        managers = 0
        for running in range(max(2, round(prefecture.offices * fraction))):
            is_manager = running >= managers * every
            managers += is_manager
            service = CARE_MANAGER if is_manager else _PROVIDERS[running % len(_PROVIDERS)]
            series, rest = divmod(running, _RUNNING_MOST)
            yield Party(add_check_digit(f"{prefecture.code}{7 + series}{_DISTRICT}{rest:04d}"), prefecture, service)


def find_partners(country: Sequence[Party]) -> dict[str, list[str]]:
    """Give each care manager its partners: providers of the same prefecture, the ones that follow it in the register."""
    found: dict[str, list[str]] = {}
    for prefecture in read_prefectures():
        members = [party for party in country if party.prefecture is prefecture]
        providers = [party.number for party in members if not party.is_manager]
        managers = [party.number for party in members if party.is_manager]
        for place, number in enumerate(managers):
            first = place * len(providers) // len(managers)
            count = min(PARTNERS_OF_ONE, len(providers))
            found[number] = [providers[(first + step) % len(providers)] for step in range(count)]
    return found


def render_country(country: Sequence[Party]) -> str:
    """Write the file that `relay office import` takes."""
    rows = [
        f"{party.number},みほん事業所{party.number[:5]}-{party.number[5:9]},{party.prefecture.name},{party.service_type},active"
        for party in country
    ]
    return "\r\n".join(["office_number,name_ja,prefecture,service_types,status", *rows, ""])
