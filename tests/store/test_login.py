"""Who gets in: every rule of DESIGN section 5 over a real connection, with real certificates, stores and clients."""
# ruff: noqa: ARG002 - the methods of clients are asyncssh's to name and to explain

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from typing import Any

import asyncssh
import paramiko
import pytest
from asyncssh.constants import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from asyncssh.packet import Boolean, String
from doorway import LETTERED, OFFICE, PATIENCE_SECONDS, STRANGER_CA, SUSPENDED, UNREGISTERED, Door, offer, offering

from relay import journal

# --- who gets in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ssh-ed25519", "ssh-rsa"])
async def test_certified_key_of_every_kind_gets_in(door: Door, kind: str) -> None:
    """A certificate of the relay's CA for a registered, active office opens the door, for OpenSSH and asyncssh."""
    knock = await door.certify(OFFICE, key=asyncssh.generate_private_key(kind))
    assert await knock.gets_in()
    assert await knock.ssh() == (0, f"{OFFICE}\n", "")
    assert [line["serial"] for line in door.lines("login.accepted")] == [door.serials] * 2
    assert door.lines("login.accepted")[1]["client_version"].startswith("SSH-2.0-OpenSSH_")
    assert door.reasons() == []
    assert door.lines("error.unexpected") == []


async def test_user_name_in_lower_case_is_the_same_office(door: Door) -> None:
    """01a8… is 01A8…, though the certificate holds it in capitals."""
    knock = await door.certify(LETTERED)
    assert await knock.gets_in(LETTERED.lower())
    assert (await knock.ssh(LETTERED.lower()))[:2] == (0, f"{LETTERED}\n")
    assert {line["office"] for line in door.lines("login.accepted")} == {LETTERED}


async def test_certificate_for_several_offices_logs_in_as_each(door: Door) -> None:
    """One company, one certificate: the identity is the office of the user name."""
    knock = await door.certify(OFFICE, LETTERED)
    assert await knock.gets_in(OFFICE)
    assert await knock.gets_in(LETTERED)
    assert [session.identity.office for session in door.sessions] == [OFFICE, LETTERED]


async def test_certificate_lets_in_from_the_addresses_it_names(door: Door) -> None:
    """A source-address that holds this machine is no hindrance."""
    knock = await door.certify(OFFICE, source_address=["127.0.0.0/8"])
    assert await knock.gets_in()
    assert (await knock.ssh())[0] == 0


async def test_session_is_told_who_and_where_from(door: Door) -> None:
    """The facts of a session are those of its connection, and its journal names it."""
    knock = await door.certify(OFFICE)
    assert (await knock.ssh())[0] == 0
    facts = door.sessions[0].facts
    assert facts.peer == "127.0.0.1"
    assert facts.client_version.startswith("SSH-2.0-OpenSSH_")
    journal.session_opened(facts.journal)
    line = door.lines("session.opened")[0]
    assert (line["connection"], line["office"], line["session"]) == (facts.id, OFFICE, 1)


# --- who does not --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "user", "options"),
    [
        ("no_principals", OFFICE, {"principals": []}),
        ("wrong_principal", OFFICE, {"principals": [LETTERED]}),
        ("wrong_principal", OFFICE, {"principals": ["root"]}),
        ("unknown_ca", OFFICE, {"ca": STRANGER_CA}),
        ("not_yet_valid", OFFICE, {"valid_after": "+1h", "valid_before": "+2h"}),
        ("source_address", OFFICE, {"source_address": ["10.0.0.0/8"]}),
        ("force_command", OFFICE, {"force_command": "internal-sftp"}),
        ("unknown_serial", OFFICE, {"is_known": False}),
        ("unknown_serial", OFFICE, {"is_known": False, "serial": 2**64 - 1}),
        ("unknown_serial", OFFICE, {"is_known": False, "serial": 0}),
        ("unknown_office", UNREGISTERED, {"principals": [UNREGISTERED]}),
        ("unknown_office", "root", {"principals": ["root"]}),
        ("key_size", OFFICE, {"key": asyncssh.generate_private_key("ssh-rsa", key_size=1024)}),
    ],
)
async def test_certificate_that_breaks_a_rule_stays_outside(
    door: Door, reason: str, user: str, options: dict[str, Any]
) -> None:
    """No client gets in, the journal says why, and the client hears nothing."""
    principals = () if "principals" in options else (OFFICE,)
    knock = await door.certify(*principals, **options)
    assert not await knock.gets_in(user)
    status, out, err = await knock.ssh(user)
    assert (status, out) == (255, "")
    assert "Permission denied (publickey)" in err
    assert "office." not in err
    assert set(door.reasons()) == {reason}
    assert door.sessions == []
    assert door.lines("error.unexpected") == []


