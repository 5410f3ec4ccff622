"""The doorkeeper: what holds before anybody has said who he is.

How many connections may be at the door without having logged in, in total and from one network, how much of the
server's time all of them get, when it is too busy for anybody new, and what it speaks: algorithms, time-outs, windows.
Nothing here knows of certificates or offices.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypedDict

import asyncssh

from relay.common import Common, Tally
from relay.config import Config, ServerSettings

# What a client may send on a channel before we ask for more.  It is also what a session that is kept waiting holds.
WINDOW_BYTES: Final = 2 * 1024 * 1024
PACKET_BYTES: Final = 32 * 1024
# WinSCP judges servers by this: nothing in it may be the name of another server (CLIENTS section 5).
_SERVER_VERSION = "Relay"
_REKEY_SECONDS = 3600.0
_NETWORK_BITS = {4: 24, 6: 64}
# Connections that wait to be taken: beyond, the system drops them and their clients hang instead of reading why.
_BACKLOG = 1024
# So many late wakes in a row are no accident.
_LAGS = 3
# With ten wakes a second: from nearly nobody to 500 in ten seconds.
_ROOM_STEP = 5
# Of the time of this process strangers get one part in so many.  A key exchange takes a millisecond or a few.
STRANGERS_SHARE = 8
# Networks of which refused logins are told by name, in a minute.
_NETWORKS_TOLD = 64
ELSEWHERE = "other networks"

# The client's order decides (RFC 4253 section 7.1): a client that knows mlkem768x25519 gets it.
_KEX = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
_CIPHERS = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
# Told to clients, so that RSA keys sign with SHA-2; what arrives all the same is judged in `relay.certificates`.
_SIGNATURES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


class ListenOptions(TypedDict):
    """What `asyncssh.listen` is told: everything that it would otherwise decide by a default of its own."""

    server_factory: Callable[[], asyncssh.SSHServer]
    server_host_keys: list[asyncssh.SSHKeyPair]
    server_version: str
    backlog: int
    login_timeout: float
    keepalive_interval: float
    keepalive_count_max: int
    window: int
    max_pktsize: int
    encoding: None
    line_editor: bool
    authorized_client_keys: None
    gss_host: None
    password_auth: bool
    kbdint_auth: bool
    host_based_auth: bool
    agent_forwarding: bool
    x11_forwarding: bool
    allow_pty: bool
    kex_algs: list[str]
    encryption_algs: list[str]
    mac_algs: list[str]
    signature_algs: list[str]
    compression_algs: list[str]
    rekey_bytes: int
    rekey_seconds: float


def plan_listen_options(
    server: ServerSettings, host_keys: list[asyncssh.SSHKeyPair], factory: Callable[[], asyncssh.SSHServer]
) -> ListenOptions:
    """Return the keyword arguments of `asyncssh.listen`.

    No ``sftp_factory``, ``session_factory`` or ``process_factory``: with any of them asyncssh never asks for a session.
    """
    return ListenOptions(
        server_factory=factory,
        server_host_keys=host_keys,
        server_version=_SERVER_VERSION,
        backlog=_BACKLOG,
        login_timeout=server.login_seconds,
        keepalive_interval=server.keepalive_seconds,
        keepalive_count_max=server.keepalive_count,
        window=WINDOW_BYTES,
        max_pktsize=PACKET_BYTES,
        encoding=None,
        line_editor=False,
        authorized_client_keys=None,
        gss_host=None,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        agent_forwarding=False,
        x11_forwarding=False,
        allow_pty=False,
        kex_algs=list(_KEX),
        encryption_algs=list(_CIPHERS),
        mac_algs=list(_MACS),
        signature_algs=list(_SIGNATURES),
        compression_algs=["none"],
        rekey_bytes=server.rekey_bytes,
        rekey_seconds=_REKEY_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class Crowd:
    """Why a connection is turned away: too many strangers in *scope*, *until* the oldest one's time is up."""

    limit: str
    scope: str
    until: datetime


@dataclass(slots=True)
class _Network:
    """The strangers of one network: those of this worker in order of arrival, and how many there are in all."""

    tally: Tally
    arrivals: dict[Hashable, datetime] = field(default_factory=dict)


