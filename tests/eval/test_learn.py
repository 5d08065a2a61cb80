"""`stylegate learn`: what decisions teach, what they may never touch, and what is said of it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from eval.judging.byscores import settle_review_reasons_by_aesthetic_score
from eval.judging.verdicts import Reason, make_reason
from eval.learn import notes_on_void_evidence
from eval.learning.advice import advice_on_captions
from eval.learning.decisions import usable_decisions
from eval.learning.gains import (
    area_under_roc_curve,
    largest_share_that_can_be_accepted,
    lowest_acceptable_score,
    ranking_gain_of_new_scores,
)
from eval.lot.batch import read_plan
from eval.lot.comparison import ComparisonPictures, pictures_and_traits_of_split
from eval.lot.lot import Lot
from eval.measuring.columns import compute_scores_into_measured_lot
from eval.measuring.previews import PreviewScorer
from eval.policy import file as policyfile
from eval.policy.model import LearntFromDecisions
from eval.promise import labels
from eval.promise.label import Purpose
from eval.promise.labels import label_with_policy
from eval.reviewing import server
from stylegate import brandset, files
from stylegate.config import Config
from tests.eval.people import label

Run = Callable[..., tuple[int, str]]
REVIEWED = "version: 1\nchecks: {contrast: {reject_below: 1}, style: {review_below: 2}}\n"
"""Every picture is in review for its style."""


def decide(out: Path, policy: Path, pictures: Path, accepts: Callable[[Path], bool], purpose: str = "review") -> None:
    """Store what a person says of each picture of a folder."""
    rule = policyfile.read_policy(str(policy))
    given = [
        label_with_policy(
            label(files.sha256_of_file(path), "accept" if accepts(path) else "reject"), rule, checks=["style"]
        )
        for path in sorted(pictures.glob("*.png"))
    ]
    labels.append_labels(out, purpose, given)  # type: ignore[arg-type]


def warm(path: Path) -> bool:
    """A taste that no check of the gate knows, and that the head can see."""
    pixels = np.asarray(Image.open(path).convert("RGB"), float)
    return float((pixels[..., 0] - pixels[..., 2]).mean()) > 12


def test_what_people_decided_is_learned_and_the_gate_without_it_stays_as_it_was(
    run_exactly: Run, words: Callable[[str], list[str]], judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out, policy = words(REVIEWED), tmp_path / "out", tmp_path / "policy.yaml"
    code, text = run_exactly("learn", *given)
    assert code == 2 and "0 pictures are accepted; at least 10 are needed" in text and not (out / "learnt").exists()
    decide(out, policy, judged, lambda path: True)
    code, text = run_exactly("learn", *given)
    assert code == 2 and "0 pictures are rejected; at least 10 are needed" in text  # one-sided
    shutil.rmtree(out)
    words(REVIEWED)
    run_exactly("gate", *given)
    before = {name: (out / name).read_bytes() for name in ("verdicts.jsonl", "gate.json", "scores.parquet")}

    some = sorted(judged.glob("*.png"))
    proving = tmp_path / "proving"
    proving.mkdir()
    shutil.copy(some[0], proving)
    decide(out, policy, proving, lambda path: True, "audit")
    decide(out, policy, judged, warm)
    of_another_lot = label_with_policy(label("ab" * 32), policyfile.read_policy(str(policy)), checks=["style"])
    labels.append_labels(out, "review", [of_another_lot])
    code, text = run_exactly("learn", *words(REVIEWED + "guideline: nothing that is cold\n"))
    assert code == 2 and "0 pictures are accepted" in text and "another policy" in text, "decided by another guideline"
    words(REVIEWED)
    code, text = run_exactly("learn", *given)
    assert "note: 1 decision about pictures that are not in this lot" in text
    assert code == 0 and "1 picture that an audit, a calibration or a sample of rejects labelled too: evidence" in text
    assert "the learnt policy is recommended" in text, text
    assert "these count for nothing, and under policy as before: labels of an audit, decisions" in text
    new = Path(text.strip().splitlines()[-1])
    learnt = policyfile.read_policy(str(new)).learnt
    assert learnt and files.sha256_of_file(new.parent / learnt.file) == learnt.sha256
    assert files.sha256_of_file(some[0]) not in (new.parent / learnt.file).read_bytes().decode(errors="ignore")
    assert "for review, now accepted" in (out / "learnt" / "report" / "index.html").read_text()

    assert (out / "scores.parquet").read_bytes() == before["scores.parquet"]
    shutil.copytree(out, tmp_path / "again", ignore=shutil.ignore_patterns("labels*"))
    apart = [word for word in given if not word.startswith("out=")] + [f"out={tmp_path / 'again'}"]
    run_exactly("gate", *apart)
    for name, content in before.items():
        assert (tmp_path / "again" / name).read_bytes() == content, name

    run_exactly("gate", *given)
    assert "../learnt/report/index.html" in (out / "report" / "index.html").read_text(), "the report links to it"
    assert (out / "learnt" / "report" / "../../report/index.html").resolve().is_file()

    taught = [word for word in apart if not word.startswith("policy=")] + [f"policy={new}"]
    run_exactly("gate", *taught)
    record = json.loads((tmp_path / "again" / "gate.json").read_text())
    assert record["learnt"] == learnt.sha256 and record["counts"]["accept"] > 5 and record["counts"]["reject"] > 5
    require_previews_scored_as_pictures(run_exactly, new, tmp_path)
    code, text = run_exactly("learn", *taught)
    assert code == 2 and "0 pictures are rejected; at least 10 are needed" in text and "of other lots" in text, text
    for word, what in (
        ("brand=pixel", "are of the brand neon, the lot is of pixel"),
        ("score.aesthetic_head=laion-v2", "gives another"),
    ):
        code, text = run_exactly("gate", *taught, word)
        assert code == 2 and what in text
    named = {"file": learnt.file, "sha256": learnt.sha256}
    (new.parent / "calibrated.yaml").write_text(f"version: 1\nchecks: {{aesthetic: calibrated}}\nlearnt: {named}\n")
    monkeypatch.setattr(server, "serve_until_stopped", lambda *_: None)
    asked = [word for word in apart if not word.startswith("policy=")] + [f"policy={new.parent / 'calibrated.yaml'}"]
    for verb in (["calibrate"], ["review", "queue=calibration", "open=false"]):
        code, text = run_exactly(*verb, *asked)
        assert code == 2 and "pictures of this lot that the policy learned from cannot calibrate it" in text, text
    assert not (tmp_path / "again" / "calibrate.csv").exists()

    shutil.rmtree(tmp_path / "again")
    for content, what in ((b"other", "not the file that the policy names"), (None, "is not there")):
        (new.parent / learnt.file).unlink()
        if content:
            (new.parent / learnt.file).write_bytes(content)
        code, text = run_exactly("gate", *taught)
        assert code == 2 and what in text and not (tmp_path / "again" / "gate.json").exists()


def require_previews_scored_as_pictures(run_exactly: Run, policy: Path, tmp_path: Path) -> None:
    """Previews of several batches have the scores that the gate would compute of them, the learnt head's too."""
    (tmp_path / "p.txt").write_text("a red cat\na ghost\n")
    words = [f"prompts={tmp_path / 'p.txt'}", "brand=neon", "lora_file=none", "batch=taught", "plan.num_images=4"]
    assert run_exactly("plan", *words)[0] == 0
    folder = files.BATCHES / "taught"
    scorer = PreviewScorer(Config(brand="neon", policy=str(policy)), folder, torch.device("cpu"))
    shown = [Image.open(path) for path in sorted((brandset.brand_folder("neon") / "validation").glob("*.png"))[:4]]
    slots = [(slot, 0) for slot in read_plan(folder)]
    scorer.score_previews(slots[:2], shown[:2])
    found = scorer.score_previews(slots[2:], shown[2:])
    assert scorer.measured is not None
    whole = replace(scorer.measured, columns={}, own={})
    compute_scores_into_measured_lot(whole)
    for name in found[0]:
        assert [row[name] for row in found] == pytest.approx(whole.columns[name].tolist(), rel=1e-4), name
    assert len({row["aesthetic"] for row in found}) == 2


