"""Preferences: pairs of one slot are saved, a LoRA learns from them and resumes exactly, batches are compared."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image, ImageOps
from safetensors import safe_open

from eval.compare import read_judged_batch, remarks_on_compared_batches
from eval.judging.verdicts import read_verdicts
from eval.lot.batch import read_plan
from eval.lot.paired import paired_difference_interval
from eval.preferences import digests_labelled_as_evidence, pictures_usable_in_pairs
from eval.promise.labels import StoredLabel, append_labels
from stylegate import adapter, brandset, files, lorafile
from stylegate.cli import main
from stylegate.config import Config
from stylegate.configgroups import HardwareConfig, ObjectiveConfig, TrainConfig
from stylegate.errors import DataError, StylegateError
from stylegate.families.pipelines import weights_digest
from stylegate.preferenceset import read_preference_set
from tests.conftest import FAST_ALL_LAYERS, merged
from tests.eval.people import ALL_IN_REVIEW, decisions
from train import prepare
from train.preferences import training_pictures_of_run
from train.step import losses_of_microbatch

SLOTS = 6
BASE = files.MODELS / "miniature" / "sd"
SETTLED = {  # attempts that people decide about; the slots that are not named stay in review
    **{f"0000{slot}-0.png": "reject" for slot in (0, 1, 2, 3)},
    **{f"0000{slot}-1.png": "accept" for slot in (0, 1, 2)},
    "00003-1.png": "reject",
    "00004-0.png": "accept",
}


@pytest.fixture(scope="session")
def batch(trained: list[str], small_brand: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judged batch of the trained LoRA: true pictures are accepted, their negatives rejected, all by people."""
    place = tmp_path_factory.mktemp("preferences")
    (place / "policy.yaml").write_text(ALL_IN_REVIEW)
    gate = ["gate", "batch=liked", "brand=small", f"policy={place / 'policy.yaml'}"]
    assert main(["plan", *trained, "batch=liked", f"plan.num_images={SLOTS}"]) == 0
    folder = files.BATCHES / "liked"
    (folder / "images").mkdir()
    true = [item.path for item in brandset.read_brand_set(small_brand).splits["train"]]
    for slot in range(SLOTS):
        image = Image.open(true[slot]).convert("RGB")
        ImageOps.invert(image).save(folder / "images" / f"0000{slot}-0.png")
        Image.open(true[slot]).save(folder / "images" / f"0000{slot}-1.png")
    main(gate)
    main([*gate, decisions(folder, SETTLED, place / "decided.csv")])
    return folder


@pytest.fixture(scope="session")
def pairs(batch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "small"
    assert main(["preferences", "batch=liked", f"out={out}"]) == 0
    return out


@pytest.fixture
def copied(batch: Path) -> Path:
    """A copy of the batch under a name of its own, for tests that change it."""
    target = batch.with_name("liked-copy")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(batch, target)
    return target


def test_pairs_are_of_one_slot_and_say_who_decided(batch: Path, pairs: Path) -> None:
    found = read_preference_set(str(pairs))
    slots = {slot.slot: slot for slot in read_plan(batch)}
    assert [pair.slot for pair in found.pairs] == [0, 1, 2], (
        "3 has only rejects, 4 only what is accepted, 5 is undecided"
    )
    for pair in found.pairs:
        assert (pair.chosen_by, pair.rejected_by, pair.rejected_for) == ("person", "person", ["person"])
        assert pair.prompt == slots[pair.slot].prompt
        assert (pair.rejected_seed, pair.chosen_seed) == tuple(slots[pair.slot].seed_of_attempt(n) for n in (0, 1))
    assert found.record.licence == "CC0-1.0" and found.record.pairs == 3
    assert found.record.left_out == {"in review": 3, "no partner in their slot": 3}
    lora = json.loads((batch / "batch.json").read_text())["facts"]["lora"]
    assert found.record.lora_sha256 == lora


def test_datasets_reads_a_preference_set(pairs: Path) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(pairs), split="train")
    assert {"chosen", "rejected", "prompt", "chosen_seed", "chosen_by", "rejected_sha256"} <= set(rows.column_names)
    better, worse = (np.asarray(rows[0][name].convert("RGB"), int) for name in ("chosen", "rejected"))
    assert np.array_equal(better, 255 - worse)


