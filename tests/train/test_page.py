"""The run's page: it holds what the run's files hold, for every state that a run can be in."""

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy.stats import binomtest, ttest_1samp

from stylegate import charts, files
from stylegate.cli import main
from stylegate.errors import StylegateError
from stylegate.tracker import LedgerTracker
from tests.conftest import FAST, merged
from train import loop, page, panels, record, select, stats

STEPS = (0, 2, 4)


class Seen(HTMLParser):
    """What a browser would take from a page: tags, links and text."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(path.read_text())
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with evaluations at 0, 2 and 4 steps, where some pictures pass."""
    policy = tmp_path_factory.mktemp("policy") / "some.yaml"
    policy.write_text("version: 1\nchecks: {contrast: {reject_below: 1}}\n")
    words = ["brand=neon", "name=paged", *FAST, "train.num_samples=3", "train.evaluate_every=2", "train.max_steps=4"]
    words += ["train.evaluation_share=1", "train.scales=[0.8,1]", "generate.num_inference_steps=1"]
    assert main(["train", *merged(*words, f"policy={policy}")]) == 0
    return directory("paged")


@pytest.fixture
def copied(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / evaluated.name))


def directory(name: str) -> Path:
    (found,) = files.RUNS.glob(f"{name}-sd-*")
    return found


def result_of(run: Path, step: int) -> dict:
    return json.loads((run / "samples" / f"step-{step:06d}" / "result.json").read_text())


def leads(run: Path, link: str) -> bool:
    """A browser would find a file there."""
    parts = urlsplit(link)
    return not parts.scheme and not parts.netloc and (run / unquote(parts.path)).is_file()


def dots(svg: str) -> list[str]:
    """What a chart says of its points."""
    return [unescape(text) for text in re.findall(r"<circle[^>]*><title>(.*?)</title>", svg)]


def test_every_picture_of_the_fixed_prompts_is_shown(evaluated: Path) -> None:
    seen = Seen(evaluated / "index.html")
    drawn = {
        p.relative_to(evaluated).as_posix()
        for step in STEPS
        for kind in page.KINDS
        for p in (evaluated / "samples" / f"step-{step:06d}" / kind).glob("*.png")
    }
    assert len(drawn) == 3 * (3 + 3 + 3)
    assert {link for link in seen.links if link.endswith(".png")} == drawn
    for prompts in json.loads((evaluated / "origin.json").read_text())["prompts"].values():
        assert prompts and all(prompt in seen.text for prompt in prompts)


def test_nothing_is_fetched_and_every_link_holds(evaluated: Path) -> None:
    seen = Seen(evaluated / "index.html")
    assert seen.links and all(leads(evaluated, link) for link in seen.links)
    assert not seen.tags & {"script", "link", "iframe", "object"}
    assert (
        "url(" not in (evaluated / "index.html").read_text() and "@import" not in (evaluated / "index.html").read_text()
    )


def test_checkpoints_stand_with_their_intervals(evaluated: Path) -> None:
    """Against scipy's own Wilson interval and t-test."""
    text, run = (evaluated / "index.html").read_text(), record.read_run_directory_contents(evaluated)
    rows = re.findall(r"<tr[^>]*><td>(\d+)(.*?)</tr>", text[text.index("held back by") :])[: len(STEPS)]
    assert [int(step) for step, _ in rows] == list(STEPS)
    for step, row in rows:
        result = result_of(evaluated, int(step))
        passed = result["passed"]
        interval = binomtest(sum(passed), len(passed)).proportion_ci(method="wilson")
        assert f"{np.mean(passed):.0%} [{interval.low:.0%}, {interval.high:.0%}]" in row
        for key in ("style", "style_without_trigger", "drift", "nearest_training", "eval_loss"):
            assert f"<td>{result[key]:.3f}</td>".replace("-0.000", "0.000") in row
        assert ("chosen" in row) == (int(step) == run.selection["step"])
    why = select.reason_for_choice_in_words(run.selection["checkpoints"])
    assert f"Step {run.selection['step']} is chosen: {why}." in text
    assert ("of this table are previews" in text) == bool(run.handed_out)
    cards = {card["title"]: str(card["svg"]) for card in panels.evaluation_charts(run, run.selection["step"])}
    for step, style, rate in zip(STEPS, dots(cards["Style"]), dots(cards["Pass rate"]), strict=True):
        result = result_of(evaluated, step)
        low, high = ttest_1samp(result["styles"], 0).confidence_interval(0.95)
        assert style == f"step {step}: {result['style']:.3g} [{low:.3g}, {high:.3g}]"
        interval = binomtest(sum(result["passed"]), len(result["passed"])).proportion_ci(method="wilson")
        assert rate == f"step {step}: {np.mean(result['passed']):.0%} [{interval.low:.0%}, {interval.high:.0%}]"
    assert all(svg in text for svg in cards.values())


