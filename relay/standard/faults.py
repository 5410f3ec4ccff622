"""What was found in a file, gathered: for every code and item the first line, and on how many lines.

A file of a hundred thousand bad records makes as many findings as a file with one: nothing here grows with a file.
Places are lines, as an editor counts them, and items by number and Japanese name; never a value.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.errors import Finding, finding
from relay.standard.items import ITEM_LENGTH
from relay.standard.layouts import Item

# So much of an item's name fits beside everything else that one answer must say.
_NAME_CHARACTERS = 24


@dataclass(slots=True)
class _Place:
    """Where something was found first; *note* is what else is to be said about that first place."""

    line: int
    count: int
    item: Item | None
    note_ja: str
    note: str


class Faults:
    """The faults of one file so far."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], _Place] = {}

    def __contains__(self, code: str) -> bool:
        return any(found == code for found, _ in self._places)

    def add(
        self, code: str, line: int, *, item: Item | None = None, count: int = 1, note_ja: str = "", note: str = ""
    ) -> None:
        """Note *count* places at which *code* holds, the first of them in *line*; 0 where no line can be told."""
        place = self._places.get(key := (code, item.number if item else 0))
        if place is None:
            self._places[key] = _Place(line, count, item, note_ja, note)
            return
        place.count += count
        if line < place.line:
            place.line, place.note_ja, place.note = line, note_ja, note

    def first_line(self, code: str) -> int | None:
        """Return the first line at which *code* holds; None where it does not."""
        return min((place.line for (found, _), place in self._places.items() if found == code), default=None)

    def drop(self, code: str) -> None:
        """Forget what was found under *code*, because something else explains it."""
        self._places = {key: place for key, place in self._places.items() if key[0] != code}

    def findings(self) -> list[Finding]:
        """Return one finding for each code and item, by line within a code."""
        ordered = sorted(self._places.items(), key=lambda pair: (pair[1].line, pair[0]))
        return [_describe(code, place) for (code, _), place in ordered]


def _describe(code: str, place: _Place) -> Finding:
    words_ja = [f"{place.line}行目"] if place.line else []
    words = [f"line {place.line}"] if place.line else []
    if place.item is not None:
        name = _shorten(place.item.name_ja)
        words_ja.append(f"項目{place.item.number}「{name}」")
        words.append(f"item {place.item.number} {name}")
        if code == ITEM_LENGTH:
            words_ja.append(f"{place.item.length}文字まで")
            words.append(f"at most {place.item.length} characters")
    if place.note:
        words_ja.append(place.note_ja)
        words.append(place.note)
    if place.count > 1:
        words_ja.append(f"ほか{place.count - 1}か所")
        words.append(f"and {place.count - 1} more")
    facts = {"where_ja": "、".join(words_ja), "where": ", ".join(words)}
    if place.line:
        facts["line"] = str(place.line)
    if place.item is not None:
        facts["item"] = str(place.item.number)
    return finding(code, **facts)


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"
