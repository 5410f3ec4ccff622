"""Invitation codes: as they are written, as people type them, and as `scripts/enroll` reads them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.invitation import CA_BYTES, ID_BYTES, SECRET_BYTES, Code, _encode_id, read_code, write_code

SCRIPT = Path(__file__).parents[2] / "scripts" / "enroll"
codes = st.builds(
    Code,
    st.binary(min_size=ID_BYTES, max_size=ID_BYTES).map(_encode_id),
    st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
    st.binary(min_size=CA_BYTES, max_size=CA_BYTES),
)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Return `scripts/enroll` as a module; it has no ending, since people run it."""
    loader = importlib.machinery.SourceFileLoader("enroll", str(SCRIPT))
    spec = importlib.util.spec_from_loader("enroll", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@given(codes)
def test_what_is_written_is_read_again(code: Code) -> None:
    """Thirteen groups of four, and the same code out of them."""
    text = write_code(code)
    assert len(text.split("-")) == 13
    assert read_code(text) == code


@given(codes, st.sampled_from(["lower", "blanks", "wide", "meant"]))
def test_as_people_type_it(code: Code, habit: str) -> None:
    """Small letters, blanks for hyphens, full-width ones, and O for 0 and I for 1."""
    text = write_code(code)
    typed = {
        "lower": text.lower(),
        "blanks": f"  {text.replace('-', ' ')} ",
        "wide": "".join(chr(ord(letter) + 0xFEE0) for letter in text),
        "meant": text.replace("0", "O").replace("1", "l"),
    }[habit]
    assert read_code(typed) == code


@given(codes, st.integers(0, 51), st.sampled_from(ALPHABET))
def test_the_script_reads_what_the_relay_reads(script: ModuleType, code: Code, place: int, letter: str) -> None:
    """A code, right or with a slip in it, is understood or refused alike on both sides."""
    plain = write_code(code).replace("-", "")
    typed = plain[:place] + letter + plain[place + 1 :]
    try:
        read: Code | None = read_code(typed)
    except ValueError:
        read = None
    try:
        theirs, mark = script.read_code(typed)
    except script.Failure:
        assert read is None
    else:
        assert read is not None
        assert (theirs, mark) == (typed, read.ca_prefix)
    if letter == plain[place]:
        assert read == code


@pytest.mark.parametrize("text", ["", "X", "5" * 51, "5" * 53, "U" * 52, "é" * 52, "0" * 51 + "1", "0" * 5_000])
def test_what_is_no_code(script: ModuleType, text: str) -> None:
    """Too short, too long, other letters, or with a slip: refused before anything is sent."""
    with pytest.raises(ValueError, match="code"):
        read_code(text)
    with pytest.raises(script.Failure, match="52文字"):
        script.read_code(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("a.jp", "a.jp", 22),
        ("a.jp:2222", "a.jp", 2222),
        ("[::1]:2222", "::1", 2222),
        ("[::1]", "::1", 22),
        ("::1", "::1", 22),
    ],
)
def test_the_server_as_people_type_it(script: ModuleType, text: str, host: str, port: int) -> None:
    """With and without a port, and addresses of both kinds."""
    assert script.split_host(text) == (host, port)


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", ":22", "a:b", "[::1]:x"])
def test_what_is_no_server(script: ModuleType, text: str) -> None:
    """Nothing that ssh would take for an option, and no port that is none."""
    with pytest.raises(script.Failure):
        script.split_host(text)
