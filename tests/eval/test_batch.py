"""A planned batch: plan, generate, redraw, export, verify."""

import csv
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from eval.export import DRAWING_COMPLETES, PEOPLE_COMPLETE
from eval.lot.batch import PlanSlot, read_plan, write_plan
from eval.lot.lot import digest_of_names_and_digests, relative_name
from eval.lot.rounds import read_batch_progress
from eval.package import living, receiver, signature
from eval.package.proof import check_package
from eval.plan import warn_if_declared_supply_exceeded
from eval.planning import commitment
from eval.planning.asked import read_prompts, traits_as_sorted_pairs
from eval.planning.rarity import rarity_of_each_item
from eval.planning.slots import slots_from_traits
from eval.planning.traits import TraitValue
from eval.planning.traitsfile import read_traits_file
from stylegate import brandset, digests, files
from stylegate.brandset import Brand
from stylegate.cli import main
from stylegate.config import Config
from stylegate.configgroups import GenerateConfig, PlanConfig
from stylegate.errors import DataError
from stylegate.families import FAMILIES
from tests.conftest import words_of
from tests.eval.packages import made_anew, names_in, provenance_of
from tests.eval.people import fill, good

TRAITS = files.ROOT / "data" / "traits" / "collectible.yaml"
BRAND = Brand(name="neon", trigger="neon style")
SD = FAMILIES["sd"]


def test_plan_is_unique_new_and_by_weight() -> None:
    learned = {
        traits_as_sorted_pairs(i.traits)
        for i in brandset.read_brand_set(files.ROOT / "data" / "brands" / "neon").splits["train"]
    }
    slots = slots_from_traits(read_traits_file(TRAITS), BRAND, PlanConfig(num_images=600), learned)
    drawn = [traits_as_sorted_pairs(slot.traits) for slot in slots]
    assert len(set(drawn)) == 600 and not set(drawn) & learned
    counts = Counter(slot.traits["headwear"] for slot in slots)
    assert dict(counts) == {"none": 133, "crown": 67, "cap": 133, "wizard": 67, "flower": 133, "horns": 67}
    assert all(slot.prompt.startswith("neon style, ") for slot in slots) and len({s.seed for s in slots}) == 600


def test_excluded_combinations_never_come() -> None:
    traits = read_traits_file(TRAITS)
    first = {
        traits_as_sorted_pairs(s.traits) for s in slots_from_traits(traits, BRAND, PlanConfig(num_images=30), set())
    }
    again = slots_from_traits(traits, BRAND, PlanConfig(num_images=30), first)
    assert not first & {traits_as_sorted_pairs(s.traits) for s in again}


def test_words_of_a_traits_file_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "\ufeffprompt: '{Eye color} {code}'\n"
        "traits:\n"
        "  Eye color: {on: 1, off: 0.5, null: 5e-1, ~: 1e0}\n"
        "  code: {007: 1, 1_000: 1, 1.10: 1, 12:30: 1, 2026-01-02: {weight: .5, phrase: 010}}\n"
    )
    traits = read_traits_file(tmp_path / "t.yaml")
    assert list(traits.traits["Eye color"]) == ["on", "off", "null", "~"]
    assert [value.weight for value in traits.traits["Eye color"].values()] == [1, 0.5, 0.5, 1]
    assert list(traits.traits["code"]) == ["007", "1_000", "1.10", "12:30", "2026-01-02"]
    assert traits.traits["code"]["2026-01-02"] == TraitValue(weight=0.5, phrase="010")
    slots = slots_from_traits(traits, BRAND, PlanConfig(num_images=4), set())
    assert all(slot.prompt.startswith(f"neon style, {slot.traits['Eye color']} ") for slot in slots)


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("p.txt", "\ufeffred cat\r\n\r\n# for later\r\n  blue dog \r\n", ["red cat", "blue dog"]),
        ("p", "a - b -- c, #1 dad", ["a - b -- c, #1 dad"]),
        ("p.csv", "seed;prompt\n1;red cat, sitting\n", ["red cat, sitting"]),
        ("p.jsonl", '{"text": "red cat"}\n{"prompt": "blue dog"}\n', ["red cat", "blue dog"]),
    ],
)
def test_prompts_are_read_as_written(tmp_path: Path, name: str, content: str, prompts: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(tmp_path / name) == prompts


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", b"a\nred cat --n lowres --w 512\n", "line 2: options after -- are not read"),
        ("p.txt", "red caf\u00e9".encode("latin-1"), "not UTF-8 text"),
        ("p.txt", "red cat\n".encode("utf-16-le"), "NUL"),
        ("p.txt", b"# nothing\n", "holds no line of text"),
        ("p.csv", b"seed,words\n1,a\n", "needs a column prompt, has seed, words"),
        ("p.csv", b"prompt\nred cat, sitting\n", "line 2: 2 cells under 1 column"),
        ("p.jsonl", b'{"prompt": ["a", "b"]}\n', "line 1: no text"),
        ("p.json", b"[]", "is no list of prompts"),
    ],
)
def test_prompts_of_another_form_are_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_prompts(tmp_path / name)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt: x", "traits: missing"),
        ("traits: {a: {x: 1}}", "prompt: missing"),
        ("prompt: '{b}'\ntraits: {a: {x: 1}}", "{b} names no trait"),
        ("prompt: '{a'\ntraits: {a: {x: 1}}", "prompt:"),
        ("prompt: x\ntraits: {a: {x: -1}}", "traits.a.x.weight: -1 is not a number above 0"),
        ("prompt: x\ntraits: {a: {x: 010}}", "traits.a.x.weight: 010 is not a number above 0"),
        ("prompt: x\ntraits: {a: {x: .nan}}", "traits.a.x.weight: .nan is not a number"),
        ("prompt: x\ntraits: {a: {x: 0}}", "traits.a.x.weight: 0 is not a number above 0"),
        ("prompt: x\ntraits: {a: {x: {wait: 1}}}", "traits.a.x.wait: unknown key"),
        ("prompt: x\ntraits: {a: [x, y]}", "a: needs a mapping"),
        ("prompt: x\ntraits: {a: {x: 1}}\nextra: 1", "extra: unknown key"),
        ("prompt: '{a!x}'\ntraits: {a: {x: 1}}", "prompt:"),
        ("prompt: '{a:d}'\ntraits: {a: {x: 1}}", "prompt:"),
        ("prompt: '{1}'\ntraits: {1: {x: 1}}", "1: a trait's name is of letters"),
        ("prompt: x\ntraits: {trigger: {x: 1}}", "trigger: a trait's name"),
        ("prompt: x\ntraits: {a: {x: 1" + "0" * 400 + "}}", "weight: 1000"),
        ("prompt: [", "is not YAML"),
    ],
)
def test_bad_traits_files(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(DataError) as error:
        read_traits_file(tmp_path / "t.yaml")
    assert says in str(error.value)


def test_yaml_booleans_are_words(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("prompt: '{a}'\ntraits: {a: {no: 1, 7: 1}}")
    assert set(read_traits_file(tmp_path / "t.yaml").traits["a"]) == {"no", "7"}


def test_plan_round_trip(tmp_path: Path) -> None:
    slots = [
        PlanSlot(slot=0, prompt="a, “b”", seed=2**32 - 1, traits={"x": "ü"}),
        PlanSlot(slot=1, prompt="c", seed=0, traits={}, name="The King"),
    ]
    write_plan(tmp_path, slots)
    assert read_plan(tmp_path) == slots
    older = files.read_parquet_as_arrow_table(tmp_path / "plan.parquet").drop_columns(["name", "negative_prompt"])
    pq.write_table(older, tmp_path / "plan.parquet")
    assert read_plan(tmp_path) == [slots[0], slots[1].model_copy(update={"name": ""})], "of before there were names"
    (tmp_path / "plan.parquet").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        read_plan(tmp_path)


def test_a_lots_digest_is_that_of_its_canonical_json() -> None:
    names = ["a.png", 'quoted "\\ one.png', "line\nbreak\x01\x7f.png", "ü/日本\u2028.png", "🖼.png", ""]
    digests = {name: f"{number:064x}" for number, name in enumerate(names)}
    pairs = [[name, digests[name]] for name in names]
    assert digest_of_names_and_digests([(name, Path(name)) for name in names], digests) == files.canonical_sha256(pairs)


@pytest.mark.parametrize(
    ("folder", "name", "text"),
    [
        ("/a", "/a/b/c.png", "b/c.png"),
        ("/", "/b.png", "b.png"),
        ("/a", "/a/a/a.png", "a/a.png"),
        ("/a", "/a/\\xff.png", "\\x5cxff.png"),
        ("/a", "/a/\udcff.png", "\\xff.png"),
        ("/a", "/a/ü\\x.png", "ü\\x.png"),
    ],
)
def test_the_name_of_a_file_is_text_below_its_folder(folder: str, name: str, text: str) -> None:
    assert relative_name(Path(folder), Path(name)) == text


def test_attempts_have_seeds_of_their_own() -> None:
    slot = PlanSlot(slot=3, prompt="x", seed=77, traits={})
    assert len({slot.seed_of_attempt(a) for a in range(50)}) == 50 and slot.picture_file_name(2) == "00003-2.png"


def test_due_attempts(tmp_path: Path) -> None:
    slots = [PlanSlot(slot=i, prompt="x", seed=i, traits={}) for i in range(5)]
    rows = [("00000-0.png", "accept"), ("00001-0.png", "reject"), ("00002-0.png", "review"), ("00003-0.png", "error")]
    rows += [("00003-1.png", "reject")]
    files.write_jsonl(tmp_path / "verdicts.jsonl", [{"file": f, "verdict": v} for f, v in rows])
    write_plan(tmp_path, slots)
    due = [(slot.slot, attempt) for slot, attempt in read_batch_progress(tmp_path, 3).due]
    assert due == [(4, 0), (1, 1), (3, 2)]
    standing = read_batch_progress(tmp_path, 2)
    assert [(s.slot, a) for s, a in standing.due] == [(4, 0), (1, 1)] and standing.exhausted == [3]
    text = "1 of 5 slots filled, 20% accepted, 10 s{} for each accepted picture"
    assert standing.progress_in_words(0, 2.0, None) == text.format(""), "slots that failed before take longer"
    assert standing._replace(exhausted=[]).progress_in_words(0, 2.0, None) == text.format("")
    assert standing._replace(due=[]).progress_in_words(0, 2.0, None) == text.format("")
    first, text = standing._replace(due=standing.due[:1], exhausted=[]), f"{text}, all slots in {{}} s"
    assert first.progress_in_words(0, 2.0, None) == text.format("", 40)
    assert first.progress_in_words(5, 2.0, 36.0) == text.format(" and 0.1 in money", 30)
    none = standing._replace(accepted=0, filled=0)
    assert none.progress_in_words(1, 2.0, None) == "0 of 5 slots filled, none of 5 judged pictures accepted"
    assert none._replace(judged=set()).progress_in_words(1, 2.0, None) == "not judged yet"


@pytest.fixture(scope="module")
def drawn(trained: list[str]) -> tuple[list[str], Path]:
    """A planned and drawn batch of six; to be copied."""
    words = [*trained, "plan.num_images=6", "generate.batch_size=3", "traits=collectible"]
    for verb in ("plan", "generate"):
        assert main([verb, *words_of(verb, *words, "batch=drawn")]) == 0
    return words, files.BATCHES / "drawn"


@pytest.fixture
def batch(drawn: tuple[list[str], Path], request: pytest.FixtureRequest) -> tuple[list[str], Path]:
    """A planned and drawn batch of six, of a name of its own."""
    name = request.node.name[5:40]
    shutil.copytree(drawn[1], files.BATCHES / name)
    return [*drawn[0], f"batch={name}"], files.BATCHES / name


def pngs(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "images").glob("*.png"))}


