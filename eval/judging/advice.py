"""What gate.json means for people: what to do next, what nobody looked at, what decided the exit code."""

from collections.abc import Sequence
from pathlib import Path

from eval.judging.decisions import WORKSHEET
from eval.judging.record import GateRecord
from eval.judging.verdicts import NO_LINE_YET, PERSON, Reason, Verdict
from eval.policy.model import TOO_FEW, UNKNOWN_VALUE, UNREADABLE
from eval.promise.rejected import sha256_of_pictures_rejected_by_score
from eval.promise.store import gate_evidence_key_for_label_purpose
from eval.scorers import SCORES
from eval.scorers.aesthetic import MIN_LABELS
from stylegate import files
from stylegate.errors import ExitCode
from stylegate.words import counted

HARDLY_ANY = 0.05  # of accepted and rejected pictures: below it each accepted one costs twenty or more
SAID_ONCE = {TOO_FEW, UNREADABLE}  # reasons that are explained once for the lot, and only named of a picture
NOBODY_LOOKED = (
    "No references were given: nobody looked at the style. Only technical faults and copies were looked for. "
    "references=DIR or brand=NAME adds the style."
)


def warning_without_references(outcome: GateRecord) -> str:
    """The warning that the style was not judged, for the first line of every report; "" if references were given."""
    return "" if outcome.references.given else NOBODY_LOOKED


def fault_in_words(reason: Reason) -> str:
    """What is wrong with a picture, where numbers do not say it: its check holds or does not hold; else ""."""
    return SCORES[reason.check].fault if reason.check in SCORES and reason.score is not None else ""


def scores_not_believed(outcome: GateRecord) -> list[str]:
    """The scores that no check of the lot believes, because the style cannot be read; [] where it can."""
    if outcome.readability is None or outcome.readability.readable:
        return []
    return [name for name, score in SCORES.items() if score.needs_readable_style]


def are_margins_believed(outcome: GateRecord) -> bool:
    """Whether it is known which pictures are nearer to passing: no check of the lot rests on a style that cannot be
    read.
    """
    return not outcome.thresholds.keys() & set(scores_not_believed(outcome))


def failed_share_in_words(outcome: GateRecord) -> str:
    """A sentence that compares the share of failed pictures of a folder with the share that the policy allows; "" if
    none failed, or none may.
    """
    counts, allowed = outcome.counts, outcome.policy.max_failed_share
    failed = counts.reject + counts.error
    if outcome.slots or not failed or not allowed:
        return ""
    share = failed / counts.judged
    state = "is within" if share <= allowed else "is more than"
    return f"{failed} of {counts.judged} failed: that {state} max_failed_share {allowed:g} of the policy"


def observe_only_note_in_words(outcome: GateRecord) -> str:
    """A sentence that the verdicts were only observed, and which exit code was not given; "" if they count."""
    if not outcome.observe:
        return ""
    code = f"exit code 0 instead of {outcome.exit_code}" if outcome.exit_code else "the exit code would be 0 too"
    return f"only observed (observe=true): {code}; an export refuses these verdicts"


def most_frequent_reject_in_words(outcome: GateRecord) -> list[str]:
    """The check that rejects most pictures, and what helps against it, as a list of one sentence; of several that
    reject as many, one that names them all and one for each of which it is known what helps. An empty list where none
    was rejected.
    """
    if not (causes := outcome.why.get("reject")):
        return []
    most = [check for check, count in causes.items() if count == max(causes.values())]
    remedies = {check: SCORES[check].remedies_in_words() for check in most if check in SCORES}
    remedies = {check: remedy for check, remedy in remedies.items() if remedy}
    if len(most) > 1:
        helps = [f"What helps against {check}: {remedy}." for check, remedy in remedies.items()]
        return [f"The most frequent reasons to reject are {', '.join(most[:-1])} and {most[-1]}.", *helps]
    helps = [f"; what helps: {remedy}" for remedy in remedies.values()]
    return [f"The most frequent reason to reject is {most[0]}{''.join(helps)}."]