def test_all_evidence_that_a_new_policy_makes_void_is_named(tmp_path: Path) -> None:
    rule, lot = policyfile.read_policy("default"), Lot(tmp_path, tmp_path, [], {}, None, None)
    for name in ("calibration.json", "certificate.json", "trait-certificate.json"):
        (lot.out / name).write_text("{}")
    for number, purpose in enumerate(get_args(Purpose)):
        labels.append_labels(lot.out, purpose, [label_with_policy(label(f"{number:064x}", "reject"), rule)])
    (said,) = notes_on_void_evidence(lot, rule)
    assert said.partition(": ")[2].split(", ") == [
        *("calibration.json", "certificate.json", "trait-certificate.json"),
        *("labels of a calibration", "labels of an audit", "labels of an audit of traits"),
        *("labels of a sample of rejects", "decisions"),
    ]


@pytest.mark.parametrize("purpose", [purpose for purpose in get_args(Purpose) if purpose not in ("review", "traits")])
def test_pictures_of_every_kind_of_evidence_are_left_out(tmp_path: Path, purpose: Purpose) -> None:
    """A sample of rejects as well: its labels are as random as an audit's, and mend no reader that they measure."""
    rule, shown, plain = policyfile.read_policy("default"), "a" * 64, "b" * 64
    lot = Lot(tmp_path, tmp_path, [], {"shown.png": shown, "plain.png": plain}, None, None)
    decisions = [label_with_policy(label(sha256), rule, checks=["style"]) for sha256 in (shown, plain)]
    labels.append_labels(lot.out, "review", decisions)
    labels.append_labels(lot.out, purpose, [label_with_policy(label(shown, "reject"), rule)])
    given, notes = usable_decisions(lot, rule)
    assert list(given) == [plain]
    assert [note for note in notes if note.startswith("1 picture that an audit") and "never learned from" in note]


