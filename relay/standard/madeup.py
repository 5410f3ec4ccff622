"""Made-up records: what stands in each item of each kind, for persons who do not exist.

A record is filled from three sources, the first that knows the item: what its kind says (the visits of a slip, the
numbers of a plan's lines), what is known of the person and the unit (name, month, care manager), and last the form
that the layout gives the item.  The layout decides which items there are, so a new edition needs nothing here as long
as its items keep their names.

The values are plausible, never authoritative: service codes and units come from no price list.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

from relay.model import Office
from relay.standard.invented import Person, seeded
from relay.standard.layouts import Item, layout
from relay.standard.serials import NO_MONTH
from relay.standard.versions import current_version

# By number where a layout has a name twice, else by name.
Known = Mapping[str | int, str]

PLANNER = "仮名　ケア子"
_NO_DATE = "00000000"
_GRAND_TOTAL_OFFICE = "9999999999"
_EQUIPMENT = ("17", "67")
# What is done at one visit: the last four characters of the service code, units, from, to.
_VISITS = {
    "11": ("1211", 387, "0900", "0945"),
    "13": ("1111", 471, "1000", "1030"),
    "15": ("1243", 777, "0930", "1640"),
    "16": ("1243", 762, "0930", "1540"),
    "78": ("1142", 416, "1330", "1700"),
}
_OTHER_VISIT = ("1111", 300, "1000", "1130")
_RENTED = (("1003", 1300, "特殊寝台　例ベッドⅡ型"), ("1007", 300, "手すり　①居室用"))
# Yen a unit, and the ninth tenth of it that the insurance pays.
_YEN = 10
_PAID_PERCENT = 90
_MADE_THAT_DAY = (
    "作成年月日", "計画作成(変更)日", "相談日", "居宅計画書作成年月日", "週間サービス計画表作成年月日",
    "初回居宅サービス計画作成日", "初回作成日", "同意日",
)  # fmt: skip
_CERTIFIED_SINCE = ("認定日", "認定年月日", "認定有効期間開始日", "認定有効期限開始日", "限度額適用開始年月日")
# What an item is about shows in its name; everything else may hold anything.
_TEXTS_BY_NAME = (("住所", "架空県見本市例示１－２－３"), ("氏名", "見本　次郎"), ("続柄", "長男"))
_TEXTS = (
    '本人：「住み慣れた家で、できるだけ長く暮らしたい」\r\n家族：週３回の"デイ"を希望, 夜間は見守る。',
    "①転倒を防ぐ　②口から食べる楽しみを続ける（～月１回）",
    "独居。長男が隣町～車で15分",
    '年金,"その他"収入なし',
    "趣味は編み物（ｱﾐﾓﾉ）、ラジオ体操",
    "㈱見本フーズの配食を利用\r\n（火・木）",
    "特になし",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the files of one unit have in common.

    *manager* plans; *providers* serve every person, the partner of this unit first.  *images* are the names of the
    family diagrams by insured number.  *with_plan* where the unit is a plan, whose supplement has no month.
    """

    standard: str
    month: str
    day: date
    manager: Office
    providers: Sequence[Office]
    persons: Sequence[Person]
    seed: str
    with_plan: bool = False
    images: Mapping[str, str] = field(default_factory=dict)


def make_up_records(kind: str, scene: Scene) -> Iterator[tuple[str, ...]]:
    """Yield the records of a file of *kind*, each as the values of its items in order."""
    items = layout(scene.standard, kind)
    lines = _LINES.get(kind, _one_line)
    for person in scene.persons:
        random = seeded(scene.seed, kind, person.insured)
        known = _describe(kind, person, scene)
        for line in lines(person, scene):
            merged: Known = {**known, **line}
            yield tuple(_fill(item, merged, scene, random) for item in items)


