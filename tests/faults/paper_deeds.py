"""What is done with certificates while something fails: an office enrols, renews its own, the operator revokes one.

What was told is compared with what the office finds in its ``certificate/`` afterwards: each certificate that it was
given, byte for byte, one for each of its keys, and none that was revoked.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

from abort_judge import Told
from deeds import Deed, Play, told_by
from house import CARE_MANAGER, HOME_HELP
from indoors import Indoors, clock
from sights import peek

from relay import journal
from relay.certificates import fingerprint_of_line, parse_certificate_line
from relay.enrolment import EnrolmentDesk, EnrolmentSession
from relay.errors import Deferred
from relay.invitation import Invitation, draw_code, write_code
from relay.keymaking import make_office_key
from relay.keyring import Keyring

_, KEY = make_office_key()
_VALID_SECONDS = 30 * 86_400
_OFFICES = (CARE_MANAGER, HOME_HELP)


class _Line:
    """The channel of an enrolment: what was answered, or that it ended without an answer."""

    def __init__(self) -> None:
        self.said = b""
        self.ended = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Take the answer."""
        self.said += data

    def exit(self, _status: int) -> None:
        """Know that there is no more."""
        self.ended.set()

    def disconnect(self, _reason: str) -> None:
        """Know that there is none."""
        self.ended.set()


def _inside(play: Play) -> tuple[Indoors, Keyring]:
    assert isinstance(play.relay, Indoors)
    assert play.relay.keyring is not None
    return play.relay, play.relay.keyring


async def _invite(play: Play) -> None:
    relay, keyring = _inside(play)
    code, now = draw_code(keyring.host_ca), clock()
    invitation = Invitation(code.id, code.digest, (HOME_HELP,), "", _VALID_SECONDS, now, now + timedelta(days=7))
    await relay.ledger.record_invitation(invitation, actor="operator")
    play.papers.code = write_code(code)


async def _enrol(play: Play) -> Told:
    """Say the code with the key that ``scripts/enroll`` has kept from the first try."""
    relay, keyring = _inside(play)
    desk, line = EnrolmentDesk(relay.ledger, relay.desks.config, lambda: keyring, relay.desks.clock), _Line()
    play.papers.asked.setdefault(KEY, "")
    session = EnrolmentSession(desk, KEY, journal.new_journal(), line.disconnect)
    session.connection_made(_any(line))
    session.data_received(json.dumps({"code": play.papers.code}).encode() + b"\n", None)
    await line.ended.wait()
    told = json.loads(line.said) if line.said else {}
    if "certificate" not in told:
        return Told.FAILED
    play.papers.asked[KEY] = told["certificate"]
    return Told.DONE


async def _renew(play: Play) -> Told:
    """Put a new key into ``certificate/``, and fetch what comes of it."""
    play.papers.asked.setdefault(KEY, "")
    async with play.relay.session() as raw:
        told = told_by(await raw.put("/certificate/next.pub", f"{KEY}\n".encode()))
        made = await peek(raw, "/certificate/next-cert.pub") if told is Told.DONE else None
    if made is None:
        return Told.FAILED
    play.papers.asked[KEY] = made.decode().strip()
    return told


async def _revoke(play: Play) -> Told:
    """Revoke what was renewed, as the operator does."""
    relay, _ = _inside(play)
    play.papers.revoked.setdefault(KEY, Told.NOTHING)
    try:
        (found,) = await relay.ledger.list_certificates(key_fingerprint=fingerprint_of_line(KEY))
        await relay.ledger.revoke_certificates([found.id], reason="lost", actor="operator", now=clock())
    except Deferred:
        return Told.FAILED
    play.papers.revoked[KEY] = Told.DONE
    return Told.DONE


async def _judge(play: Play) -> list[str]:
    shown: dict[str, list[str]] = {}
    for office in _OFFICES:
        async with play.relay.session(office) as raw:
            for name in await raw.list("/certificate"):
                if name.endswith("-cert.pub"):
                    line = (await peek(raw, f"/certificate/{name}") or b"").decode().strip()
                    shown.setdefault(parse_certificate_line(line).key_fingerprint, []).append(line)
    asked = {fingerprint_of_line(key): key for key in play.papers.asked}
    broken = [f"invented: a certificate for a key that nobody sent: {key}" for key in shown.keys() - asked.keys()]
    for fingerprint, key in asked.items():
        told, lines = play.papers.asked[key], shown.get(fingerprint, [])
        revoked = play.papers.revoked.get(key)
        if len(lines) > 1:
            broken.append("twice: one key has several certificates")
        if revoked is Told.DONE and lines:
            broken.append("open: a certificate that was revoked is shown as a good one")
        if revoked is None and told and told not in lines:
            broken.append("lost: a certificate that an office was given is not shown to it")
    return broken


def _any(what: object) -> Any:
    """Return *what* where asyncssh's own is asked for."""
    return what


PAPER_DEEDS = (
    Deed("enrol", _enrol, _invite, judge=_judge),
    Deed("renew", _renew, judge=_judge),
    Deed("revoke", _revoke, _renew, judge=_judge),
)