def test_the_figures_of_training_are_those_of_the_files(evaluated: Path) -> None:
    run, text = record.read_run_directory_contents(evaluated), (evaluated / "index.html").read_text()
    cards = {card["title"]: str(card["svg"]) for card in panels.progress_panels(run, run.selection["step"])}
    assert cards.keys() == {
        "Training loss",
        "Evaluation loss",
        "Learning rate",
        "Gradient norm",
        "Steps a second",
        "Waiting for data",
        "Memory",
        "Share of evaluations",
    }
    assert all(svg in text for svg in cards.values())
    clock = files.read_jsonl(evaluated / "clock.jsonl")
    seconds = sum(row["seconds"] for row in clock)
    results = [json.loads(p.read_text()) for p in evaluated.glob("samples/step-*/result.json")]
    evaluating = sum(result["seconds"] for result in results)
    assert run.training_seconds_or_none() == pytest.approx(seconds) and run.evaluation_seconds() == pytest.approx(
        evaluating
    )
    for step, said in zip(STEPS[1:], dots(cards["Share of evaluations"]), strict=True):
        spent = sum(result["seconds"] for result in results if result["step"] <= step)
        whole = spent + sum(row["seconds"] for row in clock if row["step"] <= step)
        assert said == f"step {step}: {spent / whole:.0%}"
    assert f"{seconds:.0f} s</b>of training" in text and f"{evaluating:.0f} s</b>of evaluations" in text


def test_the_style_at_the_top_is_of_the_strength_that_is_handed_out(copied: Path) -> None:
    """The pass rate beside it is of that strength as well; the table below it says that it is at strength 1."""
    selection = json.loads((copied / "selection.json").read_text())
    base, result = result_of(copied, 0), result_of(copied, selection["step"])
    files.write_json(copied / "selection.json", selection | {"scale": 0.8})
    place = copied / "samples" / f"step-{selection['step']:06d}-scale-0.8" / "result.json"
    files.write_json(place, result | {"scale": 0.8, "style": result["style"] + 0.25})
    shutil.rmtree(copied / "samples" / "handed-out", ignore_errors=True)
    text = page.write_run_page(copied).read_text()
    assert f"{base['style']:.2f} → {result['style'] + 0.25:.2f}</b>style, base to LoRA at strength 0.8" in text
    assert "with the LoRA at strength 1" in text and f"<td>{result['style']:.3f}</td>" in text
    (copied / "selection.json").unlink()
    last = result_of(copied, STEPS[-1])
    text = page.write_run_page(copied).read_text()
    assert f"{last['style']:.2f}</b>style, base to LoRA at step {STEPS[-1]}" in text


def test_the_page_says_what_to_do_where_few_pass(copied: Path) -> None:
    path = copied / "samples" / "handed-out" / "result.json"
    known = record.read_run_directory_contents(copied)
    target = path if known.handed_out else copied / "samples" / f"step-{known.selection['step']:06d}" / "result.json"
    found = json.loads(target.read_text())
    for passes in (True, False):
        verdict = {"passed": [passes] * 3, "why": {} if passes else {"reject": {"contrast": 3}}}
        files.write_json(target, found | verdict)
        text = Seen(page.write_run_page(copied)).text
        assert ("3 of 3 pictures were not accepted (contrast 3)." in text) is not passes


