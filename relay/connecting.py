"""How an office reaches this relay, as the commands print it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay.config import Config

_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not listened on
_SSH_PORT = 22
# What stands for a name that nobody has told.
UNKNOWN_HOST = "RELAY.EXAMPLE"


class Address(NamedTuple):
    """A host and a port to type."""

    host: str
    port: int


def describe_address(config: Config) -> Address:
    """Return where to connect; a relay that listens everywhere does not know its own name."""
    host = config.server.host
    return Address(UNKNOWN_HOST if host in _EVERYWHERE else host, config.server.port)


def known_hosts_lines(config: Config, host_cas: Sequence[str]) -> list[str]:
    """Return the lines that make OpenSSH trust this relay's host certificates, and only here.

    Two of them while a new host CA takes the place of another.
    """
    return authority_lines(describe_address(config), host_cas)


def authority_lines(address: Address, host_cas: Sequence[str]) -> list[str]:
    """Return those lines for somebody who reaches the relay at *address*."""
    host, port = address
    place = host if port == _SSH_PORT else f"[{host}]:{port}"
    return [f"@cert-authority {place} {line}" for line in host_cas]
