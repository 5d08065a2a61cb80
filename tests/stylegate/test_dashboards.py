"""The W&B workspace: pinned, and of nothing but what the code tells a tracker.

STYLEGATE_GOLDEN=write python -m pytest tests/stylegate/test_dashboards.py      after a change that is meant
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from stylegate import dashboards, files, wandbrun
from stylegate.config import Config
from stylegate.configgroups import TrackerConfig
from stylegate.errors import SurroundingsError
from tests.fake_wandb import KEY, FakeWandb, refusing, speaking_to

GOLDEN = files.ROOT / "tests" / "golden" / "dashboards.json"
BUILT_IN = {"_step", "_timestamp"}  # W&B's own


def model() -> Any:
    """The workspace as it is sent, without the random ids of its panels and what is not set."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if v is not None and k not in ("id", "ref")}
        return [plain(v) for v in value] if isinstance(value, list) else value

    return plain(json.loads(dashboards.build_wandb_workspace("team", "acme")._to_model().model_dump_json()))


def test_it_is_as_it_was_agreed_on() -> None:
    if os.environ.get("STYLEGATE_GOLDEN") == "write":
        files.write_json(GOLDEN, model())
    assert model() == json.loads(GOLDEN.read_text())
    assert [part["name"] for part in model()["spec"]["section"]["panel_bank_config"]["sections"]] == [
        "Training",
        "Brand health",
        "Gate",
    ]


def named(panels: list[Any]) -> tuple[set[str], set[str]]:
    """Names, and patterns of names, that panels show."""
    names: set[str] = set()
    patterns: set[str] = set()
    for panel in panels:
        found = [getattr(panel, part, None) for part in ("x", "y", "metric", "metrics", "media_keys", "table_name")]
        for value in found:
            for one in value if isinstance(value, list) else [value] if value else []:
                names.add(getattr(one, "name", one))
        patterns |= {pattern for pattern in [getattr(panel, "metric_regex", None)] if pattern}
    return {{"Step": "_step"}.get(name, name) for name in names}, patterns


class Remembering:
    """A tracker that remembers the names of what another one is told."""

    def __init__(self, tracker: Any, names: set[str]) -> None:
        self.tracker, self.names = tracker, names

    def __getattr__(self, method: str) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            if method in ("log_values", "set_summary_values"):
                self.names.update(given[0])
            elif method in ("log_picture", "log_table", "log_histogram"):
                self.names.add(given[0])
            return getattr(self.tracker, method)(*given, **more)

        return call


def check_that_it_shows_nothing_that_is_not_told(told: set[str]) -> None:
    """`told` are the names that a tracker was told in an experiment and in a gate that holds pictures back."""
    panels = [*dashboards.training_panels(), *dashboards.wandb_panels_of_batches_over_time(), *dashboards.gate_panels()]
    names, patterns = named(panels)
    assert len(names) > 25 and names - BUILT_IN <= told, names - told - BUILT_IN
    assert patterns and all(any(re.fullmatch(pattern, name) for name in told) for pattern in patterns)


def test_without_a_key_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with speaking_to(refusing()):
        monkeypatch.delenv("WANDB_API_KEY")
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        with pytest.raises(SurroundingsError, match="No API key configured") as error:
            dashboards.save_wandb_workspace(Config(tracker=TrackerConfig(project="acme")))
    assert "Next: wandb login" in str(error.value) and "acme" in str(error.value)


def test_one_command_saves_it(capsys: pytest.CaptureFixture[str]) -> None:
    """By the real client, at a server that keeps what it gets."""
    with FakeWandb() as server, speaking_to(server.url):
        assert dashboards.save_wandb_workspace(Config(tracker=TrackerConfig(project="acme"))) == 0
        (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("team", "acme", "stylegate")
    assert "evaluation/pass_rate_low" in view["spec"] and "gate/verdicts" in view["spec"]
    assert "/team/acme?nw=" in capsys.readouterr().out


def test_a_server_that_takes_nothing_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def broken() -> None:
        raise RuntimeError(f"refused {KEY}")

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb, "Api", broken)
    with pytest.raises(SurroundingsError) as error:
        dashboards.save_wandb_workspace(Config())
    assert "refused ***" in str(error.value) and wandbrun.wandb_error_in_words(ValueError(KEY)) == "ValueError: ***"