def test_pictures_that_only_wait_for_a_person_are_not_charted_as_accepted(copied: Path) -> None:
    """Where the style cannot be read nothing is accepted; the chart says what its shares are of."""
    for path in copied.glob("samples/*/result.json"):
        result = json.loads(path.read_text())
        if result.get("passed"):
            few = len(result["passed"])
            files.write_json(path, result | {"passed": [False] * few, "undecided": [True] * few})
    text = Seen(page.write_run_page(copied)).text
    assert "Passed by other checks" in text and "Share of pictures that the gate accepts" not in text


def test_losses_are_drawn_in_place(evaluated: Path) -> None:
    """The faint line's points, taken back from pixels through the scale, are the losses of stats.jsonl."""
    losses = [row["loss"] for row in files.read_jsonl(evaluated / "stats.jsonl")]
    svg = str(next(card["svg"] for card in panels.progress_panels(record.read_run_directory_contents(evaluated), None)))
    (path,) = re.findall(r'<path class="faint" d="M([^"]+)"', svg)
    ys = [float(point.split()[1]) for point in path.split("L")]
    smooth = [value for _, value in charts.smoothed_points(list(enumerate(losses)))]
    low, high = min(losses + smooth) / 1.08, max(losses + smooth) * 1.08
    back = [low * (high / low) ** (1 - (y - 6) / (charts.HEIGHT - 12)) for y in ys]
    assert back == pytest.approx(losses, rel=2e-3)


def test_the_clock_is_drawn_in_place(copied: Path) -> None:
    row = {"step": 2, "steps": 2, "seconds": 4.0, "waited": 1.0, "memory_gib": 2.0}
    after = {"step": 4, "steps": 2, "seconds": 1.0, "waited": 0.5, "memory_gib": 3.0}
    files.write_jsonl(copied / "clock.jsonl", [row, after])
    cards = {
        card["title"]: str(card["svg"])
        for card in panels.progress_panels(record.read_run_directory_contents(copied), None)
    }
    for title, low, high in (("Steps a second", 0.5, 2.0), ("Waiting for data", 0.25, 0.5), ("Memory", 2.0, 3.0)):
        (path,) = re.findall(r'<path class="line" d="M([^"]+)"', cards[title])
        (_, first), (_, last) = (map(float, point.split()) for point in path.split("L"))
        pad, inner = 0.08 * (high - low), charts.HEIGHT - 12
        back = [low - pad + (1 - (y - 6) / inner) * (high - low + 2 * pad) for y in (first, last)]
        assert back == pytest.approx([low, high], abs=0.01), title


def test_what_it_was_made_from(evaluated: Path) -> None:
    seen, facts = Seen(evaluated / "index.html"), json.loads((evaluated / "run.json").read_text())["facts"]
    assert facts["data"] in seen.text and facts["base"] in seen.text
    for path in (evaluated / "lora").glob("*.safetensors"):
        assert path.name in seen.text and files.sha256_of_file(path) in seen.text
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", (evaluated / "index.html").read_text()))
    assert "train.max_steps 4 300 " in text and "lora.rank" not in text, "key, value, default; only what differs"
    assert "…/some.yaml" in text and str(files.HOME) not in text, "no path of this machine"


