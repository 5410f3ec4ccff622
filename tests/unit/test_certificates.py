"""Certificates: parsing survives anything, judging knows every rule, issuing makes what ssh-keygen reads."""

from __future__ import annotations

import base64
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from relay.certificates import (
    BACKDATED,
    FOREVER,
    CertificateRejected,
    OfferedCertificate,
    Reason,
    draw_serial,
    fingerprint,
    fingerprint_of_line,
    issue_certificate,
    issue_host_certificate,
    judge_certificate,
    parse_certificate,
    parse_certificate_line,
    plan_validity,
    signature_algorithm,
)
from relay.model import Certificate, Identity, Office, OfficeEnd, OfficeNumber, OfficeStatus

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
OFFICE = OfficeNumber("01A8516384")
OTHER = OfficeNumber("0178515854")
HOLDER = Office(OFFICE, "みほん野通所・訪問サービス", "北海道", ("A2", "A6"))
CA = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
CA_BLOB = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + CA.public_key().public_bytes_raw()
CA_PEM = CA.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
USER = ec.generate_private_key(ec.SECP256R1())
USER_LINE = USER.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
EMPTY_DSA = ("ssh-dss-cert-v01@openssh.com", [b"\x05", b"\x03", b"\x02", b"\x04"])


def ssh_string(data: bytes) -> bytes:
    """One SSH string."""
    return struct.pack(">I", len(data)) + data


