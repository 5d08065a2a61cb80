"""Review pictures in a browser: large, by keyboard, blind; every answer is kept the moment it is given.

    stylegate review batch=NAME                      opens a page on this machine; Ctrl-C ends it
    stylegate review images=DIR references=DIR       the same for any folder
    stylegate review batch=NAME port=0 open=false    any free port; prints the address alone
    stylegate review batch=NAME queue=disagreements          settles what two reviewers disagree about
    stylegate review batch=NAME queue=rejected     how many good pictures the gate rejects, by a random sample of them
    stylegate review batch=NAME queue=audit          labels for `certify`, until they prove the promise
    stylegate review batch=NAME queue=calibration policy=FILE      labels for `calibrate`

Asks about the pictures that the gate holds for review, in an order of each reviewer's own. Scores and what others said
are not shown. An answer is a decision under the policy and its guideline, for the checks that the picture is in review
for, and settles nothing else; `stylegate gate` with the same arguments applies it. Labels of an audit or a calibration
are asked for in one settled order, and stay. Returns 0 once nothing is left, else 11, or 13 where labels are missing.

The lot is locked while it is judged, and not while the page is open: gate may run beside it. A picture that changed
since is not shown.
"""

import webbrowser
from dataclasses import replace

from eval.calibrate import calibration_pool_scores_by_sha256
from eval.judging.advice import next_step_with_export_in_words
from eval.judging.certified import audit_plan_and_why_this_order
from eval.judging.judge import judge, require_gate_used_same_policy
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.lot import Lot, locked_lot
from eval.lot.words import arguments_naming_lot
from eval.policy import file as policyfile
from eval.promise import disagreements
from eval.promise.auditplan import index_of_first_proven_attempt, write_audit_terms
from eval.promise.calibration import begin_or_resume_calibration, require_policy_has_calibrated_check
from eval.promise.known_rejects import audit_picture_path_by_sha256, plan_with_known_rejects_and_why
from eval.promise.label import Label
from eval.promise.rejected import labelling_order_of_rejected_pictures, sha256_of_pictures_rejected_by_score
from eval.promise.terminal import can_open_browser
from eval.reviewing.queues import (
    ReviewQueue,
    audit_or_calibration_queue,
    disagreement_queue,
    queue_of_pictures_in_review,
)
from eval.reviewing.session import ReviewSession
from stylegate.config import Config
from stylegate.errors import ExitCode
from stylegate.words import counted


def review(config: Config) -> int:
    """Judge the lot, serve the page of a queue until Ctrl-C (in a browser where one can be opened), and print what is
    left. Returns 0 once nothing is left, else 11, or 13 where labels are missing.
    """
    from eval.reviewing import server

    make_queue = {
        "borderline": review_queue_of_lot,
        "disagreements": disagreement_queue_of_lot,
        "audit": begin_audit_queue,
        "calibration": begin_calibration_queue,
        "rejected": rejected_queue,
    }[config.queue]
    with locked_lot(config) as lot:
        queue = make_queue(config, lot)
    session = ReviewSession(queue)
    if not queue.pictures:
        empty = {
            "disagreements": "reviewers disagree about no picture",
            "rejected": "no picture is rejected by a score",
        }
        none = empty.get(config.queue, "no picture is in review")
        print(f"review: {none}\nNext: {queue.next_words}")
        return ExitCode.PASS
    token = server.new_token_if_reachable(config.host)
    found = server.listening_socket(config.host, config.port)
    address = server.browser_address(found, token)
    for line in what_is_asked_in_words(session):
        print(line)
    print(f"{address}   Ctrl-C ends it; every answer is kept at once", flush=True)
    if config.open and can_open_browser():
        webbrowser.open(address)
    server.serve_until_stopped(server.review_application(session, config.host, token), found)
    return print_decided_and_left(session)


def what_is_asked_in_words(session: ReviewSession) -> list[str]:
    """Lines that the console shows as the page opens: how much is to decide, and whether nothing is."""
    queue, before = session.queue, session.decided_before
    if queue.purpose == "audit":
        pictures, given = counted(len(queue.pictures), "picture"), counted(before, "label")
        lines = [f"review: audit of {queue.title}, {pictures}; {given} before"]
    else:
        asked = [not session.is_decided(one) or session.has_unsettled_disagreement(one) for one in session.standing]
        left = counted(sum(asked), "picture")
        lines = [f"review: {left} of {queue.title} to decide, {len(asked) - sum(asked)} decided before"]
    if session.has_enough_labels():
        lines.append(f"nothing is left to decide: the labels are enough. Next: {queue.next_words}")
    elif not queue.fixed_order and not session.verdict_counts()["open"] and not session.num_disagreements():
        lines.append(
            f"nothing is left to decide. Next: {queue.next_words}; the page is for a second look, and for undo"
        )
    return lines


