"""Drawing the slots of a plan: what reaches the pictures, and what becomes of slots that no drawing fills."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.lot import base as base_pictures
from eval.lot import batch as batches
from eval.lot.attempts import advice_on_exhausted_slots, failed_attempts_and_filled_slots
from eval.lot.batch import PlanSlot, read_plan, write_plan
from eval.measuring.record import OF_BASE
from stylegate import files, sample
from stylegate.configgroups import GenerateConfig
from stylegate.embedded import install_cache_in_text_encoders
from stylegate.families import FAMILIES
from stylegate.families.base import LoadedBaseModel
from tests.eval.packages import names_in

TRAITS = """
prompt: '{{body}} {{species}} on {{background}} background'
{negative}
numbers: counts
traits:
  body: {{red: 3, blue: 3}}
  species: {{cat: 2, robot: 2, bear: 2}}
  background: {{red: 3, green: 3}}
"""
BLANK = "version: 1\nchecks: {contrast: {reject_below: 6}}\n"


@pytest.fixture
def base() -> LoadedBaseModel:
    """The shipped base alone."""
    return FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)


def words_of(tmp_path: Path, name: str, negative: str = "") -> list[str]:
    """Words of a batch of six slots, drawn in two steps by the base alone."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(TRAITS.format(negative=negative))
    (tmp_path / "blank.yaml").write_text(BLANK)
    words = [f"traits={path}", "lora_file=none", "hardware=cpu", f"batch={name}", f"policy={tmp_path / 'blank.yaml'}"]
    return [*words, "plan.num_images=6", "plan.max_attempts=2", "generate.num_inference_steps=2"]


def test_a_negative_prompt_reaches_the_picture(run, tmp_path: Path, base: LoadedBaseModel) -> None:
    drawn = {}
    for name, negative in (("plain", ""), ("away", "negative_prompt: a red cat")):
        words = words_of(tmp_path, name, negative)
        assert run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
        drawn[name] = [path.read_bytes() for path in sorted((files.BATCHES / name / "images").iterdir())]
    assert not set(drawn["plain"]) & set(drawn["away"]), "all six pictures are other ones"
    slots = read_plan(files.BATCHES / "away")
    assert {slot.negative_prompt for slot in slots} == {"a red cat"}
    told = base.pipeline(
        [slot.prompt for slot in slots],
        negative_prompt=["a red cat"] * 6,
        generator=[torch.Generator().manual_seed(slot.seed_of_attempt(0)) for slot in slots],
        num_inference_steps=2,
        guidance_scale=3.0,
    ).images
    ours = [Image.open(files.BATCHES / "away" / "images" / slot.picture_file_name(0)) for slot in slots]
    apart = [np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(told, ours, strict=True)]
    assert max(apart) <= 1, "the pipeline's own answer to this negative prompt, but for rounding"


def test_each_prompt_is_read_once_and_alone(base: LoadedBaseModel) -> None:
    alone = base.pipeline.encode_prompt(["a red cat"], "cpu", 1, False)[0]
    install_cache_in_text_encoders(base.pipeline)
    encoder, asked = base.pipeline.text_encoder, []
    inner = encoder.forward.forward
    encoder.forward.forward = lambda *given, **named: (asked.append(given), inner(*given, **named))[1]
    together = base.pipeline.encode_prompt(["a blue dog", "a red cat", "a blue dog"], "cpu", 1, False)[0]
    assert len(asked) == 2 and together[1].equal(alone[0]) and together[0].equal(together[2])
    settings = GenerateConfig(num_inference_steps=1)
    for _ in range(2):
        sample.draw_pictures(base, ["a red cat", "a blue dog", "a red cat"], [1, 2, 3], settings, 64)
    assert len(asked) == 3, "the empty prompt is new, and read once for all pictures"


def test_embeddings_used_longest_ago_are_forgotten_first(base: LoadedBaseModel) -> None:
    install_cache_in_text_encoders(base.pipeline)
    kept = base.pipeline.text_encoder.forward
    base.pipeline.encode_prompt(["a"], "cpu", 1, False)
    kept.most_bytes = 2 * kept.held_bytes
    for prompt in ("b", "a", "c"):
        base.pipeline.encode_prompt([prompt], "cpu", 1, False)
    first = base.pipeline.tokenizer("b").input_ids[1]
    assert len(kept.rows) == 2 and kept.held_bytes <= kept.most_bytes
    assert not any(np.frombuffer(key[0][3], np.int64)[1] == first for key in kept.rows)