def mpint(number: int) -> bytes:
    """The inside of an SSH mpint."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


@dataclass(frozen=True)
class Forge:
    """A certificate made by hand, so that it can be wrong in exactly one thing."""

    kind: str = "ssh-ed25519-cert-v01@openssh.com"
    key: Sequence[bytes] = (b"\x07" * 32,)
    serial: int = 42
    type: int = 1
    key_id: bytes = b"office key"
    principals: Sequence[str] = (OFFICE,)
    valid_after: int = int((NOW - timedelta(days=1)).timestamp())
    valid_before: int = int((NOW + timedelta(days=1)).timestamp())
    critical: Sequence[tuple[bytes, bytes]] = ()
    extensions: Sequence[tuple[bytes, bytes]] = ()
    signature_algorithm: bytes = b"ssh-ed25519"
    trailing: bytes = b""

    def wire(self) -> bytes:
        """The bytes that a client would offer."""
        body = ssh_string(self.kind.encode()) + ssh_string(b"n" * 32) + b"".join(map(ssh_string, self.key))
        body += struct.pack(">QI", self.serial, self.type) + ssh_string(self.key_id)
        body += ssh_string(b"".join(ssh_string(name.encode()) for name in self.principals))
        body += struct.pack(">QQ", self.valid_after, self.valid_before)
        for options in (self.critical, self.extensions):
            body += ssh_string(
                b"".join(ssh_string(name) + ssh_string(ssh_string(data) if data else b"") for name, data in options)
            )
        body += ssh_string(b"") + ssh_string(CA_BLOB)
        signature = ssh_string(self.signature_algorithm) + ssh_string(CA.sign(body))
        return body + ssh_string(signature) + self.trailing


def known(offered: OfferedCertificate) -> Certificate:
    """What the register holds of *offered* when all is well."""
    return Certificate(
        ca_fingerprint=offered.ca_fingerprint,
        serial=offered.serial,
        key_id=offered.key_id,
        key_fingerprint=offered.key_fingerprint,
        offices=(OFFICE, OTHER),
        valid_after=offered.valid_after,
        valid_before=offered.valid_before,
        issued_at=NOW,
    )


def judge(forge: Forge = Forge(), **facts: object) -> Identity:
    """Judge *forge* with everything else in order, but for *facts*."""
    offered = parse_certificate(forge.wire())
    given_facts: dict[str, object] = {
        "office": OFFICE,
        "trusted": frozenset({fingerprint(CA_BLOB)}),
        "known": known(offered),
        "holder": HOLDER,
        "peer_address": "127.0.0.1",
        "signature_algorithm": "ssh-ed25519",
        "now": NOW,
    }
    return judge_certificate(offered, **(given_facts | facts))  # type: ignore[arg-type]


def test_a_certificate_in_order_yields_the_identity() -> None:
    """Office, CA, serial, key id and end of validity are taken over as they stand."""
    identity = judge()
    assert identity == Identity(OFFICE, fingerprint(CA_BLOB), 42, "office key", NOW + timedelta(days=1))


def test_a_probe_without_a_signature_is_judged_by_all_other_rules() -> None:
    """A probe has no signature algorithm; the rest of the rules stands."""
    assert judge(signature_algorithm=None).office == OFFICE
    with pytest.raises(CertificateRejected, match="revoked"):
        judge(signature_algorithm=None, known=replace(known(parse_certificate(Forge().wire())), revoked_at=NOW))


def test_several_principals_let_each_of_them_in_under_its_own_number() -> None:
    """One company with many offices: each logs in as itself."""
    forge = Forge(principals=(OTHER, OFFICE))
    assert judge(forge).office == OFFICE
    assert judge(forge, office=OTHER, holder=replace(HOLDER, number=OTHER)).office == OTHER


def test_a_certificate_that_is_valid_forever_has_an_end_that_can_be_compared() -> None:
    """0xffffffffffffffff lies beyond the calendar and becomes its last second."""
    assert judge(Forge(valid_before=2**64 - 1)).valid_before == FOREVER
    assert judge(Forge(valid_before=2**63)).valid_before == FOREVER


FORGED: list[tuple[str, Forge, Reason, str | None]] = [
    ("a host certificate", Forge(type=2), Reason.NOT_A_USER_CERTIFICATE, None),
    ("no principals", Forge(principals=()), Reason.NO_PRINCIPALS, None),
    ("another principal", Forge(principals=(OTHER,)), Reason.WRONG_PRINCIPAL, None),
    ("a longer principal", Forge(principals=(OFFICE + "0",)), Reason.WRONG_PRINCIPAL, None),
    ("expired", Forge(valid_before=int(NOW.timestamp())), Reason.EXPIRED, "expired"),
    ("not yet valid", Forge(valid_after=int(NOW.timestamp()) + 1), Reason.NOT_YET_VALID, None),
    ("never valid", Forge(valid_after=2**64 - 1), Reason.NOT_YET_VALID, None),
    ("force-command", Forge(critical=[(b"force-command", b"internal-sftp")]), Reason.FORCE_COMMAND, None),
    ("unknown critical option", Forge(critical=[(b"verify-required", b"")]), Reason.CRITICAL_OPTION, None),
    ("critical option of tomorrow", Forge(critical=[(b"x@example.jp", b"1")]), Reason.CRITICAL_OPTION, None),
    ("another network", Forge(critical=[(b"source-address", b"10.0.0.0/8")]), Reason.SOURCE_ADDRESS, None),
    ("no network", Forge(critical=[(b"source-address", b"")]), Reason.SOURCE_ADDRESS, None),
    ("broken network", Forge(critical=[(b"source-address", b"127.0.0.1/8/8")]), Reason.SOURCE_ADDRESS, None),
    ("host bits set", Forge(critical=[(b"source-address", b"127.0.0.1/8")]), Reason.SOURCE_ADDRESS, None),
    ("CA signature with SHA-1", Forge(signature_algorithm=b"ssh-rsa"), Reason.SIGNATURE_ALGORITHM, None),
    ("DSA key", Forge(kind=EMPTY_DSA[0], key=EMPTY_DSA[1]), Reason.KEY_ALGORITHM, None),
    (
        "security key",
        Forge(kind="sk-ssh-ed25519-cert-v01@openssh.com", key=(b"\x07" * 32, b"ssh:")),
        Reason.KEY_ALGORITHM,
        None,
    ),
    ("RSA 1024", Forge(kind="ssh-rsa-cert-v01@openssh.com", key=(b"\3", mpint(2**1023 + 1))), Reason.KEY_SIZE, None),
    ("RSA 2047", Forge(kind="ssh-rsa-cert-v01@openssh.com", key=(b"\3", mpint(2**2046 + 1))), Reason.KEY_SIZE, None),
    ("RSA below zero", Forge(kind="ssh-rsa-cert-v01@openssh.com", key=(b"\3", b"\xff" * 256)), Reason.KEY_SIZE, None),
    ("RSA 32768", Forge(kind="ssh-rsa-cert-v01@openssh.com", key=(b"\3", mpint(2**16390))), Reason.KEY_SIZE, None),
]


@pytest.mark.parametrize(("forge", "reason", "told"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_a_certificate_that_breaks_one_rule_is_rejected_by_its_name(
    forge: Forge, reason: Reason, told: str | None
) -> None:
    """Each rule of DESIGN section 5 has its own reason, and the client hears three words at most."""
    with pytest.raises(CertificateRejected) as caught:
        judge(forge)
    assert (caught.value.reason, caught.value.told) == (reason, told)


Change = Callable[[Certificate], Certificate | None]
OVER = OfficeEnd(NOW - timedelta(days=31), NOW)
REGISTERED: list[tuple[str, Change, Office | None, Reason, str | None]] = [
    ("unknown serial", lambda _: None, HOLDER, Reason.UNKNOWN_SERIAL, None),
    ("serial of another CA", lambda c: replace(c, ca_fingerprint="SHA256:x"), HOLDER, Reason.UNKNOWN_SERIAL, None),
    ("serial of another key", lambda c: replace(c, key_fingerprint="SHA256:x"), HOLDER, Reason.UNKNOWN_SERIAL, None),
    ("serial of another office", lambda c: replace(c, offices=(OTHER,)), HOLDER, Reason.UNKNOWN_SERIAL, None),
    ("revoked", lambda c: replace(c, revoked_at=NOW), HOLDER, Reason.REVOKED, "revoked"),
    ("suspended", lambda c: c, replace(HOLDER, status=OfficeStatus.SUSPENDED), Reason.SUSPENDED, "suspended"),
    ("closed", lambda c: c, replace(HOLDER, status=OfficeStatus.CLOSED, end=OVER), Reason.CLOSED, "closed"),
    ("another number", lambda c: c, replace(HOLDER, status=OfficeStatus.MOVED, end=OVER), Reason.MOVED, "moved"),
    ("unknown office", lambda c: c, None, Reason.UNKNOWN_OFFICE, None),
    ("office of another name", lambda c: c, replace(HOLDER, number=OTHER), Reason.UNKNOWN_OFFICE, None),
]


@pytest.mark.parametrize(
    ("change", "holder", "reason", "told"), [row[1:] for row in REGISTERED], ids=[row[0] for row in REGISTERED]
)
def test_what_the_register_says_is_final(
    change: Change, holder: Office | None, reason: Reason, told: str | None
) -> None:
    """A certificate that is good in itself is nothing without the register."""
    with pytest.raises(CertificateRejected) as caught:
        judge(known=change(known(parse_certificate(Forge().wire()))), holder=holder)
    assert (caught.value.reason, caught.value.told) == (reason, told)


@pytest.mark.parametrize("status", [OfficeStatus.CLOSED, OfficeStatus.MOVED])
def test_an_office_that_ends_is_let_in_until_its_last_moment(status: OfficeStatus) -> None:
    """What it is let in by ends with its time, so that whoever is inside then is looked at again."""
    until = NOW + timedelta(minutes=5)
    holder = replace(HOLDER, status=status, end=OfficeEnd(NOW - timedelta(days=1), until))
    assert judge(holder=holder).valid_before == until
    planned = replace(HOLDER, end=OfficeEnd(NOW + timedelta(days=1), NOW + timedelta(days=2)))
    assert judge(holder=planned) == judge()


def test_a_certificate_of_another_ca_is_rejected_before_the_register_is_asked() -> None:
    """Whoever signs with a key of his own learns nothing about serials and offices."""
    with pytest.raises(CertificateRejected) as caught:
        judge(trusted=frozenset({"SHA256:another"}), known=None, holder=None)
    assert caught.value.reason is Reason.UNKNOWN_CA


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "ssh-rsa-cert-v01@openssh.com", "ssh-dss", "", "none"])
def test_a_login_signature_with_sha1_is_rejected(algorithm: str) -> None:
    """``ssh-rsa`` names a key that is fine and a signature that is not."""
    key = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    forge = Forge(kind="ssh-rsa-cert-v01@openssh.com", key=(mpint(key.e), mpint(key.n)))
    assert judge(forge, signature_algorithm="rsa-sha2-512").office == OFFICE
    assert judge(forge, signature_algorithm="rsa-sha2-256-cert-v01@openssh.com").office == OFFICE
    with pytest.raises(CertificateRejected) as caught:
        judge(forge, signature_algorithm=algorithm)
    assert caught.value.reason is Reason.SIGNATURE_ALGORITHM


@pytest.mark.parametrize(
    ("allowed", "peer"),
    [
        (b"127.0.0.0/8", "127.0.0.1"),
        (b"10.0.0.0/8,127.0.0.1", "127.0.0.1"),
        (b"127.0.0.0/8", "::ffff:127.0.0.1"),
        (b"fe80::/10", "fe80::1%eth0"),
    ],
)
def test_source_address_lets_its_networks_in(allowed: bytes, peer: str) -> None:
    """Single addresses, lists, and IPv4 clients on a socket of both families."""
    assert judge(Forge(critical=[(b"source-address", allowed)]), peer_address=peer).office == OFFICE


def test_a_peer_without_an_address_is_outside_of_every_network() -> None:
    """What cannot be compared is not let in."""
    with pytest.raises(CertificateRejected, match="cannot be judged"):
        judge(Forge(critical=[(b"source-address", b"127.0.0.0/8")]), peer_address="")


def test_unknown_extensions_are_ignored() -> None:
    """Extensions permit; only critical options forbid."""
    offered = parse_certificate(Forge(extensions=[(b"permit-pty", b""), (b"x@example.jp", b"1")]).wire())
    assert offered.extensions == ("permit-pty", "x@example.jp")


MALFORMED = [
    ("trailing bytes", Forge(trailing=b"\0").wire()),
    ("unknown type", Forge(type=3).wire()),
    ("key id with a line end", Forge(key_id=b"a\nlevel=error").wire()),
    ("key id no UTF-8", Forge(key_id=b"\xff").wire()),
    ("principal with NUL", Forge(principals=("01A8516384\0",)).wire()),
    ("too many principals", Forge(principals=["x"] * 257).wire()),
    ("option twice", Forge(critical=[(b"source-address", b"::1")] * 2).wire()),
    ("wrong curve", Forge(kind="ecdsa-sha2-nistp256-cert-v01@openssh.com", key=(b"nistp384", b"\4")).wire()),
    ("empty", b""),
    ("oversized", Forge(key_id=b"x" * 40_000).wire()),
    ("a length beyond the end", b"\xff\xff\xff\xff" + b"ssh-rsa"),
]


@pytest.mark.parametrize("data", [row[1] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_what_is_no_certificate_is_malformed(data: bytes) -> None:
    """Broken wire data has one reason, whatever is broken."""
    with pytest.raises(CertificateRejected) as caught:
        parse_certificate(data)
    assert caught.value.reason is Reason.MALFORMED


def test_a_bare_key_is_told_from_a_broken_certificate() -> None:
    """OpenSSH offers its bare key first: that is no attack and no defect."""
    for data, reason in ((CA_BLOB, Reason.NO_CERTIFICATE), (ssh_string(b"x509v3-ssh-rsa"), Reason.KEY_ALGORITHM)):
        with pytest.raises(CertificateRejected) as caught:
            parse_certificate(data)
        assert caught.value.reason is reason


@pytest.mark.parametrize("forge", [Forge(), Forge(critical=[(b"source-address", b"::1")], principals=(OFFICE, OTHER))])
def test_a_certificate_cut_anywhere_is_rejected(forge: Forge) -> None:
    """Every proper beginning of a certificate ends too early, and says so."""
    wire = forge.wire()
    for length in range(len(wire)):
        with pytest.raises(CertificateRejected):
            parse_certificate(wire[:length])


@given(st.binary(max_size=2000))
def test_garbage_is_rejected_and_nothing_else(data: bytes) -> None:
    """Any bytes parse or raise CertificateRejected."""
    for parse in (parse_certificate, signature_algorithm):
        with pytest.raises(CertificateRejected):
            raise_unless_text(parse, data)


def raise_unless_text(parse: Callable[[bytes], object], data: bytes) -> None:
    """Random bytes may happen to hold one SSH string; that is as good as a rejection here."""
    if isinstance(parse(data), str):
        raise CertificateRejected(Reason.MALFORMED, "")


@given(st.data())
def test_a_damaged_certificate_parses_or_is_rejected(data: st.DataObject) -> None:
    """Bytes changed, dropped or doubled anywhere in a real certificate raise nothing else, judging included."""
    wire = bytearray(Forge(critical=[(b"source-address", b"::1")], extensions=[(b"permit-pty", b"")]).wire())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wire) - 1))
        wire[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        offered = parse_certificate(bytes(wire))
        judge_certificate(
            offered,
            office=OFFICE,
            trusted=frozenset({offered.ca_fingerprint}),
            known=known(offered),
            holder=HOLDER,
            peer_address="::1",
            signature_algorithm=None,
            now=NOW,
        )
    except CertificateRejected:
        pass


# --- issuing


def issue(line: str = USER_LINE, **changes: object) -> tuple[str, Certificate]:
    """Issue with everything in order, but for *changes*."""
    after, before = plan_validity(NOW, 365 * 86400)
    facts: dict[str, object] = {
        "serial": 7,
        "key_id": "みほん野　居宅",
        "offices": (OFFICE, OTHER),
        "valid_after": after,
        "valid_before": before,
    }
    return issue_certificate(line, CA_PEM, **(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [USER, ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)],
    ids=["ecdsa", "ed25519", "rsa"],
)
def test_an_issued_certificate_is_accepted(key: ec.EllipticCurvePrivateKey) -> None:
    """What the relay issues, its own rules and asyncssh let in."""
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    line, record = issue(public)
    offered = parse_certificate_line(line)
    identity = judge_certificate(
        offered,
        office=OTHER,
        trusted=frozenset({fingerprint(CA_BLOB)}),
        known=record,
        holder=replace(HOLDER, number=OTHER),
        peer_address="192.0.2.1",
        signature_algorithm="rsa-sha2-256",
        now=NOW,
    )
    assert identity.certificate_serial == record.serial == 7
    assert offered.principals == record.offices == (OFFICE, OTHER)
    assert offered.critical_options == ()
    assert offered.key_fingerprint == record.key_fingerprint == fingerprint_of_line(public)
    certificate = asyncssh.import_certificate(line)
    assert certificate.get_comment() is None
    assert asyncssh.import_public_key(public).get_fingerprint() == record.key_fingerprint


def test_a_certificate_is_issued_some_minutes_back_and_ends_on_time() -> None:
    """A client whose clock is behind can log in at once."""
    _, record = issue()
    assert record.valid_after == NOW - BACKDATED
    assert record.valid_before == NOW + timedelta(days=365)
    assert record.issued_at == NOW


def test_the_comment_of_the_key_is_kept_as_ssh_keygen_keeps_it() -> None:
    """The clerk who made the key finds his own words in the file."""
    line, _ = issue(f"{USER_LINE} ケアソフト PC-3\n")
    assert line.endswith(" ケアソフト PC-3")
    assert "\n" not in line


@pytest.mark.parametrize(
    "line", ["", "ssh-rsa", "ssh-rsa AAAA", "garbage here", "ssh-ed25519 !!!!", "-----BEGIN", "ssh-rsa 鍵"]
)
def test_a_line_that_is_no_key_is_not_certified(line: str) -> None:
    """Anything but a public key is malformed."""
    for take in (issue, parse_certificate_line):
        with pytest.raises(CertificateRejected) as caught:
            take(line)
        assert caught.value.reason is Reason.MALFORMED


def test_keys_that_the_door_would_not_accept_are_not_certified() -> None:
    """A certificate that can never be used is a support call."""
    small = rsa.generate_private_key(65537, 1024).public_key()
    line = small.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    with pytest.raises(CertificateRejected, match="1024 bits"):
        issue(line)
    numbers = dsa.generate_private_key(1024).public_key().public_numbers()
    group = numbers.parameter_numbers
    blob = b"".join(map(ssh_string, [b"ssh-dss", *map(mpint, (group.p, group.q, group.g, numbers.y))]))
    with pytest.raises(CertificateRejected, match="ssh-dss keys are not accepted"):
        issue("ssh-dss " + base64.b64encode(blob).decode())
    certificate, _ = issue()
    with pytest.raises(CertificateRejected, match="certificate already"):
        issue(certificate)


def test_a_certificate_for_nobody_is_not_issued() -> None:
    """An empty list of principals lets asyncssh let anybody in."""
    with pytest.raises(ValueError, match="anybody"):
        issue(offices=())


def test_serials_are_positive_and_fit_the_store() -> None:
    """A signed 64-bit integer holds every serial, and none is 0."""
    serials = {draw_serial() for _ in range(200)}
    assert len(serials) == 200
    assert all(0 < serial < 2**63 for serial in serials)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
def test_ssh_keygen_reads_what_is_issued_and_the_parser_what_ssh_keygen_makes(tmp_path: Path) -> None:
    """Both ways round with the reference program, user and host certificates."""

    def keygen(*arguments: str) -> str:
        return subprocess.run(
            ["ssh-keygen", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    (tmp_path / "a-cert.pub").write_text(issue()[0])
    shown = keygen("-L", "-f", "a-cert.pub")
    assert "user certificate" in shown
    assert OFFICE in shown
    assert "Serial: 7" in shown
    (tmp_path / "h-cert.pub").write_text(issue_host_certificate(USER_LINE, CA_PEM, serial=1, valid_after=NOW))
    shown = keygen("-L", "-f", "h-cert.pub")
    assert "host certificate" in shown
    assert "Valid: after 2026" in shown, "no end"
    (tmp_path / "ca").write_bytes(CA_PEM)
    (tmp_path / "ca").chmod(0o600)
    (tmp_path / "id.pub").write_text(USER_LINE)
    keygen(
        "-q", "-s", "ca", "-I", "key 1", "-n", f"{OFFICE},{OTHER}", "-z", "9", "-O", "source-address=::1/128", "id.pub"
    )
    offered = parse_certificate_line((tmp_path / "id-cert.pub").read_text())
    assert (offered.serial, offered.key_id, offered.principals) == (9, "key 1", (OFFICE, OTHER))
    assert offered.critical_options == (("source-address", "::1/128"),)
    assert offered.valid_before == FOREVER
    assert offered.ca_signature_algorithm == "ssh-ed25519"
    CA.public_key().verify(offered.ca_signature[-64:], offered.signed)
