"""The table of attacks on the second road: what chains of outside CAs are let in by the rules, and why others are not."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from outside_cas import (
    DAY,
    SSH_CLIENT,
    TLS_CLIENT,
    TLS_SERVER,
    Holder,
    make_root,
    name_of,
    new_key,
    now,
    usage,
    wire_chain,
)

from relay.crl import parse_list
from relay.model import Identity, Office, OfficeNumber, OfficeStatus
from relay.offered import CertificateRejected, Reason, fingerprint
from relay.officerules import OfficeRule
from relay.x509 import (
    CHAIN_CERTIFICATES,
    OfferedChain,
    Terms,
    Trust,
    check_anchor,
    judge_chain,
    parse_chain,
    parse_link,
)

OFFICE = OfficeNumber("0178515854")
OTHER = OfficeNumber("0178529384")
NUMBER = "(?P<office>[0-9]{2}[0-9A-Z][0-9]{7})"
RSA_KEY = rsa.generate_private_key(65537, 2048)
SMALL_KEY = rsa.generate_private_key(65537, 1024)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
ROOT = make_root()
SUB = ROOT.certify_ca("Outside Sub", path_length=0)


@dataclass
class Trial:
    """One login as the rules see it, good but for what a test changes."""

    leaf: Holder = field(default_factory=lambda: SUB.certify(OFFICE))
    anchors: Sequence[Holder] = (ROOT,)
    chain: bytes | None = None
    lists: Sequence[bytes] | None = None
    rules: Sequence[tuple[str, str]] = (("subject.CN", NUMBER),)
    accepts_tls_client: bool = False
    needs_lists: bool = True
    office: OfficeNumber = OFFICE
    status: OfficeStatus | None = OfficeStatus.ACTIVE
    algorithm: str | None = "ecdsa-sha2-nistp256"
    at: timedelta = timedelta(0)

    def offered(self) -> OfferedChain:
        """Return what is offered."""
        return parse_chain(self.leaf.chain() if self.chain is None else self.chain)

    def judge(self) -> Identity:
        """Judge it."""
        lists = [ROOT.list_revoked(), SUB.list_revoked()] if self.lists is None else self.lists
        return judge_chain(
            self.offered(),
            office=self.office,
            trust=Trust(
                tuple(parse_link(one.der) for one in self.anchors),
                {str(number): parse_list(one) for number, one in enumerate(lists)},
            ),
            terms=Terms(
                tuple(OfficeRule(where, re.compile(pattern)) for where, pattern in self.rules),  # type: ignore[arg-type]
                self.accepts_tls_client,
                self.needs_lists,
            ),
            holder=self.status and Office(self.office, "みほん野", "北海道", ("43",), self.status),
            signature_algorithm=self.algorithm,
            now=now() + self.at,
        )

    def reason(self) -> Reason:
        """Return why it is rejected."""
        with pytest.raises(CertificateRejected) as caught:
            self.judge()
        assert caught.value.detail.isprintable()
        return caught.value.reason


def test_a_chain_of_a_trusted_ca_is_the_office_that_it_names() -> None:
    """The identity names the CA that issued it, and holds until the first list ends."""
    trial = Trial()
    identity = trial.judge()
    assert identity.office == OFFICE
    assert identity.ca_fingerprint == fingerprint(parse_link(SUB.der).key_data)
    assert 0 < identity.certificate_serial < 2**63
    assert identity.key_id == f"x509 {trial.leaf.certificate.serial_number:X}" or "x509 0" in identity.key_id
    assert now() < identity.valid_before <= now() + DAY
    assert trial.judge().certificate == identity.certificate


@pytest.mark.parametrize(
    "trial",
    [
        Trial(algorithm=None),
        Trial(ROOT.certify(OFFICE)),
        # The trusted one at the end as well, as many programs send it, and a CA that is not on top of its line.
        Trial(leaf := SUB.certify(OFFICE), chain=leaf.chain(of=[leaf, SUB, ROOT])),
        Trial(anchors=(SUB,), lists=[SUB.list_revoked()]),
        Trial(SUB.certify(OFFICE, purposes=[SSH_CLIENT])),
        Trial(SUB.certify(OFFICE, purposes=[TLS_CLIENT, SSH_CLIENT])),
        Trial(SUB.certify(OFFICE, purposes=[TLS_CLIENT]), accepts_tls_client=True),
        Trial(SUB.certify(OFFICE, key_usage=None)),
        Trial(SUB.certify(OFFICE, extensions=[(UNKNOWN, False)])),
        Trial(lists=[], needs_lists=False),
        Trial(
            leaf := SUB.certify(OFFICE, key=RSA_KEY),
            chain=leaf.chain(kind=b"x509v3-rsa2048-sha256"),
            algorithm="rsa2048-sha256",
        ),
        Trial(anchors=(make_root(), ROOT)),
    ],
)
def test_what_a_real_ca_may_do_is_let_in(trial: Trial) -> None:
    """A probe, a short line, the trusted CA sent along, a purpose that fits or none, RSA, a CA with a namesake."""
    assert trial.judge().office == OFFICE


def _in(field_: str, *alternatives: x509.GeneralName, rules: Sequence[tuple[str, str]] = ()) -> Trial:
    leaf = SUB.certify("somebody", alternatives=alternatives)
    return Trial(leaf, rules=rules or ((field_, f".*{NUMBER}.*"),))


@pytest.mark.parametrize(
    "trial",
    [
        _in("san.dns", x509.DNSName(f"{OFFICE}.office.example")),
        _in("san.uri", x509.UniformResourceIdentifier(f"urn:office:{OFFICE}")),
        _in("san.email", x509.RFC822Name(f"{OFFICE}@office.example")),
        Trial(
            SUB.certify(name_of((NameOID.COMMON_NAME, "x"), (NameOID.ORGANIZATIONAL_UNIT_NAME, OFFICE))),
            rules=[("subject.OU", NUMBER), ("subject.CN", NUMBER)],
        ),
        # Named twice, and the same both times.
        Trial(
            SUB.certify(OFFICE, alternatives=[x509.RFC822Name(f"{OFFICE}@office.example")]),
            rules=[("subject.CN", NUMBER), ("san.email", f"{NUMBER}@office[.]example")],
        ),
    ],
)
def test_the_office_stands_where_the_operator_says(trial: Trial) -> None:
    """Subject or alternative name; several rules may find the same office."""
    assert trial.judge().office == OFFICE


STRANGER = make_root()
OLD_CA = ROOT.certify_ca("Old Sub", until=now() - timedelta(hours=1), since=now() - 30 * DAY)
COMING_CA = ROOT.certify_ca("Coming Sub", since=now() + DAY)
OVER_ROOT = make_root("Over Root", since=now() - 30 * DAY, until=now() - DAY)
SHORT_ROOT = make_root("Short Root", path_length=0)
DEEP = SUB.certify_ca("Deep Sub")
LEAF_AS_CA = SUB.certify(OFFICE)
NO_SIGN = ROOT.certify_ca("No Sign", key_usage=usage("crl_sign"))
SERVER_CA = ROOT.certify_ca("Server Sub", purposes=[TLS_SERVER])
NAMED_CA = ROOT.certify_ca(
    "Named Sub", extensions=[(x509.NameConstraints([x509.DNSName("office.example")], None), False)]
)
STRANGE_CA = ROOT.certify_ca("Strange Sub", extensions=[(UNKNOWN, True)])
SMALL_CA = ROOT.certify_ca("Small Sub", key=SMALL_KEY)
CERTIFICATES: dict[str, tuple[Trial, Reason]] = {
    "signed by another CA of the same name": (Trial(STRANGER.certify(OFFICE)), Reason.UNKNOWN_CA),
    "below another CA of the same name": (Trial(STRANGER.certify_ca("Outside Sub").certify(OFFICE)), Reason.UNKNOWN_CA),
    "signed by nobody's key in a CA's name": (Trial(SUB.certify(OFFICE, signing_key=new_key())), Reason.BAD_SIGNATURE),
    "expired": (Trial(SUB.certify(OFFICE, until=now() - timedelta(seconds=2))), Reason.EXPIRED),
    "not yet valid": (Trial(SUB.certify(OFFICE, since=now() + timedelta(hours=1))), Reason.NOT_YET_VALID),
    "intermediate expired": (Trial(OLD_CA.certify(OFFICE)), Reason.EXPIRED),
    "intermediate not yet valid": (Trial(COMING_CA.certify(OFFICE)), Reason.NOT_YET_VALID),
    "trusted CA expired": (Trial(OVER_ROOT.certify(OFFICE), anchors=[OVER_ROOT]), Reason.EXPIRED),
    "path too long for an intermediate": (Trial(DEEP.certify(OFFICE)), Reason.CHAIN),
    "path too long for the trusted CA": (
        Trial(SHORT_ROOT.certify_ca("S").certify(OFFICE), anchors=[SHORT_ROOT]),
        Reason.CHAIN,
    ),
    "an office's certificate used as a CA": (Trial(LEAF_AS_CA.certify(OTHER), office=OTHER), Reason.CHAIN),
    "an office's certificate for every usage used as a CA": (
        Trial(ROOT.certify(OFFICE, key_usage=None).certify(OTHER), office=OTHER),
        Reason.CHAIN,
    ),
    "a CA that may not sign certificates": (Trial(NO_SIGN.certify(OFFICE)), Reason.CHAIN),
    "the CA's own certificate": (
        Trial(own := ROOT.certify_ca(OFFICE), chain=own.chain()),
        Reason.NOT_A_USER_CERTIFICATE,
    ),
    "intermediate not sent": (Trial(leaf := SUB.certify(OFFICE), chain=leaf.chain(of=[leaf])), Reason.UNKNOWN_CA),
    "not in order": (Trial(leaf := DEEP.certify(OFFICE), chain=leaf.chain(of=[leaf, SUB, DEEP])), Reason.CHAIN),
    "for servers": (Trial(SUB.certify(OFFICE, purposes=[TLS_SERVER])), Reason.PURPOSE),
    "for TLS clients": (Trial(SUB.certify(OFFICE, purposes=[TLS_CLIENT])), Reason.PURPOSE),
    "of a CA for servers": (Trial(SERVER_CA.certify(OFFICE)), Reason.PURPOSE),
    "not for signatures": (Trial(SUB.certify(OFFICE, key_usage=usage("key_encipherment"))), Reason.PURPOSE),
    "unknown critical extension": (Trial(SUB.certify(OFFICE, extensions=[(UNKNOWN, True)])), Reason.EXTENSION),
    "unknown critical extension of a CA": (Trial(STRANGE_CA.certify(OFFICE)), Reason.EXTENSION),
    "of a CA whose names are constrained": (Trial(NAMED_CA.certify(OFFICE)), Reason.EXTENSION),
    "small RSA key": (
        Trial(leaf := SUB.certify(OFFICE, key=SMALL_KEY), chain=leaf.chain(kind=b"x509v3-ssh-rsa"), algorithm=None),
        Reason.KEY_SIZE,
    ),
    "of a CA with a small RSA key": (Trial(SMALL_CA.certify(OFFICE)), Reason.KEY_SIZE),
    "SHA-1 by the client": (
        Trial(leaf := SUB.certify(OFFICE, key=RSA_KEY), chain=leaf.chain(kind=b"x509v3-ssh-rsa"), algorithm="ssh-rsa"),
        Reason.SIGNATURE_ALGORITHM,
    ),
    "another key than its kind says": (Trial(SUB.certify(OFFICE, key=RSA_KEY)), Reason.MALFORMED),
}
OFFICES: dict[str, tuple[Trial, Reason]] = {
    "of another office": (Trial(SUB.certify(OTHER)), Reason.WRONG_PRINCIPAL),
    "of no office": (Trial(SUB.certify("somebody")), Reason.NO_OFFICE),
    "with something behind its number": (Trial(SUB.certify(f"{OFFICE} x")), Reason.NO_OFFICE),
    "with its number where nobody looks": (Trial(rules=[("subject.OU", NUMBER)]), Reason.NO_OFFICE),
    "of two offices": (
        Trial(SUB.certify(name_of((NameOID.COMMON_NAME, OFFICE), (NameOID.COMMON_NAME, OTHER)))),
        Reason.SEVERAL_OFFICES,
    ),
    "of two offices by two rules": (
        Trial(
            SUB.certify(OFFICE, alternatives=[x509.DNSName(OTHER)]),
            rules=[("subject.CN", NUMBER), ("san.dns", NUMBER)],
        ),
        Reason.SEVERAL_OFFICES,
    ),
    "of an office that is unknown": (Trial(status=None), Reason.UNKNOWN_OFFICE),
    "of an office that is suspended": (Trial(status=OfficeStatus.SUSPENDED), Reason.SUSPENDED),
}
MET = SUB.certify(OFFICE)
PARTS = x509.IssuingDistributionPoint(
    [x509.UniformResourceIdentifier("http://ca.example/1.crl")], None, False, False, None, False, False
)
ONLY_CAS = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
TWIN = ROOT.certify_ca("Twin Sub", key=SUB.key)
NO_LISTS = ROOT.certify_ca("No Lists", key_usage=usage("key_cert_sign"))
LISTS: dict[str, tuple[Trial, Reason]] = {
    "revoked": (Trial(MET, lists=[ROOT.list_revoked(), SUB.list_revoked([MET.certificate])]), Reason.REVOKED),
    "revoked, and no list needed": (
        Trial(MET, lists=[SUB.list_revoked([MET.certificate])], needs_lists=False),
        Reason.REVOKED,
    ),
    "revoked by a list that is over": (
        Trial(
            MET,
            lists=[SUB.list_revoked([MET.certificate], since=now() - 3 * DAY, until=now() - DAY)],
            needs_lists=False,
        ),
        Reason.REVOKED,
    ),
    "of a CA that was revoked": (
        Trial(lists=[ROOT.list_revoked([SUB.certificate]), SUB.list_revoked()]),
        Reason.REVOKED,
    ),
    "no list": (Trial(lists=[]), Reason.UNCONFIRMED),
    "no list of the upper CA": (Trial(lists=[SUB.list_revoked()]), Reason.UNCONFIRMED),
    "list over": (
        Trial(lists=[ROOT.list_revoked(), SUB.list_revoked(since=now() - 3 * DAY, until=now() - DAY)]),
        Reason.UNCONFIRMED,
    ),
    "list of the future": (
        Trial(lists=[ROOT.list_revoked(), SUB.list_revoked(since=now() + DAY, until=now() + 2 * DAY)]),
        Reason.UNCONFIRMED,
    ),
    "list forged": (Trial(lists=[ROOT.list_revoked(), SUB.list_revoked(key=new_key())]), Reason.UNCONFIRMED),
    "list of another CA with the same key": (
        Trial(lists=[ROOT.list_revoked(), TWIN.list_revoked()]),
        Reason.UNCONFIRMED,
    ),
    "list of a CA that may not sign lists": (
        Trial(NO_LISTS.certify(OFFICE), lists=[ROOT.list_revoked(), NO_LISTS.list_revoked()]),
        Reason.UNCONFIRMED,
    ),
    "list of another part": (
        Trial(lists=[ROOT.list_revoked(), SUB.list_revoked(extensions=[(PARTS, True)])]),
        Reason.UNCONFIRMED,
    ),
    "list of CAs only": (
        Trial(lists=[ROOT.list_revoked(), SUB.list_revoked(extensions=[(ONLY_CAS, True)])]),
        Reason.UNCONFIRMED,
    ),
}


@pytest.mark.parametrize(("trial", "reason"), CERTIFICATES.values(), ids=CERTIFICATES.keys())
def test_a_certificate_that_is_not_good_is_refused(trial: Trial, reason: Reason) -> None:
    """Whatever is wrong in a line, it is refused for that, whether its client signed or only asked."""
    trial = replace(trial, lists=[], needs_lists=False)
    assert trial.reason() is reason
    if reason is not Reason.SIGNATURE_ALGORITHM:
        assert replace(trial, algorithm=None).reason() is reason


@pytest.mark.parametrize(("trial", "reason"), OFFICES.values(), ids=OFFICES.keys())
def test_a_certificate_that_is_not_this_offices_is_refused(trial: Trial, reason: Reason) -> None:
    """Exactly one office must come out, the one of the user name, and it must take part."""
    assert trial.reason() is reason


@pytest.mark.parametrize(("trial", "reason"), LISTS.values(), ids=LISTS.keys())
def test_what_the_lists_do_not_confirm_is_refused(trial: Trial, reason: Reason) -> None:
    """Revoked stays out whatever is required; unconfirmed does where lists are required."""
    assert trial.reason() is reason
    if reason is Reason.UNCONFIRMED:
        assert replace(trial, needs_lists=False).judge().office == OFFICE


def test_a_list_for_the_right_part_confirms() -> None:
    """A certificate that names the address of a part stands in that part."""
    points = x509.CRLDistributionPoints([x509.DistributionPoint(PARTS.full_name, None, None, None)])
    leaf = SUB.certify(OFFICE, extensions=[(points, False)])
    lists = [ROOT.list_revoked(), SUB.list_revoked(extensions=[(PARTS, True)])]
    assert Trial(leaf, lists=lists).judge().office == OFFICE


@pytest.mark.parametrize("when", [-2 * DAY, 31 * DAY])
def test_the_clock_decides(when: timedelta) -> None:
    """The same chain is refused before its time and after it."""
    assert replace(Trial(needs_lists=False), at=when).reason() in (Reason.EXPIRED, Reason.NOT_YET_VALID)


# --- bytes ---------------------------------------------------------------------------------------------------------

KIND = b"x509v3-ecdsa-sha2-nistp256"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        KIND,
        wire_chain(KIND, []),
        wire_chain(KIND, [b""]),
        wire_chain(KIND, [SUB.der] * (CHAIN_CERTIFICATES + 1)),
        wire_chain(KIND, [SUB.der], [b"x", b"y"]),
        wire_chain(KIND, [SUB.der]) + b"x",
        wire_chain(KIND, [SUB.der + b"x"]),
        wire_chain(KIND, [SUB.der + bytes(40_000)]),
        wire_chain(KIND, [SUB.der], [bytes(40_000)]),
        wire_chain(KIND, [SUB.certify("x", key=ec.generate_private_key(ec.SECP256K1())).der]),
        # 4,294,967,295 certificates.
        len(KIND).to_bytes(4, "big") + KIND + b"\xff\xff\xff\xff",
    ],
)
def test_bytes_that_are_no_chain_are_refused(data: bytes) -> None:
    """Nothing, too few, too many and too much, and keys that SSH does not know."""
    with pytest.raises(CertificateRejected) as caught:
        parse_chain(data)
    assert caught.value.reason is Reason.MALFORMED


def test_a_truncated_chain_is_refused_wherever_it_ends() -> None:
    """No prefix of a chain is one."""
    whole = SUB.certify(OFFICE).chain()
    for end in range(len(whole)):
        with pytest.raises(CertificateRejected):
            parse_chain(whole[:end])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_changed_is_refused_or_judged(data: st.DataObject) -> None:
    """Changed bytes never raise anything but the rejection, and never become another office's identity."""
    changed = bytearray(CHAIN)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CertificateRejected):
        assert Trial(GOOD, chain=bytes(changed)).judge().office == OFFICE


