"""What the machine itself makes of it when all of its processors are busy: ``python -m rig.pressure`` computes, always the same.

Siblings on one core, caches that are shared and processes that take turns make each computation dearer, whoever does it.
`measure_pressure` has the same computation done in few processes at once and in as many as there are processors, and
compares what it cost each of them.  It is of what a login is made of: key exchange, signatures, digests, and Python.
"""

import hashlib
import statistics
import subprocess
import sys
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from rig.servers import SCRIPTS

_ROUNDS = 600
_FILE = bytes(10 * 1024)
_WORDS = 3000


def measure_pressure(processes: int) -> float:
    """Return the processor time, in seconds, that the computation takes each of so many processes at once; the median."""
    command = [sys.executable, "-m", "rig.pressure"]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SCRIPTS)
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return statistics.median(float(process.communicate()[0]) for process in started)


def _compute() -> None:
    key, peer = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    for number in range(_ROUNDS):
        secret = X25519PrivateKey.generate().exchange(peer.public_key())
        digest = hashlib.sha256(secret + _FILE).digest()
        key.public_key().verify(key.sign(digest), digest)
        words = {place: f"{number} {place}" for place in range(_WORDS)}
        sum(len(word) for word in words.values())


def _main() -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    used = time.process_time()
    _compute()
    print(time.process_time() - used, flush=True)


if __name__ == "__main__":
    _main()
