"""Judge a lot: scores, waivers, the calibrated line, people's decisions, the audit, the rules for the lot."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple, cast

from eval.judging import certified
from eval.judging.byscores import depends_on_readable_style, verdicts_of_rows
from eval.judging.changes import (
    apply_calibrated_check,
    apply_decisions,
    apply_waivers,
    correct_audited_traits_in_verdicts,
    send_accepted_to_review,
    send_formerly_rejected_to_review,
)
from eval.judging.judged import JudgedLot
from eval.judging.record import (
    NOT_ASKED_FOR,
    CheckThresholds,
    GateRecord,
    PolicySummary,
    PromiseState,
    SlotCounts,
    State,
    VerdictCounts,
)
from eval.judging.rules import (
    any_reason_fails_batch,
    lot_exit_code,
    lot_measures,
    results_of_lot_rules,
    slots_with_all_attempts_failed,
)
from eval.judging.verdicts import Verdict, exportable_verdicts, picture_counts_by_check, slot_numbers_with_verdict
from eval.lot.batch import PLAN
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, sha256_by_name
from eval.measuring.record import StyleReadability
from eval.measuring.scores import LotScores, read_scores, scores_are_current, scores_key
from eval.policy import file as policyfile
from eval.policy.lines import MIN_REFERENCES, ResolvedCheckLines, resolve_check_lines
from eval.policy.model import MARGIN, VERDICTS, Policy
from eval.promise import calibration, labels, store
from eval.promise.calibration import CalibrationResult
from eval.promise.certificate import CERTIFICATE, TRAIT_CERTIFICATE
from eval.promise.disagreements import notes_on_disagreements
from eval.promise.label import Purpose
from eval.promise.rejected import estimate_false_rejects
from eval.promise.store import gate_evidence_key_for_label_purpose
from stylegate import files
from stylegate.config import Config
from stylegate.errors import DataError


@store.frozen_label_store_reads()
def judge(
    config: Config,
    lot: Lot,
    compared: ComparisonPictures | None = None,
    quiet: bool = False,
    without: Purpose | None = None,
) -> JudgedLot:
    """Judge each picture of a lot. Computes and writes scores where they are not at hand; writes nothing else.

    `compared` is what the pictures are compared with; by default what the config names. `quiet` is for checkpoints in
    training: no progress is shown, labels, decisions and certificates are not read, and a calibrated check is not
    asked, so that what every other check accepts goes to review. The verdicts are those that an
    audit begins with where it is told `without` its own labels: "audit" for the audit of pictures, whose certificate
    does not count either, "traits" for that of the traits. Raises DataError for what cannot be read or computed.
    """
    policy = policyfile.read_policy(config.policy)
    compared = compared or comparison_pictures_with_decided_ones(config, lot, policy)
    calibration_path = (
        str(calibration.calibration_path(config, lot)) if policy.calibrated_score_name and not quiet else None
    )
    proofs = evidence_digests(lot.out, calibration_path)
    scores, bounds, left_out, verdicts, said = score_and_decide_by_policy(config, lot, compared, policy, quiet)
    given = [(name, lot.sha256[name]) for name, _ in lot.files]
    assert given == [(v.file, v.sha256) for v in verdicts], "in = accept + review + reject + error"

    notes = said + scores.record.notes + notes_on_references_in_lot(lot, compared)
    promise = PromiseState(state="none", says=NOT_ASKED_FOR)
    pool: dict[str, float] = {}
    line = None
    if config.calibration and not quiet:
        calibration.require_policy_has_calibrated_check(policy)
    if policy.calibrated_score_name and not quiet:
        pool = calibrated_scores_of_accepted_pictures(verdicts, scores.rows, policy)
        line = calibration.calibration_result_for_lot(config, lot, compared, policy, pool)
        apply_calibrated_check(verdicts, policy.calibrated_score_name, line.bound, pool, line.rejects)
    if policy.calibrated_score_name and quiet:
        send_accepted_to_review(verdicts)
    if not quiet:
        send_formerly_rejected_to_review(verdicts, labels.labels_rejecting_under_other_policies(lot.out, policy))
        notes += apply_decisions(verdicts, labels.valid_labels_by_sha256(lot.out, "review", policy))
        notes += labels.notes_on_labels_of_other_policies(lot.out, "review", policy)
        notes += notes_on_disagreements(lot.out, policy)
        if found := estimate_false_rejects(lot.out, verdicts, policy):
            notes.append(found.false_rejects_in_words())
        if without != "traits":
            correct_audited_traits_in_verdicts(
                verdicts, lot.planned_traits_by_name(), labels.valid_labels_by_sha256(lot.out, "traits", policy)
            )
        if without != "audit":
            promise, audit_notes = certified.apply_audit_labels_and_certificate(
                lot.out, verdicts, policy, bool(lot.slots)
            )
            notes += audit_notes
        if promise.state == "none":
            promise = promise_state_without_certificate(
                promise, line, len(exportable_verdicts(verdicts, bool(lot.slots))), policy
            )
    text = files.json_lines_text(verdict.json_data_without_defaults() for verdict in verdicts)
    result = GateRecordParts(policy, scores, verdicts, bounds, left_out, notes, promise, text)
    outcome = make_gate_record(config, lot, result, proofs, compared.brand)
    outcome.calibration = calibration_path
    outcome.pool = pool if promise.state == "valid" else {}
    return JudgedLot(lot, compared, policy, scores, verdicts, pool, line, outcome, text)


def require_gate_used_same_policy(lot: Lot, policy: Policy) -> None:
    """Raises DataError if the gate judged the lot under another policy: an audit begins with what the gate accepted,
    spends confidence, and writes the verdicts again.
    """
    path = lot.out / "gate.json"
    if not path.is_file():
        return
    found = GateRecord.read_json_file(path, "the gate's record", "stylegate gate again.").policy
    if found.sha256 != policy.sha256:
        raise DataError(
            f"the gate judged under the policy {found.name} ({found.sha256[:12]}...), and this command would under "
            f"{policy.name} ({policy.sha256[:12]}...)",
            next_step="give the policy= that the gate was given; or run stylegate gate with this one first.",
        )


class GateRecordParts(NamedTuple):
    """The parts of gate.json that judging has found."""

    policy: Policy
    scores: LotScores
    verdicts: list[Verdict]
    bounds: list[ResolvedCheckLines]
    left_out: list[str]
    notes: list[str]
    promise: PromiseState
    verdicts_text: str  # the content of verdicts.jsonl


def notes_on_references_in_lot(lot: Lot, compared: ComparisonPictures) -> list[str]:
    """A list of one note that says how many pictures of the lot are references, byte for byte, so that their style is
    compared with itself; [] for none.
    """
    references = set(sha256_by_name(compared.references).values()) - {""}
    shared = sum(sha256 in references for sha256 in lot.sha256.values())
    if not shared:
        return []
    return [
        f"{shared} of the {len(lot.files)} pictures are references, byte for byte: their style is held against itself, "
        "and says nothing of other pictures"
    ]


def write_verdicts_and_gate_record(judged: JudgedLot) -> None:
    """Write verdicts.jsonl and gate.json into the lot's folder."""
    files.write_atomically(judged.lot.out / "verdicts.jsonl", judged.verdicts_text)
    judged.outcome.write_json_file(judged.lot.out / "gate.json")