def test_evidence_is_never_learned_from(run, copied: Path) -> None:
    """A label of an audit or a calibration takes its picture out, whatever it says."""
    verdicts = {row.file: row for row in read_verdicts(copied / "verdicts.jsonl")}
    for name, purpose in (("00000-0.png", "audit"), ("00001-1.png", "calibrate")):
        given = StoredLabel(sha256=verdicts[name].sha256, verdict="accept", who="anna", why="")
        append_labels(copied, purpose, [given])  # type: ignore[arg-type]
    code, text = run("preferences", "batch=liked-copy")
    assert code == 2 and "is not what the gate knew" in text, "the gate has not seen these labels"
    usable, left_out = pictures_usable_in_pairs(verdicts.values(), digests_labelled_as_evidence(copied))
    assert left_out["labelled in an audit or a calibration"] == 2
    assert not {"00000-0.png", "00001-1.png"} & {one.verdict.file for one in usable}


def test_one_sided_and_changed_batches_are_refused(run, copied: Path, tmp_path: Path) -> None:
    one_sided, said = tmp_path / "one-sided", (copied / "verdicts.jsonl").read_text()
    shutil.copytree(copied, one_sided)
    (tmp_path / "policy.yaml").write_text(ALL_IN_REVIEW)
    decided = decisions(
        copied, {name: "reject" for name, word in SETTLED.items() if word == "accept"}, tmp_path / "no.csv"
    )
    run("gate", "batch=liked-copy", "brand=small", f"policy={tmp_path / 'policy.yaml'}", decided)
    assert (copied / "verdicts.jsonl").read_text() != said
    code, text = run("preferences", "batch=liked-copy", f"out={tmp_path / 'new'}")
    assert code == 2 and "no slot has both an accepted and a rejected picture: 0 accepted and 9 rejected" in text
    shutil.rmtree(copied)
    shutil.copytree(one_sided, copied)
    picture = copied / "images" / "00000-1.png"
    picture.write_bytes((copied / "images" / "00005-1.png").read_bytes())
    code, text = run("preferences", "batch=liked-copy", f"out={tmp_path / 'new'}")
    assert code == 2 and "00000-1.png" in text and "gate again" in text and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda place: (place / "metadata.jsonl").write_text(""), "is not what preferences.json speaks of"),
        (lambda place: next((place / "images").iterdir()).unlink(), "is missing"),
        (lambda place: shutil.rmtree(place), "is not a preference set"),
        (lambda place: set_record(place, brand="neon"), "is of the brand neon"),
        (lambda place: set_record(place, base_sha256="0" * 64), "drawn with the base 000000000000"),
        (lambda place: set_record(place, lora_sha256="0" * 64), "the LoRA that drew the pairs"),
        (lambda place: set_record(place, pairs="3"), "pairs: "),
        (lambda place: set_rows(place, []), "it holds no pair"),
        (lambda place: set_rows(place, [{"prompt": "x"}]), "chosen_file_name: missing"),
        (lambda place: shrink(place), "pixels, rejected has"),
    ],
)
def test_preference_sets_that_do_not_fit_are_refused(
    pairs: Path, small_brand: Path, tmp_path: Path, change: Callable[[Path], object], says: str
) -> None:
    place = tmp_path / "pairs"
    shutil.copytree(pairs, place)
    change(place)
    config = Config(brand="small", preferences=str(place), objective=ObjectiveConfig(name="dpo"))
    with pytest.raises(StylegateError) as found:
        training_pictures_of_run(config, brandset.read_brand_set(small_brand)).require_pairs_drawn_with_base(
            weights_digest(BASE)
        )
    assert says in str(found.value) and "Next: " in str(found.value)


def set_record(place: Path, **values: str) -> None:
    path = place / "preferences.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def set_rows(place: Path, rows: list[dict]) -> None:
    files.write_jsonl(place / "metadata.jsonl", rows)
    set_record(place, sha256=files.sha256_of_file(place / "metadata.jsonl"))


