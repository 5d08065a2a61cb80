"""Runs side by side: what differs between them, what came of it, and at what cost.

    stylegate compare checkpoints/neon-*            a table of runs, and checkpoints/compare.html
    stylegate train --multirun train.seed=0,1 ...   ends with the same table

Pass rate and style are those of what is handed out, at its strength. Drift and evaluation loss are measured at strength
1 alone, and their columns say so.

Reads run.json, stats.jsonl, selection.json and what the run's page reads. The page of runs plots the pass rate against
the seconds of training and links each run's own page. Runs that cannot be compared fairly, because they were trained
for different numbers of steps, in different precisions or on different data, are named in notes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from rich.console import Console
from rich.table import Table

from stylegate import files
from stylegate.charts import page_template
from stylegate.errors import DataError
from train import charts, record
from train.charts import PlottedRun
from train.record import flat_config

LAST_STEPS = 50  # the loss of a run is the mean over this many steps at its end
NOT_COMPARED = {"name"}  # config keys that say nothing about what was trained
DIGEST_LENGTH = 12  # characters of a digest that are printed
PAGE = "compare.html"


class ComparedRun(NamedTuple):
    """One run of the table: a row."""

    config: dict[str, Any]  # dotted key -> value
    facts: dict[str, Any]  # what the run rests on: data, base, processes, precision, threads, compile
    results: dict[str, int | float | str | None]  # column -> value; None for what the run has not come to yet
    problems: Sequence[str] = ()  # sentences on files of the run that cannot be read, whose columns are empty


def compare(places: Sequence[Path]) -> int:
    """Print the table of the runs in the folders `places` and its notes; write the page checkpoints/compare.html.
    Returns 0.

    Raises DataError naming every folder that is no run.
    """
    if not places:
        raise DataError("compare needs runs", next_step="stylegate compare checkpoints/neon-*")
    problems = [
        f"{files.display_path(p)}: there is no run.json in it" for p in places if not (p / "run.json").is_file()
    ]
    if problems:
        raise DataError("these folders are not runs:", problems, "name folders in checkpoints/.")
    places = list(dict.fromkeys(place.resolve() for place in places))
    rows = [read_compared_run(place) for place in places]
    configs, facts = differing_keys([row.config for row in rows]), differing_keys([row.facts for row in rows])
    heads = ["run", *configs, *facts, *rows[0].results]
    cells = [
        [*(str(row.config.get(key)) for key in configs), *(fact_as_cell_text(row.facts.get(key)) for key in facts)]
        + [number_as_cell_text(value) for value in row.results.values()]
        for row in rows
    ]
    table = Table(*heads)
    for place, row in zip(places, cells, strict=True):
        table.add_row(place.name, *row)
    Console(width=max(Console().width, 160)).print(table)
    remarks = [f"{place.name}: {text}" for place, row in zip(places, rows, strict=True) for text in row.problems]
    remarks += notes_on_unfair_comparisons(rows)
    path, without_figures = write_comparison_page(places, heads, cells, remarks)
    for text in remarks:
        print(f"note: {text}")
    for text in without_figures:
        print(text)
    print(f"plot: {files.display_path(path)}")
    return 0


def differing_keys(tables: Sequence[dict[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all tables, in the order of the alphabet; those in NOT_COMPARED are
    left out.
    """
    keys = sorted(set().union(*tables) - NOT_COMPARED)
    return [key for key in keys if len({repr(table.get(key)) for table in tables}) > 1]


def read_compared_run(place: Path) -> ComparedRun:
    """Read config, facts and results of the run in the folder `place`."""
    run = files.read_json(place / "run.json", "the run's record", "config")
    stats = files.read_jsonl(place / "stats.jsonl", "step", "loss")
    path = place / "selection.json"
    selection = files.read_json(path, "the selection", "step", "scale", "pass_rate") if path.exists() else {}
    contents = record.read_run_directory_contents(place)
    chosen, at_one = contents.chosen, contents.results.get(selection.get("step", -1), {})
    results = {
        "steps": stats[-1]["step"] if stats else 0,
        "loss": float(np.mean([row["loss"] for row in stats[-LAST_STEPS:]])) if stats else None,
        "chosen": selection.get("step"),
        "strength": selection.get("scale"),
        "pass rate": pass_rate_in_words(selection, chosen),
        "style": chosen.get("style"),
        "drift at 1": at_one.get("drift"),  # neither is measured at another strength than 1
        "eval loss at 1": at_one.get("eval_loss"),
    }
    return ComparedRun(flat_config(run["config"]), run.get("facts", {}), results, contents.problems)


