"""Scored checkpoints: drawn, judged, chosen, handed out; the base stays the base."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from eval.measuring import columns
from eval.measuring.record import OF_BASE
from eval.policy.lines import MIN_REFERENCES
from stylegate import adapter, brandset, files, lorafile, pictures
from stylegate.cli import main
from stylegate.families import FAMILIES
from tests.conftest import FAST, merged
from train import batches, select
from train.evaluate import Evaluator, folder_of_final_or_preview_pictures
from train.loop import EvaluationTimeBudget
from train.select import wilson_interval

NEON = ["brand=neon", *FAST, "train.num_samples=3", "train.evaluate_every=2", "train.evaluation_share=1"]
AT_FULL_STRENGTH = "train.scales=[1]"  # `equal` tries other strengths


def place(name: str) -> Path:
    (found,) = files.RUNS.glob(f"{name}-sd-*")
    return found


def selection(name: str) -> dict:
    return json.loads((place(name) / "selection.json").read_text())


def policy_file(tmp_path: Path, checks: str) -> str:
    """The word for a policy of these checks."""
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
    path.write_text(f"version: 1\nchecks: {{{checks}}}\n")
    return f"policy={path}"


LENIENT, NEVER = "contrast: {reject_below: 1}", "contrast: {reject_below: 1000}"


EQUAL = [*NEON, "name=equal", "train.max_steps=4", "train.keep_newest=1", "train.keep_best=1"]
EQUAL += ["train.learning_rate=1e-2", "train.warmup_steps=1", "train.preview_steps=1"]  # of 2 denoising steps


@pytest.fixture
def lenient(tmp_path: Path) -> str:
    return policy_file(tmp_path, LENIENT)


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run all of whose pictures pass; to be read only."""
    assert main(["train", *merged(*EQUAL, policy_file(tmp_path_factory.mktemp("equal"), LENIENT))]) == 0
    return place("equal")


@pytest.fixture
def judged_again(equal: Path, tmp_path: Path) -> Iterator[Path]:
    """The run `equal`, whose command may be given again with other words; it is afterwards as it was."""
    shutil.copytree(equal, tmp_path / "equal")
    yield equal
    shutil.rmtree(equal)
    shutil.move(tmp_path / "equal", equal)


def test_the_earliest_of_equals_is_handed_out(equal: Path) -> None:
    found = selection("equal")
    assert (found["step"], found["scale"], found["pass_rate"]) == (2, 1.0, 1.0)
    assert [row["step"] for row in found["checkpoints"]["compared"]] == [2, 4]
    assert [row["scale"] for row in found["scales"]["compared"]] == [1.0, 0.8, 1.2]
    states = sorted(path.name for path in (equal / "state").iterdir())
    assert states == ["step-000002", "step-000004"], "the newest and the best"
    released = load_file(equal / "lora" / "equal.safetensors")
    kept = load_file(equal / "state" / "step-000002" / "adapter.safetensors")
    assert all(torch.equal(released[key], value) for key, value in kept.items())
    assert "100% of 3 pictures" in (equal / "lora" / "README.md").read_text()