def shrink(place: Path) -> None:
    """Make the chosen picture of the first pair smaller, and everything else fit it."""
    rows = files.read_jsonl(place / "metadata.jsonl")
    old = place / rows[0]["chosen_file_name"]
    Image.open(old).resize((32, 32)).save(place / "images" / "small.png")
    rows[0]["chosen_sha256"] = files.sha256_of_file(place / "images" / "small.png")
    rows[0]["chosen_file_name"] = f"images/{rows[0]['chosen_sha256']}.png"
    (place / "images" / "small.png").rename(place / rows[0]["chosen_file_name"])
    set_rows(place, rows)


def test_a_problem_names_its_row_also_after_a_row_that_is_none(pairs: Path, tmp_path: Path) -> None:
    place = tmp_path / "pairs"
    shutil.copytree(pairs, place)
    rows = files.read_jsonl(place / "metadata.jsonl")
    set_rows(place, [rows[1] | {"slot": "1"}, *rows])
    (place / rows[0]["chosen_file_name"]).unlink()
    with pytest.raises(DataError) as found:
        read_preference_set(str(place))
    assert found.value.problems[1:] == [f"row 2: {rows[0]['chosen_file_name']} is missing"]


def words_of(pairs: Path, name: str, *more: str) -> list[str]:
    """Words of a run that learns from the pairs, on top of the LoRA that drew them."""
    own = ["brand=small", f"name={name}", "objective=dpo", f"preferences={pairs}", "train.checkpoint_every=1"]
    return merged(*own, *FAST_ALL_LAYERS, "hardware.precision=fp32", "train.warmup_steps=1", *more)


def test_a_lora_learns_what_is_better_and_resumes_exactly(run, pairs: Path, trained: list[str]) -> None:
    """ln 2 at the beginning, a margin that rises, and 1 + 2 steps are the bytes of 3."""
    code, text = run("train", *words_of(pairs, "whole-dpo", "train.max_steps=3"))
    assert code == 0 and "3 pairs of 3 slots, 3 of them decided by people" in text, text
    (place,) = files.RUNS.glob("whole-dpo-*")
    rows = files.read_jsonl(place / "stats.jsonl")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert (rows[0]["preference_margin"], rows[0]["preference_accuracy"]) == (0, 0.5)
    assert rows[-1]["preference_margin"] > 0 and rows[-1]["preference_accuracy"] > 0.5
    assert rows[-1]["loss"] < math.log(2)
    for steps in (1, 3):
        assert run("train", *words_of(pairs, "parts-dpo", f"train.max_steps={steps}"))[0] == 0
    (parts,) = files.RUNS.glob("parts-dpo-*")
    assert files.read_jsonl(parts / "stats.jsonl") == rows
    states = [(one / "state" / "step-000003" / "adapter.safetensors").read_bytes() for one in (place, parts)]
    assert states[0] == states[1]
    with safe_open(place / "lora" / "whole-dpo.safetensors", framework="pt") as file:
        told = file.metadata()
    record = read_preference_set(str(pairs)).record
    assert told["stylegate.objective"] == "dpo" and told["stylegate.preferences"] == record.sha256
    assert told["stylegate.start"] == record.lora_sha256
    assert "preference_accuracy" in (place / "index.html").read_text()


def test_the_reference_is_the_lora_that_it_begins_with(pairs: Path, trained: list[str], tmp_path: Path) -> None:
    """In bf16 too: autocast must not keep the reference's weights for the trained pass, nor lose its gradients."""
    config = Config(
        brand="small",
        name="begun-dpo",
        preferences=str(pairs),
        objective=ObjectiveConfig(name="dpo"),
        train=TrainConfig(batch_size=2, num_samples=0),
        hardware=HardwareConfig(device="cpu", precision="bf16", threads=1),
    )
    made = prepare.prepare_training_run(config, tmp_path / "run", Accelerator(cpu=True))
    (place,) = (path for path in files.RUNS.glob("small-*/lora/small.safetensors"))
    modules = adapter.adaptable_modules(dict(made.adapted.items()))
    of_file, problems = adapter.lora_layers_and_problems(*lorafile.load_tensors_and_metadata(place), modules)
    assert not problems
    assert (
        adapter.largest_relative_difference_of_loras(
            of_file, lorafile.adapters_as_plain_lora_layers(dict(made.adapted.items()))
        )
        < 1e-6
    )
    first = losses_of_microbatch(made, made.models.denoiser, 0)
    assert torch.equal(first.measures["preference_margin"], torch.zeros(2))
    first.each.mean().backward()
    trainable = [p for p in made.adapted.parameters() if p.requires_grad]
    gradients = [p.grad for p in trainable if p.grad is not None]
    length = torch.stack([g.norm() for g in gradients]).norm()
    assert len(gradients) == len(trainable) and length > 0
    with torch.no_grad():
        for parameter, gradient in zip(trainable, gradients, strict=True):
            parameter -= 1e-2 * gradient / length
    after = losses_of_microbatch(made, made.models.denoiser, 0)
    assert after.measures["preference_margin"].mean() > 0, "a step along the gradient prefers the chosen pictures"


