"""Runs side by side: the table, the plot, the table at the end of a sweep, W&B's sweep."""

import itertools
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from scipy.stats import binomtest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from stylegate import cli, config, configcheck, files, rundirectory
from stylegate.errors import ExitCode
from tests.conftest import FAST
from train import compare, record, select

AWAY = ["hydra.launcher.timeout_min=5", f"hydra.sweep.dir={files.CACHE}/sweep"]


def test_a_sweep_ends_with_its_runs_side_by_side(run, small_brand: Path) -> None:
    words = ["brand=small", "name=swept", *FAST, "train.max_steps=2"]
    code, text = run("train", "--multirun", *words, "lora.rank=2,4", "train.seed=1")
    assert code == 0
    table = text[text.index("lora.rank") :]
    assert "train.seed" not in table and "train.max_steps" not in table, "only what differs"
    places = sorted(files.RUNS.glob("swept-sd-*"))
    assert len(places) == 2
    code, again = run("compare", *map(str, places))
    assert code == 0 and "lora.rank" in again
    assert again.count("not in the plot: swept-sd") == 2 and f"plot: {files.RUNS / 'compare.html'}" in again
    for place in places:
        loss = sum(row["loss"] for row in files.read_jsonl(place / "stats.jsonl")) / 2
        (line,) = (line for line in again.splitlines() if place.name[:20] in line and "│" in line)
        assert f" {loss:.3f} " in line


def test_runs_that_cannot_be_compared_fairly_are_named(run, small_brand: Path) -> None:
    """A sweep of one step meets a run of the same arguments that has seen two; another was made of other data."""
    words = ["brand=small", "name=unfair", *FAST]
    assert run("train", *words, "train.max_steps=2")[0] == 0
    code, text = run("train", "--multirun", *words, "train.max_steps=1", "train.seed=0,1")
    assert code == 0 and "note: These runs differ in steps (1, 2)" in text
    assert "differ in precision" not in text and "differ in data" not in text
    places = sorted(files.RUNS.glob("unfair-sd-*"))
    told = files.read_json(places[1] / "run.json", "the run's record")
    told["facts"] |= {"precision": "bf16", "data": "f" * 64}
    files.write_json(places[1] / "run.json", told)
    code, text = run("compare", *map(str, places))
    page = (files.RUNS / "compare.html").read_text()
    for said in ("differ in steps (1, 2)", "differ in precision (fp32, bf16)", f"{'f' * 12})"):
        assert said in text and said in page


def test_a_folder_that_is_no_run_is_named(run, tmp_path: Path) -> None:
    code, text = run("compare", str(tmp_path))
    assert code == 2 and f"{tmp_path}: there is no run.json in it" in text
    assert run("compare")[0] == 2


def test_a_sweep_sent_away_trains_and_ends_with_the_table(run, small_brand: Path) -> None:
    """submitit's local executor: a job in a process of its own, as on a cluster. Two jobs are in the test below."""
    words = ["brand=small", "name=away", *FAST, "train.max_steps=1", "train.seed=1", "hydra/launcher=submitit_local"]
    code, text = run("train", "--multirun", *words, *AWAY)
    assert code == 0, text
    assert len(list(files.RUNS.glob("away-sd-*/lora/away.safetensors"))) == 1
    assert "away-sd-s1" in text and "loss" in text


def test_a_job_that_fails_away_fails_the_sweep(run, folder: Path) -> None:
    """Two jobs of `brand`, which needs no torch; a failed job does the same to a sweep of any verb."""
    good = folder.rename(folder.with_name("good"))
    words = ["name=fromaway", f"images={good},{good}-not", "hydra/launcher=submitit_local", *AWAY]
    code, text = run("brand", "--multirun", *words)
    assert code not in (0, None) and f"{good}-not" in text
    assert (files.BRANDS[0] / "fromaway" / "brand.yaml").is_file(), "the other job has passed"


