"""The run's page, checkpoints/<run>/index.html: it shows a run without any account or service.

`train` writes it when it begins, every 15 seconds, at each evaluation and at the end, from the files of the run alone
(train/record.py): the same files give the same bytes. It lies beside samples/ and lora/ and needs no network and no
script.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stylegate import checkout, files, pictures
from stylegate.charts import page_template
from stylegate.config import Config, config_as_dict
from stylegate.words import duration_in_words
from train import panels, record, select
from train.record import RunDirectoryContents

RENEWED_EVERY_S = 15.0  # at most so often while it trains; the evaluations write it too
FIRST = 6  # prompts that are shown at once; the others unfold
SMALL = 160  # pixels; smaller pictures are enlarged without smoothing
KINDS = {
    "with": "Captions of validation/",
    "without": "The same words without the trigger phrase",
    "unrelated": "Words that have nothing to do with the brand",
}


class PageRenewal:
    """Writes a run's page again while it trains, but so seldom that this takes at most a hundredth of the time."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.next_s = directory, 0.0

    def write_page_if_due(self) -> None:
        """Write the page, unless it was written less than RENEWED_EVERY_S seconds ago, or writing it would take too
        large a share of the time.
        """
        began = time.monotonic()
        if began >= self.next_s:
            write_run_page(self.directory)
            now = time.monotonic()
            self.next_s = now + max(RENEWED_EVERY_S, 100 * (now - began))


def record_prompts_and_git_commit(directory: Path, first_step: int, prompts: dict[str, list[str]]) -> None:
    """Record in origin.json the prompts that are drawn, and the commit that trains after step `first_step`; write the
    page.

    `prompts` are lists by kind (a key of KINDS).
    """
    before = record.read_run_directory_contents(directory)
    code, now = before.origin.get("code", []), checkout.git_commit_and_clean_flag()
    if first_step < before.config_by_dotted_key.get("train.max_steps", 0):
        code = [entry for entry in code if entry["from_step"] < first_step]
        if not code or {k: v for k, v in code[-1].items() if k != "from_step"} != now:
            code.append({"from_step": first_step, **now})
    files.write_json(directory / record.ORIGIN, {"prompts": prompts, "code": code})
    write_run_page(directory)


def page_path(directory: Path) -> Path:
    """The path of the page of the run in `directory`."""
    return directory / "index.html"


def write_run_page(directory: Path) -> Path:
    """Write the page of the run in `directory` from the files that exist. Returns the page's path."""
    run = record.read_run_directory_contents(directory)
    path = page_path(directory)
    chosen = run.selection.get("step")
    content = page_template(Path(__file__).parent, "page.html.j2").render(
        title=directory.name,
        subtitle=run_subtitle(run),
        figures=headline_numbers(run),
        notes=notes_on_run_shortcomings(run),
        scores=panels.evaluation_charts(run, chosen),
        checkpoints=checkpoint_rows(run, chosen),
        strengths=lora_strength_rows(run),
        scale=run.selection.get("scale"),
        choice=reason_for_chosen_step_in_words(run),
        grids=[grid for kind in KINDS if (grid := sample_grid_for_page_template(run, kind, chosen))],
        progress=panels.progress_panels(run, chosen),
        facts=provenance_rows_of_run(run),
        changed=config_values_unlike_defaults(run.config_by_dotted_key),
        loras=lora_file_links_for_page(directory),
        advice=select.advice_if_few_pass(run.chosen, run.selection.get("checkpoints")) if run.selection else "",
        rendering=css_image_rendering(run),
        show=three_decimals,
    )
    files.write_atomically(path, content)
    return path


def run_subtitle(run: RunDirectoryContents) -> str:
    """A sentence on the run: its brand, its base, and how many steps are done."""
    brand, base = (config_value_without_folders(run.config_by_dotted_key.get(key)) for key in ("brand", "base"))
    if (total := run.config_by_dotted_key.get("train.max_steps")) is None:
        return "A run whose record cannot be read."
    done = f"{run.num_steps_trained} of {total} steps"
    how = ", that learned from preferences" if run.config_by_dotted_key.get("preferences") else ""
    draws = (
        f", drawn on {config_value_without_folders(run.config_by_dotted_key['draw_base'])}"
        if run.config_by_dotted_key.get("draw_base")
        else ""
    )
    return f"A LoRA for the brand {brand} on the base {base}{draws}{how}, {done}" + (
        ", finished." if is_finished(run) else "."
    )


def is_finished(run: RunDirectoryContents) -> bool:
    """Whether the run has done all its steps and chosen a checkpoint."""
    return bool(run.selection) and run.num_steps_trained >= run.config_by_dotted_key.get("train.max_steps", 0)