def _describe(kind: str, person: Person, scene: Scene) -> dict[str | int, str]:
    """Return what is the same in every record of a person."""
    day, until = _write(scene.day), _write(person.certified_until)
    is_slip_supplement = kind == "UPHOSOKU" and not scene.with_plan
    known: dict[str | int, str] = {
        "CSVバージョン": current_version(scene.standard).value,
        "保険者番号": person.insurer,
        "被保険者番号": person.insured,
        "利用者性別": person.sex,
        "利用者生年月日": _write(person.born),
        "居宅サービス計画作成（変更）日": _NO_DATE if is_slip_supplement else day,
        "利用者住所２": "",
        "家族構成 画像ファイル名": scene.images.get(person.insured, ""),
    }
    month = NO_MONTH if kind == "UPHOSOKU" and scene.with_plan else scene.month
    for value, names in (
        (day, _MADE_THAT_DAY),
        (month, ("対象年月", "削除対象年月")),
        (person.name, ("利用者氏名", "利用者名", "同意者氏名")),
        (person.kana, ("利用者氏名フリガナ", "利用者氏名ﾌﾘｶﾞﾅ")),
        (person.address, ("利用者住所", "利用者住所１")),
        (person.level, ("要介護状態区分", "前回要介護状態区分", "前回の介護度")),
        (_write(person.certified), _CERTIFIED_SINCE),
        (until, ("認定有効期間終了日", "限度額適用終了年月日")),
        (scene.manager.name, ("介護支援事業者名", "計画作成者事業者・事業所名")),
        (PLANNER, ("プラン担当者名", "居宅サービス計画作成者氏名", "作成担当者")),
    ):
        known |= dict.fromkeys(names, value)
    return known


def _fill(item: Item, known: Known, scene: Scene, random: Random) -> str:
    """Return the value of *item*: what is known, or something of its form."""
    for key in (item.number, item.name_ja):
        if key in known:
            return known[key]
    if item.is_text:
        return next((text for part, text in _TEXTS_BY_NAME if part in item.name_ja), None) or random.choice(_TEXTS)
    if _CODES.fullmatch(item.format):
        return random.choice(item.format.split("|"))
    make = _BY_FORMAT.get(item.format)
    return make(scene, random) if make else ""


# 1|2, Y|N, 06|12|13: a list of codes.  Times are lists to the eye alone.
_CODES = re.compile(r"[0-9YN]+(?:\|[0-9YN]+)+")
_BY_FORMAT: Mapping[str, Callable[[Scene, Random], str]] = {
    "YYYYMMDD": lambda scene, random: _write(scene.day - timedelta(days=random.randrange(30, 700))),
    "NNN-NNNN": lambda _scene, _random: "000-0000",
    "telephone": lambda _scene, random: f"000-0000-{random.randrange(10_000):04d}",
    "office number": lambda scene, _random: scene.manager.number,
    "digits": lambda _scene, random: str(random.randrange(6)),
    "1-99": lambda _scene, _random: "1",
    "1..": lambda _scene, _random: "1",
    "9999999999 fixed": lambda _scene, _random: _GRAND_TOTAL_OFFICE,
}


def _one_line(_person: Person, _scene: Scene) -> Iterator[Known]:
    yield {}


def _supplement_lines(_person: Person, _scene: Scene) -> Iterator[Known]:
    # The limits of single service types are for nobody but those who have one.
    limits = ("サービス種類コード", "支給限度基準額", "合計単位数", "限度超単位数")
    yield {f"{place}{limit}": "" for place in "１２３４５６７８９" for limit in limits}


def _table_2_lines(_person: Person, scene: Scene) -> Iterator[Known]:
    # A blank cell means the same as the line above (kinds.csv).
    blank: Known = dict.fromkeys(("課題", "長期目標", "短期目標", "長期期間", "短期期間"), "")
    for place, office in enumerate(scene.providers, 1):
        line: Known = {
            "援助内容ＮＯ": str(place),
            "サービス種別": "介護サービス",
            "サービス事業者コード": office.number,
            "サービス事業所名": office.name,
            "実施期間": "６か月",
            "頻度": "週２回",
        }
        yield line if place == 1 else {**blank, **line}


