"""Does the machine of tests/machine.py find each fix of the gate when it is taken out?

    python -m tests.bench.mutate_gate

Each fix is undone by putting the old behaviour in place of a function, then the machine runs 200 sequences a seed until
it fails. Prints a line of a table for each: the fix, the sequence that found it, its steps, the seed.
"""

import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tests.conftest  # noqa: F401  (a home of its own)
from eval import export as exporting
from eval.judging.judge import evidence_digests
from eval.lot import comparison
from eval.lot.lot import origin_digests_of_lot, read_lot
from eval.promise import labels
from stylegate import files
from stylegate.errors import DataError
from stylegate.listing import FolderListing, list_folder
from tests.machine import GateMachine, lean, search

READERS = ("judging.judge", "export")  # modules that read evidence and choose what leaves
SEEDS, SEQUENCES = range(10), 200
Patches = dict[str, Any]  # by dotted name: what stands in its place


def working_directory_first() -> Patches:
    real = files.resolve_name_or_path

    def named(value: str, places: list[Path], what: str, suffix: str = "") -> Path:
        return Path(value).resolve() if value and Path(value).is_file() else real(value, places, what, suffix)

    return {"stylegate.files.resolve_name_or_path": named}


def policies_that_judge_nothing() -> Patches:
    return {
        "eval.policy.file.can_keep_from_acceptance": lambda check: True,
        "eval.policy.lines.ResolvedCheckLines.can_keep_from_acceptance": lambda self: True,
    }


def labels_of_any_policy() -> Patches:
    real = labels.valid_labels_by_sha256

    def counting(out: Path, purpose: Any, policy: Any, under: str = "") -> dict:
        if purpose == "review":
            return real(out, purpose, policy, under)
        return {label.sha256: label for label in labels.read_stored_labels(out, purpose)}

    return {"eval.promise.labels.valid_labels_by_sha256": counting}


def decisions_for_any_reason() -> Patches:
    real = labels.valid_labels_by_sha256

    def counting(out: Path, purpose: Any, policy: Any, under: str = "") -> dict:
        if purpose != "review":
            return real(out, purpose, policy, under)
        every = {label.sha256: label for label in labels.read_stored_labels(out, purpose)}
        return {s: label.model_copy(update={"checks": ["contrast", "sharpness"]}) for s, label in every.items()}

    return {"eval.promise.labels.valid_labels_by_sha256": counting}


def checked_then_locked() -> Patches:
    def export(config: Any) -> int:
        lot = read_lot(config, remember=False)
        if held := exporting.exit_code_and_reason_against_export(lot, *exporting.read_gate_record_and_verdicts(lot)):
            return held[0]
        with files.exclusive_lock(lot.out):
            target = exporting.write_package(
                lot, files.EXPORTS / config.name, *exporting.read_gate_record_and_verdicts(lot)
            )
        print(f"export: {files.display_path(target)}")
        return 0

    return {"eval.export.export": export}


def said_without_proof() -> Patches:
    def promise_of(package: Path, provenance: Any, rows: list) -> tuple[list[str], str]:
        promise = provenance.judged_by.promise
        return [], f"{promise.state}: {promise.says}" if promise.state in ("certified", "valid") else ""

    return {
        "eval.package.proof.promise_problems_and_proven_claim": promise_of,
        "eval.verify.promise_problems_and_proven_claim": promise_of,
    }


def own_by_place() -> Patches:
    real, made_from = comparison.pictures_of_earlier_packages, origin_digests_of_lot

    def by_place(lot: Any) -> dict:
        return made_from(lot) | {"folder_sha256": files.canonical_sha256(str(lot.images))}

    def exported(lot: Any, brand: str) -> tuple[list, list, dict]:
        found = []
        for package in files.EXPORTS.glob("[!.]*-v[0-9]*"):
            record = package / "data" / "provenance.json"
            own = record.exists() and files.read_json(record, "")["made_from"]["folder_sha256"]
            ours = set(lot.sha256.values()) if own == files.canonical_sha256(str(lot.images)) else set()
            pictures = (package / "data" / "images").glob("*")
            found += [(f"{package.name}/{p.name}", p) for p in pictures if files.sha256_of_file(p) not in ours]
        return sorted(found), real(lot, brand)[1], {}

    return {
        "eval.package.provenance.origin_digests_of_lot": by_place,
        "eval.lot.comparison.pictures_of_earlier_packages": exported,
    }


def stopped_by_an_empty_folder() -> Patches:
    real = comparison.pictures_of_earlier_packages

    def exported(lot: Any, brand: str) -> tuple[list, list, dict]:
        if any(not any(place.iterdir()) for place in files.EXPORTS.glob("*-v*")):
            raise DataError("packages that are damaged")
        return real(lot, brand)

    return {"eval.lot.comparison.pictures_of_earlier_packages": exported}


def calibrated_check_not_asked() -> Patches:
    return {"eval.judging.judge.send_accepted_to_review": lambda verdicts: None}


