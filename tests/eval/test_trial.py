"""How few steps a LoRA needs: what a trial compares, and who draws with what it found."""

from pathlib import Path

import pytest

from eval.judging.verdicts import make_reason
from eval.lot.batch import read_existing_batch_record, read_plan
from eval.lot.record import SamplerSetting
from eval.trial import (
    SamplerSettingWithVerdicts,
    compare_with_first_setting,
    denoiser_passes_per_picture,
    most_accepted_per_work,
)
from stylegate import files
from stylegate.config import Config
from stylegate.configgroups import FamilyConfig
from tests.lots import verdict

ACCEPT_ALL = "version: 1\nchecks: {contrast: {reject_below: 0.001}}\n"


def outcome(steps: int, accepted: str, margin: float = 1.0, guidance: float = 3.0) -> SamplerSettingWithVerdicts:
    """Pictures by a text: + for an accepted one, - for a rejected one."""
    reject = make_reason("style", "reject", 0.0, 1.0)
    verdicts = [verdict(margin=margin) if sign == "+" else verdict(reject, margin=-1.0) for sign in accepted]
    return SamplerSettingWithVerdicts(SamplerSetting(num_inference_steps=steps, guidance_scale=guidance), verdicts)


def test_the_setting_with_the_most_accepted_pictures_for_its_work_is_chosen() -> None:
    first = outcome(20, "+-" * 24)
    same, fewer, worse = outcome(6, "+-" * 24), outcome(4, "+---" * 12), outcome(3, "+-" * 24, margin=0.4)
    tried = [compare_with_first_setting(Config(), one, first) for one in (first, same, fewer, worse)]
    assert [one.work for one in tried] == [1.0, 0.3, 0.2, 0.15]
    assert tried[1].accepted_share_at_least == 0.5 and tried[1].margin_change == 0.0
    assert tried[2].accepted_share_at_least < 0.25 and tried[2].holds, "half as many, less what 48 pictures leave open"
    assert not tried[3].holds and tried[3].margin_change == pytest.approx(-0.6)
    assert most_accepted_per_work(tried) == tried[1]


def test_guidance_costs_a_second_pass_but_where_it_is_told_to_the_model() -> None:
    with_, without = (SamplerSetting(num_inference_steps=4, guidance_scale=g) for g in (3.0, 1.0))
    assert denoiser_passes_per_picture(Config(), with_) == 8 and denoiser_passes_per_picture(Config(), without) == 4
    assert denoiser_passes_per_picture(Config(family=FamilyConfig(name="flux")), with_) == 4


def test_what_a_trial_chose_is_drawn_with_unless_the_words_say_otherwise(run, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red cat\na blue dog\na green bear\n")
    (tmp_path / "all.yaml").write_text(ACCEPT_ALL)
    words = [f"prompts={tmp_path / 'p.txt'}", "lora_file=none", "hardware=cpu", f"policy={tmp_path / 'all.yaml'}"]
    words += ["name=tried", "plan.num_images=3", "generate.num_inference_steps=4", "generate.batch_size=2"]
    assert run("plan", *words)[0] == 0
    code, text = run("trial", *words)
    assert code == 0 and "trial: 2 steps, guidance 3" in text, text
    (path,) = (files.BATCHES / "trials").glob("*.json")
    assert run("plan", *words)[1].startswith("note: a trial chose 2 steps and guidance 3\n")
    assert "drawn, 3 in" in run("generate", *words)[1]
    batches = {
        (s.num_inference_steps, s.guidance_scale): folder.parent
        for folder in files.BATCHES.glob("tried-*/batch.json")
        for s in [read_existing_batch_record(folder.parent).facts.generate]
    }
    assert set(batches) == {(4, 3.0), (2, 3.0), (1, 3.0), (2, 1.0)}
    drawn = {p.name: p.read_bytes() for p in (batches[2, 3.0] / "images").iterdir()}
    assert len(drawn) == 3
    again = [*words, "generate.by_trial=false", "batch=of-no-trial", "generate.num_inference_steps=2"]
    assert run("plan", *again)[0] == 0 and run("generate", *again)[0] == 0
    assert {p.name: p.read_bytes() for p in (files.BATCHES / "of-no-trial" / "images").iterdir()} == drawn
    assert run("gate", *words, "generate.by_trial=false")[0] == 0, "the batch of before is there"
    code, text = run("trial", *words, "plan.num_images=4")
    assert code == 0 and "accepted of 4" in text, f"the plans of the trial before are too short: {text}"
    path.write_text("{}")
    code, text = run("plan", *words)
    assert code == 2 and "the trial" in text and "chosen: missing" in text
    path.unlink()


def test_a_batch_begun_before_a_trial_keeps_its_steps(run, run_exactly, tmp_path: Path) -> None:
    """The name of the batch is all that the trial is told."""
    (tmp_path / "p.txt").write_text("a red cat\n")
    words = [f"prompts={tmp_path / 'p.txt'}", "lora_file=none", "hardware=cpu", "batch=begun", "plan.num_images=1"]
    words += ["generate.num_inference_steps=3"]
    assert run("plan", *words)[0] == 0
    (tmp_path / "all.yaml").write_text(ACCEPT_ALL)
    told = ["batch=begun", "hardware=cpu", f"policy={tmp_path / 'all.yaml'}"]
    code, text = run_exactly("trial", *told)
    assert code == 0 and "accepted of 1" in text and "begun was planned before, and keeps its steps" in text, text
    planned = [read_plan(files.BATCHES / name) for name in ("begun", "begun-trial-3-3", "begun-trial-2-3")]
    assert planned[0] == planned[1] == planned[2]
    code, text = run_exactly("trial", *told, "generate.num_inference_steps=20")
    assert code == 2 and "begun was made from something else" in text
    code, text = run_exactly("trial", "batch=never-planned")
    assert code == 2 and "there is no batch never-planned" in text
    assert run("generate", *words)[0] == 0
    assert read_existing_batch_record(files.BATCHES / "begun").facts.generate.num_inference_steps == 3
    for path in (files.BATCHES / "trials").glob("*.json"):
        path.unlink()
