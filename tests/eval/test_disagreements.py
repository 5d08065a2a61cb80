"""Several reviewers: all their labels stay, and it is said where they disagree."""

import json
from pathlib import Path

import pytest

from eval.policy import file as policyfile
from eval.promise import labels
from eval.promise.disagreements import (
    ADJUDICATION,
    agreement_of_reviewers,
    disagreements,
    notes_on_disagreements,
    self_agreement_by_reviewer,
)
from tests.eval.people import ALL_IN_REVIEW, label, verdicts_of

POLICY = policyfile.read_policy("default")
A, B, C = (f"{i:064x}" for i in range(3))


def say(out: Path, who: str, sha256: str, verdict: labels.LabelName, asked_for: str = "") -> labels.StoredLabel:
    new = labels.label_with_policy(label(sha256, verdict, who), POLICY, asked_for=asked_for)
    return labels.append_labels(out, "review", [new])[0]


def test_who_disagreed_about_what(tmp_path: Path) -> None:
    opinions: dict[str, tuple[labels.LabelName, ...]]
    opinions = {"anna": ("accept", "accept", "reject"), "ben": ("accept", "unsure", "reject")}
    for who, verdicts in opinions.items():
        for sha256, verdict in zip((A, B, C), verdicts, strict=True):
            say(tmp_path, who, sha256, verdict)
    (found,) = disagreements(tmp_path, "review", POLICY)
    assert found.sha256 == B and found.settled is None
    assert [(one.who, one.verdict) for one in found.labels] == [("anna", "accept"), ("ben", "unsure")]
    assert notes_on_disagreements(tmp_path, POLICY) == [
        "reviewers disagree about 1 picture: the last decision about each counts; stylegate review queue=disagreements "
        "settles them"
    ]
    assert agreement_of_reviewers(tmp_path, "review", POLICY).raw.value == pytest.approx(2 / 3)
    settled = say(tmp_path, "cleo", B, "reject", ADJUDICATION)
    (found,) = disagreements(tmp_path, "review", POLICY)
    assert found.settled == settled and len(found.labels) == 2 and not notes_on_disagreements(tmp_path, POLICY)
    assert agreement_of_reviewers(tmp_path, "review", POLICY).raw.value == pytest.approx(2 / 3), "it is no opinion"
    labels.append_undo(tmp_path, "review", settled.id, "cleo")
    changed = say(tmp_path, "ben", B, "accept")
    assert not disagreements(tmp_path, "review", POLICY), "a reviewer may change an opinion"
    labels.append_undo(tmp_path, "review", changed.id, "ben")
    assert disagreements(tmp_path, "review", POLICY)
    assert not disagreements(tmp_path, "audit", POLICY)


def test_a_repeat_says_how_far_a_reviewer_agrees_with_himself(tmp_path: Path) -> None:
    given: list[tuple[str, labels.LabelName]] = [(A, "accept"), (B, "reject")]
    for sha256, again in given:
        say(tmp_path, "anna", sha256, "accept")
        say(tmp_path, "ben", sha256, "accept")
        say(tmp_path, "anna", sha256, again, "repeat")
    found = self_agreement_by_reviewer(tmp_path, "review", POLICY)
    assert list(found) == ["anna"] and found["anna"].raw.value == 0.5 and found["anna"].pictures == 2
    assert not disagreements(tmp_path, "review", POLICY)


def test_a_gate_says_that_reviewers_disagree(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    name, row = next(iter(verdicts_of(out).items()))
    policy = policyfile.read_policy(str(tmp_path / "policy.yaml"))
    given: list[tuple[str, labels.LabelName]] = [("anna", "reject"), ("ben", "accept")]
    for who, verdict in given:
        new = labels.label_with_policy(label(row["sha256"], verdict, who), policy, checks=["contrast"])
        labels.append_labels(out, "review", [new])
    code, text = run("gate", *told)
    assert code == 11 and verdicts_of(out)[name]["verdict"] == "accept" and "reviewers disagree about 1 picture" in text
    assert any("reviewers disagree" in note for note in json.loads((out / "gate.json").read_text())["notes"])
