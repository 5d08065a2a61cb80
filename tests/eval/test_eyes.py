"""Measured eyes: the bound on the miss rate, the share that a reviewer misses, and promises by those who miss some."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from scipy.stats import binom

from eval import certify
from eval.package import verify_certificate
from eval.policy import file as policyfile
from eval.promise import eyes
from eval.promise.auditplan import AuditPlan
from eval.promise.certificate import certificate_proof_problems, make_certificate
from eval.promise.eyes import KnownRejectResultOfReviewer
from eval.promise.known_rejects import picture_with_fault, pictures_with_known_rejects, spoilt_picture_file_bytes
from eval.promise.label import Label, LabelName
from eval.promise.ranked import BY_MARGIN, RankedAuditDesign
from stylegate.pictures import decode_picture
from stylegate.words import percentage_rounded_up
from tests.bench import measured_eyes as bench
from tests.stylegate.test_pictures import encoded, gray_profile


def test_the_bound_is_the_exact_binomial_one() -> None:
    """At the bound, so few misses or fewer have the chance delta."""
    for shown, missed in ((30, 0), (100, 7), (200, 60)):
        assert binom.cdf(
            missed, shown, KnownRejectResultOfReviewer(shown, missed).miss_rate_upper_bound(0.01)
        ) == pytest.approx(0.01)
    assert (
        KnownRejectResultOfReviewer(0, 0).miss_rate_upper_bound(0.01)
        == KnownRejectResultOfReviewer(5, 5).miss_rate_upper_bound(0.01)
        == 1.0
    )
    assert (
        KnownRejectResultOfReviewer(459, 0).miss_rate_upper_bound(0.01)
        < 0.01
        < KnownRejectResultOfReviewer(450, 0).miss_rate_upper_bound(0.01)
    ), "log(.01) / log(.99)"
    with pytest.raises(ValueError, match="6 of 5 known rejects"):
        KnownRejectResultOfReviewer(5, 6)


def test_a_reviewer_rejects_fewer_than_that_with_a_small_chance_only() -> None:
    for rejects, miss in ((0, 0.3), (4, 0.5), (351, 0.1), (351, 0.0)):
        fewest = eyes.least_number_of_rejects_noticed(rejects, miss, 0.0025)
        assert binom.cdf(fewest - 1, rejects, 1 - miss) <= 0.0025
        assert fewest == rejects or binom.cdf(fewest, rejects, 1 - miss) > 0.0025
    assert eyes.least_number_of_rejects_noticed(351, 1.0, 0.0025) == 0


def test_shares_of_delta_add_up_to_it() -> None:
    assert eyes.SHARES.audit + eyes.SHARES.miss_rate + eyes.SHARES.chance == pytest.approx(1)


def said(names: list[str], verdict: LabelName, who: str = "anna") -> list[Label]:
    return [Label(sha256=name, verdict=verdict, who=who, why="") for name in names]


def test_eyes_cost_labels_and_unknown_ones_prove_nothing() -> None:
    plan = bench.Lot(7000, 100).plan
    known, clean = list(plan.known_rejects), said(plan.labelling_order[:800], "accept")
    trusted = replace(plan, known_rejects={}).audit_results_for_lot_shares(clean)[0].proven_after
    answers = [said(known[:missed], "accept") + said(known[missed:], "unsure") for missed in (0, 10, 30)]
    needed = [plan.audit_results_for_lot_shares(clean, given)[0].proven_after for given in answers]
    counts = [count for count in (trusted, *needed) if count is not None]
    assert len(counts) == 4 and counts == sorted(set(counts)), "each costs more than the one before"
    unmeasured = plan.audit_results_for_lot_shares(clean, said(known, "reject", "bob"))[0]
    assert (unmeasured.proven_after, unmeasured.bound, unmeasured.miss_rate) == (None, 1, 1), "of others' eyes"
    unanswered, missed = answers[0][:-20], answers[0][:-20] + said(known[-20:], "accept")
    assert plan.audit_results_for_lot_shares(clean, unanswered) == plan.audit_results_for_lot_shares(clean, missed)
    two = plan.audit_results_for_lot_shares(
        [*clean[:-1], *said(plan.labelling_order[799:800], "accept", "bob")], answers[0]
    )[0]
    assert two.miss_rate == 1, "one of the reviewers was not measured"


def test_promises_are_kept_by_reviewers_who_miss_rejects() -> None:
    """20 lots of 1,000 at 5.8 %; who takes the reviewer's word breaks more. Wrong alarms break no promise."""
    ignored, measured = bench.broken_promises(58, 0.4, 100, 20, np.random.default_rng(8), 1000, alarms=0.001)
    assert measured <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 20) and ignored > 0.2, ignored


