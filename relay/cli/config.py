"""``relay config``: whether the installation could start, and with which settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    JsonOption,
    Tone,
    colour,
    print_facts,
    print_json,
    print_table,
    say,
    warn,
)
from relay.errors import ConfigError

if TYPE_CHECKING:
    from relay.config import Config

BROKEN = 1

app = typer.Typer(help="The settings.", no_args_is_help=True, context_settings=HELP_SETTINGS)


@app.command()
def check(*, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """Check settings, keys and store, as the server would at its start; report everything that is wrong."""
    faults = _find_faults(home)
    found = any(faults.values())
    if as_json:
        print_json({"ok": not found, "faults": [{"part": part, "text": text} for part, text in faults.items() if text]})
    else:
        print_facts([(part, _say_part(text)) for part, text in faults.items()])
    if found:
        raise typer.Exit(BROKEN)


def _find_faults(home: Path) -> dict[str, str]:
    """Return what is wrong with each part of the installation, nothing where all is well."""
    from relay.configfile import FILE_NAME, load_config
    from relay.keyring import load_keyring

    try:
        config = load_config(home)
    except ConfigError as error:
        # Where keys and store lie is known no better than the rest.
        return {FILE_NAME: str(error)}
    faults = {FILE_NAME: "", "keys": ""}
    try:
        load_keyring(config.keys_path)
    except ConfigError as error:
        faults["keys"] = str(error)
    if not faults["keys"]:
        faults["store"] = run(_find_store_fault(home, config))
    return faults


async def _find_store_fault(home: Path, config: Config) -> str:
    from relay.ledger.storefile import check_disk

    try:
        if warning := check_disk(config.store.path):
            warn(warning)
        async with open_installation(home):
            return ""
    except ConfigError as error:
        return str(error)


def _say_part(fault: str) -> Text:
    return Text(fault, style=Tone.BAD) if fault else colour("in order", Tone.GOOD)


@app.command()
def show(*, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """Show every setting that holds, from the file, the environment or by default."""
    from relay.configfile import load_config

    config = load_config(home)
    if as_json:
        print_json(config.model_dump(mode="json"))
        return
    say(f"home  {config.home}")
    say(f"keys  {config.keys_path}")
    say("")
    print_table(
        [Column("Setting"), Column("Value", is_flexible=True), Column("")],
        [
            (name, value, colour("", None) if is_default else Text("set", "bold"))
            for name, value, is_default in _rows(config)
        ],
    )


def _rows(config: Config) -> list[tuple[str, str, bool]]:
    """Return each setting, its value as it would be written in the file, and whether that is its default."""
    rows = []
    for section, values in config.model_dump(mode="json", exclude={"home"}).items():
        settings = type(getattr(config, section)).model_fields
        for key, value in values.items():
            default = settings[key].get_default(call_default_factory=True)
            is_default = getattr(getattr(config, section), key) in (
                default,
                config.home / default if isinstance(default, Path) else default,
            )
            rows.append((f"{section}.{key}", _say_value(key, value), is_default))
    return rows


def _say_value(key: str, value: object) -> str:
    from relay.config import describe_size

    if isinstance(value, bool):
        return str(value).lower()
    if key.endswith("_bytes") or key == "stored_bytes_per_office":
        return describe_size(value) if isinstance(value, int) else str(value)
    if isinstance(value, list):
        return " ".join(item["label"] if isinstance(item, dict) else str(item) for item in value) or "-"
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items()) or "-"
    return str(value) if value not in ("", None) else "-"