def test_commits_are_kept_by_step(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on with other code says so; a finished run that is looked at again does not."""
    monkeypatch.setattr(page.checkout, "git_commit_and_clean_flag", lambda: {"commit": "other", "clean": True})
    before = json.loads((copied / "origin.json").read_text())["code"]
    page.record_prompts_and_git_commit(copied, 4, {"with": []})
    assert json.loads((copied / "origin.json").read_text())["code"] == before
    page.record_prompts_and_git_commit(copied, 2, {"with": []})
    page.record_prompts_and_git_commit(copied, 3, {"with": []})
    after = json.loads((copied / "origin.json").read_text())["code"]
    assert after == [*before, {"from_step": 2, "commit": "other", "clean": True}]
    assert "other, clean, from step 2 on" in Seen(copied / "index.html").text
    monkeypatch.setattr(page.checkout, "git_commit_and_clean_flag", lambda: {"commit": "third", "clean": None})
    page.record_prompts_and_git_commit(copied, 1, {"with": []})  # the state of step 2 was lost
    after = json.loads((copied / "origin.json").read_text())["code"]
    assert after == [*before, {"from_step": 1, "commit": "third", "clean": None}]


def test_the_same_files_give_the_same_bytes(evaluated: Path, copied: Path) -> None:
    before = (evaluated / "index.html").read_bytes()
    assert page.write_run_page(evaluated).read_bytes() == before == page.write_run_page(copied).read_bytes()
    assert not list(evaluated.glob(".*"))


def test_the_path_is_printed_and_a_run_without_evaluations_has_a_page(run, trained: list[str]) -> None:
    code, text = run("train", *trained)
    path = directory("small") / "index.html"
    assert code == 0 and f"page: {path}" in text.splitlines()[-5:]
    assert "grid.png" not in text, "nothing was drawn"
    seen = Seen(path)
    assert "4 of 4 steps, finished" in seen.text and "Nothing was drawn or judged" in seen.text
    assert all(f"stylegate {verb}" in seen.text for verb in ("plan", "review", "learn", "preferences")), (
        "what comes next"
    )
    assert "img" not in seen.tags and "small.safetensors" in seen.text


def test_the_page_is_there_at_the_first_step_and_renewed_between_evaluations(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, true_losses = [], loop.losses_of_microbatch

    def broken_at_the_second_step(*given: Any) -> Any:
        seen.append(Seen(directory("begun") / "index.html").text)
        if len(seen) > 1:
            raise StylegateError("no")
        return true_losses(*given)

    monkeypatch.setattr(loop, "losses_of_microbatch", broken_at_the_second_step)
    monkeypatch.setattr(loop, "FLUSH_EVERY", 1)
    words = ["brand=neon", "name=begun", *FAST, "hardware.precision=fp32", "train.max_steps=4"]
    code, text = run("train", *words)
    assert code == 2 and f"page, renewed while it trains: {directory('begun') / 'index.html'}" in text
    assert "0 of 4 steps" in seen[0] and "Not finished" in seen[0] and "None yet" in seen[0]
    assert "Nothing was drawn" not in seen[0], "nothing is known of that yet"
    assert "1 of 4 steps" in seen[1] and "Training loss" in seen[1]


def test_the_page_is_not_renewed_at_every_step(copied: Path) -> None:
    renewal, path = page.PageRenewal(copied), page.page_path(copied)
    for due in (True, False):
        path.unlink(missing_ok=True)
        renewal.write_page_if_due()
        assert path.exists() is due


@pytest.fixture
def told_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGTERM at the first step, then no more."""
    answers = iter([True])
    monkeypatch.setattr(loop.Preemption, "any_process_received_sigterm", lambda self, accelerator: next(answers, False))
    yield


def test_a_stopped_run_has_a_page_and_goes_on_with_its_clock(run, small_brand: Path, told_once: None) -> None:
    words = ["brand=small", "name=halted", *FAST, "train.max_steps=4", "train.checkpoint_every=2"]
    assert run("train", *words)[0] == 143
    seen = Seen(directory("halted") / "index.html")
    assert "1 of 4 steps" in seen.text and "The same command goes on" in seen.text
    assert run("train", *words)[0] == 0
    assert "4 of 4 steps, finished" in Seen(directory("halted") / "index.html").text
    assert [(row["step"], row["steps"]) for row in files.read_jsonl(directory("halted") / "clock.jsonl")] == [
        (1, 1),
        (2, 1),
        (4, 2),
    ]


def test_time_past_the_state_that_a_run_resumes_from_is_cut(tmp_path: Path) -> None:
    rows = [{"step": step, "steps": 10, "seconds": 1.0} for step in (10, 20, 30)]
    files.write_jsonl(tmp_path / "clock.jsonl", rows)
    stats.StepStatsWriter(tmp_path, Accelerator(cpu=True), LedgerTracker(), 20, lambda step, rank: [])
    assert files.read_jsonl(tmp_path / "clock.jsonl") == rows[:2]


def test_evaluations_are_not_the_steps_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 103.0, 110.0])  # 7 s, 5 of them an evaluation's
    monkeypatch.setattr(stats.time, "perf_counter", lambda: next(now))
    tracked, tracker = [], LedgerTracker()
    monkeypatch.setattr(tracker, "highest_value_wandb_had_at_start", lambda name: 0)
    monkeypatch.setattr(tracker, "log_values", lambda values, step: tracked.append(values["steps_per_s"]))
    told = stats.StepStatsWriter(tmp_path, Accelerator(cpu=True), tracker, 0, lambda step, rank: [])
    for step, aside in ((1, 0.0), (2, 5.0)):
        told.collect_step_values(step, torch.ones(1), torch.ones(()), 0.1)
        told.write_collected_steps(aside)
    assert [row["seconds"] for row in files.read_jsonl(tmp_path / "clock.jsonl")] == [3.0, 2.0]
    assert tracked == [pytest.approx(1 / 3), pytest.approx(1 / 2)], "as the page has it"


