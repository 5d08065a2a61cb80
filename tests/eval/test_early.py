"""Pictures that are stopped early: the bound on what is lost, what is counted, and what kills and processes change."""

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

from eval import generate
from eval.lot import early
from eval.lot.batch import attempt_and_slot
from eval.lot.early import (
    EarlyStopPreview,
    EarlyStopRound,
    is_seed_exempt_from_stopping,
    is_seed_in_fitting_half,
    rank_of_early_stop_line,
    round_with_learnt_stop_line,
)
from eval.lot.record import DrawingSettings
from eval.lot.rounds import read_batch_progress
from stylegate import files
from stylegate.cli import main
from stylegate.errors import DataError
from tests.conftest import exit_code, forks, words_of

BRIGHT = (
    "version: 1\nchecks: {contrast: {reject_below: 23}}\n"  # three of four pictures that the shipped base draws here
)


def test_the_rank_of_the_line_is_a_tolerance_limit() -> None:
    for accepted in (0, 1, 58, 59, 92, 93, 200, 1000):
        ranks = [k for k in range(1, accepted + 1) if beta.sf(0.05, k, accepted - k + 1) <= 0.05]
        assert rank_of_early_stop_line(accepted, 0.05) == max(ranks, default=0), accepted
    assert [rank_of_early_stop_line(n, 0.05) for n in (58, 59, 92, 93)] == [0, 1, 1, 2]


def previews_of(random: np.random.Generator, count: int) -> tuple[list[EarlyStopPreview], dict[str, bool]]:
    """Previews with a score that foretells the verdict, beside nine that do not; and which pictures were accepted."""
    rows, accepted = [], {}
    for number in range(count):
        good = bool(random.random() < 0.5)
        scores: dict[str, float | None] = {f"s{i}": float(random.normal(2 * good * (i == 0))) for i in range(10)}
        rows.append(EarlyStopPreview(file=f"{number:05d}-0.png", seed=number, round=0, scored="x", scores=scores))
        accepted[rows[-1].file] = good
    return rows, accepted


EMPTY = EarlyStopRound(round=0, verdicts_sha256="", attempts=0, scored="x")


def test_the_line_is_set_by_accepted_pictures_that_the_teaching_has_not_seen() -> None:
    rows, accepted = previews_of(np.random.default_rng(0), 500)
    found = round_with_learnt_stop_line(EMPTY, rows, accepted, [])
    setting = [row for row in rows if not is_seed_in_fitting_half(row.seed) and accepted[row.file]]
    taught = [row for row in rows if is_seed_in_fitting_half(row.seed)]
    assert found.accepted == len(setting) and found.teaching == len(taught) and found.rank == 3
    assert found.line == sorted(found.log_odds_of_acceptance(row.scores) for row in setting)[2]
    assert sum(found.is_preview_below_stop_line(row) for row in setting) == 2, "the one on the line goes on"
    assert found.later_line == min(found.log_odds_of_acceptance(row.scores) for row in setting), (
        "125 are enough for the first of 2.5 %"
    )
    again = [row.model_copy(update={"file": row.file.replace("-0", "-1")}) for row in setting]
    assert not any(found.is_preview_below_stop_line(row) for row in again)
    good, bad = (
        [found.log_odds_of_acceptance(row.scores) for row in taught if accepted[row.file] == one]
        for one in (True, False)
    )
    assert np.mean(good) - np.mean(bad) > 2, "more hope for what is accepted"


def test_too_few_accepted_pictures_or_another_way_of_scoring_draw_no_line() -> None:
    rows, accepted = previews_of(np.random.default_rng(1), 300)
    assert round_with_learnt_stop_line(EMPTY, rows, accepted, []).line is not None
    assert round_with_learnt_stop_line(EMPTY.model_copy(update={"scored": "y"}), rows, accepted, []).line is None
    assert round_with_learnt_stop_line(EMPTY, rows, dict.fromkeys(accepted, False), []).line is None
    assert round_with_learnt_stop_line(EMPTY, rows[:150], accepted, []).line is None
    found = round_with_learnt_stop_line(EMPTY, rows, accepted, [])
    scores: dict[str, float | None] = dict.fromkeys(found.scores, -99.0)
    assert (
        found.preview_with_stop_decision("00007-0.png", 11, "x", scores).stopped
        and not found.preview_with_stop_decision("00007-0.png", 11, "y", scores).stopped
    )
    assert not found.preview_with_stop_decision("00007-0.png", 10, "x", scores).stopped, "one in ten is finished unseen"
    assert not found.preview_with_stop_decision("00007-0.png", 11, "x", scores | {found.scores[0]: None}).stopped, (
        "what is missing stops nothing"
    )