def test_other_strengths_are_not_drawn_where_none_could_be_chosen(
    run, judged_again: Path, lenient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (judged_again / "samples").glob("*-scale-*"):
        shutil.rmtree(folder)
    monkeypatch.setattr(select, "STYLE_MARGIN", np.inf)  # two steps do not bring any style
    code, text = run("train", *EQUAL, lenient, "train.selection_margin=1")
    assert code == 0 and "chosen: step 2 at strength 1; 100% of 3 pictures pass" in text, text
    assert "3 pictures pass the gate, 95% interval [44%, 100%] (" in text and "of the steps 2, 4" in text
    assert [row["scale"] for row in selection("equal")["scales"]["compared"]] == [1.0]
    assert not list((judged_again / "samples").glob("*-scale-*"))


def test_previews_compare_and_full_pictures_say_what_is_handed_out(equal: Path) -> None:
    """Previews have one denoising step, what is handed out the two of `generate`; the page and the card show these."""
    final, preview = equal / "samples" / "handed-out", equal / "samples" / "step-000002"
    steps = [json.loads((p / "drawn.json").read_text())["num_inference_steps"] for p in (preview, final)]
    assert steps == [1, 2] and selection("equal")["preview_steps"] == 1
    assert sorted(p.name for p in final.iterdir()) == ["drawn.json", "judged", "result.json", "with"]
    assert (final / "with" / "0.png").read_bytes() != (preview / "with" / "0.png").read_bytes()
    result = json.loads((final / "result.json").read_text())
    assert (result["step"], result["scale"], result["passed"]) == (2, 1.0, [True] * 3)
    assert selection("equal")["interval"] == [round(bound, 4) for bound in wilson_interval([True] * 3)]
    assert (
        folder_of_final_or_preview_pictures(equal, 2, 1.0) == final
        and folder_of_final_or_preview_pictures(equal, 4, 1.0).name == "step-000004"
    )
    page = (equal / "index.html").read_text()
    assert 'src="samples/handed-out/with/2.png"' in page and "100% [44%, 100%]" in page


def test_another_policy_judges_every_kept_checkpoint_again(run, judged_again: Path, tmp_path: Path) -> None:
    """What an earlier policy let pass is no verdict of this one; the base is drawn without the LoRA at any time."""

    def outcome(checks: str, *more: str) -> tuple[str, dict]:
        code, text = run("train", *EQUAL, AT_FULL_STRENGTH, policy_file(tmp_path, checks), *more)
        assert code == 0, text
        return text, selection("equal")

    base = judged_again / "samples" / "step-000000"
    before = {p.name: p.read_bytes() for p in (base / "with").glob("*.png")}
    later = judged_again / "samples" / "step-000004" / "with" / "0.png"
    drawn = later.read_bytes()
    assert before and before["0.png"] != drawn
    drifts = [json.loads((p / "result.json").read_text())["drift"] for p in (base, later.parent.parent)]
    assert drifts[0] == pytest.approx(0, abs=1e-4) and drifts[1] > 0.001
    shutil.rmtree(base)

    text, found = outcome(NEVER)
    assert "no picture of an evaluation passed (contrast 3)" in text
    assert (found["step"], found["scale"], found["pass_rate"], found["checkpoints"]) == (4, 1.0, None, None)
    assert {p.name: p.read_bytes() for p in (base / "with").glob("*.png")} == before
    assert later.read_bytes() == drawn

    text, found = outcome("contrast: {reject_below: 2}", "generate.guidance_scale=1")
    assert "chosen: step 2 at strength 1; 100% of 3 pictures pass" in text and found["pass_rate"] == 1.0
    assert found["step"] == 2 and [row["step"] for row in found["checkpoints"]["compared"]] == [2, 4]
    assert later.read_bytes() != drawn, "other settings draw other pictures"


def test_a_calibrated_check_that_was_not_asked_is_no_pass(run, judged_again: Path, tmp_path: Path) -> None:
    """Its line comes from labels of a finished batch: in training nobody claims that pictures pass it."""
    asks = policy_file(tmp_path, f"{LENIENT}, margin: calibrated")
    code, text = run("train", *EQUAL, AT_FULL_STRENGTH, "train.max_steps=6", "train.keep_newest=9", asks)
    assert code == 0 and "no picture of an evaluation passed (calibrated-check-not-asked 3)" in text
    assert "every other check accepts chooses the checkpoint" in text and "pass the gate" not in text
    for step in ("step-000002", "step-000006"):  # judged again, and judged in training
        judged = judged_again / "samples" / step / "judged"
        verdicts = [(row["verdict"], row["reasons"][0]["check"]) for row in files.read_jsonl(judged / "verdicts.jsonl")]
        assert verdicts == [("review", "calibrated-check-not-asked")] * 3, "what was not asked is not accepted"
        assert json.loads((judged / "gate.json").read_text())["counts"]["accept"] == 0
        result = json.loads((judged.parent / "result.json").read_text())
        assert result["verdicts"] == ["review"] * 3
        assert result["passed"] is None and result["undecided"] == [True] * 3
    found = selection("equal")
    assert found["pass_rate"] is None and [row["step"] for row in found["checkpoints"]["compared"]] == [2, 4, 6]
    assert all("pass_rate" not in row for row in found["checkpoints"]["compared"])
    assert "passed the gate" not in (judged_again / "lora" / "README.md").read_text().replace("none passed", "")
    page = (judged_again / "index.html").read_text()
    assert "pass the gate" not in page and page.count('<a class="review"') == 15 and '<a class="accept"' not in page


def test_a_small_brand_is_judged_by_its_training_pictures_too(
    run, small_brand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five pictures of four captions: a copy within a caption is left aside, as among attempts at one slot."""
    monkeypatch.setattr(columns, "FEW_REFERENCES", 19)  # than the brand's 18
    copies = policy_file(tmp_path, "distinct: {reject_below: -6}")
    words = ["brand=small", *FAST, copies, "name=little", "train.max_steps=2", "train.num_samples=5", AT_FULL_STRENGTH]
    words += ["train.evaluate_every=2", "train.evaluation_share=1", "generate.num_inference_steps=1"]
    code, text = run("train", *words)
    assert code == 0 and "chosen: step 2 at strength 1; 100% of 5 pictures pass" in text
    judged = json.loads((place("little") / "samples" / "step-000002" / "judged" / "gate.json").read_text())
    sizes = {part: len(items) for part, items in brandset.read_brand_set(small_brand).splits.items()}
    assert sizes["validation"] < MIN_REFERENCES
    assert judged["references"]["count"] == sizes["validation"] + sizes["train"]
    assert "note: thresholds from 18 references are rough" in text

    step = place("little") / "samples" / "step-000002"
    shutil.copy(step / "with" / "0.png", step / "with" / "4.png")  # of the same caption
    shutil.copy(step / "with" / "1.png", step / "with" / "2.png")
    (step / "result.json").unlink()
    assert run("train", *words)[0] == 0
    assert json.loads((step / "result.json").read_text())["verdicts"] == [*2 * ["accept"], "reject", *2 * ["accept"]]


def test_where_the_style_cannot_be_read_the_other_checks_choose(run, tmp_path: Path) -> None:
    """A brand of icons by sixteen hands."""
    by_set: dict[str, list[bytes]] = {}
    for row in pq.read_table(files.FOREIGN).to_pylist():
        by_set.setdefault(row["set"], []).append(row["png"])
    for i, png in enumerate(png for pngs in list(by_set.values())[:13] for png in pngs[:2]):
        (tmp_path / f"{i}.png").write_bytes(png)
        (tmp_path / f"{i}.txt").write_text(f"icon {i}")
    assert run("brand", "name=larger", f"images={tmp_path}")[0] == 0
    words = [
        "brand=larger",
        *FAST,
        "train.max_steps=2",
        "train.num_samples=2",
        "train.evaluate_every=1",
        AT_FULL_STRENGTH,
    ]
    code, text = run("train", *words, "train.evaluation_share=1")
    assert code == 0, text
    assert f"chosen: step {selection('larger')['step']} at strength" in text
    found = selection("larger")
    assert [row["step"] for row in found["checkpoints"]["compared"]] == [1, 2] and found["pass_rate"] is None
    fine = []
    for step in (1, 2):
        folder = place("larger") / "samples" / f"step-{step:06d}"
        judged = {row["file"]: row["reasons"] for row in files.read_jsonl(folder / "judged" / "verdicts.jsonl")}
        others = [{reason["check"] for reason in judged[f"{i}.png"]} - {"style-unreadable"} for i in range(2)]
        result = json.loads((folder / "result.json").read_text())
        assert result["passed"] == [False] * 2 and result["undecided"] == [not checks for checks in others]
        fine += result["undecided"]
    rule = "share of pictures that every other check accepts chooses" if any(fine) else "style score alone chooses"
    assert rule in text, text
    assert "the style cannot be told surely from others, which is no fault of the pictures" in text
    assert "`stylegate brand ... validation=16` may show it; `gate` compares with test/" in text


def test_too_few_pictures_are_drawn_but_not_judged(run, folder: Path) -> None:
    for path in sorted(folder.glob("*"))[14:]:
        path.unlink()
    assert run("brand", "name=seven", f"images={folder}")[0] == 0
    code, text = run("train", "brand=seven", *FAST, "name=few", "train.max_steps=2", "train.num_samples=1")
    assert code == 0 and "too-few-references 1" in text
    result = json.loads((place("few") / "samples" / "step-000002" / "result.json").read_text())
    assert result["passed"] is None and result["eval_loss"] > 0


def test_fewer_samples_leave_no_picture_of_more(run, judged_again: Path, lenient: str) -> None:
    """train.num_samples is no part of the run's name: the base's pictures are those of the later number, too."""
    code, text = run("train", *EQUAL, AT_FULL_STRENGTH, lenient, "train.num_samples=2")
    assert code == 0, text
    for step in (0, 2, 4):
        folder = judged_again / "samples" / f"step-{step:06d}"
        assert [len(list((folder / part).glob("*.png"))) for part in ("with", "without", "unrelated")] == [2, 2, 2]
    assert selection("equal")["num_prompts"] == 2


def test_evaluations_of_a_million_steps_are_found(tmp_path: Path) -> None:
    """Their folders have seven digits, and stand before those of six in the order of names."""
    for name in ("step-000000", "step-999900", "step-1000000", "step-999900-scale-0.8"):
        (tmp_path / name).mkdir()
    evaluation = object.__new__(Evaluator)
    evaluation.samples = tmp_path
    assert list(evaluation.folders_by_step()) == [0, 999900, 1000000]


def test_prompts_without_the_phrase_and_unrelated_ones_are_drawn(equal: Path) -> None:
    folder = equal / "samples" / "step-000002"
    for part in ("with", "without", "unrelated"):
        assert sorted(p.name for p in (folder / part).iterdir()) == ["0.png", "1.png", "2.png"]
    one, other = (np.asarray(Image.open(folder / part / "0.png"), int) for part in ("with", "without"))
    assert np.abs(one - other).mean() > 1


def test_validation_loss_is_that_of_the_formula(equal: Path) -> None:
    """Step 0, by hand: noise and levels fixed, v-prediction, one picture at a time."""
    found = json.loads((equal / "samples" / "step-000000" / "result.json").read_text())["eval_loss"]
    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    brand_set = brandset.read_brand_set(files.ROOT / "data" / "brands" / "neon")
    signal, sigma = models.schedule.signal, models.schedule.sigma
    each = []
    for i, item in enumerate(brand_set.splits["validation"][:3]):
        pixels = np.array(pictures.decode_picture(item.unchanged_file_bytes()).image, np.float32) / 127.5 - 1
        vae, unet = models.pipeline.vae, models.denoiser
        with torch.no_grad():
            clean = vae.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None]).latents * vae.config.scaling_factor
            noise = torch.randn((5, *clean.shape[1:]), generator=batches.seeded_generator(i, batches.EVALUATION))
            words = models.pipeline.encode_prompt([brand_set.brand.prompt_with_trigger(item.text)], "cpu", 1, False)[0]
            for j, level in enumerate((100, 300, 500, 700, 900)):
                noisy = signal[level] * clean + sigma[level] * noise[j]
                wanted = signal[level] * noise[j] - sigma[level] * clean
                each.append(float(((unet(noisy, level, words).sample - wanted) ** 2).mean()))
    assert found == pytest.approx(np.mean(each), rel=1e-4)


def test_strength_is_folded_into_the_file(trained: list[str], tmp_path: Path) -> None:
    """A file written at half strength changes every weight half as much."""
    (path,) = files.RUNS.glob("small-sd-*/lora/small.safetensors")

    def weights(file: Path | None) -> dict[str, torch.Tensor]:
        models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
        if file:
            lorafile.merge_lora_file_into_pipeline(models, file)
        return {k: v.clone() for k, v in models.denoiser.state_dict().items()}

    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    models.pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="default")
    half = tmp_path / "half.safetensors"  # not beside it: other tests look at the run
    half.write_bytes(
        lorafile.published_lora_bytes(
            *adapter.to_diffusers(lorafile.adapters_as_plain_lora_layers({"unet": models.denoiser}, 0.5))
        )
    )
    base, full, halved = weights(None), weights(path), weights(half)
    moved = [k for k in base if (full[k] - base[k]).abs().max() > 1e-6]
    assert moved
    for key in moved:
        assert torch.allclose(halved[key] - base[key], 0.5 * (full[key] - base[key]), atol=1e-6), key


def test_what_the_base_draws_of_the_prompts_is_foreign_to_every_step(run) -> None:
    words = [
        "brand=neon",
        *FAST,
        "train.num_samples=16",
        "train.max_steps=1",
        "name=base-is-foreign",
        "generate.num_inference_steps=1",
    ]
    assert run("train", *words)[0] == 0
    record = json.loads((place("base-is-foreign") / "samples" / "step-000001" / "judged" / "gate.json").read_text())
    assert OF_BASE in record["readability"]["separations"]


def test_evaluations_keep_to_their_share_of_all_the_time() -> None:
    """The base's evaluation and those of earlier starts count: 47 s beside 90 s of training are 34 %."""
    accelerator = Accelerator(cpu=True)
    assert not EvaluationTimeBudget(0.3, accelerator, evaluated=47, trained=90).allows_evaluation_now()
    assert EvaluationTimeBudget(0.3, accelerator, evaluated=12, trained=50).allows_evaluation_now()
    assert EvaluationTimeBudget(1.0, accelerator, evaluated=47).allows_evaluation_now()