async def test_critical_option_that_nobody_knows_keeps_the_certificate_outside(door: Door) -> None:
    """A rule that we do not understand is not taken for one that does not matter."""
    knock = await door.certify(OFFICE, critical="critical:unheard-of@example.com=1")
    status, _, err = await knock.ssh()
    assert status == 255
    assert "Permission denied (publickey)" in err
    assert set(door.reasons()) == {"critical_option"}


async def test_host_certificate_is_no_key(door: Door) -> None:
    """A certificate of the trusted CA for a host is not one for a user."""
    knock = await door.certify(OFFICE)
    ca = asyncssh.import_private_key(door.keyring.user_ca)
    line = ca.generate_host_certificate(knock.key, "h", principals=[OFFICE], serial=99).export_certificate().decode()
    host = replace(knock, line=line)
    assert not await host.gets_in()
    assert set(door.reasons()) == {"not_a_user_certificate"}


async def test_ca_of_the_same_name_is_not_the_ca(door: Door) -> None:
    """What counts is the CA's key: one that calls itself the same signs nothing that opens the door."""
    impostor = asyncssh.generate_private_key("ssh-ed25519", comment="careplan-relay user_ca")
    knock = await door.certify(OFFICE, ca=impostor)
    assert not await knock.gets_in()
    assert set(door.reasons()) == {"unknown_ca"}


async def test_certificate_that_names_the_ca_but_is_not_signed_by_it_stays_outside(door: Door) -> None:
    """The claim to be of the trusted CA passes the rules; its signature does not, probe or not."""
    knock = await door.certify(OFFICE)
    forged = knock.data[:-1] + bytes([knock.data[-1] ^ 1])
    async with offering(door) as (client, server):
        for is_signed in (False, True):
            assert await offer(client, knock.key, forged, is_signed=is_signed) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert door.reasons() == ["bad_signature", "bad_signature"]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (
            "expired",
            "office.expired: この証明書は有効期限が切れています。運営者の窓口にお電話ください / this certificate has expired; call the operator",
        ),
        (
            "revoked",
            "office.revoked: この証明書は止められていて（失効）、使えません。運営者の窓口にお電話ください / this certificate was revoked; call the operator",
        ),
        (
            "suspended",
            f"office.suspended: 事業所 {SUSPENDED} は現在、利用を停止しています。運営者の窓口にお電話ください / office {SUSPENDED} is suspended; call the operator",
        ),
    ],
)
async def test_expired_revoked_and_suspended_are_told_to_the_holder_of_the_key(
    door: Door, told: str, sentence: str
) -> None:
    """OpenSSH's user reads one line in Japanese and English, once the signature was good."""
    user = SUSPENDED if told == "suspended" else OFFICE
    knock = await door.certify(user, **({"valid_after": "-2h", "valid_before": "-1h"} if told == "expired" else {}))
    if told == "revoked":
        await knock.revoke()
    banners: list[str] = []

    class Client(asyncssh.SSHClient):
        def auth_banner_received(self, msg: str, lang: str) -> None:
            banners.append(msg)

    with pytest.raises(asyncssh.PermissionDenied):
        await knock.enter(user, client_factory=Client)
    assert banners == [sentence + "\r\n"]
    status, _, err = await knock.ssh(user)
    assert status == 255
    assert sentence.rpartition(" / ")[2] in err
    assert door.reasons() == [told, told]


async def test_nobody_hears_why_without_a_good_signature(door: Door) -> None:
    """Who has the certificate but not its key learns nothing of its state."""
    knock = await door.certify(OFFICE, valid_after="-2h", valid_before="-1h")
    banners: list[str] = []
    async with offering(door, banners) as (client, _):
        thief = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        assert await offer(client, thief, knock.data) == MSG_USERAUTH_FAILURE
    assert banners == []
    assert door.reasons() == ["expired"]


async def test_bare_key_is_declined_without_a_word(door: Door) -> None:
    """OpenSSH offers the bare key first: no line in the journal, no count, and the certificate still gets in."""
    knock = await door.certify(OFFICE)
    with pytest.raises(asyncssh.PermissionDenied):
        await knock.enter(client_keys=[knock.key])
    assert door.reasons() == []
    assert await knock.gets_in()