def _table_3_lines(person: Person, scene: Scene) -> Iterator[Known]:
    for office in scene.providers:
        visits = _plan_visits(person, office, scene)
        weekdays = sorted({visit.day.isoweekday() for visit in visits})
        for weekday in weekdays:
            # Items 8 and 9 are the times of a service, 11 and 12 those of daily life, under the same names.
            times: Known = {8: visits[0].start, 9: visits[0].end} if visits[0].has_time else {8: "0900", 9: "1000"}
            yield {**times, 6: office.name, 7: str(weekday), 10: "", 11: "", 12: "", 13: ""}
    yield {6: "", 7: "", 8: "", 9: "", 10: "起床・朝食", 11: "0630", 12: "0730", 13: "短期入所（月１回）"}


@dataclass(frozen=True, slots=True)
class _Visit:
    """One line of a slip."""

    day: date
    start: str
    end: str
    code: str
    units: int
    article: str = ""
    tais: str = ""
    place: str = ""

    @property
    def has_time(self) -> bool:
        return not self.article


def _plan_visits(person: Person, office: Office, scene: Scene) -> Sequence[_Visit]:
    """Return the visits of *office* to *person* in the month: the same in a plan, a slip and the results."""
    service = office.service_types[0]
    year, month = int(scene.month[:4]), int(scene.month[4:])
    if service in _EQUIPMENT:
        return tuple(
            _Visit(date(year, month, 1), "9999", "9999", service + code, units, article, f"0000{place}-0000{place}0", str(place))
            for place, (code, units, article) in enumerate(_RENTED, 1)
        )  # fmt: skip
    code, units, start, end = _VISITS.get(service, _OTHER_VISIT)
    weekdays = seeded(scene.seed, person.insured, office.number).sample(range(6), 2)
    days = (date(year, month, day) for day in range(1, calendar.monthrange(year, month)[1] + 1))
    return tuple(_Visit(day, start, end, service + code, units) for day in days if day.weekday() in weekdays)


def _plan_lines(person: Person, scene: Scene) -> Iterator[Known]:
    for office in scene.providers:
        yield from _visit_lines(person, office, scene)


def _result_lines(person: Person, scene: Scene) -> Iterator[Known]:
    # Results are the provider's own; a slip lists the services of all (standard, section 3).
    yield from _visit_lines(person, scene.providers[0], scene)


def _visit_lines(person: Person, office: Office, scene: Scene) -> Iterator[Known]:
    for visit in _plan_visits(person, office, scene):
        yield {
            "単位数": str(visit.units),
            "前月までの短期入所利用日数": "0",
            "サービス利用日": _write(visit.day),
            "サービス開始時刻": visit.start,
            "サービス終了時刻": visit.end,
            "サービス回数": "1",
            "サービスコード": visit.code,
            "TAISコード": visit.tais,
            "用具名称（機種名）": visit.article,
            "明細判別コード": visit.place,
            "サービス事業者コード": office.number,
            "サービス事業所名": office.name,
            "３０日超区分": "0",
        }


def _annex_lines(person: Person, scene: Scene) -> Iterator[Known]:
    everything = 0
    for office in scene.providers:
        counts: dict[str, list[_Visit]] = {}
        for visit in _plan_visits(person, office, scene):
            counts.setdefault(visit.code, []).append(visit)
        for visits in counts.values():
            yield _service_line(office, visits)
        total = sum(visit.units for visits in counts.values() for visit in visits)
        everything += total
        yield _total_line(office.name, office.number, office.service_types[0] + "AAAA", total)
    yield _total_line("合計", _GRAND_TOTAL_OFFICE, "999999", everything)