@pytest.mark.parametrize(
    "part",
    ["run.json", "stats.jsonl", "clock.jsonl", "origin.json", "selection.json", "samples", "lora"]
    + [f"samples/step-000002/{inside}" for inside in ("result.json", "with", "without")],
)
def test_a_part_that_is_missing_or_damaged_leaves_the_rest(copied: Path, part: str) -> None:
    whole = Seen(copied / "index.html")
    path = copied / part
    (shutil.rmtree if path.is_dir() else Path.unlink)(path)
    seen = Seen(page.write_run_page(copied))
    assert all(leads(copied, link) for link in seen.links if link != "stats.jsonl")
    kept = {"run.json": "paged.safetensors", "lora": "step 2"}.get(part, "paged.safetensors")
    assert kept in seen.text and seen.text != whole.text
    if path.suffix:
        path.write_text("{ torn\n{}\n")
        said = Seen(page.write_run_page(copied)).text
        assert f"{part}: " in said or f"{part}, line 1" in said
        assert str(copied) not in said, "no path of this machine"


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    assert "cannot be read" in Seen(page.write_run_page(tmp_path)).text


def test_what_another_policy_judged_is_left_out(copied: Path) -> None:
    path = copied / "samples" / "step-000002" / "result.json"
    files.write_json(path, result_of(copied, 2) | {"judged_by": "another", "style": 0.123})
    text = Seen(page.write_run_page(copied)).text
    assert "step 2 was drawn or judged with other settings (generate, policy, encoder)" in text and "0.123" not in text


def test_a_calibrated_policy_leaves_rates_open_and_shows_the_rest(copied: Path) -> None:
    """Its check was not asked: no picture passed or failed, and no pass rate is stated."""
    for step in STEPS:
        path = copied / "samples" / f"step-{step:06d}" / "result.json"
        open_ = {"passed": None, "undecided": [True] * 3, "verdicts": ["review"] * 3}
        files.write_json(path, result_of(copied, step) | open_)
    selection = json.loads((copied / "selection.json").read_text())
    files.write_json(copied / "selection.json", selection | {"pass_rate": None, "interval": None, "scale": 1.0})
    shutil.rmtree(copied / "samples" / "handed-out", ignore_errors=True)
    text = page.write_run_page(copied).read_text()
    assert "pass the gate" not in text and ">Pass rate<" not in text
    rows = re.findall(r"<tr[^>]*><td>(\d+)(.*?)</tr>", text[text.index("held back by") :])[: len(STEPS)]
    assert [int(step) for step, _ in rows] == list(STEPS)
    for step, row in rows:
        assert re.search("</td><td>–</td>", row) and f"<td>{result_of(copied, int(step))['style']:.3f}</td>" in row
    assert "style, base to LoRA at strength 1" in text and 'class="review"' in text