def test_a_slot_that_no_attempt_fills_is_for_a_person_and_can_be_repaired(run, tmp_path: Path) -> None:
    words, folder = words_of(tmp_path, "hard"), files.BATCHES / "hard"
    assert run("plan", *words)[0] == 0
    for attempt, code in ((0, 10), (1, 11)):
        assert run("generate", *words)[0] == 0
        for slot in (1, 4):
            Image.new("RGB", (64, 64)).save(folder / "images" / f"{slot:05d}-{attempt}.png")
        found, text = run("gate", *words)
        assert found == code, text
        told = re.search(r"\nNext: (.*)\n", text)
        assert (
            told
            and run("review", *words[1:5], "open=false")[1] == f"review: no picture is in review\nNext: {told[1]}\n"
        )
    assert "2 slots have used all their attempts: 1, 4\n  slot 1: failed by contrast 2\n  slot 4: failed by" in text
    assert f"batch=hard {words[0]} repair=all (repair=1,4 is the same" in text and "00001-2.png" in text
    assert "stylegate generate batch=hard plan.max_attempts=4: 2 are used" in text
    assert "\nlot: a person must decide about 2 slots (exit code 11)\n" in text
    gate = files.read_json(folder / "gate.json", "the gate's record", "slots")
    assert gate["slots"] == {"wanted": 6, "accepted": 4, "exhausted": [1, 4]}
    code, text = run("generate", *words)
    assert code == 11 and "0 drawn" in text and "slot 4: failed by contrast 2" in text
    assert f"batch=hard {words[0]} repair=all" in text
    before = read_plan(folder)
    assert run("plan", *words, "repair=1,x,6")[1].count("no slot of the plan") == 2
    code, text = run("plan", *words, "repair=0,1")
    assert code == 2 and "slot 0 has an accepted picture, 00000-0.png\n" in text and "slot 1 " not in text
    assert read_plan(folder) == before and (folder / "images" / "00000-0.png").exists()
    code, text = run("plan", *words, "repair=all")
    after = read_plan(folder)
    changed = [new.slot for old, new in zip(before, after, strict=True) if new != old]
    assert code == 0 and {1, 4} <= set(changed) and "2 slots repaired" in text
    assert text.count("; the gate saw no trait wrong in its attempts\n") == 2
    others = len(changed) - 2
    assert f"; {others} other slot{'s' * (others != 1)} changed" in text
    assert "\nNext: stylegate generate batch=hard, then gate" in text
    assert not (folder / "images" / "00001-0.png").exists() and (folder / "earlier").is_dir()
    assert run("generate", *words)[0] == 0
    code, text = run("gate", *words)
    assert code == 0 and "\nNext: stylegate export batch=hard makes the package.\n" in text


def test_a_repair_changes_the_trait_that_the_gate_saw_wrong_and_says_so(run, tmp_path: Path) -> None:
    words, folder = words_of(tmp_path, "wrong"), files.BATCHES / "wrong"
    with (tmp_path / "wrong.yaml").open("a") as file:
        file.write("  item: {a: 1, b: 1, c: 1, d: 1, e: 1, f: 1}\n")  # any other trait can be exchanged with any slot
    assert run("plan", *words)[0] == 0
    before = read_plan(folder)
    for trait in before[1].traits:
        detail = f"{trait}: {before[1].traits[trait]} planned, purple seen"
        reason = {"check": "traits", "verdict": "reject", "detail": detail}
        rows = [{"file": f"00001-{n}.png", "verdict": "reject", "reasons": [reason]} for n in range(2)]
        rows += [
            {"file": f"{slot.slot:05d}-0.png", "verdict": "accept", "reasons": []} for slot in before if slot.slot != 1
        ]
        files.write_jsonl(folder / "verdicts.jsonl", rows)
        text = run("generate", *words)[1] if trait == "body" else ""
        assert (f"  slot 1: failed by traits 2 ({detail})\n" in text) == (trait == "body")
        write_plan(folder, before)
        code, text = run("plan", *words, "repair=1")
        after = read_plan(folder)[1].traits
        assert code == 0 and [t for t, value in after.items() if value != before[1].traits[t]] == [trait]
        told = (
            f"  slot 1: {trait}: {before[1].traits[trait]} -> {after[trait]}; the gate named {trait}, seen wrong in 2"
        )
        assert f"{told} attempts\n" in text, text


def test_what_failed_the_attempts_at_a_slot_is_said_with_the_traits_that_were_seen_otherwise() -> None:
    seen = ("body: red planned, pink seen", "body: red planned, pink seen; item: none planned, book seen")
    rows = [
        {
            "file": f"00003-{n}.png",
            "verdict": "reject",
            "reasons": [{"check": "traits", "verdict": "reject", "detail": text}],
        }
        for n, text in enumerate((*seen, seen[0]))
    ]
    states = failed_attempts_and_filled_slots((row["file"], row["verdict"]) for row in rows)
    lines = advice_on_exhausted_slots([3], states, rows, ["00003-3.png"], "some", "")
    assert lines[1] == (
        "  slot 3: failed by traits 3 (body: red planned, pink seen; item: none planned, book seen, 1 time), "
        "stopped early 1"
    )
    assert any("traits=FILE repair=all" in line for line in lines), "of an older batch, that does not say its file"


def test_a_plan_made_again_after_a_repair_stays_repaired(run, tmp_path: Path) -> None:
    words, folder = words_of(tmp_path, "twice"), files.BATCHES / "twice"
    assert run("plan", *words)[0] == 0
    before = read_plan(folder)
    assert run("plan", *words, "repair=2")[0] == 0
    repaired = read_plan(folder)
    assert repaired[2].traits != before[2].traits and repaired[2].prompt != before[2].prompt
    assert run("plan", *words)[0] == 0 and read_plan(folder) == repaired
    assert "nothing is changed" in run("plan", *words, "repair=all")[1]


