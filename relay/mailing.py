"""Mailing: takes letters from the ledger to the mail server, and notes what became of them.

A letter is taken from the ledger before it is sent and settled when the server has answered, each in a transaction
of its own, so a server that is killed at any moment sends it again or not at all, under the same Message-ID: each
arrival is told at least once.  A stop that is asked for waits a few seconds for the letter that is on its way.

A server that cannot be reached, or does not let us in, costs no letter a try: all wait, and it is asked again ever
more rarely.  A recipient that is refused for good is given up at once, anything else with time.

The texts of mail servers quote addresses: only their codes are kept and written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path

import aiosmtplib

from relay import journal
from relay.config import Config, MailSettings
from relay.errors import ConfigError, Deferred
from relay.journal import Journal
from relay.ledger import Ledger
from relay.letters import Letter, Letterhead, Rhythm, parse_address, write_letter, write_message_id, write_test

CREDENTIAL = "mail_password"
_LOOK_SECONDS = 2.0
# A stop does not wait longer for the letter that is on its way.
_PATIENCE_SECONDS = 5.0
_SERVER_RETRY_MOST = timedelta(minutes=30)
_DOUBLINGS_MOST = 16
_PERMANENT = 500
# Asked to log in or to encrypt first: our settings are wrong, not the recipient.
_NOT_LET_IN = 530
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")


async def carry_mail(ledger: Ledger, config: Config, clock: Callable[[], datetime], journal_: Journal) -> None:
    """Send what is due, for ever; without a mail server there is nothing to do."""
    if config.mail.rhythm is None:
        return
    postman = Postman(ledger, config, config.mail.rhythm, clock, journal_)
    while True:
        try:
            await postman.go_round()
        except Deferred:
            # The store has told of it, and this comes again every few seconds.
            pass
        except Exception as error:  # noqa: BLE001 - one spoilt row must not end the server
            journal.unexpected_error(journal_, reference="mailing", exception=error)
        await asyncio.sleep(_LOOK_SECONDS)


class Postman:
    """Carries letters, one after the other over one connection."""

    def __init__(
        self, ledger: Ledger, config: Config, rhythm: Rhythm, clock: Callable[[], datetime], journal_: Journal
    ) -> None:
        self._ledger = ledger
        self._settings = config.mail
        self._config = config
        self._rhythm = rhythm
        self._clock = clock
        self._journal = journal_
        self._failures = 0
        self._not_before: datetime | None = None

    async def go_round(self) -> None:
        """Give up what is too old, then send all that is due."""
        now = self._clock()
        before = now - timedelta(seconds=self._settings.give_up_seconds)
        while (stale := await self._ledger.give_up_stale(before=before, now=now)) is not None:
            journal.mail_given_up(self._journal, office=stale[0], arrivals=stale[1], cause="too late")
        if self._is_resting(now) or not self._ledger.is_mail_due(now):
            return
        try:
            async with connected(self._settings) as smtp:
                self._note_recovery()
                while await _uninterrupted(self._deliver_next(smtp)):
                    pass
        except (aiosmtplib.SMTPException, OSError, ConfigError) as error:
            self._note_failure(error)

    def _is_resting(self, now: datetime) -> bool:
        """True while a mail server that failed is left alone; a clock that was set back makes that no longer."""
        return self._not_before is not None and now < self._not_before <= now + _SERVER_RETRY_MOST

    async def _deliver_next(self, smtp: aiosmtplib.SMTP) -> bool:
        """Send one letter and note the outcome; False where none is due.

        What says nothing about the letter, but of the server, is raised; the letter is then tried again in its time.
        """
        new_id = partial(_draw_message_id, self._settings.sender)
        letter = await self._ledger.take_letter(self._rhythm, new_id, now=self._clock())
        if letter is None:
            return False
        try:
            await _send(smtp, self._settings, letter.mailbox, write_letter(letter, letterhead(self._config)))
        except ValueError:
            await self._give_up(letter, "the address cannot be read")
        except (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError) as refused:
            if refused.code == _NOT_LET_IN:
                raise
            await self._note_refusal(letter, refused)
            await smtp.rset()
        else:
            await self._ledger.settle_letter(letter)
            journal.mail_sent(self._journal, office=letter.office, arrivals=letter.count, tries=letter.tries)
        return True

    async def _note_refusal(self, letter: Letter, refused: aiosmtplib.SMTPResponseException) -> None:
        answer = say_code(refused)
        if refused.code >= _PERMANENT:
            await self._give_up(letter, answer)
            return
        await self._ledger.postpone_letter(letter, answer)
        journal.mail_postponed(self._journal, office=letter.office, answer=answer, tries=letter.tries)

    async def _give_up(self, letter: Letter, cause: str) -> None:
        await self._ledger.give_up_letter(letter, cause, now=self._clock())
        journal.mail_given_up(self._journal, office=letter.office, arrivals=letter.count, cause=cause)

    def _note_failure(self, error: Exception) -> None:
        if not self._failures:
            journal.mail_server_failed(self._journal, cause=describe_trouble(error))
        wait = self._rhythm.retry * (1 << min(self._failures, _DOUBLINGS_MOST))
        self._failures += 1
        self._not_before = self._clock() + min(wait, _SERVER_RETRY_MOST)

    def _note_recovery(self) -> None:
        if self._failures:
            journal.mail_server_recovered(self._journal)
        self._failures, self._not_before = 0, None


@asynccontextmanager
async def connected(settings: MailSettings) -> AsyncIterator[aiosmtplib.SMTP]:
    """Connect to the mail server, encrypted and logged in as the settings say, and take leave at the end.

    Raises aiosmtplib's errors, OSError, and ConfigError where the password or the CA certificates cannot be read.
    """
    password = await asyncio.to_thread(find_password, settings) if settings.username else None
    context = None if settings.tls == "none" else await asyncio.to_thread(_trust, settings.ca_file)
    smtp = aiosmtplib.SMTP(
        hostname=settings.host,
        port=settings.port,
        username=settings.username or None,
        password=password,
        local_hostname=settings.hello or socket.gethostname(),
        timeout=settings.timeout_seconds,
        use_tls=settings.tls == "tls",
        start_tls=settings.tls == "starttls",
        tls_context=context,
    )
    try:
        await smtp.connect()
        yield smtp
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await smtp.quit()
    finally:
        smtp.close()


async def send_test(config: Config, address: str, *, now: datetime) -> str:
    """Send a mail of no consequence to *address*; returns how it was carried and what the server said to it."""
    head = letterhead(config)
    message = write_test(address, head, message_id=_draw_message_id(head.sender), at=now)
    async with connected(config.mail) as smtp:
        encryption = smtp.get_transport_info("ssl_object")
        version = encryption.version() if encryption is not None else "not encrypted"
        answer = await _send(smtp, config.mail, address, message)
    return f"{config.mail.host}:{config.mail.port} ({version}): {answer.code} {answer.message}"


async def _send(smtp: aiosmtplib.SMTP, settings: MailSettings, address: str, message: bytes) -> aiosmtplib.SMTPResponse:
    """Hand one message over; raises aiosmtplib's errors, and ValueError where *address* is none."""
    recipient = parse_address(address)
    await smtp.mail(settings.sender)
    await smtp.rcpt(recipient)
    return await smtp.data(message)


