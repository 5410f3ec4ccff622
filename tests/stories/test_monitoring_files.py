"""The alert rules and the dashboard ask for series that a running relay has, and mean by them what it means."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from house import House, run_program
from watching import ask, dial_socket

from relay.errors import TABLE
from relay.exposition import AGE_LABELS

MONITORING = Path(__file__).parents[2] / "scripts" / "deploy" / "monitoring"
RULES, DASHBOARD = MONITORING / "relay-rules.yml", MONITORING / "relay-dashboard.json"
SERIES = re.compile(r"\b(?:relay|process)_[a-z_]+\b")


def rule_expressions() -> dict[str, str]:
    """Return each alert's expression; a rule is what stands between two alerts."""
    rules = RULES.read_text(encoding="utf-8").split("- alert: ")[1:]
    return {rule.split()[0]: re.split(r"\n\s+(?:for|labels):", rule.split("expr:", 1)[1])[0] for rule in rules}


def panel_expressions() -> dict[str, list[str]]:
    """Return what each panel asks for."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels}


def test_every_series_that_is_asked_for_is_there(house: House) -> None:
    """A relay that has just started tells every series that a rule or a panel names, by that name."""
    _, text = ask(dial_socket(house), "/metrics")
    told = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) | set(
        re.findall(r"^([a-z_]+)[ {]", text, re.MULTILINE)
    )
    asked = {name for expression in rule_expressions().values() for name in SERIES.findall(expression)}
    asked |= {
        name for each in panel_expressions().values() for expression in each for name in SERIES.findall(expression)
    }
    assert len(asked) > 20
    assert asked - told == set()


def test_labels_that_rules_choose_by_are_ones_that_the_relay_gives() -> None:
    """Ages and codes in the rules are those of the tables that the relay is made of."""
    text = " ".join(rule_expressions().values())
    ages = [age for group in re.findall(r'age=~"([^"]+)"', text) for age in group.split("|")]
    assert ages
    assert set(ages) <= set(AGE_LABELS)
    codes = [code for group in re.findall(r'code=~?"([^"]+)"', text) for code in group.split("|")]
    assert codes
    assert [code for code in codes if not any(re.fullmatch(code, known) for known in TABLE)] == []


def test_each_rule_says_what_is_wrong_and_what_to_do() -> None:
    """No alert without a severity, a summary and advice."""
    rules = RULES.read_text(encoding="utf-8").split("- alert: ")[1:]
    assert len(rules) == len(rule_expressions()) > 8
    for rule in rules:
        assert re.search(r"labels: \{severity: (page|ticket)\}", rule), rule
        assert "summary: " in rule, rule
        assert "advice: " in rule, rule


def test_panels_of_the_dashboard_lie_beside_each_other() -> None:
    """No two panels cover each other, none reaches beyond the screen's 24 columns, and none is there twice."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        for column in range(place["x"], place["x"] + place["w"]):
            for line in range(place["y"], place["y"] + place["h"]):
                assert column < 24, panel["title"]
                assert (column, line) not in taken, panel["title"]
                taken.add((column, line))
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_the_rules_and_the_metrics(house: House) -> None:
    """Prometheus's own tool finds no fault with the rules, nor with what the relay tells."""
    checked = run_program(["promtool", "check", "rules", str(RULES)])
    assert checked.returncode == 0, checked.stdout + checked.stderr
    _, text = ask(dial_socket(house), "/metrics")
    told = run_program(["promtool", "check", "metrics"], input=text, stdin=None)
    # What process_* of the library are called is not ours.
    faults = [line for line in told.stderr.splitlines() if line.startswith("relay_")]
    assert not faults, told.stderr