async def test_sha1_signature_stays_outside(door: Door) -> None:
    """An RSA key that signs with ssh-rsa, though the relay named only SHA-2, is refused; with SHA-2 it gets in."""
    knock = await door.certify(OFFICE, key=asyncssh.generate_private_key("ssh-rsa", key_size=2048))
    async with offering(door) as (client, server):
        assert await offer(client, knock.key, knock.data, algorithm=b"ssh-rsa") == MSG_USERAUTH_FAILURE
        assert server.office is None
        assert door.reasons() == ["signature_algorithm"]
        assert "ssh-rsa" in door.lines("login.rejected")[0]["detail"]
        assert await offer(client, knock.key, knock.data, algorithm=b"rsa-sha2-256") == MSG_USERAUTH_SUCCESS
        assert server.office == OFFICE


@pytest.mark.parametrize("kind", ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"])
@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0", b"\0\0\0\x0bssh-ed25519", bytes(range(192, 256)), b"\xff" * 64, String("ssh-ed25519") + b"\xff" * 8],
    ids=["nothing", "nul", "a name", "64 bytes", "64 ones", "a name and more"],
)
async def test_signature_that_is_garbage_ends_nothing_but_the_attempt(door: Door, kind: str, garbage: bytes) -> None:
    """Whatever stands for a signature, the answer is a failure, and the next attempt is heard."""
    knock = await door.certify(OFFICE, key=asyncssh.generate_private_key(kind))
    prefix = String(knock.key.sig_algorithms[0])
    async with offering(door) as (client, server):
        for signature in (garbage, prefix + garbage, prefix + String(garbage), prefix + String(garbage * 4)):
            assert await offer(client, knock.key, knock.data, signature=signature) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert len(door.reasons()) == 4
    assert door.lines("error.unexpected") == []


async def test_truncated_and_oversized_certificates_end_nothing_but_the_attempt(door: Door) -> None:
    """A certificate cut at any byte, or far too long, is a failure like any other."""
    knock = await door.certify(OFFICE)
    data = knock.data
    offers = [data[:cut] for cut in range(0, len(data), 23)] + [data + b"\0", data + bytes(100_000)]
    async with offering(door) as (client, _):
        for offered in offers:
            assert await offer(client, knock.key, offered, is_signed=False) == MSG_USERAUTH_FAILURE
    assert len(door.reasons()) == len(offers)
    assert set(door.reasons()) <= {"malformed", "key_algorithm"}
    assert door.lines("error.unexpected") == []


# --- clients ---------------------------------------------------------------------------------------------------------


async def test_paramiko_with_several_keys_gets_in(door: Door) -> None:
    """It asks for the authentication service once a key, and signs without probing."""
    knock = await door.certify(OFFICE)

    # Every other key that asyncssh writes in OpenSSH's format is none to paramiko 5.1.
    pem = knock.key.export_private_key("pkcs1-pem").decode()

    def log_in() -> None:
        transport = paramiko.Transport(("127.0.0.1", door.port))
        try:
            transport.start_client(timeout=PATIENCE_SECONDS)
            for _ in range(3):
                with pytest.raises(paramiko.AuthenticationException):
                    transport.auth_publickey(OFFICE, paramiko.ECDSAKey.generate())
            key = paramiko.ECDSAKey.from_private_key(io.StringIO(pem))
            key.load_certificate(f"{knock.file}-cert.pub")
            transport.auth_publickey(OFFICE, key)
            channel = transport.open_session()
            channel.invoke_subsystem("sftp")
            assert channel.recv(100) == f"{OFFICE}\n".encode()
        finally:
            transport.close()

    await asyncio.to_thread(log_in)
    assert door.reasons() == []


async def test_openssh_gets_nothing_but_sftp(door: Door) -> None:
    """A command, a shell, a terminal and a forwarding are refused; the environment is not taken."""
    knock = await door.certify(OFFICE)
    for options in (["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"],):
        status, out, err = await knock.ssh(OFFICE, *options)
        assert (status, out) == (255, ""), err
    status, out, _ = await knock.ssh(OFFICE, "-o", "SetEnv=LANG=C", "-A", "-X", "-t")
    assert (status, out) == (0, f"{OFFICE}\n")


async def test_other_methods_are_not_offered(door: Door) -> None:
    """No password, no questions, and nobody without any."""
    await door.certify(OFFICE)
    async with offering(door) as (client, server):
        for method in (
            String("none"),
            String("password") + Boolean(False) + String("x"),
            String("keyboard-interactive"),
        ):
            client.conn.send_packet(
                MSG_USERAUTH_REQUEST, String(OFFICE) + String("ssh-connection") + method + String("") * 2
            )
            assert await client.answers.get() == MSG_USERAUTH_FAILURE
        assert server.office is None