async def _uninterrupted(work: Coroutine[None, None, bool]) -> bool:
    """Carry out *work*; one who is cancelled meanwhile goes when it is done, or after a few seconds."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)
        if not task.cancel() and not task.cancelled():
            # Looked at, or asyncio would tell of it; the letter is tried again in its time.
            task.exception()
        raise


def letterhead(config: Config) -> Letterhead:
    """Return from whom letters come."""
    operator = config.operator
    return Letterhead(config.mail.sender, operator.name, operator.telephone, operator.hours)


def find_password(settings: MailSettings, environ: Mapping[str, str] = os.environ) -> str:
    """Return the password from a systemd credential or its file; ConfigError where there is none to read."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(folder) / CREDENTIAL if folder else None
    if credential is None or not credential.exists():
        if not settings.password_file:
            raise ConfigError(f"mail.password_file is not set, and there is no systemd credential {CREDENTIAL}")
        credential = Path(settings.password_file)
    try:
        return credential.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"the password of the mail server cannot be read from {credential}: {reason}") from error


@cache
def _trust(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"mail.ca_file {ca_file} cannot be used: {error}") from error


def say_code(refused: aiosmtplib.SMTPResponseException) -> str:
    """Return the code of an answer, with the enhanced one where the server gives it (RFC 3463)."""
    enhanced = _ENHANCED.match(refused.message)
    return f"{refused.code} {enhanced[0]}" if enhanced else str(refused.code)


def describe_trouble(error: BaseException) -> str:
    """Say why the mail server cannot be used, without a word that it said itself."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{type(error).__name__} {say_code(error)}"
    if isinstance(error, ConfigError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, aiosmtplib.SMTPException):
            return f"{type(cause).__name__}: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _draw_message_id(sender: str) -> str:
    return write_message_id(secrets.token_hex(16), sender)
