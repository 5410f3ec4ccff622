"""What ``relay check`` says: for people, a place, a fault, the standard's section and how to mend it; JSON for programs.

For people Japanese comes first, with what to do right under what is wrong; the standard's section and the English
follow, for whoever makes the software.  Nothing of a file's content is ever shown, only where to look.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from relay.cli.check_judging import FileReport, Remark, UnitReport, show_path
from relay.cli.terminal import SHOWN_ROWS, Tone, console
from relay.errors import Severity

_STYLES = {"accept": "green", "warn": "yellow", "refuse": "bold red"}
# What a verdict is called for people; programs read the verdict itself.
_WORDS = {"accept": "問題なし", "warn": "注意", "refuse": "送れません"}
_WORD_COLUMNS = 12
_MEANINGS = (
    ("warn", "「注意」のファイルも送れます。相手が困ることがあるので、対処を読んでから送ってください。"),
    ("refuse", "「送れません」のファイルは、送っても受け付けられません。対処のとおりに直してください。"),
    (
        "accept",
        "「問題なし」でも、送るときに、送信元の事業所と、前に送ったファイルとの重なりを、あらためて確かめます。",
    ),
)
_Report = TypeVar("_Report", FileReport, UnitReport)


def print_json_line(report: FileReport | UnitReport) -> None:
    """Print one object on one line."""
    described = _describe_file(report) if isinstance(report, FileReport) else _describe_unit(report)
    sys.stdout.write(json.dumps(described, ensure_ascii=False) + "\n")


def _describe_file(report: FileReport) -> dict[str, object]:
    return {
        "file": show_path(report.path),
        "verdict": report.verdict,
        "findings": [_describe(remark) for remark in report.remarks],
    }


def _describe(remark: Remark) -> dict[str, object]:
    return {
        "code": remark.code,
        "severity": remark.severity.value,
        "line": remark.line,
        "item": remark.item,
        "message_ja": remark.message_ja,
        "message_en": remark.message_en,
    }


def _describe_unit(report: UnitReport) -> dict[str, object]:
    judged = report.judged
    return {
        "unit": judged.forms[0].id if judged.forms else None,
        "units": [form.id for form in judged.forms],
        "title_ja": judged.forms[0].title_ja if judged.forms else None,
        "title_en": judged.forms[0].title_en if judged.forms else None,
        "standard": report.key.standard,
        "sender": report.key.sender,
        "sender_service": report.key.sender_service,
        "recipient": report.key.recipient,
        "recipient_service": report.key.recipient_service,
        "serial": report.key.serial,
        "files": [show_path(path) for path in report.paths],
        "is_complete": judged.is_complete,
        "missing": list(judged.missing),
        "verdict": report.verdict,
        "findings": [_describe(remark) for remark in report.remarks],
    }


def print_reports(reports: Sequence[FileReport], units: Sequence[UnitReport], *, with_units: bool) -> None:
    """Print what was found; files and units in order are named only where they are few."""
    out = console()
    for report in _worth_showing(reports):
        _print_head(out, report.verdict, show_path(report.path))
        _print_remarks(out, report.remarks)
    for unit in _worth_showing(units):
        _print_head(out, unit.verdict, _name_unit(unit))
        _print_remarks(out, unit.remarks)
    _print_line(out, Text(f"ファイル {_count(reports)}", style="bold"))
    if with_units:
        _print_line(out, Text(f"送信単位 {_count(units)}", style="bold"))
    verdicts = {report.verdict for report in reports} | {unit.verdict for unit in units}
    for verdict, meaning in _MEANINGS:
        if verdict in verdicts:
            _print_line(out, Text(meaning))


def _worth_showing(reports: Sequence[_Report]) -> list[_Report]:
    return [report for report in reports if len(reports) <= SHOWN_ROWS or report.remarks]


def _name_unit(unit: UnitReport) -> str:
    form = unit.judged.forms[0] if unit.judged.forms else None
    title = f"{form.id} {form.title_ja}" if form else "送信単位ではありません"
    return f"{title}  {unit.key.sender} → {unit.key.recipient}  {unit.key.serial}"


def _print_head(out: Console, verdict: str, name: str) -> None:
    word = _WORDS[verdict]
    _print_line(out, Text.assemble((word, _STYLES[verdict]), " " * (_WORD_COLUMNS - cell_len(word)), name))


def _print_remarks(out: Console, remarks: Sequence[Remark]) -> None:
    """Print each remark; where to look it up and how to mend it, once for each code."""
    for index, remark in enumerate(remarks):
        style = _STYLES["refuse" if remark.severity is Severity.REFUSE else "warn"]
        place = f"{remark.line}行目"
        shown = "" if remark.line is None or place in remark.message_ja else f"（{place}）"
        _print_line(out, Text.assemble("  ", (f"{remark.message_ja}{shown}", style)))
        is_last = all(following.code != remark.code for following in remarks[index + 1 :])
        if is_last:
            _print_line(out, Text(f"    対処  {remark.mend_ja}"))
        _print_line(out, Text(f"    {remark.code}: {remark.message_en}", style=Tone.FADED))
        if is_last:
            _print_details(out, remark)


def _print_details(out: Console, remark: Remark) -> None:
    _print_line(out, Text(f"    {remark.mend_en}", style=Tone.FADED))
    if remark.section_ja:
        sections = dict.fromkeys((remark.section_ja, remark.section_en))
        _print_line(out, Text(f"    根拠  {' / '.join(sections)}", style=Tone.FADED))


def _print_line(out: Console, line: Text) -> None:
    # Not folded: a path or a sentence is one line for whoever searches the output.
    out.print(line, soft_wrap=True)


def _count(reports: Sequence[FileReport] | Sequence[UnitReport]) -> str:
    counts = Counter(report.verdict for report in reports)
    parts = "、".join(f"{word} {counts[verdict]:,}件" for verdict, word in _WORDS.items())
    return f"{len(reports):,}件（{parts}）"