def test_each_verdict_has_its_colour(copied: Path) -> None:
    path = copied / "samples" / "step-000002" / "result.json"
    files.write_json(path, result_of(copied, 2) | {"verdicts": ["review", "reject", "error"]})
    text = page.write_run_page(copied).read_text()
    for i, verdict in enumerate(("review", "reject", "error")):
        assert f'<a class="{verdict}" href="samples/step-000002/with/{i}.png">' in text
        assert f".{verdict} {{ --c:var(--{verdict}) }}" in text and text.count(f"--{verdict}:#") == 2


def test_words_and_names_of_files_are_escaped(copied: Path) -> None:
    bad = "<script>alert('1')</script>"
    origin = json.loads((copied / "origin.json").read_text())
    origin["prompts"]["with"][0] = f'neon " {bad}'
    files.write_json(copied / "origin.json", origin)
    told = json.loads((copied / "run.json").read_text())
    told["config"]["brand"] = told["config"]["train"]["optimizer"] = bad
    files.write_json(copied / "run.json", told)
    named = "<script>#.safetensors"
    shutil.copy(next((copied / "lora").glob("*.safetensors")), copied / "lora" / named)
    rows = [row | {bad: 1.0} for row in files.read_jsonl(copied / "stats.jsonl")]
    files.write_jsonl(copied / "stats.jsonl", rows)
    result = result_of(copied, 2)
    result["why"] = {"reject": {bad: 1}}
    result["passed"][0] = False
    result["eval_losses"] = {"0.1": 1.0}
    files.write_json(copied / "samples" / "step-000002" / "result.json", result)
    moved = copied.rename(copied.with_name("<script>run"))
    seen = Seen(page.write_run_page(moved))
    assert "script" not in seen.tags and seen.text.count("<script>") >= 6
    assert all(leads(moved, link) for link in seen.links)


def test_evaluation_loss_by_noise_level_where_it_was_noted(copied: Path) -> None:
    def shown(losses: dict[int, dict[str, float] | None]) -> tuple[list[str], list[str]]:
        for step, each in losses.items():
            told = result_of(copied, step) | {"eval_losses": each}
            files.write_json(copied / "samples" / f"step-{step:06d}" / "result.json", told)
        told = record.read_run_directory_contents(copied)
        cards = {card["title"]: card for card in panels.progress_panels(told, told.selection["step"])}
        card = cards["Evaluation loss"]
        assert str(card["svg"]) in page.write_run_page(copied).read_text()
        return [name for name, _, _ in card["legend"]], dots(str(card["svg"]))

    mean = [f"step {step}: {result_of(copied, step)['eval_loss']:.3g}" for step in STEPS]
    assert shown(dict.fromkeys(STEPS)) == ([], mean)
    wanted = [f"10%, step {s}: {0.5 + s:.3g}" for s in STEPS] + [f"90%, step {s}: 0.25" for s in STEPS]
    assert shown({step: {"0.1": 0.5 + step, "0.9": 0.25} for step in STEPS}) == (["10%", "90%"], wanted)


@pytest.mark.parametrize("low, high", [(0, 1), (-0.3, 0.001), (2.1e-5, 9e-4), (17, 17.001), (3, 40_000)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    for scale in (charts.AxisScale(low, high), charts.AxisScale(max(low, 1e-4), high, True)):
        found = charts.round_tick_values(scale)
        assert 2 <= len(found) <= 7 and all(scale.low <= value <= scale.high for value in found)
        assert all(float(f"{value:.6g}") == value for value in found)


def test_a_long_line_is_thinned_to_its_last_point() -> None:
    points = [(float(i), float(i % 7)) for i in range(12_345)]
    few = charts.thinned_points(points)
    assert len(few) <= charts.MOST_POINTS + 1 and few[0] == points[0] and few[-1] == points[-1]