def test_pictures_of_many_slots_lie_in_subfolders_and_those_of_before_stay_where_they_are(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, images = words_of(tmp_path, "many"), files.BATCHES / "many" / "images"
    assert run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    assert sorted(before) == [f"{slot:05d}-0.png" for slot in range(6)]
    monkeypatch.setattr(batches, "SLOTS_A_FOLDER", 2)
    for lost in ("00001-0.png", "00003-0.png", "00005-0.png"):
        (images / lost).unlink()
    assert run("generate", *words)[0] == 0 and "0 drawn" in run("generate", *words)[1]
    now = {path.relative_to(images).as_posix(): path.read_bytes() for path in images.rglob("*.png")}
    names = ["00000-0.png", "00001-0.png", "00002-0.png", "0001/00003-0.png", "00004-0.png", "0002/00005-0.png"]
    assert sorted(now) == sorted(names) and {Path(name).name: content for name, content in now.items()} == before
    (images / "00005-0.png").write_bytes(before["00000-0.png"])  # the one in the subfolder counts
    (images / "0001" / "00004-0.png").write_bytes(before["00000-0.png"])  # another slot's folder
    code, text = run("gate", *words)
    assert code == 0 and "no pictures of the plan: 2 files" in text, text
    assert [row["file"] for row in files.read_jsonl(files.BATCHES / "many" / "verdicts.jsonl")] == names
    assert {row["file"] for row in files.read_jsonl(files.BATCHES / "many" / "drawn.jsonl")} >= set(names)
    assert run("export", *words, "name=many")[0] == 0
    assert names_in(files.EXPORTS / "many-v1") == names
    assert run("verify", str(files.EXPORTS / "many-v1"))[0] == 0
    (tmp_path / "no.csv").write_text("file,verdict,who\n0001/00003-0.png,reject,anna\n")
    assert run("gate", *words, f"decisions={tmp_path / 'no.csv'}")[0] == 10
    assert run("plan", *words, "repair=3")[0] == 0
    assert not (images / "0001" / "00003-0.png").exists(), "it is drawn anew, with other traits"
    assert list((files.BATCHES / "many" / "earlier").rglob("0001/00003-0.png"))


def test_the_bases_own_pictures_of_the_prompts_are_foreign_and_drawn_once(
    run, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"a {colour} cat\n" for colour in ("red", "green", "blue", "grey")))
    words = [*trained, f"prompts={tmp_path / 'prompts.txt'}", "plan.num_images=16", "references=neon", "batch=paired"]
    words.insert(-1, "generate.num_inference_steps=1")
    assert run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
    slots = read_plan(files.BATCHES / "paired")
    folder = files.BATCHES / "paired" / "base"
    theirs = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    ours = [path.read_bytes() for path in (files.BATCHES / "paired" / "images").glob("*.png")]
    assert len(set(theirs.values()) - set(ours)) == 16, "four seeds of each prompt, without the LoRA"
    run("gate", *words)
    found = json.loads((files.BATCHES / "paired" / "gate.json").read_text())
    assert OF_BASE in found["readability"]["separations"] and found["summary"][0].count(OF_BASE) == 1

    monkeypatch.setattr(base_pictures, "sample", None)  # from now on the base draws nothing
    again = [*words[:-1], "batch=again", "plan.seed=5"]
    assert run("plan", *again)[0] == 0 and run("generate", *again)[0] == 0
    assert {p.name: p.read_bytes() for p in (files.BATCHES / "again" / "base").glob("*.png")} == theirs
    (folder / "left-over.png").write_bytes(b"of a plan that has changed")
    (folder.parent / "images" / slots[0].picture_file_name(0)).unlink()
    assert run("generate", *words)[0] == 0
    assert {path.name for path in folder.glob("*.png")} == set(theirs)


def test_the_base_draws_prompts_from_all_of_the_plan() -> None:
    for many in (16, 33, 50, 63, 64, 1000):
        slots = [PlanSlot(slot=i, prompt=f"{i}", seed=i, traits={}) for i in range(many)]
        taken = [int(prompt) for prompt, _ in base_pictures.prompts_for_base_pictures(slots)]
        assert len(set(taken)) == min(many, 32) and taken == sorted(taken) and taken[-1] >= many * 31 // 32 - 1, many


def test_without_a_lora_or_with_few_slots_there_are_no_pictures_of_the_base(
    run, tmp_path: Path, trained: list[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat\n")
    for name, *more in (("bare", "plan.num_images=16", "lora_file=none"), ("few", "plan.num_images=15")):
        words = [*trained, f"prompts={tmp_path / 'prompts.txt'}", f"batch={name}", *more]
        assert run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
        assert not (files.BATCHES / name / "base").exists()
    left_over = files.BATCHES / "few" / "base" / "0.png"  # of a plan that had more slots
    files.write_atomically(left_over, b"")
    next((files.BATCHES / "few" / "images").iterdir()).unlink()
    assert run("generate", *words)[0] == 0 and not left_over.exists()
