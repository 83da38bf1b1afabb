"""The alert rules and the dashboard of k8s/observability name only existing metrics, and promtool accepts them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.agent.counting import Counts
from cluster.controller.figures import Figures, metrics_of
from fetcher.cli.metrics import all_metrics
from fetcher.serving import Counts as Served
from loader.cli.metrics import all_load_metrics, hold_metrics
from loader.residency.holding import State
from tests.lab.prometheus import promtool
from tests.observability.dashboard import DASHBOARD, DIRECTORY, expressions

RULES = DIRECTORY / "weightlift.rules.yml"
RULE_TESTS = DIRECTORY / "weightlift.rules.test.yml"
_CLUSTER = (*Counts().metrics(), *metrics_of(Figures(), leads=True))
METRICS = {
    metric.name: metric
    for metric in (*all_metrics(), *Served().metrics(), *all_load_metrics(), *hold_metrics(State()), *_CLUSTER)
}


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:fetcher|loader|weightlift_agent|weightlift_controller)_[a-z_]+\b", text))


@pytest.mark.parametrize("path", [RULES, RULE_TESTS, DASHBOARD], ids=lambda path: path.name)
def test_every_named_metric_exists(path: Path) -> None:
    named = named_in(path.read_text())
    assert named
    assert named <= set(METRICS)


@pytest.mark.parametrize("path", [RULES, RULE_TESTS, DASHBOARD], ids=lambda path: path.name)
def test_every_used_label_exists(path: Path) -> None:
    text = path.read_text().replace('\\"', '"')
    for name, matchers in re.findall(r"\b((?:fetcher|loader|weightlift_agent|weightlift_controller)_[a-z_]+)\{([^}]*)\}", text):
        ours = {label for sample in METRICS[name].samples for label in sample.labels}
        assert set(re.findall(r"(\w+)[=!]", matchers)) <= {"instance", *ours}, name


def test_every_state_metric_is_shown() -> None:
    """The dashboard leaves out only a few metrics that are for closer inspection."""
    aside = {name for name in METRICS if name.endswith(("_build_info", "_started_timestamp_seconds"))}
    aside |= {"loader_duration_seconds", "loader_progress_timestamp_seconds", "loader_files"}
    assert set(METRICS) - aside == named_in(" ".join(expressions()))


class TestRules:
    def test_promtool_accepts_the_rules(self) -> None:
        done = promtool("check", "rules", RULES)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_each_alert_fires_when_it_should_and_not_before(self) -> None:
        done = promtool("test", "rules", RULE_TESTS)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_each_alert_has_a_test(self) -> None:
        alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
        expected = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", RULE_TESTS.read_text())
        assert sorted(alerts) == sorted(expected)


class TestDashboard:
    @pytest.fixture
    def panels(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
        return found

    def test_every_panel_has_its_own_id_and_a_description(self, panels: list[dict[str, Any]]) -> None:
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["title"] and (panel["type"] == "row" or panel["description"].endswith(".")) for panel in panels)

    def test_no_panels_overlap(self, panels: list[dict[str, Any]]) -> None:
        taken = set[tuple[int, int]]()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (column, line)
                for column in range(place["x"], place["x"] + place["w"])
                for line in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert all(column < 24 for column, _ in cells), panel["title"]
            taken |= cells

    def test_prometheus_parses_every_expression(self, tmp_path: Path) -> None:
        rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions())]
        path = tmp_path / "dashboard.rules.yml"
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        done = promtool("check", "rules", path)
        assert done.returncode == 0, done.stdout + done.stderr