def rejects_of_one_policy() -> Patches:
    return {"eval.promise.labels.labels_rejecting_under_other_policies": lambda out, policy: {}}


def calibration_elsewhere_is_no_evidence() -> Patches:
    real = evidence_digests
    return {f"eval.{place}.evidence_digests": lambda out, calibrated_by=None: real(out) for place in READERS}


def names_that_read_the_same() -> Patches:
    def escaped(folder: Path, path: Path) -> str:
        return (
            path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        )

    return {"eval.lot.lot.relative_name": escaped}


def every_attempt_leaves() -> Patches:
    def all_accepted(verdicts: Any, planned: bool) -> list:
        return [verdict for verdict in verdicts if verdict.verdict == "accept"]

    return {f"eval.{place}.exportable_verdicts": all_accepted for place in (*READERS, "judging.verdicts")}


def known_endings_alone() -> Patches:
    def listed(folder: Path) -> FolderListing:
        found = list_folder(folder)
        return FolderListing(
            [p for p in found.pictures if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")], [], []
        )

    return {"eval.lot.lot.list_folder": listed}


def own_export_is_compared() -> Patches:
    real = comparison.is_package_of_same_lot
    return {"eval.lot.comparison.is_package_of_same_lot": lambda lot, package: lot != package and real(lot, package)}


FIXES: dict[str, Callable[[], Patches]] = {
    "A1 shipped names win": working_directory_first,
    "A2 a policy that judges nothing is refused": policies_that_judge_nothing,
    "A2 what training does not ask is not accepted": calibrated_check_not_asked,
    "A3 labels count under their policy": labels_of_any_policy,
    "A3 decisions count for their policy and reason": decisions_for_any_reason,
    "A3 a reject reaches other policies": rejects_of_one_policy,
    "A4 what decides is read under the lock": checked_then_locked,
    "A5 nothing is printed that was not computed": said_without_proof,
    "A5 a calibration elsewhere is evidence": calibration_elsewhere_is_no_evidence,
    "A6 names that read the same stay apart": names_that_read_the_same,
    "A6 one attempt leaves for each slot": every_attempt_leaves,
    "A6 files of unknown endings are judged": known_endings_alone,
    "A7 one's own export is no copy": own_export_is_compared,
    "A7 own packages are known by content": own_by_place,
    "A7 an empty folder stops no gate": stopped_by_an_empty_folder,
}


def wrong_names() -> list[str]:
    """Names that a fix would be taken out of and that do not exist: a rename must come here, too."""
    named = [(fix, name) for fix, patches in FIXES.items() for name in patches()]
    return [f"{fix}: {name}" for fix, name in named if not exists(name)]


def exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


@contextmanager
def without(fix: str) -> Iterator[None]:
    with ExitStack() as stack:
        for name, old in FIXES[fix]().items():
            stack.enter_context(patch(name, old))
        yield


def found(fix: str) -> tuple[list[str], int] | None:
    """The steps of a sequence that fails without the fix and passes with it, and the seed; None if no seed finds one.

    Steps that are not needed are taken out one by one; the first one, which makes the lots, stays.
    """
    for seed in SEEDS:
        try:
            with without(fix):
                search(SEQUENCES, seed, shrink=False)
        except AssertionError as error:
            notes = [line.strip() for note in error.__notes__ for line in note.splitlines()]
            steps = [line for line in notes if line.startswith("state.") and line != "state.teardown()"]
            assert not failure(steps), f"fails with the fix, too: {steps}"
            with without(fix):
                why = failure(steps)
                for step in reversed(steps[1:]):
                    fewer = [kept for kept in steps if kept is not step]
                    steps = fewer if failure(fewer) == why else steps
            return steps, seed
    return None


def failure(steps: list[str]) -> str:
    """What the machine says of a sequence without the names of pictures; "" if nothing breaks a rule."""
    with lean():
        state = GateMachine()
        try:
            for step in steps:
                eval(step, {"state": state})
        except AssertionError as error:
            return re.sub(r"\S*/\S*|[0-9a-f]{12,}|\S+ is ", "", str(error).split("\n")[0])
        except ZeroDivisionError:  # a step asks for a package, and there is none any more
            return ""
        finally:
            state.teardown()
    return ""


def main() -> None:
    if wrong := wrong_names():
        raise SystemExit("\n".join(["there are no such functions:", *wrong]))
    print("| fix that was taken out | sequence that found it | steps | seed |\n|---|---|---|---|")
    for fix in FIXES:
        result = found(fix)
        if result is None:
            print(f"| {fix} | none in {len(SEEDS)} seeds of {SEQUENCES} | | |", flush=True)
            continue
        steps, seed = [step.removeprefix("state.") for step in result[0]], result[1]
        print(f"| {fix} | {', '.join(f'`{step}`' for step in steps)} | {len(steps)} | {seed} |", flush=True)


if __name__ == "__main__":
    main()