def review_queue_of_lot(config: Config, lot: Lot) -> ReviewQueue:
    """The queue of all pictures that the gate holds for review now, for whatever reason; the lot is judged for it.

    Without any, what comes next is what the gate says of the lot, unless it has not judged the lot as it is now.
    """
    judged, gate = judge(config, lot), f"stylegate gate {arguments_naming_lot(config, lot)}"
    queue, path = queue_of_pictures_in_review(judged, gate), lot.out / "verdicts.jsonl"
    if queue.pictures or not path.is_file() or path.read_bytes() != judged.verdicts_text.encode():
        return queue
    return replace(queue, next_words=next_step_with_export_in_words(judged.outcome, judged.verdicts, lot.out) or gate)


def disagreement_queue_of_lot(config: Config, lot: Lot) -> ReviewQueue:
    """The queue of the pictures in review that reviewers disagree about: whoever answers settles them."""
    queue = review_queue_of_lot(config, lot)
    return disagreement_queue(queue, disagreements.disagreements(lot.out, "review", queue.policy))


def begin_audit_queue(config: Config, lot: Lot) -> ReviewQueue:
    """The queue of the accepted pictures in the random order of the lot's audit, and its known rejects. The terms of
    the audit are stored now, before a picture is shown.
    """
    judged = judge(config, lot, without="audit")
    policy = judged.policy
    require_gate_used_same_policy(lot, policy)
    plan, why = audit_plan_and_why_this_order(
        lot.out, judged.verdicts, policy, bool(lot.slots), not config.promise.known_rejects
    )
    plan, measured = plan_with_known_rejects_and_why(lot, plan, config.promise.known_rejects)
    print(f"order: {why}\nreviewers: {measured}")
    write_audit_terms(lot.out, plan)

    def is_proven(given: list[Label], answers: list[Label]) -> bool:
        return index_of_first_proven_attempt(plan.audit_results_for_lot_shares(given, answers)) is not None

    words = f"stylegate certify {arguments_naming_lot(config, lot)}"
    found = audit_or_calibration_queue(lot, judged.comparison, policy, "audit", plan.labelling_order, is_proven, words)
    if not plan.known_rejects:
        return found
    known = [
        replace(
            found.pictures[source],
            sha256=sha256,
            path=audit_picture_path_by_sha256(lot.out, sha256, found.pictures[source].path),
        )
        for sha256, source in plan.known_rejects.items()
    ]
    return replace(found, known_rejects=known, known_reject_window=plan.fewest_labels() or len(plan.lot))


def rejected_queue(config: Config, lot: Lot) -> ReviewQueue:
    """The queue of a random sample of what the gate rejects by a score: how many of them are good?"""
    judged = judge(config, lot)
    order = labelling_order_of_rejected_pictures(sha256_of_pictures_rejected_by_score(judged.verdicts), judged.policy)
    sample = order[: config.promise.num_labels]

    def is_sample_fully_labelled(given: list[Label], answers: list[Label]) -> bool:
        return len(given) == len(sample)

    words = f"stylegate gate {arguments_naming_lot(config, lot)}"
    return audit_or_calibration_queue(
        lot, judged.comparison, judged.policy, "rejected", sample, is_sample_fully_labelled, words
    )


def begin_calibration_queue(config: Config, lot: Lot) -> ReviewQueue:
    """The queue of the random sample that calibrates the policy's threshold. The terms of the calibration are stored
    now, before a picture is shown.
    """
    policy, compared = policyfile.read_policy(config.policy), comparison_pictures_with_decided_ones(config, lot)
    require_policy_has_calibrated_check(policy)
    pool = calibration_pool_scores_by_sha256(config, lot, compared, policy)
    plan = begin_or_resume_calibration(lot.out, pool, policy, config.promise.num_labels)
    words, under = f"stylegate calibrate {arguments_naming_lot(config, lot)}", plan.digest_of_pool_and_policy
    if config.promise.num_labels != Config().promise.num_labels:
        words += f" promise.num_labels={config.promise.num_labels}"

    def is_calibration_fully_labelled(given: list[Label], answers: list[Label]) -> bool:
        return len(given) == len(plan.pictures_to_label)

    return audit_or_calibration_queue(
        lot, compared, policy, "calibrate", plan.pictures_to_label, is_calibration_fully_labelled, words, under
    )


def print_decided_and_left(session: ReviewSession) -> int:
    """Print how many pictures are decided and left, and what to run next. Returns the exit code."""
    counts, queue = session.verdict_counts(), session.queue
    decided = counts["accept"] + counts["reject"]
    left = f"{counts['open']} left"
    if queue.purpose == "audit":
        left = "that is enough" if session.has_enough_labels() else "not enough yet"
    print(
        f"\nreview: {decided} decided ({counts['accept']} accept, {counts['reject']} reject), "
        f"{decided - session.decided_before} of them now; {left}"
    )
    if count := session.num_disagreements():
        print(
            f"note: two reviewers disagree about {counted(count, 'picture')}; a third one is asked about each, or "
            "stylegate review queue=disagreements with the same arguments asks about them alone"
        )
    print(f"Next: {queue.next_words}")
    if queue.fixed_order:
        return ExitCode.PASS if session.has_enough_labels() else ExitCode.EVIDENCE
    return ExitCode.REVIEW if counts["open"] else ExitCode.PASS
