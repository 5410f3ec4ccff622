"""The certificates of the system before: an outside CA made with OpenSSL, its offices, and how one of them is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import asyncssh
import pytest
from house import CARE_MANAGER, HOME_HELP, House, MakeHouse, Pass, pdf, run_program

# asyncssh's client asks pyOpenSSL in a way that this is about to forget.
pytestmark = pytest.mark.filterwarnings("ignore:X509[.]get_:DeprecationWarning")

NAME = f"REPORT_{CARE_MANAGER}_{HOME_HELP}_20260701090000.pdf"
_CONFIG = """\
[ca]
default_ca = d
[d]
database = index
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_days = 30
default_crl_days = 1
policy = any
unique_subject = no
[any]
commonName = supplied
organizationalUnitName = optional
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[sub]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
[office]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = 1.3.6.1.5.5.7.3.21
"""


class OpensslCa:
    """A root and a CA below it, made and kept with the program `openssl` alone."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        for name in ("root", "sub"):
            (path / name).mkdir()
            (path / name / "ca.cnf").write_text(_CONFIG)
            (path / name / "index").touch()
        self._run("root", "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out ca.pem -days 60 -subj /CN=Old-Root "
                  "-config ca.cnf -extensions root", add=_REQUEST)  # fmt: skip
        self._request("sub", "key.pem", "/CN=Old-Sub")
        self._run("root", "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile key.pem -extensions sub "
                  "-in ../sub/request.pem -out ../sub/ca.pem")  # fmt: skip

    def certify(self, office: str) -> Pass:
        """Make an office's key and certificate; the file of the certificate holds the whole chain."""
        self._request("sub", "office.pem", f"/OU={office}/CN=someone")
        self._run("sub", "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile key.pem -extensions office "
                  "-in request.pem -out office-cert.pem")  # fmt: skip
        folder = self.path / "sub"
        chain = folder / "chain.pem"
        chain.write_bytes((folder / "office-cert.pem").read_bytes() + (folder / "ca.pem").read_bytes())
        return Pass(CARE_MANAGER, folder / "office.pem", chain)

    def revoke(self) -> None:
        """Revoke what was certified last."""
        self._run("sub", "ca -config ca.cnf -cert ca.pem -keyfile key.pem -revoke office-cert.pem")

    def publish(self, keys: Path) -> None:
        """Write both lists to where the relay reads them, over those that are there, as a script with curl does."""
        for name in ("root", "sub"):
            self._run(name, "ca -gencrl -config ca.cnf -cert ca.pem -keyfile key.pem -out list.crl")
            (keys / "x509_crls" / f"{name}.crl").write_bytes((self.path / name / "list.crl").read_bytes())

    def verify(self) -> bool:
        """Ask `openssl` for its own verdict."""
        done = run_program(
            [
                "openssl",
                "verify",
                "-crl_check_all",
                "-CAfile",
                "root/ca.pem",
                "-untrusted",
                "sub/ca.pem",
                "-CRLfile",
                "root/list.crl",
                "-CRLfile",
                "sub/list.crl",
                "sub/office-cert.pem",
            ],
            cwd=self.path,
        )
        return done.returncode == 0

    def _request(self, folder: str, key: str, subject: str) -> None:
        self._run(folder, f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} "
                  f"-out request.pem -subj {subject}", add=_REQUEST)  # fmt: skip

    def _run(self, folder: str, command: str, *, add: str = "") -> None:
        if add and "-config" not in command:
            (self.path / folder / "request.cnf").write_text(add)
            command += " -config request.cnf"
        elif add:
            config = self.path / folder / "ca.cnf"
            config.write_text(_CONFIG + add)
        done = run_program(["openssl", *command.split()], cwd=self.path / folder)
        assert done.returncode == 0, done.stderr


_REQUEST = "[req]\ndistinguished_name = dn\n[dn]\n"


def open_road(house: House, ca: OpensslCa) -> None:
    """Do what the README says: the CA, its lists, and the settings, as they stand in relay.toml."""
    (house.path / "keys" / "trusted_x509_cas" / "old.pem").write_bytes((ca.path / "root" / "ca.pem").read_bytes())
    ca.publish(house.path / "keys")
    file = house.path / "relay.toml"
    text = file.read_text().replace("x509 = false", "x509 = true")
    for line in ("[[certificates.x509_offices]]", 'field = "subject.CN"', "pattern = '(?P<office>"):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    file.write_text(text.replace('field = "subject.CN"', 'field = "subject.OU"'))


def hide_pyopenssl(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs that are started from here find no pyOpenSSL, which no relay is installed with."""
    (path / "OpenSSL.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(path))
    told = run_program([sys.executable, "-c", "from asyncssh import public_key as it; print(it._x509_available)"])
    assert told.stdout == "False\n", told.stderr


async def test_an_office_of_the_system_before_sends_and_is_thrown_out_by_its_ca(
    make_house: MakeHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It logs in and sends; the register knows its certificate, and does not renew it; once revoked it is out in seconds."""
    hide_pyopenssl(tmp_path, monkeypatch)
    ca, house = OpensslCa(tmp_path / "ca"), make_house()
    open_road(house, ca)
    held = ca.certify(CARE_MANAGER)
    assert ca.verify()
    house.start()
    async with house.connect(HOME_HELP) as bystander:
        async with house.connect(CARE_MANAGER, pass_=held) as caller:
            await caller.sftp.chdir("/send")
            async with caller.sftp.open(NAME, "wb") as file:
                await file.write(pdf())
            (known,) = [one for one in house.ask(lambda ledger: ledger.list_certificates()) if one.kind == "x509"]
            assert house.transfers()[0].name == NAME
            listed = house.relay("cert", "show", str(known.serial)).stdout
            assert "X.509" in listed
            assert known.key_id in listed
            (tmp_path / "new.pub").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_public_key())
            with pytest.raises(asyncssh.SFTPError, match=r"certificate[.]not_issued_here"):
                await caller.sftp.put(str(tmp_path / "new.pub"), "/certificate/new.pub")
            ca.revoke()
            ca.publish(house.path / "keys")
            assert not ca.verify()
            await caller.connection.wait_closed()
        assert house.wait_for_event("identity.ended")["reason"].startswith("revoked: CN=Old-Sub has revoked it")
        with pytest.raises(asyncssh.PermissionDenied):
            async with house.connect(CARE_MANAGER, pass_=held):
                pass
        assert [name for name in await bystander.sftp.listdir("/new") if name.endswith(".pdf")] == [NAME]
    assert "1 certificates" not in house.relay("cert", "krl", str(tmp_path / "krl")).stderr


def test_a_ca_that_cannot_be_trusted_is_told_before_the_start(make_house: MakeHouse, tmp_path: Path) -> None:
    """An office's certificate in the place of its CA, a key that is none, and a file that anybody may write."""
    ca, house = OpensslCa(tmp_path / "ca"), make_house()
    ca.certify(CARE_MANAGER)
    folder = house.path / "keys" / "trusted_x509_cas"
    (folder / "office.pem").write_bytes((ca.path / "sub" / "office-cert.pem").read_bytes())
    (folder / "nothing.pem").write_text("-----BEGIN RUBBISH-----\n")
    (folder / "open.pem").write_bytes((ca.path / "root" / "ca.pem").read_bytes())
    (folder / "open.pem").chmod(0o666)
    said = house.relay("serve").stderr
    assert "office.pem holds no CA that can be trusted" in said
    assert "is no CA" in said
    assert "nothing.pem holds no certificate of a CA" in said
    assert "open.pem can be written by others" in said