def _service_line(office: Office, visits: Sequence[_Visit]) -> Known:
    first, count = visits[0], len(visits)
    total = first.units * count
    cost = total * _YEN
    paid = cost * _PAID_PERCENT // 100
    within: Known = dict.fromkeys(("種類支給限度基準内単位数", "区分支給限度基準内単位数"), str(total))
    over = ("種類支給限度基準超単位数", "区分支給限度基準超単位数", "利用者負担（全額負担分）", "３０日超区分")
    return {
        **_SPARSE,
        **within,
        **dict.fromkeys(over, "0"),
        "サービス事業所名": office.name,
        "サービス事業所コード": office.number,
        "サービスコード": first.code,
        "TAISコード": first.tais,
        "用具名称（機種名）": first.article,
        "単位数": str(first.units),
        "回数／日数": str(count),
        "サービス単位金額": str(total),
        "給付管理単位数": str(total),
        "単位数単価": f"{_YEN}.00",
        "費用総額保険／事業対象分": str(cost),
        "給付率": str(_PAID_PERCENT),
        "保険／事業費請求額": str(paid),
        "利用者負担保険／事業対象分": str(cost - paid),
    }


def _total_line(name: str, number: str, code: str, total: int) -> Known:
    return {
        **_SPARSE,
        "サービス事業所名": name,
        "サービス事業所コード": number,
        "サービスコード": code,
        "サービス単位金額": str(total),
        "給付管理単位数": str(total),
    }


# The items of table 7 that a line may leave out, and what a line that counts nothing has in the others.
_SPARSE: Known = {
    **dict.fromkeys(("サテライト枝番", "福祉用具届出コード", "割引後率", "割引後単位数", "定額利用者負担単価金額"), ""),
    **dict.fromkeys(("種類支給限度基準超単位数", "種類支給限度基準内単位数", "区分支給限度基準超単位数"), ""),
    **dict.fromkeys(("区分支給限度基準内単位数", "費用総額保険／事業対象分", "保険／事業費請求額"), ""),
    **dict.fromkeys(("利用者負担保険／事業対象分", "利用者負担（全額負担分）", "用具名称（機種名）"), ""),
    **dict.fromkeys(("前月までの利用日数", "当月の計画利用日数", "累積利用日数", "３０日超区分"), "0"),
    **dict.fromkeys(("単位数", "回数／日数"), "0"),
}


def _day_lines(_person: Person, _scene: Scene) -> Iterator[Known]:
    for time, doing in (("6:00", "起床"), ("7:30", "朝食, 服薬"), ("21:00", "就寝")):
        yield {"時間": time, "本人の生活状況": doing}


def _illness_lines(_person: Person, _scene: Scene) -> Iterator[Known]:
    for since, illness in (("R2年4月", "高血圧症"), ("2019/10", "腰椎圧迫骨折")):
        yield {"年月日": since, "病名": illness, "医療機関・医師名": "見本内科・仮名医師"}


def _preventive_lines(_person: Person, scene: Scene) -> Iterator[Known]:
    for place, office in enumerate(scene.providers, 1):
        yield {"利用サービスＮＯ": str(place), "【利用サービス】事業所(利用先)": office.name}


def _preventive_plan_lines(person: Person, _scene: Scene) -> Iterator[Known]:
    yield {"要支援状態区分": "1" if person.level == "12" else "2"}


def _deletion_lines(_person: Person, scene: Scene) -> Iterator[Known]:
    office = scene.providers[0]
    yield {"サービス事業者コード": office.number, "サービス種類コード": office.service_types[0]}


_LINES: Mapping[str, Callable[[Person, Scene], Iterator[Known]]] = {
    "UPHOSOKU": _supplement_lines,
    "UP2KYO": _table_2_lines,
    "UP3KYO": _table_3_lines,
    "UPPLAN": _plan_lines,
    "UPJSK": _result_lines,
    "UPSIKYU": _annex_lines,
    "DLTJSK": _deletion_lines,
    "UPKIHON_SUB1": _day_lines,
    "UPKIHON_SUB2": _illness_lines,
    "UPYOBO": _preventive_plan_lines,
    "UPYOBO_SUB": _preventive_lines,
}


def _write(day: date) -> str:
    return day.strftime("%Y%m%d")
