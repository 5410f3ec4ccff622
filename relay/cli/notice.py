"""``relay notice``: what offices read in their お知らせ.txt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.installation import HomeOption, find_office, open_installation, run
from relay.cli.office import PREFECTURES
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    CommandRefused,
    JsonOption,
    json_time,
    print_json,
    print_table,
    read_day,
    say,
    say_time,
    zoned,
)

if TYPE_CHECKING:
    from relay.ledger.bulletin import Notice

app = typer.Typer(
    help="Texts for offices: in the お知らせ.txt of their trees.", no_args_is_help=True, context_settings=HELP_SETTINGS
)

# A page or two; what is longer nobody reads.
_TEXT_MOST = 4_000
_TITLE_MOST = 100


@app.command()
def add(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="The text.", show_default=False)] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Read it from here (UTF-8).")] = None,
    title: Annotated[str, typer.Option(help="Its heading.", show_default=False)] = "",
    begins: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="Show it from 2026-12-28 on.", show_default="now")
    ] = None,
    ends: Annotated[
        str | None, typer.Option("--until", metavar="DAY", help="The last day.", show_default="until removed")
    ] = None,
    office: Annotated[str | None, typer.Option(metavar="OFFICE", help="Only to this office.")] = None,
    prefecture: Annotated[str | None, typer.Option(help="Only to offices of this prefecture.")] = None,
    home: HomeOption = Path(),
) -> None:
    """Tell offices something; they see it at their next look into the tree."""
    if (text is None) == (file is None):
        raise CommandRefused("give the text, or a file with --file")
    if office is not None and prefecture is not None:
        raise CommandRefused("--office and --prefecture exclude each other")
    if prefecture is not None and prefecture not in PREFECTURES:
        raise CommandRefused(f"{prefecture!r} is no prefecture: write it as 北海道, 東京都, 大阪府 or 青森県")
    said = _read(file) if text is None and file is not None else text or ""
    run(_add(home, _check(said), _check_title(title), (begins, ends), office, prefecture))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CommandRefused(f"{file} is not UTF-8") from None


def _check(text: str) -> str:
    shown = text.strip().replace("\r\n", "\n").replace("\t", "  ")
    if not shown:
        raise CommandRefused("the text is empty")
    if len(shown) > _TEXT_MOST:
        raise CommandRefused(f"the text has {len(shown):,} characters; {_TEXT_MOST:,} are allowed")
    if not shown.replace("\n", "").replace("\u3000", "").isprintable():
        raise CommandRefused("the text has control characters")
    return shown


def _check_title(title: str) -> str:
    if len(title) > _TITLE_MOST or not title.replace("\u3000", "").isprintable():
        raise CommandRefused(f"the title must be one line of at most {_TITLE_MOST} characters")
    return title.strip()


async def _add(
    home: Path,
    text: str,
    title: str,
    days: tuple[str | None, str | None],
    office: str | None,
    prefecture: str | None,
) -> None:
    from relay.ledger.bulletin import Notice

    begins, ends = days
    async with open_installation(home) as relay:
        now = relay.now
        begins_at = now if begins is None else read_day(begins)
        ends_at = None if ends is None else read_day(ends, is_last=True)
        if ends_at is not None and ends_at <= max(begins_at, now):
            raise CommandRefused("--until is over, or before --from")
        to = None if office is None else (await find_office(relay.ledger, office)).number
        notice = Notice(title, text, begins_at, ends_at, to, prefecture)
        number = await relay.ledger.add_notice(notice, actor=relay.actor, now=now)
    say(f"notice {number}: {_say_to(notice)}, from {say_time(begins_at)} {_say_end(ends_at)}")


def _say_to(notice: Notice) -> str:
    if notice.about is not None and notice.office is None:
        return f"partners of {notice.about}"
    return notice.office or notice.prefecture or "all offices"


def _say_end(ends_at: datetime | None) -> str:
    return "until it is removed" if ends_at is None else f"until {say_time(ends_at)}"


@app.command(name="list")
def list_(*, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """List all notices that are kept, newest first."""
    notices = run(_list(home))
    if as_json:
        print_json([_describe(notice) for notice in notices])
    elif not notices:
        say("no notices")
    else:
        _print(notices)


async def _list(home: Path) -> Sequence[Notice]:
    async with open_installation(home) as relay:
        return await relay.ledger.list_notices()


def _print(notices: Sequence[Notice]) -> None:
    print_table(
        [
            Column("Number", justify="right"),
            Column(zoned("From")),
            Column(zoned("Until")),
            Column("To"),
            Column("Text", is_flexible=True),
        ],
        [
            (
                str(notice.number),
                say_time(notice.from_at, with_zone=False),
                say_time(notice.until_at, with_zone=False),
                _say_to(notice),
                " ".join(f"{notice.title} {notice.text}".split()),
            )
            for notice in notices
        ],
    )


def _describe(notice: Notice) -> dict[str, object]:
    return {
        "number": notice.number,
        "title": notice.title,
        "text": notice.text,
        "from_at": json_time(notice.from_at),
        "until_at": json_time(notice.until_at),
        "office": notice.office,
        "prefecture": notice.prefecture,
        "about": notice.about,
    }


@app.command()
def remove(
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, max=2**63 - 1, help="Which one.")],
    home: HomeOption = Path(),
) -> None:
    """Take a notice away from every office."""
    run(_remove(home, number))


async def _remove(home: Path, number: int) -> None:
    async with open_installation(home) as relay:
        if not await relay.ledger.remove_notice(number, actor=relay.actor, now=relay.now):
            raise CommandRefused(f"there is no notice {number}")
    say(f"notice {number} is removed")