@pytest.mark.parametrize("design", [None, BY_MARGIN])
def test_a_certificate_says_what_was_measured_and_a_stranger_computes_it_again(
    design: RankedAuditDesign | None,
) -> None:
    policy = policyfile.read_policy("default")
    names = [f"{number:064x}" for number in range(240)]
    known = dict(zip(names[200:], names, strict=False))
    plan = AuditPlan(names[:200], policy.promise, 0, policy.sha256, design, known_rejects=known)
    given = said(plan.labelling_order[:170], "accept") + said(plan.labelling_order[170:190], "accept", "bob")
    answers = said(names[200:239], "reject") + said(names[239:], "accept") + said(names[200:], "reject", "bob")
    attempts = plan.audit_results_for_lot_shares(given, answers)
    made = make_certificate(plan, given, attempts, 0, policy, answers=answers)
    assert attempts[0].proven_after and attempts[0].miss_rate and made.version == 4
    assert made.assumes == (
        "anna did not see 1 of 40 known rejects, bob did not see 0 of 40 known rejects: "
        f"at most {percentage_rounded_up(attempts[0].miss_rate)} of rejects are missed"
    )
    assert (
        certificate_proof_problems(made) == []
        and verify_certificate.recomputed_certificate_problems(made.json_data_without_defaults()) == []
    )
    assert verify_certificate.known_rejects_in_words(made.json_data_without_defaults()) == made.assumes
    for change in (
        {"known_answers": made.known_answers[1:]},
        {"known_rejects": {}, "known_answers": []},
        {"known_answers": [*made.known_answers[1:], made.known_answers[1]]},
    ):
        forged = made.model_copy(update=change)
        forged = forged.model_copy(update={"sha256": forged.computed_sha256()})
        assert certificate_proof_problems(forged) and verify_certificate.recomputed_certificate_problems(
            forged.json_data_without_defaults()
        ), change


LOT, HIDDEN = [f"{number:064x}" for number in range(1000)], [f"{number:064x}" for number in range(5000, 5040)]


@pytest.mark.parametrize(
    ("first", "size", "count"),
    [
        (0, 1000, 20),  # a worksheet with fewer rows than the pictures that known rejects are hidden among
        (0, 1000, 200),
        (100, 150, 50),  # a second reviewer, near the end of the lot
        (200, 1000, 200),  # a second reviewer, after all of these pictures
    ],
)
def test_known_rejects_come_in_no_run(first: int, size: int, count: int) -> None:
    shown = pictures_with_known_rejects(LOT[first:size], first, HIDDEN, 117, "bob", count)
    assert [s for s in shown if s in LOT] == LOT[first : first + count]
    runs = "".join("k" if sha256 in HIDDEN else " " for sha256 in shown).split()
    among = min(117, size - first)  # pictures that they are hidden among
    expected = len(HIDDEN) * min(count, among) / among
    assert 0.5 * expected <= sum(map(len, runs)) <= 1.5 * expected and max(map(len, runs)) <= 8, runs


