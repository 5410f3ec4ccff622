"""Settings as an operator writes them: ``relay.toml`` and the environment become a `Config`, or a list of faults.

One that cannot be used is told with everything that is wrong at once, in words, and where: an unknown key is refused,
since a misspelt limit would otherwise quietly not hold.

The environment overrides the file: ``RELAY_SERVER__PORT=2022`` is ``port`` of ``[server]``, written as in the file
(quotes around text may be left out).  Names with one underscore are left alone, because orchestrators set some of
their own for a service called relay; one that is a setting but for that underscore is refused.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relay.config import SECTIONS, Config, GrammarSettings, OfficeRuleSettings, list_settings, suggest
from relay.errors import ConfigError

FILE_NAME = "relay.toml"
_PREFIX = "RELAY_"
# Says where the home is; it cannot be read from a file inside it.
_NOT_A_SETTING = "RELAY_HOME"

# The settings that are lists of tables.
_TABLES_WITHIN: Mapping[str, type[BaseModel]] = {"grammars": GrammarSettings, "x509_offices": OfficeRuleSettings}


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
    unknown = sorted(raw.keys() - SECTIONS.keys())
    faults.extend(f"{FILE_NAME}: {section}: {_explain_unknown(section, raw[section])}" for section in unknown)
    try:
        # A table of its own for each section: one that is left out must not be the default of all.
        known = {section: raw.get(section, {}) for section in SECTIONS}
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
    settings = {_variable(section, key): (section, key) for section, key in list_settings()}
    slips = {name.replace("__", "_"): name for name in settings}
    for name, text in sorted(environ.items()):
        if not name.startswith(_PREFIX) or name == _NOT_A_SETTING:
            continue
        if (setting := settings.get(name)) is not None:
            found[setting] = _read_value(text, *setting)
        elif "__" in name:
            faults.append(f"{name}: there is no such setting{suggest(name, sorted(settings))}")
        elif name in slips and "://" not in text:
            faults.append(f"{name}: a setting is written with two underscores: {slips[name]}")
    return found


def _read_value(text: str, section: str, key: str) -> object:
    """Read *text* as the file would, with or without quotes; a telephone number stays text."""
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    default = SECTIONS[section].model_fields[key].get_default()
    return text if isinstance(default, str | Path) and not isinstance(value, str) else value


def _variable(section: str, key: str) -> str:
    return f"{_PREFIX}{section.upper()}__{key.upper()}"


def _explain(details: ErrorDetails, overrides: Mapping[tuple[str, str], object]) -> str:
    """Say one of pydantic's findings in the operator's words."""
    location = [str(part) for part in details["loc"]]
    section, key = location[0], location[1] if len(location) > 1 else ""
    where = _variable(section, key) if (section, key) in overrides else f"{FILE_NAME}: {_say_place(location)}"
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        model = _TABLES_WITHIN.get(key, SECTIONS[section])
        return f"{where}: there is no such setting{suggest(location[-1], list(model.model_fields))}"
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
        return f"there is no such section{suggest(name, list(SECTIONS))}"
    homes = [f"[{section}]" for section, key in list_settings() if key == name]
    hint = f"; it belongs under {' or '.join(homes)}" if homes else ""
    return f"stands outside of any section{hint}"
