"""ProFTPD with mod_sftp, the third server of the bench, where Debian's packages of it are installed.

mod_sftp knows no certificates of OpenSSH's kind, so its users log in with the same keys, bare.  It is started by root, as
its packages start it, and serves every session as nobody; by anybody else it runs as that user.
"""

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from rig.servers import KEEPER, SCRIPTS, RigError, Running, answers, ended_after, free_port, run

_PROGRAM = "proftpd"
_MODULES = Path("/usr/lib/proftpd")


def find_proftpd() -> str:
    """Return the program with its module, or nothing where one of them is not installed."""
    program = shutil.which(_PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""
    return program if (_MODULES / "mod_sftp.so").exists() else ""


class ProFtpdHome:
    """The server in a folder; *keys* are the public keys that may log in, as the one user there is."""

    def __init__(self, home: Path, keys: Sequence[Path]) -> None:
        self.home = home
        self.files = home / "files"
        self._program = find_proftpd()
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
        (self.files / "send").mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(self.files / "send", self._user.pw_uid)
        run(["ssh-keygen", "-q", "-t", "ecdsa", "-m", "PEM", "-N", "", "-f", str(home / "host_key")])
        # RFC 4716, which is what mod_sftp reads.
        known = [run(["ssh-keygen", "-e", "-m", "RFC4716", "-f", str(key)]) for key in keys]
        (home / "authorized_keys").write_text("".join(known))
        users = home / "users"
        users.write_text(f"{self._user.pw_name}:*:{self._user.pw_uid}:{self._user.pw_gid}::{self.files}:/bin/sh\n")
        users.chmod(0o600)

    def _configuration(self, port: int) -> str:
        modules = ["mod_tls.c", "mod_sftp.c"]
        user, group = self._user.pw_name, grp.getgrgid(self._user.pw_gid).gr_name
        return "\n".join(
            [
                f"ModulePath {_MODULES}",
                *(f"LoadModule {module}" for module in modules if (_MODULES / module.replace(".c", ".so")).exists()),
                "ServerType standalone",
                f"Port {port}",
                "DefaultAddress 127.0.0.1",
                "SocketBindTight on",
                "UseIPv6 off",
                f"User {user}",
                f"Group {group}",
                f"PidFile {self.home / 'pid'}",
                f"ScoreboardFile {self.home / 'scoreboard'}",
                f"SystemLog {self.home / 'log.txt'}",
                "TransferLog none",
                "WtmpLog off",
                "UseReverseDNS off",
                "RequireValidShell off",
                "AuthOrder mod_auth_file.c",
                f"AuthUserFile {self.home / 'users'}",
                "MaxInstances 2100",
                "AllowOverwrite on",
                "UseFtpUsers off",
                "SFTPEngine on",
                "SFTPLog none",
                f"SFTPHostKey {self.home / 'host_key'}",
                "SFTPAuthMethods publickey",
                f"SFTPAuthorizedUserKeys file:{self.home / 'authorized_keys'}",
                "",
            ]
        )

    @contextlib.contextmanager
    def serve(self) -> Iterator[Running]:
        """Run the server until the end of the block."""
        port = free_port()
        configuration = self.home / "proftpd.conf"
        configuration.write_text(self._configuration(port))
        with (self.home / "said.txt").open("ab") as said:
            process = subprocess.Popen(
                [*KEEPER, self._program, "-n", "-q", "-c", str(configuration)],
                cwd=SCRIPTS,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        with ended_after(process):
            if not answers(port, process):
                raise RigError(f"proftpd did not start: {(self.home / 'said.txt').read_text()}")
            yield Running("ProFTPD", process.pid, port, self._user.pw_name, "send", process.wait)
