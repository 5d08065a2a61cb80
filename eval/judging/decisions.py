"""Decisions: what people say about pictures in review, kept with the reasons that it answers."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from eval.judging.judged import JudgedLot
from eval.judging.verdicts import Verdict
from eval.promise import labels, store
from eval.promise.labels import StoredLabel, label_with_policy
from eval.promise.worksheet import (
    VERDICTS,
    WorksheetQuestion,
    comparison_key_of_label,
    parse_trait_and_value_shown,
    read_worksheet_answers,
    write_worksheet,
)
from stylegate import files
from stylegate.words import counted

WORKSHEET = "review.csv"


def store_decisions_from_table(path: Path, judged: JudgedLot) -> None:
    """Store the decisions in the table `path`, each with the policy and the checks it speaks of.

    A decision speaks of the checks that hold the picture in review now. If its row of the table names checks, it
    speaks of those among them alone. A row that was recorded before is not recorded again, also under another policy;
    a row that names this policy itself is. Prints how many were read and kept. Raises DataError listing every problem
    of the table.
    """
    out, policy = judged.lot.out, judged.policy
    present: dict[str, set[str]] = {}
    for verdict in judged.verdicts:
        present.setdefault(verdict.sha256, set()).update(checks_that_caused_review(verdict))
    latest = {label.sha256: label for label in labels.read_stored_labels(out, "review")}
    counting = labels.valid_labels_by_sha256(out, "review", policy)
    names = judged.lot.planned_traits_by_name()
    planned = {judged.lot.sha256[name]: traits for name, traits in names.items()}
    values = all_planned_values_by_trait(names.values())

    def shown_and_problems(sha256: str, shows: str) -> tuple[dict[str, str], list[str]]:
        return traits_shown_otherwise_and_problems(shows, planned.get(sha256, {}), values)

    answers = read_worksheet_answers(
        path, "review", out, judged.lot.sha256, policy, lambda sha256, shows: shown_and_problems(sha256, shows)[1]
    )
    new_ones: list[StoredLabel] = []
    for answer in answers:
        label, standing = answer.label, present[answer.label.sha256]
        checks = sorted(standing if answer.checks is None else standing & set(answer.checks))
        seen = shown_and_problems(label.sha256, answer.shows)[0]
        new = label_with_policy(label, policy, checks=checks, shown_traits=seen)
        before, counts = latest.get(label.sha256), counting.get(label.sha256)
        repeated = before is not None and (comparison_key_of_label(before), before.shown_traits) == (
            comparison_key_of_label(label),
            seen,
        )
        in_force = counts is not None and (comparison_key_of_label(counts), counts.checks, counts.shown_traits) == (
            comparison_key_of_label(label),
            checks,
            seen,
        )
        if not in_force and not (repeated and not answer.policy_sha256):
            new_ones.append(new)
    labels.append_labels(out, "review", new_ones)
    given = Counter(answer.label.verdict for answer in answers)
    listed = ", ".join(f"{given[word]} {word}" for word in VERDICTS if given[word]) or "no row has a verdict"
    kept = f"{len(new_ones)} new in {files.display_path(out / store.STORE)}" if answers else "nothing is kept"
    print(f"decisions: {counted(len(answers), 'row')} of {path} read ({listed}); {kept}")


def traits_shown_otherwise_and_problems(
    shows: str, traits: Mapping[str, str], values: Mapping[str, Collection[str]]
) -> tuple[dict[str, str], list[str]]:
    """The traits that a cell `shows` says a picture shows otherwise than planned, and what is wrong with the cell.

    `traits` are those that were planned for the picture, `values` the planned values of every trait. A value alone is
    enough where one trait alone has it.
    """
    there = {trait: values[trait] for trait in traits}
    shown, problems = dict[str, str](), []
    for part in filter(None, map(str.strip, shows.split(";"))):
        try:
            trait, value = parse_trait_and_value_shown(part, there)
        except ValueError as error:
            problems.append(f"shows {error}")
        else:
            shown |= {trait: value}
    return {trait: value for trait, value in shown.items() if traits[trait] != value}, problems


def all_planned_values_by_trait(planned: Iterable[Mapping[str, str]]) -> dict[str, set[str]]:
    """The values that a plan has for each trait; absence (none) is always one."""
    values: dict[str, set[str]] = {}
    for traits in planned:
        for trait, value in traits.items():
            values.setdefault(trait, {"none"}).add(value)
    return values


def checks_that_caused_review(verdict: Verdict) -> list[str]:
    """The names of the checks that put a picture into review, the worst one first; also those that a person has
    settled.
    """
    settled = verdict.settled.reasons if verdict.settled else []
    return list(dict.fromkeys(found.check for found in [*verdict.reasons, *settled] if found.verdict == "review"))


def write_review_worksheet(judged: JudgedLot) -> None:
    """Write review.csv, with a row to fill in for each picture in review; only its header if there is none.

    What a person wrote into it and is not stored, or left the picture open, stays in it.
    """
    waiting = [verdict for verdict in judged.verdicts if verdict.verdict == "review"]
    path, slots = judged.lot.out / WORKSHEET, judged.lot.slots or {}
    rows = [
        WorksheetQuestion(
            v.file, v.sha256, slots[v.file].prompt if v.file in slots else "", tuple(checks_that_caused_review(v))
        )
        for v in waiting
    ]
    write_worksheet(path, "review", rows, judged.policy, judged.lot.sha256)