def test_worksheet_after_worksheet_every_known_reject_is_asked_about_once() -> None:
    asked: list[str] = []
    for first in range(0, 120, 20):
        left = [sha256 for sha256 in HIDDEN if sha256 not in asked]
        asked += [s for s in pictures_with_known_rejects(LOT[first:], first, left, 117, "", 20) if s in HIDDEN]
    assert sorted(asked) == HIDDEN
    whole = pictures_with_known_rejects(LOT, 0, HIDDEN, 117, "")
    assert asked == [sha256 for sha256 in whole if sha256 in HIDDEN], "a place stays, whenever one asks"
    assert pictures_with_known_rejects([], 1000, HIDDEN, 117, "") == HIDDEN, "no picture is left to hide them among"


def test_a_reviewer_is_not_asked_again_what_he_answered() -> None:
    plan = AuditPlan(LOT, bench.Lot(200, 40).plan.promise, 0, known_rejects=dict.fromkeys(HIDDEN, LOT[0]))
    given = said(plan.labelling_order[:9], "accept") + said(plan.labelling_order[9:12], "accept", "bob")
    answers = said(HIDDEN[:30], "reject") + said(HIDDEN[:5], "reject", "bob")
    assert certify.known_rejects_without_answer_of(plan, answers, "bob") == HIDDEN[5:]
    assert certify.known_rejects_not_answered_by_all(plan, given, answers) == HIDDEN[5:]
    assert certify.known_rejects_not_answered_by_all(plan, given[:9], answers) == HIDDEN[30:], (
        "bob gave no label of the lot"
    )
    assert certify.known_rejects_not_answered_by_all(plan, [], []) == HIDDEN


def test_a_fault_is_where_somebody_sees_it() -> None:
    """Colours of pixels that are transparent are seen by nobody: no fault lies there."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    assert picture_with_fault(Image.fromarray(pixels), np.random.default_rng(2)) is None
    pixels[20:44, 20:44, 3] = 255
    picture = Image.fromarray(pixels)
    for seed in range(20):
        spoilt = picture_with_fault(picture, np.random.default_rng(seed))
        assert spoilt is not None
        before, after = (
            np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), one), float)
            for one in (picture, spoilt)
        )
        assert np.abs(before - after).sum() / (4 * 16 * 16) > 6, seed


def long_text() -> PngImagePlugin.PngInfo:
    """As of a large workflow: Pillow refuses the picture for it."""
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    return text


def noise(mode: str) -> Image.Image:
    return (
        Image.fromarray(np.random.default_rng(3).integers(60, 200, (8, 8, 4), np.uint8)).resize((64, 64)).convert(mode)
    )


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a png.jpg", encoded(noise("RGBA")), "PNG"),
        ("a jpeg.png", encoded(noise("RGB"), "JPEG"), "JPEG"),
        ("gray.jpg", encoded(noise("L"), "JPEG", icc_profile=gray_profile(1.0)), "JPEG"),
        ("cmyk.jpg", encoded(noise("RGB").convert("CMYK"), "JPEG", icc_profile=b"of a press"), "JPEG"),
        ("deep.png", encoded(Image.fromarray(np.asarray(noise("L"), np.uint16) * 257)), "PNG"),
        ("alpha.webp", encoded(noise("RGBA"), "WEBP", lossless=True), "WEBP"),
        ("text.png", encoded(noise("RGB"), pnginfo=long_text()), "PNG"),
    ],
)
def test_a_known_reject_is_its_picture_but_for_the_fault(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    """Whatever the file is called, and whatever its colours are: nobody can tell it by anything but the fault."""
    (tmp_path / name).write_bytes(content)
    spoilt = spoilt_picture_file_bytes(tmp_path / name, "seed")
    assert spoilt is not None
    with Image.open(io.BytesIO(spoilt)) as opened:
        assert opened.format == kind and "icc_profile" not in opened.info
    before, after = (np.asarray(decode_picture(one).image, float) for one in (content, spoilt))
    moved = np.abs(before - after).max(2) > 16
    assert 0.01 < moved.mean() < 0.1, "a square of a quarter of the side"