def test_areas_and_yields_are_those_of_plain_counting() -> None:
    random = np.random.default_rng(3)
    for _ in range(40):
        scores, good = random.integers(0, 12, 30).astype(float), random.random(30) < 0.6
        assert area_under_roc_curve(scores, good) == pytest.approx(roc_auc_score(good, scores))
        shares = [(scores >= line).mean() for line in set(scores) if (~good[scores >= line]).mean() <= 0.2]
        assert largest_share_that_can_be_accepted(scores, good, 0.2) == pytest.approx(max(shares, default=0.0))
        line = lowest_acceptable_score(list(scores), list(good), 0.2)
        assert (line is None) == (not shares) and (
            line is None or (scores >= line).mean() == pytest.approx(max(shares))
        )


def test_a_head_that_learned_nothing_is_not_recommended() -> None:
    random = np.random.default_rng(4)
    good, margin = random.random(120) < 0.5, random.normal(size=120)
    found = [ranking_gain_of_new_scores("x", good, margin, random.normal(size=120)) for _ in range(6)]
    assert sum(one.is_measurably_better for one in found) <= 1
    assert ranking_gain_of_new_scores("x", good, margin, good + random.normal(size=120)).is_measurably_better
    assert not ranking_gain_of_new_scores("x", np.arange(120) < 9, margin, margin).has_enough_pictures_to_compare


def test_the_head_answers_for_review_alone_and_only_where_it_reads() -> None:
    reasons = [make_reason("style", "review", 0.1, 0.2), make_reason("sharpness", "review", 0.1, 0.2)]
    learnt = LearntFromDecisions(file="x", sha256="0" * 64, accept_from=1.0, reject_below=-1.0)

    def answered(value: float | None, *of: Reason) -> dict[str, str]:
        settled = settle_review_reasons_by_aesthetic_score([*reasons, *of], value, learnt)
        return {one.check: one.verdict for one in settled}

    assert answered(2.0) == {"sharpness": "review", "style": "warn"}
    assert answered(-2.0) == {"style": "reject", "sharpness": "review"}
    for unsure in (0.0, None, float("nan")):
        assert answered(unsure) == {"style": "review", "sharpness": "review"}
    assert answered(2.0, make_reason("brand", "reject", 0.1, 0.2))["brand"] == "reject"


def test_advice_on_captions_reads_a_brand_set_with_subfolders(tmp_path: Path) -> None:
    plain, nested = brandset.brand_folder("neon"), tmp_path / "neon"
    shutil.copytree(plain, nested)
    rows = files.read_jsonl(nested / "train" / "metadata.jsonl")
    for row in rows[:3]:
        (nested / "train" / "more").mkdir(exist_ok=True)
        (nested / "train" / row["file_name"]).rename(nested / "train" / "more" / row["file_name"])
        row["file_name"] = f"more/{row['file_name']}"
    for row in rows:
        row["text"] += ", a photograph"
    files.write_jsonl(nested / "train" / "metadata.jsonl", rows)
    trigger = brandset.read_brand_file(nested).trigger
    training = pictures_and_traits_of_split(nested, "train")[0]
    (said,) = advice_on_captions(ComparisonPictures([], training, [], "#ffffff", "keep", trigger, "neon", {}, {}))
    assert "'photograph' (100%)" in said, said