def accept_all(tmp_path: Path) -> str:
    (tmp_path / "lenient.yaml").write_text("version: 1\nchecks: {contrast: {reject_below: 0.001}}\n")
    return f"policy={tmp_path / 'lenient.yaml'}"


def test_generate_resumes_to_the_same_pictures(run, batch) -> None:
    words, folder = batch
    before = pngs(folder)
    assert len(before) == 6 and len(set(before.values())) == 6
    for name in ("00001-0.png", "00004-0.png"):
        (folder / "images" / name).unlink()
    assert run("generate", *words)[0] == 0
    assert pngs(folder) == before
    assert "0 drawn, 6 in" in run("generate", *words)[1]


def test_the_name_of_a_batch_says_the_rest(run, run_exactly, batch, tmp_path: Path) -> None:
    """Brand, base, LoRA and settings of the batch stand in for arguments that are not given, and for no others."""
    folder = batch[1]
    before, record = pngs(folder), (folder / "batch.json").read_text()
    (folder / "images" / "00001-0.png").unlink()
    code, text = run_exactly("generate", "hardware=cpu", f"batch={folder.name}")
    assert code == 0 and pngs(folder) == before, text
    assert (folder / "batch.json").read_text() == record
    code, text = run_exactly("generate", "hardware=cpu", f"batch={folder.name}", "generate.guidance_scale=9")
    assert code == 2 and "was made from something else" in text and "9.0" in text
    for usual in ("generate.num_inference_steps=20", "family.resolution=32"):
        assert GenerateConfig().num_inference_steps == 20, "typed, it counts though it is the usual value"
        code, text = run_exactly("generate", "hardware=cpu", f"batch={folder.name}", usual)
        assert code == 2 and "was made from something else" in text and usual.partition("=")[2] in text, text
    again = ("plan", "hardware=cpu", f"batch={folder.name}", "traits=collectible", "plan.num_images=6")
    code, text = run_exactly(*again)
    assert code == 0 and "lost" not in text and (folder / "batch.json").read_text() == record, text
    assert f"\nNext: stylegate generate batch={folder.name}, then gate" in text
    code, text = run_exactly("plan", "hardware=cpu", f"batch={folder.name}")
    assert code == 2 and "made from something else" in text and read_plan(folder)[0].traits, (
        "a plan of captions is another"
    )
    for path in files.RUNS.glob("small-sd-*/lora/small.safetensors"):
        path.rename(path.with_suffix(".away"))
    code, text = run_exactly("generate", "hardware=cpu", f"batch={folder.name}")
    (away,) = files.RUNS.glob("small-sd-*/lora/small.away")
    shutil.copy(away, tmp_path / "elsewhere.safetensors")
    (folder / "images" / "00002-0.png").unlink()
    found = run_exactly(
        "generate", "hardware=cpu", f"batch={folder.name}", f"lora_file={tmp_path / 'elsewhere.safetensors'}"
    )
    away.rename(away.with_suffix(".safetensors"))
    assert code == 2 and "alone does not say where these files lie:\n  - lora_file=: the LoRA with sha256 " in text
    assert "Next: give them beside batch=; the batch says the rest." in text
    assert found[0] == 0 and pngs(folder) == before, f"the LoRA is enough beside batch=: {found[1]}"