def evidence_digests(out: Path, calibrated_by: str | None = None) -> dict[str, str | None]:
    """Digests of what the verdicts in the folder `out` rest on: of the plan and of each file of proofs, by file name;
    of the last row that people added for each purpose of labels, as "audit labels". None for what does not exist.

    `calibrated_by` is the path of the calibration that was used; its digest is added under this path. Export compares
    the digests: labels that were given after the gate ran have not been judged yet.
    """
    names = (PLAN, calibration.CALIBRATION, CERTIFICATE, TRAIT_CERTIFICATE)
    paths = {name: out / name for name in names} | ({calibrated_by: Path(calibrated_by)} if calibrated_by else {})
    digests = {name: files.sha256_of_file(path) if path.is_file() else None for name, path in paths.items()}
    return digests | {
        gate_evidence_key_for_label_purpose(purpose): head
        for purpose, head in store.last_row_hash_by_purpose(out).items()
    }


def promise_state_without_certificate(
    promise: PromiseState, line: CalibrationResult | None, num_exportable: int, policy: Policy
) -> PromiseState:
    """The state of the promise where no certificate proves it; `num_exportable` is the number of pictures that may be
    exported.
    """
    if line is None:
        text = f"not proven: {policy.promise.promise_sentence_part()}; stylegate certify"
        return PromiseState(state="insufficient", says=text) if policy.promise.required else promise
    if line.state == "valid" and line.hidden > policy.promise.alpha * num_exportable + 1e-9:
        text = f"people rejected so many that the bound no longer holds for the {num_exportable} that are left"
        return PromiseState(state="insufficient", says=text)
    return PromiseState(state=cast(State, line.state), says=line.says)