GOOD = SUB.certify(OFFICE, alternatives=[x509.DNSName("office.example")], purposes=[SSH_CLIENT])
CHAIN = GOOD.chain()


@pytest.mark.parametrize(
    ("ca", "reason"),
    [
        (SUB.certify(OFFICE), Reason.CHAIN),
        (NO_SIGN, Reason.CHAIN),
        (NAMED_CA, Reason.EXTENSION),
        (STRANGE_CA, Reason.EXTENSION),
        (SMALL_CA, Reason.KEY_SIZE),
    ],
)
def test_what_is_no_ca_cannot_be_trusted(ca: Holder, reason: Reason) -> None:
    """An office's certificate, and CAs that could not be relied upon, are refused when they are loaded."""
    with pytest.raises(CertificateRejected) as caught:
        check_anchor(parse_link(ca.der))
    assert caught.value.reason is reason


def test_lists_that_hold_less_than_all_are_no_lists() -> None:
    """A list of changes, a page of a web server, nothing at all: refused in words."""
    delta = SUB.list_revoked(extensions=[(x509.DeltaCRLIndicator(1), True)])
    strange = SUB.list_revoked(extensions=[(UNKNOWN, True)])
    for data, words in (
        (delta, "changed since"),
        (strange, "not understood"),
        (b"<html>", "no revocation list"),
        (b"", "no revocation list"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_list(data)


def test_sha1_of_a_ca_is_refused(tmp_path: Path) -> None:
    """A certificate and a list that OpenSSL signed with SHA-1 let nobody in, though the CA is the right one."""
    leaf, ca = SUB.certify(OFFICE), tmp_path / "ca.pem"
    ca.write_bytes(SUB.pem + SUB.ssh_key.export_private_key("pkcs8-pem"))
    (tmp_path / "key.pem").write_bytes(leaf.ssh_key.export_private_key("pkcs8-pem"))
    (tmp_path / "ca.cnf").write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=index\ndefault_crl_days=1\n")
    (tmp_path / "index").touch()
    (tmp_path / "ext.cnf").write_text("basicConstraints=critical,CA:FALSE\n")
    run = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    run(["openssl", "req", "-new", "-key", "key.pem", "-subj", f"/CN={OFFICE}", "-out", "r.pem"])
    run(["openssl", "x509", "-req", "-sha1", "-in", "r.pem", "-CA", "ca.pem", "-CAkey", "ca.pem", "-CAcreateserial",
         "-extfile", "ext.cnf", "-out", "l.pem"])  # fmt: skip
    signed = x509.load_pem_x509_certificate((tmp_path / "l.pem").read_bytes())
    assert isinstance(signed.signature_hash_algorithm, hashes.SHA1)
    assert Trial(Holder(leaf.key, signed, SUB)).reason() is Reason.SIGNATURE_ALGORITHM
    run(["openssl", "ca", "-gencrl", "-md", "sha1", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.pem",
         "-out", "l.crl"])  # fmt: skip
    with pytest.raises(ValueError, match="not accepted"):
        parse_list((tmp_path / "l.crl").read_bytes())