def notes_on_run_shortcomings(run: RunDirectoryContents) -> list[str]:
    """Sentences on what is missing, unfinished or damaged in the run."""
    found = []
    if run.config_by_dotted_key and not is_finished(run):
        found.append("Not finished: the run is at work or was stopped. The same command goes on from the last state.")
        if run.selection:
            found.append("The chosen step and the files below are those of an earlier, shorter training of this run.")
    if run.num_steps_trained and not run.drawn:
        found.append("Nothing was drawn or judged during training: train.num_samples is 0, or validation/ is empty.")
    elif max(run.results, default=0) and none_passed(run):
        counts = select.counts_of_failing_checks([run.results[max(run.results)]])
        why = select.check_counts_in_words(counts)
        helps = select.remedies_in_words(counts)
        found.append(f"No picture passed the gate. Held back at the last evaluation by: {why}. {helps}".rstrip())
    every = run.config_by_dotted_key.get("train.evaluate_every", 0)
    due = range(every, run.num_steps_trained + 1, every) if run.results and every else []
    if left := [str(step) for step in due if step not in run.results]:
        found.append(f"These steps were not evaluated, to keep to train.evaluation_share: {', '.join(left)}.")
    if run.stats and run.training_seconds_or_none() is None:
        found.append("Not every step was timed (a part was trained by an earlier version): seconds are left out.")
    return found + run.problems


def none_passed(run: RunDirectoryContents) -> bool:
    """Whether the gate accepted no picture at any step; False where a calibrated policy leaves all undecided."""
    judged = [result["passed"] for result in run.results.values() if result.get("passed") is not None]
    return bool(judged) and not any(map(any, judged))


def headline_numbers(run: RunDirectoryContents) -> list[tuple[str, str]]:
    """The numbers at the top of the page as text: (number, what it is)."""
    found = [(str(run.num_steps_trained), f"of {run.config_by_dotted_key.get('train.max_steps', '?')} steps")]
    step = run.selection.get("step", max(run.results, default=0))
    result = run.results.get(step, {})
    if (rate := run.selection.get("pass_rate")) is not None:
        low, high = run.selection.get("interval") or (None, None)
        between = "" if low is None else f" [{low:.0%}, {high:.0%}]"
        found.append(
            (f"{rate:.0%}{between}", f"pass the gate at the chosen step {step}, strength {run.selection['scale']:g}")
        )
    elif passed := result.get("passed"):
        found.append((f"{sum(passed) / len(passed):.0%}", f"pass the gate at step {step}"))
    base, style = run.results.get(0, {}).get("style"), (run.chosen if run.selection else result).get("style")
    if step and base is not None and style is not None:
        at = f"strength {run.selection['scale']:g}" if run.selection else f"step {step}"
        found.append((f"{base:.2f} → {style:.2f}", f"style, base to LoRA at {at}"))
    if (seconds := run.training_seconds_or_none()) is not None:
        evaluating = run.evaluation_seconds()
        found.append((duration_in_words(seconds), "of training"))
        if evaluating:
            share = evaluating / (seconds + evaluating)
            found.append((duration_in_words(evaluating), f"of evaluations, {share:.0%} of the time"))
    return found


def lora_strength_rows(run: RunDirectoryContents) -> list[dict[str, Any]]:
    """A row for each strength of the LoRA that was tried on the chosen checkpoint: its entry in selection.json, and
    `rate`, the pass rate in words, or None.
    """
    count, tried = run.selection.get("num_prompts", 0), (run.selection.get("scales") or {}).get("compared", [])
    rows = []
    for row in tried:
        passed = round(count * row["pass_rate"]) if "pass_rate" in row else None
        rate = None if passed is None else pass_rate_and_interval_in_words([True] * passed + [False] * (count - passed))
        rows.append(row | {"rate": rate})
    return rows


def pass_rate_and_interval_in_words(passed: list[bool] | None) -> str | None:
    """A pass rate with its 95 % interval, such as "75% [51%, 90%]"; None where nothing was judged. `passed` has one
    bool a picture.
    """
    if not passed:
        return None
    low, high = select.wilson_interval(passed)
    return f"{sum(passed) / len(passed):.0%} [{low:.0%}, {high:.0%}]"


def reason_for_chosen_step_in_words(run: RunDirectoryContents) -> str:
    """Sentences on why the step was chosen and, where what is handed out was drawn anew, that the pictures of the table
    are previews of fewer denoising steps; "" where nothing was chosen by its pictures.
    """
    if not (found := run.selection.get("checkpoints")):
        return ""
    said = f" Step {run.selection['step']} is chosen: {select.reason_for_choice_in_words(found)}."
    if run.handed_out:
        previews, drawn = (
            run.selection.get("preview_steps"),
            run.config_by_dotted_key.get("generate.num_inference_steps"),
        )
        said += f" The pictures of this table are previews of {previews} denoising steps; the rate at the top is that"
        said += f" of pictures in {drawn} steps, as generate draws them."
    return said


