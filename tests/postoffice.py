"""A mail server of a test's own: a real one (aiosmtpd) on loopback, in a thread, that can refuse, wait and go away."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import DNSName
from house import HOST, PATIENCE_SECONDS, wait_for
from outside_cas import Holder

OK = "250 2.0.0 kept"


@dataclass(frozen=True, slots=True)
class Received:
    """One mail as it came, and how."""

    sender: str
    recipient: str
    raw: bytes
    is_encrypted: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed."""
        return cast(EmailMessage, message_from_bytes(self.raw, policy=policy.default))

    @property
    def text(self) -> str:
        """What a person reads."""
        return cast(str, self.message.get_content())


@dataclass
class PostOffice:
    """The server; *to_recipients* and *to_mails* are its next answers, then it takes all.

    With *is_open* clear it keeps each mail and answers only when it is set again.  With *is_wrapped* it speaks TLS from
    the first byte on, as at port 465, and not behind STARTTLS.
    """

    tls: ssl.SSLContext | None = None
    is_wrapped: bool = False
    password: str | None = None
    port: int = 0
    received: list[Received] = field(default_factory=list)
    to_recipients: deque[str] = field(default_factory=deque)
    to_mails: deque[str] = field(default_factory=deque)
    is_open: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _made: list[SMTP] = field(default_factory=list)

    def open(self) -> None:
        """Take connections, at the port of the last time."""
        self.is_open.set()
        wrapping = self.tls if self.is_wrapped else None
        self._server = self._ask(self._loop.create_server(self._make, HOST, self.port, ssl=wrapping))
        self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Take no more connections, and end those that are there."""
        self._ask(self._close())
        self._server = None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's word
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Answer as is next."""
        answer = self.to_recipients.popleft() if self.to_recipients else "250 2.1.5 known"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's word
        """Keep the mail, or answer as is next."""
        answer = self.to_mails.popleft() if self.to_mails else OK
        if answer is OK:
            login = session.auth_data
            user = login.login.decode() if isinstance(login, LoginPassword) else None
            assert envelope.mail_from is not None
            self.received.append(
                Received(envelope.mail_from, envelope.rcpt_tos[0], bytes(envelope.content or b""),
                         self.is_wrapped or session.ssl is not None, user)
            )  # fmt: skip
        while not self.is_open.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
        return answer

    def wait_for_mail(self, count: int = 1) -> Received:
        """Wait until so many mails have come, and return the last of them."""
        return wait_for(lambda: self.received[count - 1] if len(self.received) >= count else None, f"{count} mails")

    def _make(self) -> SMTP:
        made = SMTP(
            self,
            hostname="post.example",
            tls_context=None if self.is_wrapped else self.tls,
            require_starttls=self.tls is not None and not self.is_wrapped,
            # aiosmtpd knows of STARTTLS alone; what is wrapped needs no second cover.
            auth_require_tls=not self.is_wrapped,
            auth_required=self.password is not None and not self.is_wrapped,
            authenticator=self._authenticate,
            loop=self._loop,
        )
        self._made.append(made)
        return made

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        good = isinstance(data, LoginPassword) and data.password.decode() == self.password
        return AuthResult(success=good, handled=False, auth_data=data)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for made in self._made:
            if made.transport is not None:
                made.transport.abort()
        self._made.clear()

    def _ask(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    @contextlib.contextmanager
    def running(self) -> Iterator[PostOffice]:
        """Serve in a thread until the block ends."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            self.open()
            yield self
        finally:
            self.is_open.set()
            if self._server is not None:
                self.shut()
            self._ask(self._let_go())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _let_go(self) -> None:
        """Let the handlers of ended connections come to their end."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def tls_of(root: Holder, folder: Path, name: str = "localhost") -> ssl.SSLContext:
    """Return what a server with a certificate of *root* needs; the CA's own is left in *folder* as ``root.pem``."""
    held = root.certify(name, alternatives=[DNSName(name)])
    (folder / "root.pem").write_bytes(root.pem)
    chain = folder / "post.pem"
    chain.write_bytes(held.pem + held.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context