def advice_on_open_slots(outcome: GateRecord) -> list[str]:
    """What to do about the slots of a batch whose pictures were rejected, a sentence each: they are drawn again, unless
    hardly any picture was accepted.
    """
    counts, reason = outcome.counts, most_frequent_reject_in_words(outcome)
    decided = counts.accept + counts.reject
    if counts.reject and counts.accept <= HARDLY_ANY * decided:
        of = f"of {counted(decided, 'picture')} that the gate decided {counts.accept} were accepted"
        again = f"Only then draw the open slots again: {of}"
        return [*reason, f"{again}, and other seeds seldom change that."]
    return ["Run generate and then gate with the same arguments: the open slots are drawn and judged again.", *reason]


def remedies_for_failed_pictures(outcome: GateRecord, verdicts: Sequence[Verdict]) -> list[str]:
    """What a person can do about the pictures of a folder that were rejected and those in error, a sentence each. What
    people rejected needs nothing more.
    """
    counts, steps = outcome.counts, []
    by_people = sum(is_rejected_by_people_alone(verdict) for verdict in verdicts)
    if counts.reject > by_people or not (counts.reject or counts.error):
        steps.append(
            "Give other pictures in place of the rejected ones, or, where a rejected picture is right, waive its check "
            "for it in a policy file (docs/policies.md)."
        )
    if counts.error:
        steps.append(
            f"Repair or remove {counted(counts.error, 'picture')} in error: no waiver lets such a picture pass."
        )
    return steps


def is_rejected_by_people_alone(verdict: Verdict) -> bool:
    """Whether a picture is rejected because a person said so, and for no other reason."""
    rejecting = {reason.check for reason in verdict.reasons if reason.verdict == "reject"}
    return verdict.verdict == "reject" and rejecting == {PERSON}


def advice_to_pack_accepted_pictures(outcome: GateRecord) -> list[str]:
    """A list of one or two sentences: how the accepted pictures of a rejected folder leave; empty where there are none,
    for a planned batch and where the lot as a whole fails.
    """
    counts = outcome.counts
    if outcome.exit_code != ExitCode.REJECTED or outcome.slots or outcome.fails_batch or not counts.accept:
        return []
    return [
        f"The lot counts as rejected because of {counted(counts.reject + counts.error, 'picture')} alone. To pack the "
        f"{counted(counts.accept, 'accepted one')}, run stylegate export with the same images= and out=."
    ]


def advice_to_learn_from_decisions(verdicts: Sequence[Verdict]) -> list[str]:
    """A list of one sentence: that people decided about enough pictures for `stylegate learn`; empty where they did
    not.
    """
    accepted = sum(verdict.settled is not None for verdict in verdicts)
    rejected = sum(any(reason.check == PERSON for reason in verdict.reasons) for verdict in verdicts)
    if min(accepted, rejected) < MIN_LABELS:
        return []
    return [
        f"The gate can learn from people, who accepted {accepted} and rejected {rejected} pictures: run stylegate "
        "learn with the same arguments."
    ]


def advice_to_look_at_rejected_pictures(outcome: GateRecord, verdicts: Sequence[Verdict]) -> list[str]:
    """A list of one sentence: how a person finds out whether the gate rejects good pictures; empty where it rejects
    none by a score, for a planned batch, which is drawn again or exported, and once somebody has looked.
    """
    if outcome.slots or outcome.evidence.get(gate_evidence_key_for_label_purpose("rejected")):
        return []
    if not (rejected := len(sha256_of_pictures_rejected_by_score(verdicts))):
        return []
    return [
        f"To see whether good ones are among the {counted(rejected, 'rejected picture')}, run stylegate review "
        "queue=rejected with the same arguments: it shows a random sample of them, and changes no verdict."
    ]