def test_another_lora_than_the_words_describe_is_refused(run, pairs: Path) -> None:
    code, text = run("train", *words_of(pairs, "rank-dpo", "lora.rank=8"))
    assert code == 2 and "rank 16, these arguments say 8" in text and "lora.rank=" in text
    code, text = run("train", *words_of(pairs, "kinds-dpo", "lora=attention"))
    assert code == 2 and "layers, these arguments" in text
    code, text = run("train", "brand=small", "objective=dpo")
    assert code == 2 and "none is named" in text and "preferences=DIR" in text
    code, text = run("train", "brand=small", f"preferences={pairs}", "lora.text_encoder=true")
    assert code == 2 and "preferences: read with objective=dpo alone" in text
    code, text = run("train", "brand=small", f"preferences={pairs}", "lora.text_encoder=true", "objective=dpo")
    assert code == 2 and "objective=dpo trains no text encoder" in text


def test_a_lora_to_begin_with_may_be_a_folder_of_peft(
    run, pairs: Path, trained: list[str], small_brand: Path, tmp_path: Path
) -> None:
    """Its digest is that of the batch's record: of the settings beside the file, too. A change of biases is refused."""
    (place,) = files.RUNS.glob("small-*/lora/small.safetensors")
    tensors, metadata = lorafile.load_tensors_and_metadata(place)
    path = tmp_path / lorafile.PEFT_FILE
    path.write_bytes(place.read_bytes())
    path.with_name("adapter_config.json").write_text("{}")
    config = Config(preferences=str(pairs), objective=ObjectiveConfig(name="dpo", start=str(tmp_path)))
    found = training_pictures_of_run(config, brandset.read_brand_set(small_brand))
    assert found.start == path and found.facts["start"] == lorafile.lora_file_digest(path) != files.sha256_of_file(path)

    layer, up = next((key, t) for key, t in tensors.items() if key.endswith("to_out.0.lora_B.weight"))
    tensors[layer.replace("lora_B.weight", "diff_b")] = torch.ones(len(up))
    path.write_bytes(lorafile.canonical_safetensors_bytes(tensors, metadata))
    code, text = run("train", *words_of(pairs, "bias-dpo", f"objective.start={path}"))
    assert code == 2 and "(diff_b), which is not trained here" in text, text


def test_two_batches_are_compared_slot_by_slot(run, batch: Path, copied: Path) -> None:
    code, text = run("compare", str(batch), str(copied))
    assert code == 0 and "1 of 6 (17%)" in text and "0 slots gained, 0 lost" in text and "cannot tell" in text


def test_a_preference_set_that_is_gone_and_facts_of_one_batch_alone_are_said(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = read_judged_batch(batch)
    assert one.lot.record
    monkeypatch.setattr(files, "RUNS", tmp_path)
    run = one.lot.record.words.run or "run"
    words = one.lot.record.words.model_copy(update={"run": run})
    facts = one.lot.record.facts.model_copy(update={"watermark": "0" * 64})
    other = one._replace(
        lot=replace(one.lot, record=one.lot.record.model_copy(update={"words": words, "facts": facts}))
    )
    files.write_json(tmp_path / run / "run.json", {"config": {"preferences": str(tmp_path / "gone")}})
    said = remarks_on_compared_batches(one, other, [0])
    assert said[0] == "the batches differ in watermark" and "preference set" in said[-1] and "is gone" in said[-1], said


def test_the_interval_of_a_difference_holds_the_truth() -> None:
    low, high = paired_difference_interval([True] * 30 + [False] * 10, [False] * 20 + [True] * 10 + [False] * 10, 0.95)
    assert (low, high) == pytest.approx((0.3181, 0.6343), abs=1e-4)
