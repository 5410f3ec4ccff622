"""Invented offices and persons for files that are made up: nobody in them exists.

Office numbers have district 85, which stands in none of the 40,420 numbers of the ministry's open data, and a valid
check digit.  Insurers are municipality 999 of their prefecture.  Family names, towns and telephone numbers are such
that nobody mistakes them for real ones, and they hold the characters that MS932 has and plain Shift-JIS lacks.

Everything comes from the random numbers that are handed in: the same seed invents the same world.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from relay.model import Office, OfficeNumber
from relay.standard.offices import add_check_digit

DISTRICT = "85"
MUNICIPALITY = "999"
CARE_MANAGER = "43"
SUPPORT_CENTRE = "46"
# What partners of a care manager offer, one after the other; the preventive and general-project ones apart.
CARE_SERVICES = ("11", "15", "13", "17", "78", "21", "16", "76", "2A", "72")
PREVENTIVE_SERVICES = ("63", "A2", "66", "A6", "67")

_PREFECTURES = {"01": "北海道", "13": "東京都", "27": "大阪府", "31": "鳥取県", "40": "福岡県"}
# 事業所区分, the third character, where it is not that of a designated office.
_CLASSES = {
    SUPPORT_CENTRE: "0", "13": "6", "63": "6", "16": "5", "66": "5", "2A": "B", "78": "9", "76": "9", "72": "9",
    "A2": "A", "A6": "A",
}  # fmt: skip
_DESIGNATED = "7"
_TITLES = {
    CARE_MANAGER: "居宅介護支援事業所", SUPPORT_CENTRE: "地域包括支援センター", "11": "ヘルパーステーション",
    "15": "デイサービス①号館", "13": "訪問看護ステーション", "63": "訪問看護ステーション", "16": "デイケア",
    "66": "介護予防デイケア", "17": "㈱福祉用具", "67": "㈱福祉用具", "78": "地域デイサービス", "21": "ショートステイ",
    "76": "定期巡回サービス", "2A": "介護医療院", "72": "認知症デイサービス", "A2": "訪問型サービス", "A6": "通所型サービス",
}  # fmt: skip
_VILLAGES = ("みほん野", "れい山", "かくう川", "ためし台", "もぎ原", "髙例町", "仮﨑")
_FAMILIES = (
    ("見本", "ミホン"), ("例山", "レイヤマ"), ("仮野", "カリノ"), ("髙例", "タカレイ"), ("試﨑", "タメサキ"),
    ("模田", "モダ"), ("架空川", "カクウガワ"), ("文例谷", "ブンレイヤ"),
)  # fmt: skip
_WOMEN = (("梅子", "ウメコ"), ("さくら", "サクラ"), ("ハナ", "ハナ"), ("千代", "チヨ"), ("みつ江", "ミツエ"))
_MEN = (("正", "タダシ"), ("清", "キヨシ"), ("一郎", "イチロウ"), ("茂", "シゲル"), ("德二", "トクジ"))
_CARE_LEVELS = ("21", "22", "23", "24", "25")
_SUPPORT_LEVELS = ("12", "13")
_YOUNGEST, _OLDEST = 66, 101
# One in this many has the number of a person on public assistance alone (standard, section 7).
_ASSISTED = 12


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist; *level* is the code of 要介護状態区分."""

    insurer: str
    insured: str
    name: str
    kana: str
    sex: str
    born: date
    address: str
    level: str
    certified: date

    @property
    def certified_until(self) -> date:
        """The last day of the certification: three years less a day."""
        return self.certified.replace(year=self.certified.year + 3) - timedelta(days=1)


def seeded(*parts: object) -> Random:
    """Return random numbers that are the same for the same *parts*, on any machine."""
    return Random(":".join(map(str, parts)))  # noqa: S311 - for inventing, never for secrets


def invent_office(service_type: str, index: int, random: Random) -> Office:
    """Invent the office number *index* (0 to 9999) for *service_type*; another index is another office."""
    prefecture = random.choice(tuple(_PREFECTURES))
    nine = f"{prefecture}{_CLASSES.get(service_type, _DESIGNATED)}{DISTRICT}{index:04d}"
    title = _TITLES.get(service_type, "介護サービス")
    name = f"{random.choice(_VILLAGES)}{title} 第{index + 1}"
    return Office(add_check_digit(nine), name, _PREFECTURES[prefecture], (service_type,))


def name_office(number: OfficeNumber, service_type: str) -> Office:
    """Return an office under a number that was given; its name is invented."""
    prefecture = _PREFECTURES.get(number[:2], "")
    return Office(number, f"みほん野{_TITLES.get(service_type, '介護サービス')}", prefecture, (service_type,))


def invent_persons(count: int, day: date, *, is_preventive: bool, random: Random) -> Sequence[Person]:
    """Invent *count* persons as of *day*, no two with one number."""
    levels = _SUPPORT_LEVELS if is_preventive else _CARE_LEVELS
    return tuple(_invent_person(insured, day, levels, random) for insured in _invent_numbers(count, random))


def _invent_numbers(count: int, random: Random) -> Iterator[str]:
    seen: set[str] = set()
    while len(seen) < count:
        digits = random.randrange(10**9)
        number = f"H{digits:09d}" if random.randrange(_ASSISTED) == 0 else f"{random.randrange(10)}{digits:09d}"
        if number not in seen:
            seen.add(number)
            yield number


def _invent_person(insured: str, day: date, levels: Sequence[str], random: Random) -> Person:
    family, family_kana = random.choice(_FAMILIES)
    is_woman = random.randrange(2) == 0
    given, given_kana = random.choice(_WOMEN if is_woman else _MEN)
    age_days = random.randrange(_YOUNGEST * 365, _OLDEST * 365)
    certified = (day - timedelta(days=random.randrange(30, 365))).replace(day=1)
    return Person(
        insurer=add_check_digit(f"0000{random.choice(tuple(_PREFECTURES))}{MUNICIPALITY}")[4:],
        insured=insured,
        name=f"{family}　{given}",
        kana=f"{family_kana}　{given_kana}",
        sex="2" if is_woman else "1",
        born=day - timedelta(days=age_days),
        address=f"架空県{random.choice(_VILLAGES)}{random.randrange(1, 40)}－{random.randrange(1, 20)}",
        level=random.choice(tuple(levels)),
        certified=certified,
    )
