"""What ``relay doctor`` finds unwise about settings that are legal: how long things are kept, and what is let through.

Each is a sentence that says what it leads to, and one that says what to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from relay.cli.terminal import say_size
from relay.config import Config

# A file that waits over the holidays of a year's end must still be there.
_LEAST_UNCOLLECTED_DAYS = 14
# Receipts are compared and files are fetched a second time within days.
_LEAST_COLLECTED_DAYS = 7
_LEAST_VALID_DAYS = 30
_PATIENT_SECONDS = 600.0
_LOCK_LEAST, _LOCK_MOST = 1.0, 60.0
_CHECKPOINT_MOST = 1 << 30
_ANCHOR_MOST = 300.0
# What a double click runs.
_PROGRAMS = frozenset(
    [
        "exe",
        "com",
        "scr",
        "bat",
        "cmd",
        "ps1",
        "vbs",
        "vbe",
        "js",
        "jse",
        "wsf",
        "hta",
        "msi",
        "lnk",
        "reg",
        "jar",
        "dll",
        "cpl",
        "docm",
        "xlsm",
        "pptm",
        "html",
        "htm",
        "svg",
    ]
)


def find_unwise_spans(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what is unwise about spans, sizes and what is let through, and what to do about it."""
    yield from _find_unwise_keeping(config)
    yield from _find_unwise_patience(config)
    if programs := sorted(_PROGRAMS & set(config.names.extensions)):
        yield f"names.extensions lets programs through: {', '.join(programs)}", "Take them out."
    if config.mail.host and config.mail.tls == "none" and config.mail.host not in ("127.0.0.1", "::1", "localhost"):
        yield 'mail.tls is "none": who sends to whom can be read on the way', 'Set it to "starttls" or "tls".'
    if config.certificates.x509 and config.certificates.x509_crl == "if_present":
        text = 'certificates.x509_crl is "if_present": where a list is missing, a revoked certificate still opens'
        yield text, 'Set it to "require".'


def _find_unwise_keeping(config: Config) -> Iterator[tuple[str, str]]:
    kept, read = config.housekeeping.uncollected_days, config.housekeeping.collected_days
    if kept == 0:
        text = "housekeeping.uncollected_days is 0: what nobody collects stays for ever, with the persons in it"
        yield text, "Set it to 93."
    elif kept < _LEAST_UNCOLLECTED_DAYS:
        text = f"housekeeping.uncollected_days is {kept}: files expire over the holidays of a year's end"
        yield text, "Set it to 93."
    if read == 0:
        text = "housekeeping.collected_days is 0: what was collected keeps its bytes for ever, and the store grows"
        yield text, "Set it to 31."
    elif read < _LEAST_COLLECTED_DAYS:
        text = f"housekeeping.collected_days is {read}: who loses what he fetched can soon fetch it no more"
        yield text, "Set it to 31."
    elif kept and read > kept:
        text = (
            f"housekeeping.collected_days ({read}) is more than uncollected_days ({kept}): what was read is kept longer"
        )
        yield text, "Set collected_days to 31, uncollected_days to 93."
    if config.certificates.valid_days < _LEAST_VALID_DAYS:
        text = (
            f"certificates are good for {config.certificates.valid_days} days: offices renew all the time, or are out"
        )
        yield text, "Set certificates.valid_days to 365."
    if not config.certificates.renewal:
        text = "certificates.renewal is off: every office needs you before its certificate ends"
        yield text, "Set it to true, or watch `relay cert list --expiring 60d`."
    free = shutil.disk_usage(config.store.path.parent).free
    if config.limits.upload_bytes > free:
        text = f"limits.upload_bytes is {say_size(config.limits.upload_bytes)}, and {say_size(free)} are free for the store"
        yield text, "Make room, or let files be smaller."


def _find_unwise_patience(config: Config) -> Iterator[tuple[str, str]]:
    server, store = config.server, config.store
    for name in ("login_seconds", "unused_seconds", "drain_seconds"):
        seconds = float(getattr(server, name))
        if seconds > _PATIENT_SECONDS:
            yield f"server.{name} is {seconds:,.0f}: who does nothing keeps a place for so long", "See relay.toml."
    if server.keepalive_seconds * server.keepalive_count > _PATIENT_SECONDS:
        text = (
            "server.keepalive_seconds × keepalive_count is over ten minutes: lost clients keep their places and uploads"
        )
        yield text, "Leave them at 30 and 4."
    if store.lock_wait_seconds < _LOCK_LEAST:
        text = f"store.lock_wait_seconds is {store.lock_wait_seconds:g}: uploads are put off while a command writes"
        yield text, "Set it to 10."
    elif store.lock_wait_seconds > _LOCK_MOST:
        text = (
            f"store.lock_wait_seconds is {store.lock_wait_seconds:g}: clients give up before they are told to try again"
        )
        yield text, "Set it to 10."
    if store.checkpoint_bytes > _CHECKPOINT_MOST:
        text = f"store.checkpoint_bytes is {say_size(store.checkpoint_bytes)}: the first start after a crash takes long"
        yield text, 'Set it to "16 MiB".'
    if config.audit.anchor_seconds > _ANCHOR_MOST:
        text = f"audit.anchor_seconds is {config.audit.anchor_seconds:,.0f}: what is cut off history within that cannot be told"
        yield text, "Set it to 10."