def is_in_review_only_for_lack_of_calibrated_line(verdict: Verdict) -> bool:
    """Whether a picture is in review only because its policy's calibrated check has no line yet."""
    asking = [reason.detail for reason in verdict.reasons if reason.verdict == "review"]
    return verdict.verdict == "review" and asking == [NO_LINE_YET]


def next_step_in_words(outcome: GateRecord, verdicts: Sequence[Verdict], out: str) -> str:
    """What a person does next about a lot that did not pass, that has rejected pictures to look at, or that people
    decided enough about to learn from; "" for any other lot, and for one that was only observed.

    `out` is the folder of the results, as it is shown to people; "" where they read this in the report itself.
    """
    code, steps = ExitCode.PASS if outcome.observe else ExitCode(outcome.exit_code), []
    rules_broken = outcome.fails_batch or any(rule.state == "fail" for rule in outcome.batch)
    if code == ExitCode.REJECTED and rules_broken:
        steps.append("The lot as a whole breaks a rule of the policy. Give other pictures, or change the rule.")
    elif code == ExitCode.REJECTED and outcome.slots:
        steps += advice_on_open_slots(outcome)
    elif code == ExitCode.REJECTED:
        steps += [f"Open {out}/report/index.html, which shows why."] if out else []
        steps += remedies_for_failed_pictures(outcome, verdicts)
    if code == ExitCode.STALE:
        steps.append("Run stylegate calibrate with the same arguments, or stylegate certify for this lot alone.")
    uncalibrated = outcome.calibration and not outcome.evidence.get(outcome.calibration)
    without_line = sum(map(is_in_review_only_for_lack_of_calibrated_line, verdicts)) if uncalibrated else 0
    if code == ExitCode.EVIDENCE:
        steps.append(f"Run stylegate {'calibrate' if uncalibrated else 'certify'} with the same arguments.")
    if code != ExitCode.PASS and UNREADABLE in outcome.why.get("review", {}):
        steps.append("The style cannot be read: a note says what may help.")
    if code != ExitCode.PASS and UNKNOWN_VALUE in outcome.why.get("review", {}):
        steps.append(
            "Values of traits that no picture of the brand shows cannot be read: where the brand has them under "
            "another name, call them so in the traits file; else a person looks at each such picture."
        )
    if code != ExitCode.PASS and without_line:
        waits = counted(without_line, "picture is", "pictures are")
        steps.append(f"{waits} in review only until stylegate calibrate has chosen a line, which judges them then.")
    if code != ExitCode.PASS and (waiting := outcome.counts.review - without_line):
        again = "this command" if out else "the gate"
        steps.append(
            f"A person must decide about {counted(waiting, 'picture')}: run stylegate review with the same arguments, "
            f"then {again} again."
        )
        if out:
            sheet = f"{out}/{WORKSHEET}"
            steps.append(
                f"Or fill in the columns verdict and who of {sheet}, and add decisions={sheet} to this command."
            )
    if code == ExitCode.REVIEW and outcome.slots and outcome.slots.exhausted:
        steps.append("Some slots have no attempt left: choose one of the ways that are listed above (docs/plan.md).")
    if not outcome.observe and code in (ExitCode.PASS, ExitCode.REJECTED) and not outcome.counts.review:
        steps += advice_to_pack_accepted_pictures(outcome)
        steps += advice_to_look_at_rejected_pictures(outcome, verdicts)
    if not outcome.observe:
        steps += advice_to_learn_from_decisions(verdicts)
    return " ".join(steps)


def next_step_with_export_in_words(outcome: GateRecord, verdicts: Sequence[Verdict], out: Path) -> str:
    """`next_step_in_words` for the console, where a planned batch that passes has one too: to export it. `out` is the
    folder of the results.
    """
    advice = next_step_in_words(outcome, verdicts, files.display_path(out))
    if outcome.slots and outcome.exit_code == ExitCode.PASS and not outcome.observe:
        return f"stylegate export batch={out.name} makes the package. {advice}".rstrip()
    return advice
