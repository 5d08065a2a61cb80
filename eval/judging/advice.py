"""What gate.json means for people: what to do next, what nobody looked at, what decided the exit code."""

from collections.abc import Sequence

from eval.judging.decisions import WORKSHEET
from eval.judging.record import GateRecord
from eval.judging.verdicts import PERSON, Verdict
from eval.policy.model import UNREADABLE
from eval.scorers import SCORES
from eval.scorers.aesthetic import MIN_LABELS
from stylegate.errors import ExitCode
from stylegate.words import counted

NOBODY_LOOKED = (
    "No references were given: nobody looked at the style. Only technical faults and copies were looked for. "
    "references=DIR or brand=NAME adds the style."
)


def warning_without_references(outcome: GateRecord) -> str:
    """The warning that the style was not judged, for the first line of every report; "" if references were given."""
    return "" if outcome.references.given else NOBODY_LOOKED


def failed_share_in_words(outcome: GateRecord) -> str:
    """How the share of failed pictures of a folder stands to the share that the policy allows; "" if none failed, or
    none may.
    """
    counts, allowed = outcome.counts, outcome.policy.max_failed_share
    failed = counts.reject + counts.error
    if outcome.slots or not failed or not allowed:
        return ""
    share = failed / counts.judged
    state = "is within" if share <= allowed else "is more than"
    return f"{failed} of {counts.judged} failed: that {state} max_failed_share {allowed:g} of the policy"


def note_if_only_observed(outcome: GateRecord) -> str:
    """That the verdicts were only observed, and the exit code that was not given; "" if they count."""
    if not outcome.observe:
        return ""
    code = f"exit code 0 instead of {outcome.exit_code}" if outcome.exit_code else "the exit code would be 0 too"
    return f"only observed (observe=true): {code}; an export refuses these verdicts"


def remedy_of_most_rejects(outcome: GateRecord) -> list[str]:
    """What helps against the check that rejects most pictures, as a list of one part of a sentence; empty where nothing
    is known.
    """
    check = max(causes, key=lambda name: causes[name]) if (causes := outcome.why.get("reject")) else ""
    remedy = SCORES[check].remedy if check in SCORES else ""
    return [f"against {check}, which rejects most: {remedy}"] if remedy else []


def remedies_of_failed(outcome: GateRecord) -> list[str]:
    """What a person can do about the pictures of a folder that were rejected and those in error, a part of a sentence
    each.
    """
    counts, steps = outcome.counts, []
    if counts.reject or not counts.error:
        steps.append("give other pictures, or waive a check in the policy")
    if counts.error:
        steps.append(f"mend or remove {counted(counts.error, 'picture')} in error, which no waiver lets pass")
    return steps


def decisions_to_learn_from(verdicts: Sequence[Verdict]) -> list[str]:
    """That people decided about enough pictures for `stylegate learn`, as a list of one part of a sentence; empty where
    they did not.
    """
    accepted = sum(verdict.settled is not None for verdict in verdicts)
    rejected = sum(any(reason.check == PERSON for reason in verdict.reasons) for verdict in verdicts)
    if min(accepted, rejected) < MIN_LABELS:
        return []
    return [
        f"stylegate learn with the same words: people accepted {accepted} and rejected {rejected} pictures, and the "
        "gate can learn from them"
    ]


def next_step_in_words(outcome: GateRecord, verdicts: Sequence[Verdict], out: str) -> str:
    """What a person does next about a lot that did not pass, or that people decided enough about to learn from; "" for
    any other lot, and for one that was only observed.

    `out` is the folder of the results, as it is shown to people; "" where they read this in the report itself.
    """
    code, steps = ExitCode.PASS if outcome.observe else ExitCode(outcome.exit_code), []
    rules_broken = outcome.fails_batch or any(rule.state == "fail" for rule in outcome.batch)
    if code == ExitCode.REJECTED and rules_broken:
        steps.append("the lot as a whole breaks a rule of the policy: other pictures, or another rule")
    elif code == ExitCode.REJECTED and outcome.slots:
        steps.append("generate and then gate, with the same words, draw and judge the open slots again")
        steps += remedy_of_most_rejects(outcome)
    elif code == ExitCode.REJECTED:
        where = f"{out}/report/index.html shows why: " if out else ""
        steps.append(where + " and ".join(remedies_of_failed(outcome)))
    if code == ExitCode.STALE:
        steps.append("stylegate calibrate with the same words; or stylegate certify, for this lot alone")
    if code == ExitCode.EVIDENCE:
        uncalibrated = outcome.calibration and not outcome.evidence.get(outcome.calibration)
        steps.append(f"stylegate {'calibrate' if uncalibrated else 'certify'} with the same words")
    if code != ExitCode.PASS and UNREADABLE in outcome.why.get("review", {}):
        steps.append("first make the style readable (the note says how): until then every picture waits for a person")
    if code != ExitCode.PASS and (waiting := outcome.counts.review):
        pictures = counted(waiting, "picture")
        again = "this command" if out else "the gate"
        steps.append(f"for {pictures} in review, stylegate review with the same words, and then {again} again")
        if out:
            sheet = f"{out}/{WORKSHEET}"
            steps.append(f"or fill in verdict and who in {sheet}, and give the same words with decisions={sheet}")
    if code == ExitCode.REVIEW and outcome.slots and outcome.slots.exhausted:
        steps.append("for slots without attempts left, choose a way out (listed above; docs/plan.md)")
    if not outcome.observe:
        steps += decisions_to_learn_from(verdicts)
    return "; ".join(steps)
