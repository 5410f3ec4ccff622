"""What asks a running relay how it does: a bare HTTP request over its socket or its port, and Prometheus's own parser."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

from house import HOST, PATIENCE_SECONDS, House
from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, tuple[tuple[str, str], ...]]


def dial_socket(house: House) -> socket.socket:
    """Connect to the socket beside the store, whose path may be too long for its name."""
    path = Path(f"{house.config.store.path}.watch")
    folder = os.open(path.parent, os.O_PATH)
    try:
        caller = socket.socket(socket.AF_UNIX)
        caller.settimeout(PATIENCE_SECONDS)
        caller.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    return caller


def dial_port(house: House) -> socket.socket:
    """Connect to the port of ``[metrics]``, which the journal tells."""
    port = house.wait_for_event("watch.listening")["port"]
    return socket.create_connection((HOST, port), PATIENCE_SECONDS)


def ask(caller: socket.socket, request: str | bytes) -> tuple[int, str]:
    """Send *request* (``/metrics``, or raw bytes); return the status and the body once the server has hung up."""
    raw = request if isinstance(request, bytes) else f"GET {request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with closing(caller):
        caller.sendall(raw)
        answer = b""
        while part := caller.recv(65_536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


def read_metrics(house: House) -> dict[Sample, float]:
    """Return every sample by its name and labels, as Prometheus would store it."""
    status, text = ask(dial_socket(house), "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
