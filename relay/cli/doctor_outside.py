"""What ``relay doctor`` asks others: a clock, and the relay's own door as offices find it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

from relay.cli.doctor_checks import Finding, Level, Patient
from relay.cli.installation import run
from relay.cli.terminal import CommandRefused

if TYPE_CHECKING:
    import asyncssh

_NTP_PORT = 123
_NTP_SECONDS = 5.0
_NTP_TRIES = 3
_NTP_PACKET = struct.Struct(">BBbb11I")
# Seconds from NTP's year 1900 to 1970.
_NTP_EPOCH = 2_208_988_800
_CLIENT, _SERVER = 0x23, 4
_UNSYNCHRONISED = 16
# Certificates are issued five minutes back: a second is nothing, a minute shows in the times people compare.
_CLOCK_LOOK, _CLOCK_BROKEN = 1.0, 60.0
_KNOCK_SECONDS = 15.0
_SSH_PORT = 22


def read_address(text: str, port: int) -> tuple[str, int]:
    """Read ``host``, ``host:port``, ``[::1]:port`` or a bare IPv6 address; CommandRefused for anything else."""
    host, colon, digits = text.rpartition(":")
    if not colon or ("]" in digits) or (":" in host and not host.startswith("[")):
        host, digits = text, str(port)
    if not host.strip("[]") or not digits.isdecimal() or not 0 < int(digits) < 65_536:  # noqa: PLR2004 - a port
        raise CommandRefused(f"{text!r} is no address: write host:port")
    return host.removeprefix("[").removesuffix("]"), int(digits)


# --- the clock ---------------------------------------------------------------------------------------------------


def ask_clock(address: str) -> Finding:
    """Compare this machine's clock with an NTP server's (SNTP, RFC 4330)."""
    host, port = read_address(address, _NTP_PORT)
    name = f"clock ({address})"
    try:
        offset, delay = _ask_ntp(host, port)
    except (OSError, ValueError) as error:
        return Finding(
            name, Level.LOOK, f"no time from there: {error or 'no answer'}", "Name a server that answers NTP."
        )
    text = f"this machine is {abs(offset):.3f} s {'behind' if offset > 0 else 'ahead'} (answered in {delay:.3f} s)"
    advice = "Let the system keep its clock (timedatectl, chrony): certificates and history go by it."
    if abs(offset) >= _CLOCK_BROKEN:
        return Finding(name, Level.BROKEN, text, advice)
    # Half the way there and back is what the answer may be wrong by.
    if abs(offset) >= _CLOCK_LOOK + delay / 2:
        return Finding(name, Level.LOOK, text, advice)
    return Finding(name, Level.WELL, text)


def _ask_ntp(host: str, port: int) -> tuple[float, float]:
    """Return how far we are behind, and how long the question took; OSError or ValueError where there is no time."""
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as caller:
        caller.settimeout(_NTP_SECONDS / _NTP_TRIES)
        caller.connect(where)
        for left in reversed(range(_NTP_TRIES)):
            # What we send comes back in the answer: nobody who does not see it can answer for the server.
            cookie = struct.unpack(">II", os.urandom(8))
            began, sent = time.time(), time.monotonic()
            caller.send(_NTP_PACKET.pack(_CLIENT, 0, 0, 0, *([0] * 9), *cookie))
            try:
                answer = caller.recv(512)
            except TimeoutError:
                if not left:
                    raise
                continue
            return _read_ntp(answer, cookie, began, time.monotonic() - sent)
    raise TimeoutError("no answer")


def _read_ntp(answer: bytes, cookie: tuple[int, ...], began: float, delay: float) -> tuple[float, float]:
    if len(answer) < _NTP_PACKET.size:
        raise ValueError("what answers there speaks no NTP")
    head, stratum, _, _, *words = _NTP_PACKET.unpack_from(answer)
    if head & 7 != _SERVER or tuple(words[5:7]) != cookie:
        raise ValueError("what answers there speaks no NTP")
    if not 0 < stratum < _UNSYNCHRONISED or head >> 6 == 3:  # noqa: PLR2004 - the leap indicator's alarm
        raise ValueError("that server does not know the time itself")
    received, transmitted = (words[place] - _NTP_EPOCH + words[place + 1] / 2**32 for place in (7, 9))
    return (received - began + transmitted - (began + delay)) / 2, delay


# --- the door ----------------------------------------------------------------------------------------------------


def knock(address: str, patient: Patient) -> Finding:
    """Connect as an office would, and look whether it is this relay that answers, with a certificate of our host CA."""
    host, port = read_address(address, _SSH_PORT)
    name = f"reach ({address})"
    advice = "Look at the address, the port forwarding and the firewall between."
    try:
        version, fault = run(_knock(host, port, patient))
    except (OSError, TimeoutError) as error:
        # Of several tries asyncio tells Python's own words; the system's are for people.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror or str(error) or "in time"
        return Finding(name, Level.BROKEN, f"nobody answers there: {why}", advice)
    if fault:
        return Finding(name, Level.BROKEN, f"{version or 'something'} answers there, but {fault}", advice)
    return Finding(name, Level.WELL, f"{version} answers there, with a host certificate of this relay's CA")


async def _knock(host: str, port: int, patient: Patient) -> tuple[str, str]:
    """Return what the other side calls itself, and what is wrong with it, '' where nothing is."""
    import asyncssh

    seen: list[str] = []

    class Caller(asyncssh.SSHClient):
        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            self.conn = conn

        def begin_auth_seen(self) -> None:
            seen.append(str(self.conn.get_extra_info("server_version", "")))

        def public_key_auth_requested(self) -> None:
            # The host has proved itself; with no key to offer the login ends here.
            self.begin_auth_seen()

    authorities = "".join(f"@cert-authority * {line}\n" for line in patient.keyring.host_cas)
    try:
        async with asyncio.timeout(_KNOCK_SECONDS):
            connection, _ = await asyncssh.create_connection(
                Caller, host, port, username="0000000000", known_hosts=authorities.encode(), client_keys=None,
                agent_path=None, config=None, gss_host=None, password_auth=False, kbdint_auth=False,
            )  # fmt: skip
            connection.abort()
    except asyncssh.HostKeyNotVerifiable as error:
        return "", f"it does not prove itself as this relay ({error.reason})"
    except asyncssh.PermissionDenied:
        return seen[0] if seen else "the relay", ""
    except asyncssh.Error as error:
        return "", f"the connection failed ({error.reason})"
    return seen[0] if seen else "a server", "it lets in who shows no certificate"