class Strangers:
    """The connections that have not logged in, counted in total and for each network, over all workers."""

    def __init__(self, config: Config, common: Common) -> None:
        """Begin with nobody at this worker's door."""
        self._limits = config.limits
        self._server = config.server
        self._common = common
        self._total = common.count("unauthenticated_total")
        # In order of arrival: the first is the first whose time runs out.
        self._arrivals: dict[Hashable, tuple[str, datetime]] = {}
        self._networks: dict[str, _Network] = {}

    def __len__(self) -> int:
        return len(self._arrivals)

    def admit(self, who: Hashable, address: str, now: datetime) -> Crowd | None:
        """Count *who*, or return why not."""
        name = network_of(address)
        network = self._networks.get(name)
        if network is None:
            network = self._networks[name] = _Network(self._common.count("unauthenticated_per_network", name))
        # Where all of them are at other workers' doors, the oldest is at most as old as can be.
        crowd = None
        if not network.tally.take(self._limits.unauthenticated_per_network):
            crowd = self._turn_away("unauthenticated_per_network", name, next(iter(network.arrivals.values()), now))
        elif not self._total.take(self._limits.unauthenticated_total):
            network.tally.add(-1)
            _, oldest = next(iter(self._arrivals.values()), ("", now))
            crowd = self._turn_away("unauthenticated_total", "all", oldest)
        else:
            self._arrivals[who] = (name, now)
            network.arrivals[who] = now
        self._forget_empty(name)
        return crowd

    def settle(self, who: Hashable) -> None:
        """Count *who* no longer: logged in, or gone."""
        if who in self._arrivals:
            name, _ = self._arrivals.pop(who)
            del self._networks[name].arrivals[who]
            self._networks[name].tally.add(-1)
            self._total.add(-1)
            self._forget_empty(name)

    def _forget_empty(self, name: str) -> None:
        if not self._networks[name].arrivals:
            self._networks.pop(name).tally.close()

    def _turn_away(self, limit: str, scope: str, oldest: datetime) -> Crowd:
        return Crowd(limit, scope, oldest + timedelta(seconds=self._server.login_seconds))


class Load:
    """How many may be logging in at once, so that the server keeps up with those that it has.

    Judged by how late it is when it wakes.  One late wake is a burst, which a large listing or a few logins make; late
    each of the last times, it is overloaded: work comes in faster than it is done.  Then half of those who log in are
    room enough, and half of that while it lasts, down to a few: a key exchange is the dearest thing that it does.  With
    each wake in time a few more may come.  So a flood cannot push it to and fro, and a slow machine locks nobody out.
    """

    def __init__(self, busy_seconds: float, *, least: int, most: int) -> None:
        """Begin with a server that has nothing to do, and room for *most*."""
        self._busy_seconds = busy_seconds
        self._least, self._most = min(least, most), most
        self._lags: deque[float] = deque(maxlen=_LAGS)
        self.room = most
        self.lag_seconds = 0.0

    def adopt(self, busy_seconds: float, *, least: int, most: int) -> None:
        """Go by other settings from now on, with room for *most* until it is seen that there is not."""
        self._busy_seconds = busy_seconds
        if most != self._most:
            self.room = most
        self._least, self._most = min(least, most), most

    def note(self, lag_seconds: float, *, strangers: int) -> None:
        """Know that the server has woken so late, while so many were logging in."""
        self.lag_seconds = lag_seconds
        self._lags.append(lag_seconds)
        if len(self._lags) == _LAGS and min(self._lags) >= self._busy_seconds:
            self.room = max(self._least, min(self.room, strangers) // 2)
        elif lag_seconds < self._busy_seconds:
            self.room = min(self._most, self.room + _ROOM_STEP)


class Turnstile:
    """Lets strangers begin their key exchanges one behind another, so that those inside keep most of the time.

    What a stranger has cost is paid for with a pause before the next one's turn, seven times as long; everybody else
    works meanwhile.  Nobody is turned away by this: who waits is one of the strangers that are counted, and his time
    runs.  Without a flood there is nobody in front, and the pauses are over before the next one comes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing to pay for; *clock* tells seconds."""
        self._clock = clock
        self._free_at = 0.0
        self._line = asyncio.Lock()

    @property
    def pause_seconds(self) -> float:
        """How long the next one has to wait from now on."""
        return max(0.0, self._free_at - self._clock())

    def note_work(self, seconds: float) -> None:
        """Know that so much time has just gone into a stranger."""
        self._free_at = max(self._free_at, self._clock()) + seconds * (STRANGERS_SHARE - 1)

    async def take_turn(self) -> None:
        """Wait until everybody in front has passed and what they cost is paid for."""
        async with self._line:
            while pause := self.pause_seconds:  # noqa: ASYNC110 - it is a time that is waited for
                await asyncio.sleep(pause)


class Knocks:
    """Logins that were refused, counted for each network and minute, and told once the minute is over.

    A flood of them writes a bounded number of lines: the networks of a minute beyond the first so many are counted
    together.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: dict[tuple[datetime, str], Counter[str]] = {}
        self._networks: Counter[datetime] = Counter()

    def count(self, address: str, reason: str, now: datetime) -> None:
        """Count a login from *address* that was refused for *reason*."""
        minute = now.replace(second=0, microsecond=0)
        key = minute, network_of(address)
        if key not in self._counts:
            if self._networks[minute] >= _NETWORKS_TOLD:
                key = minute, ELSEWHERE
            self._networks[minute] += 1
        self._counts.setdefault(key, Counter())[reason] += 1

    def take(self, before: datetime) -> list[tuple[datetime, str, str]]:
        """Return minute, network and counts of the minutes that were over *before*, and forget them."""
        over = sorted(key for key in self._counts if key[0] + timedelta(minutes=1) <= before)
        told = [(minute, network, _describe(self._counts.pop((minute, network)))) for minute, network in over]
        for minute, _ in over:
            self._networks.pop(minute, None)
        return told


def _describe(counts: Counter[str]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f"{counts.total()} refused: {reasons}"


def network_of(address: str) -> str:
    """Return the network that connections from *address* are counted under: a /24, or a /64."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS[parsed.version]), strict=False))
