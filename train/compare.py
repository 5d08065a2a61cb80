"""Runs side by side: what differs in their configs, and what came of it.

    stylegate compare checkpoints/neon-*            a table of runs
    stylegate train --multirun train.seed=0,1 ...   ends with one

Reads run.json, stats.jsonl and selection.json; writes nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from stylegate import files
from stylegate.errors import DataError

LAST_STEPS = 50  # the loss of a run is the mean of as many
NAMING = {"name"}  # says nothing of what was trained


def compare(places: Sequence[Path]) -> int:
    """Print the table. Raises DataError naming every folder that is no run."""
    if not places:
        raise DataError("compare needs runs", next_step="stylegate compare checkpoints/neon-*")
    problems = [f"{files.shown(p)}: no run.json in it" for p in places if not (p / "run.json").is_file()]
    if problems:
        raise DataError("not runs:", problems, "name folders in checkpoints/.")
    rows = [row_of(place) for place in places]
    configs = [row.pop("config") for row in rows]
    keys = sorted(set().union(*configs) - NAMING)
    differing = [k for k in keys if len({repr(config.get(k)) for config in configs}) > 1]
    table = Table("run", *differing, *rows[0])
    for place, config, row in zip(places, configs, rows, strict=True):
        table.add_row(place.name, *(str(config.get(k)) for k in differing), *map(shown, row.values()))
    Console(width=max(Console().width, 160)).print(table)
    return 0


def row_of(place: Path) -> dict[str, Any]:
    """Numbers of one run; None for what it has not come to yet."""
    record = files.read_json(place / "run.json", "the run's record", "config")
    stats = files.read_jsonl(place / "stats.jsonl", "step", "loss")
    chosen = place / "selection.json"
    selection = files.read_json(chosen, "the selection", "step", "scale", "pass_rate") if chosen.exists() else {}
    result = place / "samples" / f"step-{selection.get('step', -1):06d}" / "result.json"
    found = files.read_json(result, "an evaluation") if result.exists() else {}
    return {
        "config": flat(record["config"]),
        "steps": stats[-1]["step"] if stats else 0,
        "loss": float(np.mean([row["loss"] for row in stats[-LAST_STEPS:]])) if stats else None,
        "chosen": selection.get("step"),
        "strength": selection.get("scale"),
        "pass rate": selection.get("pass_rate"),
        "style": found.get("style"),
        "drift": found.get("drift"),
        "eval loss": found.get("eval_loss"),
    }


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def shown(value: float | int | None) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, int) else f"{value:.3f}"
