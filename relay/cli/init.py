"""``relay init``: settings, keys and store of a new relay; what is there already is kept as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.installation import HomeOption
from relay.cli.terminal import CommandFailed, say

if TYPE_CHECKING:
    from relay.config import Config
    from relay.keyring import Keyring


def init(home: HomeOption = Path()) -> None:
    """Make a relay in the home: relay.toml, keys/ and the store.  Nothing that exists is overwritten."""
    from relay.configfile import FILE_NAME, load_config, load_template
    from relay.publishing import publish_file

    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    is_new = publish_file(home / FILE_NAME, load_template().encode(), 0o644)
    _tell("settings", home / FILE_NAME, is_new=is_new)
    config = load_config(home)
    keyring = _make_keys(config)
    _make_store(config)
    _print_next_steps(config, keyring)


def _tell(what: str, path: Path, *, is_new: bool) -> None:
    say(f"{'made' if is_new else 'kept'}  {what:9} {path}")


def _make_keys(config: Config) -> Keyring:
    from relay.authority import find_passphrase
    from relay.keymaking import create_keyring
    from relay.keyring import AUDIT_FILE, IRREPLACEABLE_FILES, list_missing
    from relay.ledger.anchor import has_audit

    missing = list_missing(config.keys_path)
    needed = (*IRREPLACEABLE_FILES, *([AUDIT_FILE] if has_audit(config.store.path) else []))
    if config.store.path.exists() and (lost := [name for name in needed if name in missing]):
        # New keys would open a store whose files nobody can read any more.
        raise CommandFailed(
            f"the store {config.store.path} is there, but of its keys {', '.join(lost)} is missing in {config.keys_path}: "
            "put it back from your backup"
        )
    keyring = create_keyring(config.keys_path, passphrase=find_passphrase())
    _tell("keys", config.keys_path, is_new=bool(missing))
    return keyring


def _make_store(config: Config) -> None:
    from relay.ledger.sqlite import create_store

    try:
        create_store(config.store.path, page_bytes=config.store.page_bytes)
        is_new = True
    except FileExistsError:
        is_new = False
    _tell("store", config.store.path, is_new=is_new)


def _print_next_steps(config: Config, keyring: Keyring) -> None:
    from relay.connecting import known_hosts_lines

    option = "" if config.home == Path.cwd() else f" --home {config.home}"
    steps = (
        ("Say who runs it, and for a network where it listens", f"edit {config.home / 'relay.toml'}"),
        ("Register offices", f"relay office import offices.csv{option}"),
        ("Invite each one to fetch its certificate", f"relay cert invite OFFICE{option}"),
        ("Start", f"relay serve{option}"),
    )
    say("")
    say("Next:")
    for number, (what, how) in enumerate(steps, 1):
        say(f"  {number}. {what}:")
        say(f"       {how}")
    say("")
    say("Back up keys/ once, apart from the store: without it the store cannot be read.")
    say("What offices put into known_hosts to be spared the question about the host key:")
    for line in known_hosts_lines(config, keyring.host_cas):
        say(f"  {line}")