def make_gate_record(
    config: Config, lot: Lot, result: GateRecordParts, proofs: dict[str, str | None], brand: str
) -> GateRecord:
    """The content of gate.json: counts, thresholds, rules for the lot, the promise, the exit code."""
    policy, verdicts, promise, record = result.policy, result.verdicts, result.promise, result.scores.record
    counts = Counter(v.verdict for v in verdicts)
    rules = results_of_lot_rules(policy, lot_measures(verdicts, record.batch, lot))
    slots = None
    if lot.record:
        accepted = len(slot_numbers_with_verdict(verdicts, "accept"))
        slots = SlotCounts(
            wanted=lot.record.wanted,
            accepted=accepted,
            exhausted=slots_with_all_attempts_failed(lot, verdicts),
            stopped_early=len(lot.stopped),
        )
    return GateRecord(
        policy=PolicySummary(name=policy.name, sha256=policy.sha256, max_failed_share=policy.max_failed_share),
        observe=config.observe,
        counts=VerdictCounts.model_validate({"in": len(verdicts)} | {name: counts[name] for name in VERDICTS}),
        thresholds={
            b.score: CheckThresholds(
                reject_below=b.reject_below, review_below=b.review_below, fail_batch_below=b.fail_batch_below
            )
            for b in result.bounds
        },
        calibrated=policy.calibrated_score_name,
        left_out=result.left_out,
        summary=record.summary,
        notes=result.notes,
        batch=rules,
        promise=promise,
        scores=record.key,
        encoder=record.encoder,
        encoder_sha256=record.encoder_sha256,
        references=record.references,
        readability=record.readability,
        images=str(lot.images),
        why={kind: picture_counts_by_check(verdicts, kind) for kind in ("reject", "review", "error", "warn")},
        slots=slots,
        exit_code=lot_exit_code(lot, verdicts, policy, rules, promise.state),
        fails_batch=any_reason_fails_batch(verdicts),
        verdicts_sha256=hashlib.sha256(result.verdicts_text.encode()).hexdigest(),
        evidence=proofs,
        brand=brand,
        learnt=policy.learnt.sha256 if policy.learnt else None,
    )


class VerdictsBeforePeople(NamedTuple):
    """Verdicts by scores, policy and waivers alone, before any label or decision of a person is applied."""

    scores: LotScores
    bounds: list[ResolvedCheckLines]
    left_out: list[str]
    verdicts: list[Verdict]
    notes: list[str]  # what was waived, and why the style cannot be read; a sentence each


