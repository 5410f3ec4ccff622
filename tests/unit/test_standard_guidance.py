"""Guidance: every rule of names, content and units says what to do about it, in words that fit before sending."""

from __future__ import annotations

from relay.errors import TABLE, Severity
from relay.standard.guidance import find_guidance

RULES = [code for code in TABLE if code.startswith(("name.", "content.", "unit."))]


def test_every_rule_has_a_way_to_mend_it_in_both_languages() -> None:
    """Nobody is left with a finding and no next step."""
    for code in RULES:
        guidance = find_guidance(code)
        assert guidance.mend_ja.endswith("。"), code
        assert guidance.mend_en.endswith("."), code
        assert bool(guidance.section_ja) == bool(guidance.section_en), code


def test_a_warning_before_sending_does_not_say_that_the_file_was_sent() -> None:
    """The remedies of warnings speak of a file that is through; before that they would be wrong."""
    for code in RULES:
        if TABLE[code].severity is Severity.WARN:
            assert "済んで" not in find_guidance(code).mend_ja, code
            assert "was sent" not in find_guidance(code).mend_en, code


def test_rules_of_the_standard_name_its_section() -> None:
    """Only what is the relay's own has no section: names no system can hold, empty and cut-off files."""
    own = {"name.illegal", "content.empty", "content.truncated", "content.not_this_kind"}
    assert {code for code in RULES if not find_guidance(code).section_ja} == own