def test_who_is_told_to_stop_begins_no_further_job(run, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(cli, "run_verb", lambda verb, config: begun.append(config) or ExitCode.PREEMPTED)
    code, _ = run("train", "--multirun", "brand=neon", "train.seed=0,1,2")
    assert code == ExitCode.PREEMPTED and len(begun) == 1


def test_an_error_of_another_rank_is_a_line(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wrong words the first process speaks for all, since every process reads the same."""
    monkeypatch.setenv("RANK", "1")
    assert run("train", "brand=nosuch") == (2, "")
    code, text = run("train", f"brand={tmp_path}")
    assert code == 2 and text.startswith(f"rank 1: error: {tmp_path}") and len(text.splitlines()) == 1


def made(name: str, passed: list[bool] | None, windows: list[tuple[int, float]], steps: int = 40) -> Path:
    """A run as its files tell it: verdicts of the chosen checkpoint, steps and seconds between looks."""
    place = files.RUNS / name
    judged = {"step": steps, "scale": 1.0, "styles": None, "style": None, "style_spread": None, "passed": passed}
    files.write_json(place / "run.json", {"config": {"name": name, "train": {"seed": len(name)}}, "facts": {}})
    files.write_jsonl(place / "stats.jsonl", [{"step": i + 1, "loss": 1.0} for i in range(steps)])
    ends = itertools.accumulate(count for count, _ in windows)
    rows = [{"step": end, "steps": n, "seconds": s} for end, (n, s) in zip(ends, windows, strict=True)]
    files.write_jsonl(place / "clock.jsonl", rows)
    tried = select.choose_and_compare_evaluations([judged], 0.2) if passed else None
    rate = float(np.mean(passed)) if passed and any(passed) else None
    chosen = {"step": steps, "scale": 1.0, "pass_rate": rate, "scales": tried, "num_prompts": len(passed or [])}
    files.write_json(place / "selection.json", chosen)
    files.write_json(
        place / "samples" / f"step-{steps:06d}" / "result.json", judged | {"prompts": len(passed or []) or 3}
    )
    files.write_atomically(place / "index.html", "")
    return place


def test_the_plot_holds_each_run_once_where_its_numbers_say(run) -> None:
    verdicts = {"plot-a": [True] * 15 + [False], "plot-b&<i>": [True, False] * 8, "plot-c": [False, True, True]}
    windows = {"plot-a": [(10, 2.5), (30, 5.25)], "plot-b&<i>": [(40, 30.0)], "plot-c": [(40, 12.5)]}
    places = [made(name, verdicts[name], windows[name]) for name in verdicts]
    code, text = run("compare", *map(str, [*places, places[0]]))
    assert code == 0 and "not in the plot" not in text
    page = (files.RUNS / "compare.html").read_text()
    marks = re.findall(
        r'<a href="([^"]+)"><title>(.*?)</title><path class="span" d="M([\d.]+) ([\d.]+)V([\d.]+)" .*?'
        r'<circle cx="([\d.]+)" cy="([\d.]+)".*?<text class="number"[^>]*>(\d+)</text></a>',
        page,
    )
    assert len(marks) == page.count("<circle") == 3 and "<i>" not in page.replace("&lt;i&gt;", "")
    heights = [float(y) for y in re.findall(r'class="tick" d="M[\d.]+ ([\d.]+)H', page)]
    bottom, top = max(heights), min(heights)
    xs, seconds = [], []
    for number, (name, mark) in enumerate(zip(verdicts, marks, strict=True), start=1):
        href, said, x, low_y, high_y, cx, cy, shown = mark
        passed, cost = verdicts[name], sum(s for _, s in windows[name])
        rate = sum(passed) / len(passed)
        interval = binomtest(sum(passed), len(passed)).proportion_ci(method="wilson")
        wanted = f"{name}: {rate:.0%} pass [{interval.low:.0%}, {interval.high:.0%}], {cost:.1f} s of training"
        assert unescape(said) == wanted and int(shown) == number
        for y, share in ((cy, rate), (low_y, interval.low), (high_y, interval.high)):
            assert (bottom - float(y)) / (bottom - top) == pytest.approx(share, abs=1e-3)
        assert x == cx and f'<td>{number}</td><td><a href="{href}">' in page
        assert (files.RUNS / re.sub("%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), href)).is_file()
        xs.append(float(x))
        seconds.append(cost)
    assert np.corrcoef(xs, seconds)[0, 1] == pytest.approx(1), "linear in the cost"


def test_runs_that_lack_figures_are_named(run) -> None:
    whole = made("lack-none", [True, True, False], [(40, 9.0)])
    unjudged = made("lack-rate", None, [(40, 9.0)])
    untimed = made("lack-time", [True, False], [(10, 3.0)])
    failed = made("lack-pass", [False] * 4, [(40, 9.0)])
    stopped = made("lack-end", [True, False], [(40, 3.0)])
    (stopped / "selection.json").unlink()
    (stopped / "index.html").unlink()
    code, text = run("compare", *map(str, (whole, unjudged, untimed, failed, stopped)))
    page = (files.RUNS / "compare.html").read_text()
    assert "67% of 3" in text and "0% of 4" in text, "none of four passed: that was measured"
    for name, why in (
        ("rate", "none passed"),
        ("pass", "none passed"),
        ("time", "not every step was timed"),
        ("end", "has not finished"),
    ):
        (line,) = (line for line in text.splitlines() if line.startswith(f"not in the plot: lack-{name}: "))
        assert why in line and line in unescape(page)
    assert code == 0 and page.count("<circle") == 1 and "lack-none: " in page and "lack-end</a>" not in page
    assert run("compare", str(stopped))[0] == 0
    assert "<svg" not in (files.RUNS / "compare.html").read_text()


def test_pass_rate_and_style_are_of_the_strength_that_is_handed_out(run, tmp_path: Path) -> None:
    """Drift and loss are measured at strength 1 alone, and their columns say it; a damaged file is named."""
    place = made("strong", [True, True, False], [(40, 9.0)])
    samples, at_one = place / "samples", {"step": 40, "scale": 1.0, "prompts": 3, "passed": [True] * 3}
    files.write_json(
        samples / "step-000040" / "result.json", at_one | {"style": 0.5, "drift": 0.25, "eval_loss": 0.125}
    )
    files.write_json(samples / "step-000040-scale-0.8" / "result.json", at_one | {"scale": 0.8, "style": 0.625})
    selection = files.read_json(place / "selection.json", "the selection")
    files.write_json(place / "selection.json", selection | {"scale": 0.8})
    columns = ["strength", "pass rate", "style", "drift at 1", "eval loss at 1"]

    def told() -> list[object]:
        return [compare.read_compared_run(place).results[name] for name in columns]

    assert told() == [0.8, "67% of 3", 0.625, 0.25, 0.125], "its preview, where nothing was drawn anew"
    final = {"step": 40, "scale": 0.8, "verdicts": ["accept"] * 3, "passed": [True] * 3, "style": 0.75, "seconds": 2.0}
    files.write_json(samples / "handed-out" / "result.json", at_one | final)
    assert told() == [0.8, "67% of 3", 0.75, 0.25, 0.125]
    assert record.read_run_directory_contents(place).seconds_of == {40: 2.0}
    files.write_json(samples / "handed-out" / "result.json", at_one | final | {"step": 20})
    assert told()[2] == 0.625, "of an earlier choice"
    assert record.read_run_directory_contents(place).seconds_of == {20: 2.0, 40: 0.0}, "nor is its time of this step"
    (samples / "step-000040" / "result.json").write_text("{")
    code, text = run("compare", str(place))
    assert code == 0 and "note: strong: " in text and "samples/step-000040/result.json" in text


def test_wandb_would_run_our_own_command() -> None:
    """The definition's command as wandb's agent expands it, for each run of the grid: known keys, and it composes."""
    sweep = yaml.safe_load((files.ROOT / "docs" / "sweep.yaml").read_text())
    keys, parameters = config.config_fields_by_key(), sweep["parameters"]
    assert sweep["method"] == "grid" and set(parameters) <= set(keys)
    assert not set(parameters) & rundirectory.NOT_IN_WEIGHTS, "runs that differ in nothing would share a directory"
    logged = select.tracked_evaluation_values(
        dict.fromkeys(("step", "style", "style_without_trigger", "drift", "nearest_training"), 1.0)
        | {"eval_loss": 1.0, "passed": [True]}
    )
    assert sweep["metric"]["name"] in logged
    runs = set()
    for values in itertools.product(*(entry["values"] for entry in parameters.values())):
        told = create_sweep_command_args(
            {"args": {name: {"value": value} for name, value in zip(parameters, values, strict=True)}}
        )
        told |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
        words = [w for part in sweep["command"] for w in (told[part[2:-1]] if part.startswith("${") else [part])]
        assert words[:3] == ["/usr/bin/env", "stylegate", "train"]
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            composed = configcheck.checked_config(compose("config", overrides=words[3:]), [])
        assert composed.tracker.name == "wandb" and composed.brand == "neon"
        assert [composed.lora.rank, composed.train.learning_rate, composed.train.seed] == list(values)
        runs.add(rundirectory.run_directory_name(composed))
    assert len(runs) == 12


def test_the_launcher_of_several_processes_ends_with_the_message(run, tmp_path: Path, monkeypatch) -> None:
    """Torch's launcher prints what it finds in this file at the end of its own report."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert run("train", "brand=nosuch")[0] == 2
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert failure.message.startswith("\nerror: brand=nosuch: ") and "\nNext: " in failure.message
