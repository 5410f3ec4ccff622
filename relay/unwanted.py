"""What is asked for besides SFTP: refused by `relay.edge` and asyncssh, and told to the operator once a connection.

asyncssh alone would refuse it too, but nobody would learn who asks: a shell or a tunnel is nothing that care software
wants.
"""

from __future__ import annotations

from relay import journal
from relay.journal import Journal

# By these names they are journalled; any other is the client's own text and stays out of it.
_NAMED = frozenset({
    *("env", "pty-req", "shell", "exec", "subsystem", "x11-req", "auth-agent-req@openssh.com", "signal", "window-change"),
    *("direct-tcpip", "tcpip-forward", "direct-streamlocal@openssh.com", "streamlocal-forward@openssh.com"),
    *("tun@openssh.com", "x11", "auth-agent@openssh.com", "forwarded-tcpip"),
})  # fmt: skip
# What honest programs ask for: OpenSSH sends the language, so many variables are no news; the rest never is.
_NEWS_FROM = {"env": 32}
_ROUTINE = frozenset({
    *("winadj@putty.projects.tartarus.org", "simple@putty.projects.tartarus.org", "eow@openssh.com"),
    *("keepalive@openssh.com", "no-more-sessions@openssh.com", "hostkeys-prove-00@openssh.com"),
})  # fmt: skip


class Unwanted:
    """What one connection has asked for in vain."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._asked: dict[str, int] = {}

    def note(self, journal_: Journal, request: str) -> None:
        """Journal *request*, as the client named it, unless it was already, or is what honest programs ask for."""
        if request in _ROUTINE:
            return
        name = request if request in _NAMED else "unknown"
        self._asked[name] = self._asked.get(name, 0) + 1
        if self._asked[name] == _NEWS_FROM.get(name, 1):
            journal.request_refused(journal_, request=name)
