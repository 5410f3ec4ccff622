"""``relay doctor``: whether this relay is well, point by point, and what to do where it is not.

It looks and changes nothing.  Each check says one thing: it is well, it should be looked at, or it is broken; a check
that cannot be done is told as one to be looked at, and keeps none of the others from being done.

Exit codes are those that monitoring programs know: 0 all is well, 1 something should be looked at, 2 something is broken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relay.cli.doctor_checks import Finding, Level, Patient, list_checks
from relay.cli.doctor_outside import ask_clock, knock
from relay.cli.installation import HomeOption
from relay.cli.terminal import JsonOption, Tone, colour, print_json, print_points, say
from relay.errors import ConfigError

_WORDS = {Level.WELL: ("well", Tone.GOOD), Level.LOOK: ("look", None), Level.BROKEN: ("BROKEN", Tone.BAD)}
_CODES = {Level.WELL: 0, Level.LOOK: 1, Level.BROKEN: 2}
_WORD_COLUMNS = 8


def doctor(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Read the whole store and all of history; takes minutes.")
    ] = False,
    reach: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Connect there, as offices do, and look who answers.", show_default=False
        ),
    ] = None,
    clock: Annotated[
        list[str] | None,
        typer.Option("--clock", metavar="HOST[:PORT]", help="Compare the clock with this NTP server; may be repeated."),
    ] = None,
    backups: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where `relay backup --every` puts them.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Examine this relay: keys, store, history, disk, clock, certificates, settings; and say what to do.

    It exits with 0 where all is well, 1 where something should be looked at, 2 where something is broken.
    """
    found = _examine(home, full=full, reach=reach, clocks=clock or [], backups=backups)
    if as_json:
        print_json(
            [
                {"check": each.check, "level": each.level.value, "text": each.text, "advice": each.advice}
                for each in found
            ]
        )
    else:
        _print(found)
    raise typer.Exit(max(_CODES[each.level] for each in found))


def _examine(home: Path, *, full: bool, reach: str | None, clocks: list[str], backups: Path | None) -> list[Finding]:
    from relay.configfile import load_config

    try:
        config = load_config(home)
    except ConfigError as error:
        return [Finding("settings", Level.BROKEN, str(error), "Mend relay.toml; `relay config check` reads it again.")]
    patient = Patient(config, is_full=full, backups=backups)
    found: list[Finding] = []
    for name, check in list_checks():
        try:
            found += check(patient)
        except ConfigError as error:
            found.append(Finding(name, Level.BROKEN, str(error), ""))
        except OSError as error:
            text = f"cannot be looked at: {error.strerror or error}" + (
                f" ({error.filename})" if error.filename else ""
            )
            found.append(Finding(name, Level.LOOK, text, "Run this as the user that the relay runs as."))
    found += [ask_clock(address) for address in clocks]
    if reach is not None:
        found.append(knock(reach, patient))
    return found


def _print(found: list[Finding]) -> None:
    points: list[tuple[Text, Text]] = []
    for each in found:
        word, tone = _WORDS[each.level]
        points.append((colour(word, tone), Text.assemble((each.check, "bold"), f": {each.text}")))
        if each.advice:
            points.append((Text(), Text(each.advice, style=Tone.FADED)))
    print_points(points, _WORD_COLUMNS)
    broken = sum(each.level is Level.BROKEN for each in found)
    look = sum(each.level is Level.LOOK for each in found)
    say("")
    say(f"{len(found)} looked at: {len(found) - broken - look} well, {look} to look at, {broken} broken")