def pass_rate_in_words(selection: dict[str, Any], result: dict[str, Any]) -> str | None:
    """The share of pictures of the chosen checkpoint and strength that pass, such as "75% of 16"; None if none was
    judged, or if a calibrated policy left them undecided.

    Where none passed, `selection` has no rate: it is 0, and `result` has their number.
    """
    rate = selection.get("pass_rate")
    if rate is None and not result.get("passed"):
        return None
    return f"{rate or 0:.0%} of {selection.get('num_prompts') or len(result['passed'])}"


def notes_on_unfair_comparisons(rows: Sequence[ComparedRun]) -> list[str]:
    """A sentence for each reason why the numbers of these runs do not answer the same question."""
    found = []
    steps = sorted({int(row.results["steps"] or 0) for row in rows})
    if len(steps) > 1:
        found.append(
            f"These runs differ in steps ({', '.join(map(str, steps))}): their losses and pass rates come from "
            "different amounts of training. Train the shorter ones on with train.max_steps, then compare again."
        )
    for key in differing_keys([row.facts for row in rows]):
        values = dict.fromkeys(fact_as_cell_text(row.facts.get(key)) for row in rows)
        found.append(f"These runs differ in {key} ({', '.join(values)}): their results may differ for that reason.")
    return found


def write_comparison_page(
    places: Sequence[Path], heads: Sequence[str], cells: Sequence[Sequence[str]], remarks: Sequence[str]
) -> tuple[Path, list[str]]:
    """Write the page that shows runs side by side. Returns its path, and a line for each run that is not in the plot.

    `heads` are the titles of the table's columns, `cells` its texts by run.
    """
    path, marks, without_figures, rows = files.RUNS / PAGE, [], [], []
    for number, (place, row) in enumerate(zip(places, cells, strict=True), start=1):
        href = quote(os.path.relpath(place / "index.html", files.RUNS))
        found = training_seconds_pass_rate_or_reason(place)
        if isinstance(found, str):
            without_figures.append(f"not in the plot: {place.name}: {found}")
        else:
            marks.append(PlottedRun(number, place.name, href, *found))
        rows.append({"name": place.name, "href": href if (place / "index.html").exists() else None, "cells": row})
    content = page_template(Path(__file__).parent, "compare.html.j2").render(
        title="Runs side by side",
        marks=marks,
        plot=charts.pass_rate_by_training_time_chart(marks) if marks else "",
        notes=[*remarks, *without_figures],
        heads=heads,
        rows=rows,
    )
    files.write_atomically(path, content)
    return path, without_figures


def training_seconds_pass_rate_or_reason(place: Path) -> tuple[float, float, tuple[float, float]] | str:
    """Seconds of training, pass rate and its interval; or a sentence that says why one of them is missing."""
    run = record.read_run_directory_contents(place)
    if not run.selection:
        return "it has not finished"
    tried = run.selection.get("scales")  # of runs of earlier versions, which wrote no interval of their own
    if run.selection["pass_rate"] is None or not tried:
        return "no pass rate: its pictures were not judged, or none passed"
    if (seconds := run.training_seconds_or_none()) is None:
        return "not every step was timed: a part was trained by an earlier version"
    return (
        seconds,
        run.selection["pass_rate"],
        tuple(run.selection.get("interval") or tried["compared"][tried["chosen"]]["interval"]),
    )


def number_as_cell_text(value: float | int | str | None) -> str:
    """A number as the text of a cell: a float with three decimals, "-" for None."""
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def fact_as_cell_text(value: Any) -> str:
    """A fact of run.json as the text of a cell: of a digest only the first characters."""
    return value[:DIGEST_LENGTH] if isinstance(value, str) and len(value) == 64 else str(value)