def test_only_pictures_that_were_finished_unseen_are_learnt_from_and_those_lost_are_counted() -> None:
    rows, accepted = previews_of(np.random.default_rng(2), 400)
    first = round_with_learnt_stop_line(EMPTY, rows, accepted, [])
    later = [
        first.model_copy(update={"round": 1}).preview_with_stop_decision(f"{1000 + n:05d}-0.png", n, "x", row.scores)
        for n, row in enumerate(rows)
    ]
    there = {one.file: accepted[row.file] for one, row in zip(later, rows, strict=True) if not one.stopped}
    assert sum(one.stopped for one in later) > 0 and not any(
        one.stopped for one in later if is_seed_exempt_from_stopping(one.seed)
    )
    second = round_with_learnt_stop_line(
        EMPTY, [*rows, *later], accepted | there, [first, first.model_copy(update={"round": 1})]
    )
    unseen = [one for one in later if is_seed_exempt_from_stopping(one.seed) and there[one.file]]
    hopes = [one.hope for one in unseen if one.hope is not None]
    assert first.line is not None and second.checked == len(unseen) == len(hopes)
    assert second.lost == sum(hope < first.line for hope in hopes)
    assert second.accepted == first.accepted + sum(not is_seed_in_fitting_half(one.seed) for one in unseen)


def test_the_order_in_which_processes_write_decides_nothing(tmp_path: Path) -> None:
    rows, _ = previews_of(np.random.default_rng(3), 20)
    early.append_early_stop_preview_rows(tmp_path, rows[10:])
    early.append_early_stop_preview_rows(tmp_path, rows[:10] + rows[12:14])
    assert list(early.read_early_stop_preview_rows(tmp_path).values()) == rows
    early.remove_preview_rows_of_slots(tmp_path, {3, 4})
    assert [row.seed for row in early.read_early_stop_preview_rows(tmp_path).values()] == [0, 1, 2, *range(5, 20)]


