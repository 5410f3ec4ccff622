"""Runs a command as a systemd unit would confine it: its system calls, its socket families, no memory that becomes code.

    python confined.py FILE COMMAND…      FILE is JSON: {"calls": [names], "families": [numbers]}

systemd builds its filters with the same library.  What the kernel cannot do (memory, before 6.3) is left out.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from pathlib import Path

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_EQUAL = 4
_MEMORY_DENY_WRITE_EXECUTE, _REFUSE_EXEC_GAIN = 65, 1


class _Compare(ctypes.Structure):
    """libseccomp's scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("left", ctypes.c_uint64),
        ("right", ctypes.c_uint64),
    )


def confine(calls: list[str], families: list[int]) -> None:
    """Let this process, and all that come from it, make these system calls and no others."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_REFUSE)))
    for name in calls:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Some are those of other machines.
        if number < 0 or name == "socket":
            continue
        assert library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 0, None) == 0, name
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        is_family = _Compare(0, _EQUAL, family, 0)
        assert library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 1, ctypes.byref(is_family)) == 0
    ctypes.CDLL(None).prctl(_MEMORY_DENY_WRITE_EXECUTE, _REFUSE_EXEC_GAIN, 0, 0, 0)
    assert library.seccomp_load(context) == 0


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    confine(wanted["calls"], wanted["families"])
    os.execv(sys.argv[2], sys.argv[2:])