def score_and_decide_by_policy(
    config: Config, lot: Lot, compared: ComparisonPictures, policy: Policy, quiet: bool = False
) -> VerdictsBeforePeople:
    """Compute and write scores where they are not at hand, and decide each picture by its scores and the policy's
    waivers alone.
    """
    key = scores_key(config, lot, compared)
    if not scores_are_current(lot, key):
        from eval.measuring.columns import compute_and_write_scores  # torch: only where something is to be encoded

        compute_and_write_scores(config, lot, compared, quiet)
    scores = read_scores(lot.out)
    record = scores.record
    bounds, left_out, lacking = resolve_check_lines(
        policy,
        set(scores.computed_score_names()),
        scores.references,
        record.references.given,
        record.foreign,
        record.copies,
    )
    unreadable = (
        why_style_is_unreadable(record.readability) if any(depends_on_readable_style(bound) for bound in bounds) else ""
    )
    verdicts = verdicts_of_rows(scores.rows, bounds, policy, lacking, unreadable)
    said = apply_waivers(verdicts, policy.waivers, files.today_in_utc())
    if unreadable and record.readability:
        said.append(note_on_unreadable_style(record.readability))
    return VerdictsBeforePeople(scores, bounds, left_out, verdicts, said)


def why_style_is_unreadable(readability: StyleReadability | None) -> str:
    """A sentence that says why the brand's style cannot be read, and what would help, as verdicts.jsonl has it; "" if
    it can be read.
    """
    if not readability or readability.readable:
        return ""
    nearest = readability.nearest
    found = readability.separations[nearest]
    if (different := readability.different_references) < MIN_REFERENCES:
        return f"only {different} references differ from one another; {MIN_REFERENCES} are needed"
    return (
        f"the references cannot be told surely from {nearest} (area {found.area:.2f}, at least {found.low:.2f}; "
        f"{readability.needed:.2f} is needed): more references, foreign= with the styles to keep apart, or another "
        "encoder may help (stylegate encoders compares them); else people must judge this style"
    )


def note_on_unreadable_style(readability: StyleReadability) -> str:
    """A sentence for people on a style that cannot be read: what follows, why, and what would help."""
    if (different := readability.different_references) < MIN_REFERENCES:
        why = f"only {different} references differ from one another, and {MIN_REFERENCES} are needed"
    else:
        why = f"the references are too hard to distinguish from {readability.nearest}"
    return (
        "the style cannot be read, so no check of style is used, and a person must look at each picture that no other "
        f"check rejects: {why}. What may help: more references, foreign=DIR with the styles to keep apart, or another "
        "vision model (encoder=NAME; stylegate encoders compares them)"
    )


def compute_calibration_pool_scores_by_sha256(
    config: Config, lot: Lot, compared: ComparisonPictures, policy: Policy
) -> dict[str, float]:
    """By sha256 the score whose line comes from labels, of each picture that every other check accepts: a calibration
    samples from these. Computes and writes scores where they are not at hand.
    """
    found = score_and_decide_by_policy(config, lot, compared, policy)
    return calibrated_scores_of_accepted_pictures(found.verdicts, found.scores.rows, policy)


def calibrated_scores_of_accepted_pictures(
    verdicts: list[Verdict], rows: list[dict], policy: Policy
) -> dict[str, float]:
    """By sha256 the score whose line comes from labels, of the pictures that `verdicts` accept by every other check.

    A picture without the score is not in it: `apply_calibrated_check` leaves it to a person.
    Raises DataError where two accepted pictures are the same bytes, since a calibrated line counts each picture once.
    """
    name = policy.calibrated_score_name
    found = {
        v.sha256: v.margin if name == MARGIN else row[name]
        for v, row in zip(verdicts, rows, strict=True)
        if v.verdict == "accept"
    }
    copies = sum(verdict.verdict == "accept" for verdict in verdicts) - len(found)
    if copies:
        raise DataError(
            f"{copies} pictures are copies of others, byte for byte: a calibrated line counts each picture once",
            next_step="give the policy a `distinct` check, or remove the copies.",
        )
    return {sha256: float(score) for sha256, score in found.items() if score is not None}