def test_a_batch_in_4_bits_goes_on_by_its_name(run_exactly, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red cat\n")
    words = [f"prompts={tmp_path / 'p.txt'}", "hardware=cpu", "batch=packed", "plan.num_images=1"]
    assert run_exactly("plan", *words, "lora_file=none", "hardware.nf4=true")[0] == 0
    path = files.BATCHES / "packed" / "batch.json"
    record = path.read_text()
    assert run_exactly("plan", *words)[0] == 0 and path.read_text() == record
    code, text = run_exactly("plan", *words, "hardware.nf4=false")
    assert code == 2 and "base: it was in 4 bits, and hardware.nf4=true is not given" in text
    path.write_text(record.replace(',\n    "nf4": true', ""))  # as before it was written down
    code, text = run_exactly("plan", *words)
    assert (
        code == 2 and "base: it was in 4 bits, and hardware.nf4=true is not given" in text and "Next: give the" in text
    )
    assert run_exactly("plan", *words, "hardware.nf4=true")[0] == 0


def test_rejected_slots_are_drawn_again_with_a_new_seed(run, batch, tmp_path: Path) -> None:
    words, folder = batch
    Image.new("RGB", (64, 64)).save(folder / "images" / "00002-0.png")
    policy = tmp_path / "blank.yaml"
    policy.write_text("version: 1\nchecks: {contrast: {reject_below: 6}}\n")
    code, text = run("gate", *words, f"policy={policy}")
    assert code == 10 and "6 in = 5 accept + 0 review + 1 reject + 0 error" in text
    assert "1 drawn, 7 in" in run("generate", *words)[1]
    assert (folder / "images" / "00002-1.png").exists()
    assert run("gate", *words, f"policy={policy}")[0] == 0


def test_a_gate_that_came_between_decides_what_is_drawn(run, batch, before_the_lock, tmp_path: Path) -> None:
    words, folder = batch
    assert run("gate", *words, accept_all(tmp_path))[0] == 0
    rows = files.read_jsonl(folder / "verdicts.jsonl")
    rows[2]["verdict"] = "reject"
    before_the_lock(lambda: files.write_jsonl(folder / "verdicts.jsonl", rows))
    assert "1 drawn, 7 in" in run("generate", *words)[1]


def test_export_is_whole_and_grows_only_when_it_differs(run, batch, tmp_path: Path) -> None:
    words, folder = batch
    lenient = accept_all(tmp_path)
    assert run("gate", *words, lenient)[0] == 0
    named = [
        *words,
        "name=coll",
        f"lora_file={files.RUNS.glob('small-sd-*').__next__() / 'lora' / 'small.safetensors'}",
    ]
    assert "coll-v1" in run("export", *named)[1]
    (package,) = files.EXPORTS.glob("coll-v*")
    # The name in conf/experiment/demo.yaml is for the demo: a batch with a name of its own leaves under that.
    assert run("export", "experiment=demo", f"batch={folder.name}")[0] == 0
    assert run("export", "experiment=demo", f"batch={folder.name}", "name=demo")[0] == 0, "who writes it, means it"
    others = sorted(path.name for path in files.EXPORTS.iterdir() if path != package)
    assert others == ["demo-v1", f"{folder.name}-v1"]
    for name in others:
        shutil.rmtree(files.EXPORTS / name)
    assert "coll-v1" in run("export", *named)[1] and len(list(files.EXPORTS.glob("coll-v*"))) == 1
    rows = files.read_parquet_as_arrow_table(package / "data" / "metadata.parquet").to_pylist()
    assert len(rows) == 6 and rows[0]["traits"]["species"] and rows[0]["text"].startswith("small style")
    record = provenance_of(package)
    assert record["counts"]["exported"] == 6 == record["counts"]["in"]
    assert all(record["made_from"][k] for k in ("base_sha256", "lora_sha256", "data_sha256", "plan_sha256"))

    import datasets

    loaded = datasets.load_dataset("imagefolder", data_dir=str(package / "data"), split="train")
    assert len(loaded) == 6 and loaded[0]["image"].size == (64, 64)  # type: ignore[index]
    assert run("verify", str(package))[0] == 0

    drawn = (folder / "images" / "00000-0.png").read_bytes()
    Image.new("RGB", (64, 64), "navy").save(folder / "images" / "00000-0.png")
    (folder / "images" / "00003-0.png").unlink()
    code, text = run("export", *named)
    assert code == 10 and "nothing was exported" in text and "stylegate gate with the same arguments" in text
    assert "are not what the gate judged: 2 (00000-0.png was changed, 00003-0.png is gone)" in text
    assert list(files.EXPORTS.iterdir()) == [package]
    (folder / "images" / "00000-0.png").write_bytes(drawn)
    run("gate", *words, lenient)
    assert run("export", *named)[0] == 0, "judged again, the others leave"
    assert len(names_in(files.EXPORTS / "coll-v2")) == 5
    assert not list(files.EXPORTS.glob(".*"))


def test_plan_and_rarity_are_checked_again_by_who_gets_the_package(run, batch, tmp_path: Path) -> None:
    """Against what everybody can write who has no key: only the agreement of the parts can tell."""
    words, folder = batch
    (folder / "images" / "00004-0.png").unlink()  # not every slot leaves
    assert run("gate", *words, accept_all(tmp_path))[0] in (0, 10) and run("export", *words, "name=planned")[0] == 0
    package = files.EXPORTS / "planned-v1"
    proven = receiver.check_received_package(package)[0]
    assert "5 of 6 planned slots are here, with the traits that proof/commitment.json commits to" in proven
    assert "rank and rarity of 5 items follow from their traits" in proven
    said = subprocess.run([sys.executable, "-I", package / "verify.py"], capture_output=True, text=True).stdout
    assert "rank and rarity of 5 items" in said and "WRONG" not in said
    rows = files.read_jsonl(package / "data" / "rarity.jsonl")
    assert [row["rank"] for row in rows] == sorted(row["rank"] for row in rows) and len(rows) == 5

    plan = (package / "proof" / "plan.jsonl").read_text()
    traits = json.loads(plan.splitlines()[2])["traits"]
    token = f"data/metadata/erc721/{rows[0]['id']}.json"
    value = json.loads((package / token).read_text())["attributes"][0]["value"]
    for name, old, new, says in (
        ("data/rarity.jsonl", '"rank": 1,', '"rank": 2,', f"item {rows[0]['id']} has another rank or score"),
        ("data/rarity.jsonl", f'"score": {rows[1]["score"]}', '"score": NaN', f"item {rows[1]['id']} has another rank"),
        ("proof/plan.jsonl", plan, plan.replace(traits["species"], "dragon"), "proof/commitment.json: it is not of"),
        (token, f'"{value}"', '"dragon"', f"{token}: not the traits of its slot"),
    ):
        whole = shutil.copytree(package, tmp_path / f"changed-{len(list(tmp_path.iterdir()))}")
        replaced(whole, name, old, new)
        made_anew(whole)
        for wrong in (receiver.check_received_package(whole)[2], check_package(whole)[2]):
            assert any(says in line for line in wrong), (name, wrong)


def test_a_one_of_one_leaves_under_its_name(run, batch, tmp_path: Path) -> None:
    words, folder = batch
    told, slots = [*words, accept_all(tmp_path), "name=royal"], read_plan(folder)
    found = []
    for number, name in enumerate(("The King", "The Queen"), start=1):
        write_plan(folder, [slot.model_copy(update={"name": name if slot.slot == 2 else ""}) for slot in slots])
        commitment.write_plan_text_and_commitment(folder, read_plan(folder))
        assert run("gate", *told)[0] == 0 and run("export", *told)[0] == 0
        found.append(files.EXPORTS / f"royal-v{number}")
        metadata = found[-1] / "data" / "metadata"
        for path in (f"erc721/{2}.json", f"erc1155/{2:064x}.json", f"metaplex/{2}.json"):
            token = json.loads((metadata / path).read_text())
            assert (token["name"], token["description"]) == (name, "Item 2 of royal.")
        assert json.loads((metadata / "erc721" / "1.json").read_text())["name"] == "royal #1"
    text = run("verify", str(found[1]))[1]
    assert "WRONG" not in text and "1 with another name" in text, text
    changes = json.loads((found[1] / "proof" / "changes.json").read_text())
    assert changes["renamed"] == [2] and changes["drawn_again"] == [] and changes["erc4906"] == [[2, 2]]


def test_metadata_and_rarity_are_of_what_a_person_found(run, batch, tmp_path: Path) -> None:
    """A correction goes from the table to verdict, record, metadata and rarity; the plan stays as committed."""
    words, folder = batch
    told = [*words, accept_all(tmp_path), "name=final"]
    assert run("gate", *told)[0] == 0
    planned = {slot.slot: slot.traits for slot in read_plan(folder)}
    values = {trait: {traits[trait] for traits in planned.values()} for trait in planned[2]}
    of_one = {v for v in set.union(*values.values()) if v != "none" and sum(v in of for of in values.values()) == 1}
    trait, value = next((t, v) for t in planned[2] for v in sorted(values[t] & of_one - {planned[2][t]}))
    table = tmp_path / "d.csv"
    head = "file,verdict,who,shows\n"
    table.write_text(f"{head}00002-0.png,accept,anna,{trait}: dragon; wings: none\n00003-0.png,,anna,{trait}: none\n")
    code, text = run("gate", *told, f"decisions={table}")
    assert code == 2 and "verdict '' is none of" in text and not (folder / "labels.sqlite").exists()
    assert text.count("line 2: shows ") == 2 and "line 3: verdict" in text, "all problems come at once"
    table.write_text(f"{head}00002-0.png,accept,anna,{trait}: dragon; wings: none\n")
    code, text = run("gate", *told, f"decisions={table}")
    assert code == 2 and f"line 2: shows {trait}: dragon, which is no value" in text
    assert f"; {trait} has {', '.join(sorted(values[trait] | {'none'}))}" in text and "shows wings: none" in text
    table.write_text(f"{head}00002-0.png,accept,anna,none\n")
    code, text = run("gate", *told, f"decisions={table}")
    assert (
        code == 2
        and f"none is a value of {' and of '.join(planned[2])}; write as in `{next(iter(planned[2]))}: none`" in text
    )
    table.write_text(f"{head}00002-0.png,accept,anna,{value}\n")
    assert run("gate", *told, f"decisions={table}")[0] == 0, "a value that one trait alone has"
    table.write_text(f"{head}00002-0.png,accept,anna,{trait}: {value}\n")
    assert "0 new in" in run("gate", *told, f"decisions={table}")[1], "the same row is not stored twice"
    rows = {row["file"]: row for row in files.read_jsonl(folder / "verdicts.jsonl")}
    assert rows["00002-0.png"]["shown_traits"] == {trait: value} and "shown_traits" not in rows["00001-0.png"]

    assert run("export", *told)[0] == 0
    package = files.EXPORTS / "final-v1"
    record = json.loads((package / "data" / "records" / "2.json").read_text())["traits"]
    assert record["planned"] == planned[2] and record["final"] == planned[2] | {trait: value}
    final = {**planned, 2: record["final"]}
    token = json.loads((package / "data" / "metadata" / "erc1155" / f"{2:064x}.json").read_text())
    assert token["properties"] == final[2]
    ranks = {row["id"]: row["rank"] for row in files.read_jsonl(package / "data" / "rarity.jsonl")}
    assert [ranks[i] for i in sorted(final)] == [
        found.rank for found in rarity_of_each_item([final[i] for i in sorted(final)])
    ]
    proven = receiver.check_received_package(package)[0]
    assert any(line.endswith("but for 1 in whose records a person corrected them") for line in proven)
    replaced(package, "data/records/2.json", f'"{trait}": "{value}"', f'"{trait}": "dragon"')
    made_anew(package)
    assert any("2.json: not the traits of its slot" in line for line in receiver.check_received_package(package)[2])


def test_stated_traits_are_audited_until_few_can_be_wrong(
    run, batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By labels of this purpose alone; what was found wrong is corrected, or is stated no more."""
    words, folder = batch
    told = [*words, accept_all(tmp_path), "name=sure"]
    assert run("gate", *told)[0] == 0
    before = (folder / "gate.json").read_bytes()
    for verb in (["plan", "audit=true"], ["certify"]):
        code, text = run(verb[0], *words, "name=sure", *verb[1:])
        assert code == 2 and "the gate judged under the policy" in text, "the default policy accepts other pictures"
    assert (folder / "gate.json").read_bytes() == before and not (folder / "labels.sqlite").exists()
    code, text = run("plan", *told, "audit=true")
    assert code == 13 and "not proven yet: 0 labels" in text, text
    count = sum(len(slot.traits) for slot in read_plan(folder))
    sheet = list(csv.DictReader((folder / "trait-audit.csv").open()))
    assert len(sheet) == count and sheet[0]["purpose"] == "traits"
    values = {trait: {slot.traits[trait] for slot in read_plan(folder)} for trait in read_plan(folder)[0].traits}
    trait, value = sheet[0]["prompt"].split(": ")
    answers = iter(["r", "dragon", max(values[trait] - {value}), "b", "a", "", "q"])
    with monkeypatch.context() as asked:
        asked.setattr("sys.stdin.isatty", lambda: True)
        asked.setattr("webbrowser.open", lambda place: None)
        asked.setattr("builtins.input", lambda question: next(answers))
        code, text = run("plan", *told, "audit=true")
    assert code == 13 and "not proven yet: 1 label, 0 of them wrong" in text and f"stated:  {trait}: {value}" in text
    sheet = list(csv.DictReader((folder / "trait-audit.csv").open()))
    assert len(sheet) == count - 1
    wrong = next(
        i for i, row in enumerate(sheet) if values[row["prompt"].split(": ")[0]] - {row["prompt"].split(": ")[1]}
    )
    silent = wrong + 1
    trait, value = sheet[wrong]["prompt"].split(": ")
    shown = min(values[trait] - {value})
    filled = fill(folder / "trait-audit.csv", lambda i, row: "reject" if i in (wrong, silent) else "accept")
    assert run("certify", *told, f"decisions={filled}")[0] == 2, "labels of one purpose never serve another"
    rows = list(csv.DictReader(filled.open()))

    def answered(shows: str) -> tuple[int, str]:
        rows[wrong]["shows"] = shows
        with filled.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return run("plan", *told, "audit=true", f"decisions={filled}")

    for dragon in ("dragon", f"{trait}: dragon"):
        code, text = answered(dragon)
        assert code == 2 and f"#{trait}: {trait}: dragon, which is no value of the plan; {trait} has " in text
        assert f"{shown}" in text and "`TRAIT: VALUE`, or the value alone" in text
    code, text = answered(f"{trait}: {value}")
    assert code == 2 and f"but the row says reject of {trait}: {value}" in text
    code, text = answered(f"{trait}: {shown}")
    assert code == 0 and f"all {count} stated traits were looked at; 2 were wrong and are not stated so" in text, text
    certificate = folder / "trait-certificate.json"
    assert f"all {count} stated traits" in run("verify", str(certificate))[1]
    file, slot = rows[wrong]["file"].split("#")[0], int(rows[wrong]["file"][:5])
    verdict = next(row for row in files.read_jsonl(folder / "verdicts.jsonl") if row["file"] == file)
    assert verdict["shown_traits"][trait] == shown and verdict["verdict"] == "accept"

    assert run("export", *told)[0] == 0
    package = files.EXPORTS / "sure-v1"
    record = json.loads((package / "data" / "records" / f"{slot}.json").read_text())["traits"]
    assert record["final"][trait] == shown and record["planned"][trait] == value
    left_out = rows[silent]["file"].split("#")
    assert (
        left_out[1]
        not in json.loads((package / f"data/records/{int(left_out[0][:5])}.json").read_text())["traits"]["final"]
    )
    assert "trait-certificate.json: all" in run("verify", str(package))[1]
    table = tmp_path / "d.csv"
    other = next(row for i, row in enumerate(rows) if i not in (wrong, silent))
    table.write_text(f"file,verdict,who\n{other['file'].split('#')[0]},reject,anna\n")
    run("gate", *told, f"decisions={table}")
    text = run("export", *told)[1]
    assert "trait-certificate.json is not of the traits that leave" in text, text
    assert not (files.EXPORTS / "sure-v2" / "data" / "trait-certificate.json").exists()


def test_an_exported_picture_is_a_twin_of_other_slots_alone(run, batch, tmp_path: Path) -> None:
    """Also where the batch no longer has it: later attempts at its slot may look like it, those at others may not."""
    words, folder = batch
    images, told = folder / "images", [*words, accept_all(tmp_path)]
    assert run("gate", *told)[0] == 0 and run("export", *told, "name=twin")[0] == 0
    sold = (images / "00002-0.png").read_bytes()

    def twins() -> dict[str, str]:
        run("gate", *words)
        rows = files.read_jsonl(folder / "verdicts.jsonl")
        return {row["file"]: r["detail"] for row in rows for r in row["reasons"] if r["check"] == "distinct"}

    assert "00002-0.png" not in twins()
    with Image.open(images / "00002-0.png") as image:
        image.putpixel((0, 0), (1, 2, 3))
        image.save(images / "00002-0.png")
        image.putpixel((0, 0), (3, 2, 1))
        image.save(images / "00002-1.png")
    assert not {"00002-0.png", "00002-1.png"} & twins().keys(), "its own slot's"
    (images / "00004-1.png").write_bytes(sold)
    found = twins()
    assert "twin-v1/00002-0.png" in found["00004-1.png"] and "00002-1.png" not in found, found
    # Of a package of another batch every picture counts, whatever it is called.
    (folder / "drawn.jsonl").write_text("")
    for slot in range(6):
        with Image.open(images / f"{slot:05d}-0.png") as image:
            image.putpixel((1, 1), (1, 2, 3))
            image.save(images / f"{slot:05d}-0.png")
    (images / "00004-1.png").unlink()
    assert {"00002-0.png", "00002-1.png"} <= twins().keys()


def test_a_collection_lives_within_its_supply(run, batch, tmp_path: Path, capsys) -> None:
    """A new version says which items have other traits, another picture, or are gone; the others keep their bytes."""
    words, folder = batch
    told = [*words, accept_all(tmp_path), "name=alive"]

    def version(number: int, *more: str) -> tuple[Path, dict]:
        assert run("gate", *told)[0] == (10 if number == 4 else 0)  # a slot has no picture then
        code, text = run("export", *told, *more)
        package = files.EXPORTS / f"alive-v{number}"
        assert code == 0 and f"alive-v{number} ({len(names_in(package))} of " in text, text
        text = run("verify", str(package))[1]
        assert number < 2 or "  proven: since alive-v" in text
        kept = "  proven: no more items, and no more of a value, than alive-v1 declared or had"
        assert number < 2 or kept in text, text
        return package, json.loads((package / "proof" / "changes.json").read_text()) if number > 1 else {}

    def plan_with(**traits: dict[str, str]) -> None:
        slots = [s.model_copy(update={"traits": s.traits | traits.get(f"slot{s.slot}", {})}) for s in read_plan(folder)]
        write_plan(folder, slots)
        commitment.write_plan_text_and_commitment(folder, slots)

    first, _ = version(1)
    slots = read_plan(folder)
    trait = next(t for t in slots[0].traits if slots[0].traits[t] != slots[1].traits[t])
    values = [slots[1].traits[trait], slots[0].traits[trait]]
    plan_with(slot0={trait: values[0]}, slot1={trait: values[1]})
    second, changes = version(2, "burn=3", "merge=4+5")
    assert changes["evolved"] == [{"id": 0, "traits": {trait: values[::-1]}}, {"id": 1, "traits": {trait: values}}]
    assert changes["burned"] == [3, 5] and changes["merged"] == [{"into": 4, "burned": [5]}]
    assert changes["erc4906"] == [[0, 1]] and changes["new"] == changes["drawn_again"] == changes["left_out"] == []
    assert changes["before"]["tagmanifest_sha256"] == files.sha256_of_file(first / "tagmanifest-sha256.txt")
    for item in (2, 4):
        kept = [f"data/records/{item}.json", *(f"data/images/{n}" for n in names_in(first) if int(n[:5]) == item)]
        assert all((second / name).samefile(first / name) for name in kept), "the same bytes, in the same place"
    assert "alive-v2 " in run("export", *told, "burn=3", "merge=4+5")[1], "burned once is burned"

    with Image.open(folder / "images" / "00002-0.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "images" / "00002-0.png")
    third, changes = version(3)
    assert changes["drawn_again"] == [2] and changes["erc4906"] == [[2, 2]] and changes["burned_before"] == [3, 5]
    assert sorted(int(name[:5]) for name in names_in(third)) == [0, 1, 2, 4]

    picture = folder / "images" / "00002-0.png"
    away = picture.rename(tmp_path / picture.name)
    fourth, left_out = version(4)
    assert left_out["left_out"] == [2] and left_out["erc4906"] == []
    # An item that is left out lives on where it was sold: nobody else can have the value of which it has the last one.
    only = next(t for t, v in slots[2].traits.items() if sum(s.traits[t] == v for s in slots) == 1)
    plan_with(slot0={only: slots[2].traits[only]})
    assert run("gate", *told)[0] == 10
    code, text = run("export", *told)
    assert code == 2 and f"{only}: {slots[2].traits[only]}: 2 items, 1 declared" in text, text
    write_plan(folder, slots)
    plan_with(slot0={trait: values[0]}, slot1={trait: values[1]})
    with Image.open(away) as image:
        image.rotate(90).save(picture)
    fifth, back = version(5)
    assert back["erc4906"] == [[2, 2]], "what was told of it before is no longer true"
    assert back["new"] == [] and back["came_back"] == back["drawn_again"] == [2], "it is not new"
    assert "since alive-v4 1 back again, 1 drawn again\n" in run("verify", str(fifth))[1]
    (fifth / living.CHANGES).write_text(json.dumps(back | {"new": [2], "came_back": [], "drawn_again": []}))
    made_anew(fifth)
    assert run("verify", str(fifth))[0] == 0, "as older versions wrote it"
    first.rename(tmp_path / first.name)
    text = run("verify", str(fifth))[1]
    assert "  not proven: that no more was made than was declared at first: alive-v1 is not beside this one" in text
    (tmp_path / first.name).rename(first)
    named = third.with_name("alive-v2") / living.CHANGES
    whole = named.read_bytes()
    named.write_bytes(b"{")
    code, text = run("verify", str(fifth))
    assert code == 0 and "declared at first: proof/changes.json of alive-v2 is not as it was exported" in text, text
    named.write_bytes(whole)
    for package in (fourth, fifth):
        shutil.rmtree(package)

    warn_if_declared_supply_exceeded(Config(name="alive"), folder, [*slots, slots[0].model_copy(update={"slot": 6})])
    warned = capsys.readouterr().out
    assert (
        "more than the first version of alive declared; as a version of alive export refuses it: 7 items, 6" in warned
    )
    manifest = third / "tagmanifest-sha256.txt"
    kept, stated = manifest.read_text(), (third / "proof" / "changes.json").read_text()
    manifest.write_text("".join(line for line in kept.splitlines(True) if "changes.json" not in line))
    (third / "proof" / "changes.json").unlink()
    code, text = run("export", *told)
    assert code == 2 and "of alive-v3 is not as it was exported" in text, "burned is burned"
    manifest.write_text(kept)
    (third / "proof" / "changes.json").write_text(stated)

    for wrong in ({"drawn_again": []}, {"burned": [77]}, {"merged": [{"into": 77, "burned": []}]}):
        (third / "proof" / "changes.json").write_text(json.dumps(changes | wrong))
        made_anew(third)
        code, text = run("verify", str(third))
        assert code == 2 and "proof/changes.json: it does not say what is other than in alive-v2" in text
    (third / "proof" / "changes.json").write_text(json.dumps(changes | {"burned_before": [2]}))
    made_anew(third)
    assert "item 2 was burned, and is here" in run("verify", str(third))[1]
    (third / "proof" / "changes.json").write_text(json.dumps(changes))
    code, text = run("export", *told)
    assert code == 2 and "changes.json of alive-v3 is not as it was exported" in text
    made_anew(third)

    for wrong, says in (
        ("burn=77", "has no item 77"),
        ("burn=x", "burn: x"),
        ("merge=4+4", "named twice"),
    ):
        code, text = run("export", *told, wrong)
        assert code == 2 and says in text
    plan_with(slot0={"species": "dragon"})
    code, text = run("export", *told)
    assert code == 2 and "plan.parquet in" in text and "is not what the gate knew" in text
    assert run("gate", *told)[0] == 0
    code, text = run("export", *told)
    assert code == 2 and "species: dragon: 1 item, 0 declared" in text and "burn items" in text
    declared = first / "proof" / "plan.jsonl"
    declared.write_text(declared.read_text().replace(f'"{slots[0].traits["species"]}"', '"dragon"'))
    code, text = run("export", *told)
    assert code == 2 and "plan.jsonl of alive-v1 is not as it was exported: nobody knows what was there" in text
    write_plan(folder, slots)
    commitment.write_plan_text_and_commitment(folder, slots)


def test_the_fewest_ranges_cover_what_changed_and_nothing_else() -> None:
    draw = random.Random(0)
    for _ in range(200):
        items = sorted(draw.sample(range(30), draw.randrange(1, 20)))
        changed = set(draw.sample(items, draw.randrange(len(items) + 1)))
        found = living.fewest_ranges_covering_changed_items(changed, items)
        assert {i for i in items if any(a <= i <= b for a, b in found)} == changed
        runs = [i for place, i in enumerate(items) if i in changed and (place == 0 or items[place - 1] not in changed)]
        assert len(found) == len(runs), "two ranges with no other item between them would be one"


def test_nothing_leaves_under_a_licence_that_nobody_knows(run, batch, tmp_path: Path, small_brand: Path) -> None:
    """What is said of the base and of the pictures of the brand goes into provenance and bill of materials."""
    words, folder = batch
    told = [*words, accept_all(tmp_path), "name=licensed"]
    (run_folder,) = files.RUNS.glob("small-*-s0-*/lora")
    (run_folder / "unjudged.png").write_bytes(b"x")
    changed = Image.open(folder / "images" / "00002-0.png")
    changed.putpixel((0, 0), (1, 2, 3))
    changed.save(folder / "images" / "00002-0.png")
    assert run("gate", *told)[0] == 0 and run("export", *told)[0] == 0
    (run_folder / "unjudged.png").unlink()
    package = files.EXPORTS / "licensed-v1"
    names = {path.name for path in (package / "data" / "lora").iterdir()}
    assert names == {"small.safetensors", "small.kohya.safetensors", "README.md"}, "and nothing else that lay there"
    known = {link["what"]: link for link in provenance_of(package)["licences"]}
    assert known["base"]["licence"] == "apache-2.0" and known["data"]["licence"] == "CC0-1.0"
    card = (package / "data" / "README.md").read_text()
    assert "6 pictures accepted by stylegate's gate. They are all that were planned." in card
    counts = Counter(pair for slot in read_plan(folder) for pair in slot.traits.items())
    rows = [row for row in card.splitlines() if re.fullmatch(r"\| .+ \| .+ \| [0-9]+ \|", row)]
    assert rows == [
        f"| {t} | {v} | {n} |" for (t, v), n in sorted(counts.items(), key=lambda r: (r[0][0], -r[1], r[0][1]))
    ]
    lines = sum(path.read_text().count("\n") for path in package.glob("verify*.py"))
    assert f"`verify_*.py` first ({lines} lines in all)" in (package / "VERIFY.md").read_text()
    page = (folder / "report" / "index.html").read_text()
    assert "of 6 pictures passed; an export packs the best one of each slot. 6 slots are filled" in page
    assert "An export packs one of each slot" in page and "may be exported" not in page
    assert "the base model: apache-2.0; the pictures that the LoRA learned from: CC0-1.0" in card
    bom = json.loads((package / "proof" / "bom.cdx.json").read_text())
    parts = {part["name"]: part for part in bom["components"]}
    assert parts["lora"]["modelCard"]["modelParameters"]["datasets"] == [{"ref": "data"}]
    assert parts["data"]["licenses"] == [{"license": {"name": "CC0-1.0"}}]
    assert (package / "data" / "lora" / "README.md").exists()
    (release,) = (package / "data" / "lora").glob("small.safetensors")
    assert files.sha256_of_file(release) == provenance_of(package)["made_from"]["lora_sha256"]
    pipeline = SD.load("miniature", torch.device("cpu"), torch.float32).pipeline
    pipeline.load_lora_weights(str(release.parent), weight_name=release.name)
    assert pipeline.get_active_adapters(), "the LoRA in the package loads in diffusers as it is"
    record = json.loads((package / "data" / "records" / "3.json").read_text())
    assert record["drawn"]["prompt"].startswith("small style") and record["drawn"]["slot"] == 3
    assert record["drawn"]["seed"] == read_plan(folder)[3].seed_of_attempt(0) and "retouched" not in record["drawn"]
    touched = json.loads((package / "data" / "records" / "2.json").read_text())["drawn"]
    assert touched["retouched"] is True and "seed" not in touched, "no seed gives what a person changed"

    before = (small_brand / "brand.yaml").read_text()
    signature.KEY.unlink()
    for licence, says in (("unknown", "is not known"), ("CC-BY-NC-4.0", "is CC-BY-NC-4.0, which forbids")):
        (small_brand / "brand.yaml").write_text(before.replace("CC0-1.0", licence))
        code, text = run("export", *told)
        assert code == 2 and f"the licence of the pictures that the LoRA learned from (brand small) {says}" in text
        assert "Next: write the licence of your own pictures into brand.yaml of brand small; for licences" in text
        assert text.endswith(f"give accept_licence={licence}.\n") and "base model" not in text
        assert len(list(files.EXPORTS.glob("licensed-v*"))) == 1 and not signature.KEY.exists(), "no key for nothing"
    code, text = run("export", *told, "accept_licence=other,CC-BY-NC-4.0", "burn=3")
    assert code == 0 and "a key that signs your packages was made" in text and signature.KEY.exists()
    assert files.sha256_of_file(files.EXPORTS / "licensed-v2" / "signer.pub.pem") in text, (
        "the receiver must be told of it"
    )
    planned, card = len(read_plan(folder)), (files.EXPORTS / "licensed-v2" / "data" / "README.md").read_text()
    assert f"{planned - 1} of {planned} planned pictures" in text and f"{planned - 1} of the {planned} planned" in text
    assert f"{planned} were planned; rarity" in card and "CC-BY-NC-4.0 (accepted by name)" in card
    words = f"'export', 'batch={folder.name}', 'name=licensed', 'accept_licence=CC-BY-NC-4.0'"
    loads = f"from stylegate.cli import main; import sys; sys.exit(main([{words}]) or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loads], cwd=files.ROOT).returncode == 0, "it needs no torch"
    (small_brand / "brand.yaml").write_text(before)
    links = {link["what"]: link["accepted"] for link in provenance_of(files.EXPORTS / "licensed-v2")["licences"]}
    assert links == {"base": False, "data": True}


def test_captions_of_the_brands_pictures_stay_here(run, trained: list[str], tmp_path: Path) -> None:
    words = [*trained, "plan.num_images=2", "batch=captioned", accept_all(tmp_path)]
    for verb in ("plan", "generate", "gate", "export"):
        assert run(verb, *words)[0] == 0
    captions = {slot.prompt.removeprefix("small style, ") for slot in read_plan(files.BATCHES / "captioned")}
    package = files.EXPORTS / "small-v1"
    assert (
        captions and "text" not in files.read_parquet_as_arrow_table(package / "data" / "metadata.parquet").column_names
    )
    for path in package.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(caption.encode() in content for caption in captions), path


def test_rejected_pictures_hold_nobody_else_back_and_the_last_line_says_so(run, judged: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "navy").save(judged / "blank.png")
    (tmp_path / "p.yaml").write_text("version: 1\nchecks: {contrast: {reject_below: 6}}\n")
    told = [f"images={judged}", f"out={tmp_path / 'out'}", f"policy={tmp_path / 'p.yaml'}", "name=mixed"]
    assert run("gate", *told)[0] == 10
    code, text = run("export", *told)
    judged_by = json.loads((tmp_path / "out" / "gate.json").read_text())["policy"]
    named = f"policy {judged_by['name']} {judged_by['sha256'][:12]}"
    wanted = f"mixed-v1 (32 of 33 pictures; 1 reject left here; {named}; the gate ended with exit code 10)"
    assert code == 0 and text.splitlines()[-1].endswith(wanted)


def test_one_picture_at_most_leaves_for_each_slot(run, batch, tmp_path: Path) -> None:
    """Also where policy, waiver or person accepts two attempts; a certificate is of what leaves."""
    words, folder = batch
    told = [*words, accept_all(tmp_path)]
    Image.effect_noise((64, 64), 90).convert("RGB").save(folder / "images" / "00002-1.png")
    assert run("gate", *told)[0] == 0
    rows = {row["file"]: row for row in files.read_jsonl(folder / "verdicts.jsonl")}
    assert rows["00002-0.png"]["verdict"] == rows["00002-1.png"]["verdict"] == "accept"
    worse, better = sorted(("00002-1.png", "00002-0.png"), key=lambda name: rows[name]["margin"])
    code, text = run("export", *told, "name=slots")
    names = names_in(files.EXPORTS / "slots-v1")
    assert code == 0 and len(names) == 6 and better in names and worse not in names
    assert f"another attempt at the same slot is exported: 1 ({worse})" in text

    assert run("certify", *told)[0] == 13
    assert worse not in (folder / "audit.csv").read_text() and better in (folder / "audit.csv").read_text()
    assert run("certify", *told, f"decisions={fill(folder / 'audit.csv', good)}")[0] == 0
    assert run("export", *told, "name=proven")[0] == 0
    code, text = run("verify", str(files.EXPORTS / "proven-v1"))
    assert code == 0 and "6 pictures; certified" in text


def test_a_package_says_who_accepted_its_pictures_and_what_it_lacks(run, batch, tmp_path: Path) -> None:
    words, folder = batch
    images = sorted((folder / "images").glob("*.png"))
    waiver = (
        f"{{sha256: {files.sha256_of_file(images[0])}, check: contrast, owner: bob, reason: ok, expires: 2090-01-01}}"
    )
    (tmp_path / "p.yaml").write_text(f"version: 1\nchecks: {{contrast: {{review_below: 500}}}}\nwaivers: [{waiver}]\n")
    (tmp_path / "d.csv").write_text("file,verdict,who\n" + "".join(f"{p.name},accept,anna\n" for p in images[1:4]))
    told = [*words, f"policy={tmp_path / 'p.yaml'}"]
    assert run("gate", *told, f"decisions={tmp_path / 'd.csv'}")[0] == 11
    code, text = run("export", *told, "name=partly")
    *_, packed, lacks, advice = text.splitlines()
    assert code == 0 and "partly-v1 (4 of 6 planned pictures" in packed
    assert lacks == "The collection is not complete: 4 slots have an accepted picture, 6 are wanted."
    assert advice == f"Next: {PEOPLE_COMPLETE}"
    card = (files.EXPORTS / "partly-v1" / "data" / "README.md").read_text()
    assert "4 pictures accepted: 3 by a person, 1 by a waiver of the policy. 6 were planned; rarity" in card

    (tmp_path / "d.csv").write_text(f"file,verdict,who\n{images[0].name},reject,anna\n")
    assert run("gate", *words, accept_all(tmp_path), f"decisions={tmp_path / 'd.csv'}")[0] == 10
    text = run("export", *words, accept_all(tmp_path), "name=partly")[1]
    assert text.endswith(f"5 slots have an accepted picture, 6 are wanted.\nNext: {DRAWING_COMPLETES}\n"), text


def test_an_item_keeps_its_picture_while_that_is_accepted(run, batch, tmp_path: Path) -> None:
    """A better attempt replaces what an earlier version has only where somebody rejected that, or it is gone."""
    words, folder = batch
    told, first, better = [*words, accept_all(tmp_path)], "00002-0.png", "00002-1.png"
    assert run("gate", *told)[0] == 0 and run("export", *told, "name=kept")[0] == 0
    Image.effect_noise((64, 64), 90).convert("RGB").save(folder / "images" / better)
    assert run("gate", *told)[0] == 0
    margins = {row["file"]: row["margin"] for row in files.read_jsonl(folder / "verdicts.jsonl")}
    assert margins[better] > margins[first]
    text = run("export", *told, "name=kept")[1]
    assert f"another attempt at the same slot is exported: 1 ({better})" in text and "kept-v2 (6 of 6" in text, text
    changes = json.loads((files.EXPORTS / "kept-v2" / living.CHANGES).read_text())
    assert changes["new"] == changes["drawn_again"] == changes["erc4906"] == []
    assert run("export", *told, "name=other")[0] == 0
    assert better in names_in(files.EXPORTS / "other-v1"), "which has sold nothing yet"

    sold = (folder / "images" / first).rename(tmp_path / first)
    code, text = run("export", *told, "name=kept")
    assert code == 10 and f"{first} is gone" in text, "it is the gate that says so"
    for path in (folder / "images").glob("00002-*"):
        path.rename(tmp_path / path.name)
    run("gate", *told)
    assert "kept-v3 (5 of 6" in run("export", *told, "name=kept")[1], "left out"
    for name in (sold.name, better):
        (tmp_path / name).rename(folder / "images" / name)
    run("gate", *told)
    assert "kept-v4 (6 of 6" in run("export", *told, "name=kept")[1]
    changes = json.loads((files.EXPORTS / "kept-v4" / living.CHANGES).read_text())
    assert changes["came_back"] == [2] and changes["new"] == changes["drawn_again"] == []
    assert first in names_in(files.EXPORTS / "kept-v4"), "as it was sold"

    (tmp_path / "d.csv").write_text(f"file,verdict,who\n{first},reject,anna\n")
    run("gate", *told, f"decisions={tmp_path / 'd.csv'}")
    assert "kept-v5 (6 of 6" in run("export", *told, "name=kept")[1]
    changes = json.loads((files.EXPORTS / "kept-v5" / living.CHANGES).read_text())
    assert better in names_in(files.EXPORTS / "kept-v5") and changes["drawn_again"] == [2]
    assert run("verify", str(files.EXPORTS / "kept-v5"))[0] == run("verify", str(files.EXPORTS / "kept-v4"))[0] == 0


def test_a_planned_batch_leaves_as_a_planned_batch(run, batch, tmp_path: Path) -> None:
    """Verdicts of a plan do not let all attempts of a slot leave as pictures of a folder, nor the other way round."""
    words, folder = batch
    as_folder = [f"images={folder / 'images'}", f"out={folder}", "name=either"]
    shutil.copy(folder / "images" / "00002-0.png", folder / "images" / "000002-0.png")  # no name of an attempt
    code, text = run("gate", *words, accept_all(tmp_path))
    assert code == 0 and "no pictures of the plan: 1 file (000002-0.png)" in text
    assert run("export", *as_folder)[0] == 2
    assert run("gate", *as_folder, accept_all(tmp_path))[0] == 0
    code, text = run("export", *words, "name=either")
    assert code == 2 and "are of a folder, and the arguments name a planned batch" in text
    assert not list(files.EXPORTS.glob("either-v*"))


def test_what_came_after_the_gate_is_named_and_holds_back_a_lot_that_is_judged_as_a_whole(
    run, judged: Path, tmp_path: Path
) -> None:
    told = [f"images={judged}", f"out={tmp_path / 'out'}", f"policy={tmp_path / 'p.yaml'}"]
    for number, rule in enumerate(("", "batch: {acceptance: {fail_below: 0.9}}", "fail_batch_below"), start=1):
        line = "contrast: {reject_below: 6}" if rule != "fail_batch_below" else "contrast: {fail_batch_below: 6}"
        (tmp_path / "p.yaml").write_text(f"version: 1\nchecks: {{{line}}}\n{rule if ':' in rule else ''}\n")
        assert run("gate", *told)[0] == 0
        Image.new("RGB", (64, 64), "navy").save(judged / f"late{number}.png")
        code, text = run("export", *told, f"name=late{number}")
        (judged / f"late{number}.png").unlink()
        left = bool(list(files.EXPORTS.glob(f"late{number}-v1")))
        assert code == 10 and left == (rule == "")
        assert f"1 (late{number}.png) came" in text if left else f"came after the gate: 1 (late{number}.png)" in text


def test_no_package_has_a_hidden_name(run, judged: Path, tmp_path: Path) -> None:
    """Later gates compare with every package that they see."""
    told = [f"images={judged}", f"out={tmp_path / '.verdicts'}"]
    assert run("gate", *told)[0] == 0 and run("export", *told)[0] == 0
    assert [path.name for path in files.EXPORTS.iterdir()] == ["verdicts-v1"]


def test_a_failed_export_leaves_nothing(run, batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, _ = batch
    run("gate", *words, accept_all(tmp_path))
    from eval.package import fill

    def full(*arguments):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(fill, "provenance_of_package", full)
    code, text = run("export", *words, "name=never")
    assert code == 2 and "no space left" in text
    assert not list(files.EXPORTS.glob("*never*"))


def rewritten(package: Path, name: str, text: str) -> None:
    """Change a file and the manifests with it: only the agreement of the parts can tell."""
    (package / name).write_text(text)
    made_anew(package)


def with_counts(provenance: dict, **counts: int) -> dict:
    """Provenance with other counts, whose sum is right."""
    found = provenance["counts"] | counts
    found["accept"] = found["in"] - found["review"] - found["reject"] - found["error"]
    return provenance | {"counts": found}


def replaced(package: Path, name: str, old: str, new: str) -> None:
    """Replace a text of a file that has it, and change the manifests with it."""
    before = (package / name).read_text()
    assert old in before
    rewritten(package, name, before.replace(old, new))


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (lambda p: next((p / "data" / "images").iterdir()).write_bytes(b"x"), ".png: changed"),
        (lambda p: next((p / "data" / "images").iterdir()).unlink(), ".png: missing"),
        (lambda p: (p / "data" / "images" / "more.png").write_bytes(b"x"), "more.png: added"),
        (lambda p: (p / "more").mkdir(), "more/: added"),
        (lambda p: (p / "link").symlink_to("/etc"), "link: no plain file"),
        (lambda p: os.mkfifo(p / "pipe"), "pipe: no plain file"),
        (
            lambda p: rewritten(p, "data/metadata/erc721/3.json", '{"attributes": []}'),
            "erc721/3.json: it shows another picture than that of item 3",
        ),
        (lambda p: rewritten(p, "data/records/3.json", "{}"), "verdict: missing"),
        (
            lambda p: replaced(p, "data/records/3.json", '"accept"', '"reject"'),
            "records/3.json does not say that the policy in provenance.json accepted it",
        ),
        (
            lambda p: rewritten(p, "data/provenance.json", json.dumps(with_counts(provenance_of(p), review=-1))),
            "counts.review: input should be greater than or equal to 0",
        ),
        (lambda p: rewritten(p, "data/provenance.json", "{}"), "provenance.json is not as stylegate writes it"),
        (lambda p: rewritten(p, "data/provenance.json", "[]"), "provenance.json is not as stylegate writes it"),
        (lambda p: (p / "manifest-sha256.txt").unlink(), "manifest-sha256.txt is missing"),
        (lambda p: (p / "manifest-sha256.txt").write_text("words\n"), "is not a checksum and a name"),
    ],
)
def test_verify_sees_every_change(run, judged: Path, tmp_path: Path, tamper, says: str) -> None:
    words = (f"images={judged}", f"out={tmp_path / 'out'}")
    run("gate", *words)
    assert run("export", *words, "name=tampered")[0] == 0
    package = files.EXPORTS / "tampered-v1"
    try:
        assert run("verify", str(package))[0] == 0
        tamper(package)
        code, text = run("verify", str(package))
        assert code == 2 and says in text
    finally:
        shutil.rmtree(package)


def test_verify_says_of_a_batch_that_it_is_one(run, batch) -> None:
    folder = batch[1]
    code, text = run("verify", str(folder))
    assert code == 2 and f"{folder} is a batch, not a package\nNext: stylegate export batch={folder.name} " in text


def test_a_tampered_package_is_not_taken_for_the_same(run, judged: Path, tmp_path: Path) -> None:
    """Also where the package's name would be a pattern."""
    words = (f"images={judged}", f"out={tmp_path / 'again [v=1]'}")
    run("gate", *words)
    run("export", *words)
    next((files.EXPORTS / "again [v=1]-v1" / "data" / "images").iterdir()).write_bytes(b"x")
    code, text = run("export", *words)
    assert code == 0 and "again [v=1]-v2 (32 of 32 pictures; policy default " in text.splitlines()[-1]


def test_foreign_files_in_a_batch_are_left_alone(run, batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where words are forgotten, the batches that exist are named."""
    words, folder = batch
    folder = Path(shutil.move(folder, tmp_path / "batches" / folder.name))
    monkeypatch.setattr(files, "BATCHES", tmp_path / "batches")  # where it is the only one
    for verb in ("generate", "gate", "export"):
        code, text = run(verb, *(word for word in words if not word.startswith("batch=")))
        assert code == 2 and "there is no batch small-" in text and f"name one: batch={folder.name}" in text
    for name in ("mine.png", "00000-0 copy.png"):
        shutil.copy(folder / "images" / "00000-0.png", folder / "images" / name)
    code, text = run("gate", *words)
    assert code in (0, 10, 11) and "6 in = " in text


def test_prompts_file_and_captions_as_plans(run, trained: list[str], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n\nsmall style, a dog\n")
    words = [*trained, "batch=prompts", f"prompts={tmp_path / 'p.txt'}", "plan.num_images=2"]
    assert run("plan", *words)[0] == 0
    assert [s.prompt for s in read_plan(files.BATCHES / "prompts")] == ["small style, a cat", "small style, a dog"]
    assert run("plan", *trained, "batch=captions", "plan.num_images=3")[0] == 0
    assert len(read_plan(files.BATCHES / "captions")) == 3
    code, text = run("plan", *trained, "batch=prompts", "plan.num_images=2")
    assert code == 2 and "was made from something else" in text


def test_the_command_that_makes_a_missing_lora_names_the_same_run(run_exactly) -> None:
    words = ["brand=neon", "train.learning_rate=0.0001", "train.scales=[0.8,1.0]", "train.max_steps=150", "lora.rank=4"]
    code, text = run_exactly("plan", *words, "train.buckets=false", "traits=collectible", "hardware=cpu")
    missing, command = re.findall(
        r"(\S+)/lora/neon.safetensors is missing\nNext: stylegate train (.*) makes it;", text
    )[0]
    assert code == 2 and "train.buckets=false" in command and "train.scales=[0.8,1.0]" in shlex.split(command)
    code, text = run_exactly("train", *shlex.split(command), "dry_run=true")
    assert code == 0 and missing in text, text
    code, text = run_exactly("generate", "traits=collectible")
    assert code == 2 and "Next: give brand=, and what else was given to stylegate train." in text


def test_before_the_first_plan_the_plan_is_what_comes_next(
    run_exactly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCHES", tmp_path / "batches")
    for verb in ("generate", "gate", "review", "export"):
        code, text = run_exactly(verb, "batch=nothing")
        assert code == 2 and "there is no batch nothing in " in text, text
        assert text.endswith("Next: run stylegate plan first, with the same arguments.\n"), text


def test_no_lora_yet(run) -> None:
    code, text = run("plan", "brand=pixel", "traits=collectible")
    assert code == 2 and "no LoRA has been trained with these arguments" in text and "lora_file=none" in text


def test_base_alone_can_be_drawn(run, trained: list[str]) -> None:
    words = [*trained, "lora_file=none", "batch=alone", "plan.num_images=2", "traits=collectible"]
    assert run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
    assert len(pngs(files.BATCHES / "alone")) == 2


def test_export_reads_every_byte_again_whatever_is_remembered(run, judged: Path, tmp_path: Path) -> None:
    """The gate trusts a remembered digest (docs/trust.md); what leaves the house is read."""
    words = (f"images={judged}", f"out={tmp_path / 'out'}")
    picture = judged / "0032.png"
    run("gate", *words)
    sha256 = files.sha256_of_file(picture)
    Image.new("RGB", (64, 64), "navy").save(picture)
    digests.remember_digests(
        {os.fsencode(picture): digests.RememberedDigest(digests.current_file_state(picture), sha256)}
    )
    assert digests.sha256_of_files([picture]) == [sha256] != [files.sha256_of_file(picture)]
    run("gate", *words)
    code, text = run("export", *words, "name=trusted")
    assert code == 10 and "are not what the gate judged: 1 (0032.png was changed)" in text
    assert not list(files.EXPORTS.glob("trusted-v*"))