def checkpoint_rows(run: RunDirectoryContents, chosen: int | None) -> list[dict[str, Any]]:
    """A row for each evaluated step: its pass rate in words, what held pictures back, and its scores. `chosen` is the
    step that is handed out.
    """
    rows = []
    for step, result in sorted(run.results.items()):
        passed = result.get("passed")
        held_back = result.get("verdicts") and not all(passed or [False])
        rows.append(
            {
                "step": step,
                "chosen": step == chosen,
                "rate": pass_rate_and_interval_in_words(passed),
                "why": select.check_counts_in_words(select.counts_of_failing_checks([result])) if held_back else "",
                **{
                    key: result.get(key)
                    for key in ("style", "style_without_trigger", "drift", "nearest_training", "eval_loss")
                },
            }
        )
    return rows


def sample_grid_for_page_template(run: RunDirectoryContents, kind: str, chosen: int | None) -> dict[str, Any] | None:
    """The pictures of one kind (a key of KINDS) as the template shows them, a row for each prompt and a column for each
    step; None if none was drawn.
    """
    prompts = run.origin.get("prompts", {}).get(kind, [])
    columns = [
        ("base" if step == 0 else f"step {step}", folder, run.results.get(step, {}), step == chosen)
        for step, folder in sorted(run.drawn.items())
    ]
    if run.handed_out:
        columns.append(("handed out", run.directory / "samples" / "handed-out", run.handed_out, True))
    names = {folder: {p.stem for p in (folder / kind).glob("*.png")} for _, folder, _, _ in columns}
    count = max([len(prompts), *(int(n) + 1 for found in names.values() for n in found if n.isdecimal())])
    columns = [column for column in columns if names[column[1]] or (kind == "with" and column[1] in run.drawn.values())]
    if not any(names.values()):
        return None
    rows = []
    for i in range(count):
        cells = []
        for name, folder, result, is_chosen in columns:
            verdicts = (result.get("verdicts") or []) if kind == "with" else []
            verdict = verdicts[i] if i < len(verdicts) else "none"
            source = f"samples/{folder.name}/{kind}/{i}.png" if str(i) in names[folder] else None
            cells.append({"src": source, "verdict": verdict, "name": name, "chosen": is_chosen})
        rows.append({"prompt": prompts[i] if i < len(prompts) else f"prompt {i}", "seed": i, "cells": cells})
    open_rows = rows[:FIRST] if kind == "with" else []
    return {"title": KINDS[kind], "columns": len(columns), "rows": open_rows, "more": rows[len(open_rows) :]}


def css_image_rendering(run: RunDirectoryContents) -> str:
    """The value of the page's CSS property image-rendering: "pixelated" if pictures are small, so that they are
    enlarged without smoothing, else "auto".
    """
    drawn = [path for folder in run.drawn.values() for path in (folder / "with").glob("*.png")]
    with suppress(OSError, ValueError):  # damaged
        return "pixelated" if drawn and min(pictures.upright_size_of(min(drawn).read_bytes())) < SMALL else "auto"
    return "auto"


def provenance_rows_of_run(run: RunDirectoryContents) -> list[tuple[str, str]]:
    """What the run was made from, as (name, value): digests, code, precision, threads, versions. No path
    and no time.
    """
    facts = run.run.get("facts", {})
    found = [("data", facts.get("data")), ("base", facts.get("base"))]
    found += [("base that draws", facts.get("draw_base"))]
    found += [("preferences", facts.get("preferences")), ("LoRA that it went on from", facts.get("start"))]
    for entry in run.origin.get("code", []):
        since = f", from step {entry['from_step']} on" if entry["from_step"] else ""
        state = {True: "clean", False: "with changes that were not committed", None: "state unknown"}[entry["clean"]]
        found.append(("code", f"{entry['commit']}, {state}{since}" if entry["commit"] else f"no git checkout{since}"))
    found.append(("stylegate", run.run.get("stylegate")))
    found += [
        (name, config_value_without_folders(facts[name]))
        for name in ("processes", "precision", "threads", "compile")
        if name in facts
    ]
    found += sorted(run.run.get("versions", {}).items())
    return [(name, value) for name, value in found if value]


def config_values_unlike_defaults(config: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The config values that differ from the defaults: (key, value, default)."""
    defaults = record.flat_config(config_as_dict(Config()))
    return [
        (key, config_value_without_folders(value), config_value_without_folders(defaults.get(key)))
        for key, value in sorted(config.items())
        if value != defaults.get(key)
    ]


def config_value_without_folders(value: Any) -> str:
    """A config value as text that may be shown to anyone: of a path of this machine only the last part."""
    if isinstance(value, str) and (value.startswith(("~", ".")) or Path(value).is_absolute()):
        return f"…/{Path(value).name}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def lora_file_links_for_page(directory: Path) -> list[dict[str, str]]:
    """The LoRA files that the run has handed out: a mapping with href, name, size and sha256 for each."""
    return [
        {"href": quote(f"lora/{p.name}"), "name": p.name, "size": f"{p.stat().st_size / 1e6:.1f} MB"}
        | {"sha256": files.sha256_of_file(p)}
        for p in sorted((directory / "lora").glob("*.safetensors"))
    ]


def three_decimals(value: float | None) -> str:
    """A number with three decimals, as text for a table; a dash for None."""
    return "–" if value is None else f"{value:.3f}".replace("-0.000", "0.000")