def test_nothing_is_stopped_of_few_steps_or_where_it_was_not_asked_for() -> None:
    def drawing(steps: int, at: float | None) -> DrawingSettings:
        return DrawingSettings(num_inference_steps=steps, guidance_scale=3.0, batch_size=4, stop_early_at=at)

    found = [
        early.steps_of_preview(drawing(*told)) for told in ((20, 0.3), (12, 0.05), (50, 0.8), (11, 0.3), (20, None))
    ]
    assert found == [6, 1, 40, None, None]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], Path]]:
    """A batch of which a first round was drawn and judged; to be copied. Few pictures set a line that stops many."""
    place = tmp_path_factory.mktemp("early")
    (place / "bright.yaml").write_text(BRIGHT)
    (place / "p.txt").write_text("a red cat\na blue robot with a crown\na green bear on a white background\na ghost\n")
    words = [f"prompts={place / 'p.txt'}", "lora_file=none", "hardware=cpu", "hardware.threads=1", "plan.num_images=28"]
    words += [f"policy={place / 'bright.yaml'}", "generate.num_inference_steps=3", "generate.guidance_scale=1"]
    words += ["generate.batch_size=4", "generate.stop_early_at=0.4", "plan.max_attempts=3"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FEWEST_STEPS", 2), ("FIRST", 12), ("LOST", 0.6), ("CONFIDENCE", 0.6)):
            patch.setattr(early, name, value)
        for verb in ("plan", "generate", "gate"):
            assert main([verb, *words_of(verb, *words, "batch=learnt")]) in (0, 10)
        yield words, files.BATCHES / "learnt"


@pytest.fixture
def batch(learnt: tuple[list[str], Path], request: pytest.FixtureRequest) -> tuple[list[str], Path]:
    """A copy of that batch, of a name of its own."""
    name = f"early-{request.node.name[5:40]}"
    shutil.copytree(learnt[1], files.BATCHES / name)
    return [*learnt[0], f"batch={name}"], files.BATCHES / name


def content_of(folder: Path) -> dict[str, str]:
    """sha256 of each picture and of rounds.jsonl; and what previews.jsonl says of each attempt."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "images").glob("*.png")}
    found |= {name: one.model_dump_json() for name, one in early.read_early_stop_preview_rows(folder).items()} | found
    return found | {"rounds": (folder / "rounds.jsonl").read_text()}


def test_stopped_attempts_are_counted_by_name_and_drawn_again(run, batch: tuple[list[str], Path]) -> None:
    words, folder = batch
    code, text = run("generate", *words)
    stopped = early.names_of_stopped_attempts(folder)
    assert code == 0 and stopped and f"stopped early: {len(stopped)}" in text
    assert "gate, then generate again" in text, "as many may wait for the gate as it has judged"
    previews, rounds = early.read_early_stop_preview_rows(folder), early.read_early_stop_rounds(folder)
    assert rounds[0].line is None and all(one.line is not None for one in rounds[1:])
    for name, one in previews.items():
        line = rounds[one.round].stop_line_of_attempt(name)
        below = one.hope is not None and line is not None and one.hope < line
        assert one.stopped == (below and one.seed % 10 != 0)
        assert one.stopped != (folder / "images" / name).exists()
    assert any(one.hope is not None and not one.stopped for one in previews.values())
    assert f"stopped early: {len(stopped)} attempt" in run("gate", *words)[1]
    gate = files.read_json(folder / "gate.json", "the gate's record", "slots")
    assert gate["slots"]["stopped_early"] == len(stopped) and gate["counts"]["in"] == len(previews) - len(stopped)
    assert not set(stopped) & {row["file"] for row in files.read_jsonl(folder / "verdicts.jsonl")}
    states = read_batch_progress(folder, 3).states
    for name in stopped:
        attempt, slot = attempt_and_slot(name)
        assert states.next_attempt_number(slot) > attempt
    early.remove_preview_rows_of_slots(folder, {attempt_and_slot(stopped[0])[1]})
    assert stopped[0] not in early.names_of_stopped_attempts(folder), "as when plan gives its slot other traits"


def test_a_batch_that_stops_early_is_the_same_after_kills_and_from_two_processes(
    run, batch: tuple[list[str], Path], tmp_path: Path
) -> None:
    words, folder = batch
    told = words_of("generate", *words)
    begun = tmp_path / "begun"
    shutil.copytree(folder, begun)
    assert run("generate", *words)[0] == 0
    whole = content_of(folder)
    assert run("generate", *words)[0] == 0 and content_of(folder) == whole, "nothing more is due before a gate"

    def again() -> None:
        shutil.rmtree(folder)
        shutil.copytree(begun, folder)

    again()
    both = forks("generate", *told, count=2, output=tmp_path / "printed")
    assert [exit_code(pid) for pid in both] == [0, 0], (tmp_path / "printed").read_text()
    assert content_of(folder) == whole
    again()
    for calls in (2, 5):
        (pid,) = forks("generate", *told, before=lambda calls=calls: kill_this_process_after(calls))
        assert exit_code(pid) == -signal.SIGKILL
        assert content_of(folder) != whole
        with (folder / "previews.jsonl").open("a") as torn:
            torn.write('{"file": "00012-')
    assert run("generate", *words)[0] == 0
    assert content_of(folder) == whole


def kill_this_process_after(calls: int) -> None:
    """Kill it where it would write a round, previews or pictures down for the time with this number."""
    left = [calls]

    def counted(write):
        def called(*given, **named):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*given, **named)

        return called

    for place, name in (
        (generate, "append_drawn_digests"),
        (early, "append_early_stop_preview_rows"),
        (early, "append_early_stop_round_if_new"),
    ):
        setattr(place, name, counted(getattr(place, name)))


@pytest.mark.parametrize(("name", "row"), [("previews.jsonl", {"file": "00000-0.png"}), ("rounds.jsonl", {"round": 0})])
def test_a_damaged_row_is_one_error(tmp_path: Path, name: str, row: dict) -> None:
    files.write_jsonl(tmp_path / name, [row])
    read = early.read_early_stop_preview_rows if name == "previews.jsonl" else early.read_early_stop_rounds
    with pytest.raises(DataError, match=f"{name}.* is not as stylegate writes it"):
        read(tmp_path)
