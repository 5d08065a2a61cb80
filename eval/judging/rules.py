"""The lot as a whole: what is measured of it, which rules it breaks, and the exit code of a gate."""

from collections import Counter
from typing import cast

from eval.judging.record import LotRuleResult, RuleLevel
from eval.judging.verdicts import Verdict, slot_numbers_with_verdict
from eval.lot.attempts import failed_attempts_and_filled_slots
from eval.lot.lot import Lot
from eval.measuring.record import BatchMeasures
from eval.policy.model import MEASURES, Policy
from stylegate.errors import ExitCode, most_important_exit_code


def lot_measures(verdicts: list[Verdict], whole: BatchMeasures, lot: Lot) -> dict[str, float | None]:
    """The value of each of MEASURES (acceptance, uniqueness, variety, quotas) for the lot, by name.

    A value is None where it cannot be computed: without references, without a plan, or with nothing accepted.
    """
    total = len(verdicts)
    alike = sum(any(r.check == "distinct" for r in v.reasons) for v in verdicts)
    return {
        "acceptance": sum(v.verdict == "accept" for v in verdicts) / total if total else None,
        "uniqueness": 1 - alike / total if total else None,
        "variety": whole.vendi / whole.vendi_references if whole.vendi and whole.vendi_references else None,
        "quotas": planned_share_agreement(verdicts, lot),
    }


def planned_share_agreement(verdicts: list[Verdict], lot: Lot) -> float | None:
    """How well the accepted slots keep the planned shares of trait values, 0 to 1 (the same shares).

    It is 1 less the largest difference between a value's share of all planned slots, drawn or not, and its share of
    accepted slots. None without planned traits or without an accepted slot.
    """
    filled = slot_numbers_with_verdict(verdicts, "accept") if lot.slots else set()
    planned = {slot.slot: slot.traits for slot in lot.plan if slot.traits}
    there = [planned[slot] for slot in filled if slot in planned]
    if not there:
        return None
    wanted = Counter(item for traits in planned.values() for item in traits.items())
    found = Counter(item for traits in there for item in traits.items())
    return 1 - max(abs(count / len(planned) - found[item] / len(there)) for item, count in wanted.items())


def results_of_lot_rules(policy: Policy, values_by_measure: dict[str, float | None]) -> list[LotRuleResult]:
    """The value and the state (pass, warn, fail) of each of the policy's rules for the lot.

    `values_by_measure` are the lot's measures by name. A rule whose measure is None passes only if the rule is
    optional.
    """
    found = []
    for measure, rule in policy.batch.items():
        value = values_by_measure[measure]
        lines = [("fail", rule.fail_below), ("warn", rule.warn_below)]
        broken = [(level, line) for level, line in lines if line is not None and (value is None or value < line)]
        level, line = broken[0] if broken else ("pass", 0.0)
        if value is None:
            level = "pass" if rule.optional else level
            says = f"{measure} cannot be measured here"
        else:
            says = f"{measure} is {value:.3g}" + (f", {line:g} is asked" if broken else "")
        says = f"{says} ({MEASURES[measure]})"
        found.append(LotRuleResult(measure=measure, value=value, state=cast(RuleLevel, level), says=says))
    return found


def lot_exit_code(lot: Lot, verdicts: list[Verdict], policy: Policy, rules: list[LotRuleResult], promise: str) -> int:
    """The most important (stylegate/errors.py) of three exit codes: by the verdicts, by the rules for the lot and the
    lines that fail it, by the state of the promise.
    """
    code = planned_batch_exit_code(lot, verdicts) if lot.slots else folder_exit_code(verdicts, policy)
    failed = any(rule.state == "fail" for rule in rules)
    failed |= any_reason_fails_batch(verdicts)
    proof = {"stale": ExitCode.STALE, "insufficient": ExitCode.EVIDENCE}.get(promise, ExitCode.PASS)
    return most_important_exit_code(ExitCode(code), ExitCode.REJECTED if failed else ExitCode.PASS, proof)


def any_reason_fails_batch(verdicts: list[Verdict]) -> bool:
    """Whether some picture lies below a line that fails the lot by itself."""
    return any(found.fails_batch for verdict in verdicts for found in verdict.reasons)


def folder_exit_code(verdicts: list[Verdict], policy: Policy) -> int:
    """The exit code of a folder: 10 if a larger share failed than max_failed_share, 11 if any picture is in review,
    else 0.
    """
    failed = sum(v.verdict in ("reject", "error") for v in verdicts)
    if failed and failed / len(verdicts) > policy.max_failed_share:  # a product rounds: 0.29 * 100 is below 29
        return ExitCode.REJECTED
    return ExitCode.REVIEW if any(v.verdict == "review" for v in verdicts) else ExitCode.PASS


def planned_batch_exit_code(lot: Lot, verdicts: list[Verdict]) -> int:
    """The exit code of a planned batch: 0 once the wanted number of slots has an accepted picture, 11 if only people
    can fill the rest, else 10.

    People can fill slots with a picture in review, and those whose attempts have all failed
    (`advice_on_exhausted_slots`).
    """
    accepted, reviewed = slot_numbers_with_verdict(verdicts, "accept"), slot_numbers_with_verdict(verdicts, "review")
    missing = (lot.record.wanted if lot.record else 0) - len(accepted)
    if missing <= 0:
        return ExitCode.PASS
    for_people = len(reviewed - accepted) + len(slots_with_all_attempts_failed(lot, verdicts))
    return ExitCode.REVIEW if for_people >= missing else ExitCode.REJECTED


def slots_with_all_attempts_failed(lot: Lot, verdicts: list[Verdict]) -> list[int]:
    """The numbers of the slots of a batch of which every attempt that the batch allows has failed; [] for a folder that
    was not planned.
    """
    limit = lot.record.max_attempts if lot.record else None
    states = failed_attempts_and_filled_slots(((v.file, v.verdict) for v in verdicts), lot.stopped)
    return states.exhausted_slots(limit) if lot.slots else []
