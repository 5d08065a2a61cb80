"""Runs side by side: what differs in their configs, what came of it, and at what cost.

    stylegate compare checkpoints/neon-*            a table of runs, and checkpoints/compare.html
    stylegate train --multirun train.seed=0,1 ...   ends with them

Reads run.json, stats.jsonl, selection.json and what the run's page reads; the page of runs plots pass rate against
seconds of training and links each run's own page.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from rich.console import Console
from rich.table import Table

from stylegate import files
from stylegate.errors import DataError
from train import charts, record
from train.charts import Mark
from train.record import flat

LAST_STEPS = 50  # the loss of a run is the mean of as many
NAMING = {"name"}  # says nothing of what was trained
PAGE = "compare.html"


def compare(places: Sequence[Path]) -> int:
    """Print the table, write the plot. Raises DataError naming every folder that is no run."""
    if not places:
        raise DataError("compare needs runs", next_step="stylegate compare checkpoints/neon-*")
    problems = [f"{files.shown(p)}: no run.json in it" for p in places if not (p / "run.json").is_file()]
    if problems:
        raise DataError("not runs:", problems, "name folders in checkpoints/.")
    places = list(dict.fromkeys(place.resolve() for place in places))
    rows = [row_of(place) for place in places]
    configs = [row.pop("config") for row in rows]
    keys = sorted(set().union(*configs) - NAMING)
    differing = [k for k in keys if len({repr(config.get(k)) for config in configs}) > 1]
    heads = ["run", *differing, *rows[0]]
    cells = [
        [*(str(config.get(k)) for k in differing), *map(shown, row.values())]
        for config, row in zip(configs, rows, strict=True)
    ]
    table = Table(*heads)
    for place, row in zip(places, cells, strict=True):
        table.add_row(place.name, *row)
    Console(width=max(Console().width, 160)).print(table)
    path, lacking = plot(places, heads, cells)
    for text in lacking:
        print(text)
    print(f"plot: {files.shown(path)}")
    return 0


def row_of(place: Path) -> dict[str, Any]:
    """Numbers of one run; None for what it has not come to yet."""
    told = files.read_json(place / "run.json", "the run's record", "config")
    stats = files.read_jsonl(place / "stats.jsonl", "step", "loss")
    chosen = place / "selection.json"
    selection = files.read_json(chosen, "the selection", "step", "scale", "pass_rate") if chosen.exists() else {}
    result = place / "samples" / f"step-{selection.get('step', -1):06d}" / "result.json"
    found = files.read_json(result, "an evaluation") if result.exists() else {}
    return {
        "config": flat(told["config"]),
        "steps": stats[-1]["step"] if stats else 0,
        "loss": float(np.mean([row["loss"] for row in stats[-LAST_STEPS:]])) if stats else None,
        "chosen": selection.get("step"),
        "strength": selection.get("scale"),
        "pass rate": selection.get("pass_rate"),
        "style": found.get("style"),
        "drift": found.get("drift"),
        "eval loss": found.get("eval_loss"),
    }


def plot(places: Sequence[Path], heads: Sequence[str], cells: Sequence[Sequence[str]]) -> tuple[Path, list[str]]:
    """Write the page of runs beside them; returns its path, and a line for each run that lacks a figure."""
    path, marks, lacking, rows = files.RUNS / PAGE, [], [], []
    for number, (place, row) in enumerate(zip(places, cells, strict=True), start=1):
        href = quote(os.path.relpath(place / "index.html", files.RUNS))
        found = figures_of(place)
        if isinstance(found, str):
            lacking.append(f"not in the plot: {place.name}: {found}")
        else:
            marks.append(Mark(number, place.name, href, *found))
        rows.append({"name": place.name, "href": href if (place / "index.html").exists() else None, "cells": row})
    drawn = charts.by_cost(marks) if marks else ""
    template = charts.template("compare.html.j2")
    files.write(
        path,
        template.render(title="Runs side by side", marks=marks, plot=drawn, lacking=lacking, heads=heads, rows=rows),
    )
    return path, lacking


def figures_of(place: Path) -> tuple[float, float, tuple[float, float]] | str:
    """Seconds of training, pass rate and its interval; or, in words, what is lacking."""
    run = record.read(place)
    if not run.selection:
        return "it has not finished"
    tried = run.selection.get("scales")
    if run.selection["pass_rate"] is None or not tried:
        return "no pass rate: its pictures were not judged, or none passed"
    if (seconds := run.seconds()) is None:
        return "not every step was timed: a part was trained by an earlier version"
    return seconds, run.selection["pass_rate"], tuple(tried["compared"][tried["chosen"]]["interval"])


def shown(value: float | int | None) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, int) else f"{value:.3f}"
