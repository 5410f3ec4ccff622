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
    """One advice serves before sending and after a refusal, another says that the file is through and what then."""
    for code in RULES:
        row, guidance = TABLE[code], find_guidance(code)
        for before in (row.remedy_ja, row.remedy_en, guidance.mend_ja, guidance.mend_en):
            assert "済んで" not in before, code
            assert "was sent" not in before, code
        assert row.advice_sent_ja.startswith("送信は済んでいます"), code
        assert row.advice_sent_en.startswith("The file was sent"), code
        assert bool(row.sent_ja) == bool(row.sent_en), code
        assert not row.sent_ja or row.severity is Severity.WARN, code


def test_rules_of_the_standard_name_its_section() -> None:
    """Only what is the relay's own has no section: names no system can hold, empty and cut-off files."""
    own = {"name.illegal", "content.empty", "content.truncated", "content.not_this_kind"}
    assert {code for code in RULES if not find_guidance(code).section_ja} == own
