"""The audit that uses the ranking: a martingale for every lot, whatever the ranking is worth; its order; the choice."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.package import verify_certificate
from eval.policy import file as policyfile
from eval.policy.model import Promise
from eval.promise import audit, auditplan, certificate
from eval.promise.ranked import (
    BY_MARGIN,
    BettingStrategyParameters,
    RankedAuditDesign,
    audit_sampling_weights_by_rank,
    choose_audit_design,
    make_weighted_betting_wealth_function,
    weighted_order,
)
from stylegate import files
from stylegate.errors import DataError
from tests.bench import fewer_labels as bench
from tests.eval.people import label

STEEP = RankedAuditDesign(
    steepness=1.5,
    floor=0.2,
    draw=3.0,
    gamblers=(
        BettingStrategyParameters(share=0.5, least_doubt=0.0, doubt=0.4),
        BettingStrategyParameters(share=0.5, least_doubt=1.0, doubt=0.0),
    ),
)


@pytest.mark.parametrize("design", [BY_MARGIN, STEEP])
def test_wealth_is_a_martingale_for_every_lot(design: RankedAuditDesign) -> None:
    """Whichever pictures are the rejects: the mean over every order of a lot of 5, by its chance, is 1 after each."""
    size, weights = 5, audit_sampling_weights_by_rank(5, design)
    orders = np.array(list(itertools.permutations(range(size))))
    taken = weights[orders]
    chances = np.prod(taken / (weights.sum() - (taken.cumsum(1) - taken)), axis=1)
    assert chances.sum() == pytest.approx(1)
    for truth in itertools.product([0, 1], repeat=size):
        labels = np.array(truth)[orders]
        paths = np.array(
            [
                make_weighted_betting_wealth_function(o, weights, design)(x, size, sum(truth))
                for o, x in zip(orders, labels, strict=True)
            ]
        )
        np.testing.assert_allclose(chances @ paths[:, : size - 1], 1.0)


def test_equal_weights_and_doubts_are_the_even_audit() -> None:
    """The same numbers where the bet is the same: the doubt that belongs to a bet of .5 changes with the lot's end."""
    flat = RankedAuditDesign(
        steepness=0, floor=1, draw=0, gamblers=(BettingStrategyParameters(share=1.0, least_doubt=1.0, doubt=0.0),)
    )
    labels, places = np.array([0, 1, 0, 0]), [5, 2, 9, 0]
    found = make_weighted_betting_wealth_function(places, audit_sampling_weights_by_rank(10, flat), flat)(labels, 10, 3)
    wealth, expected, remaining = 1.0, [], 3
    for i, x in enumerate(labels):
        chance = remaining / (10 - i)
        wealth *= 1 + (chance - x) / (2 - chance)  # the bet 1 / (doubt + 1 - chance)
        remaining -= x
        expected.append(wealth)
    np.testing.assert_allclose(found, expected)


def test_wealth_grows_with_the_rejects_that_are_doubted() -> None:
    labels, places = np.array([0, 0, 1, 0, 0, 1]), [3, 50, 99, 7, 98, 0]
    bettor = make_weighted_betting_wealth_function(places, audit_sampling_weights_by_rank(100, BY_MARGIN), BY_MARGIN)
    paths = np.array([bettor(labels, 100, rejects) for rejects in range(2, 96)])
    assert (np.diff(paths, axis=0) > 0).all()
    assert np.isinf(bettor(labels, 100, 1)[-1]) and np.isinf(bettor(labels, 100, 97)[-1]), "no such lot"


def test_the_next_picture_is_drawn_by_weight() -> None:
    """First and second places over many seeds, against the chances that the proof counts with."""
    weights, seen = audit_sampling_weights_by_rank(4, STEEP), np.zeros((4, 4))
    for seed in range(8000):
        first, second = weighted_order(["0", "1", "2", "3"], str(seed), STEEP)[:2]
        seen[int(first), int(second)] += 1
    expected = np.array(
        [[0 if a == b else weights[a] * weights[b] / (weights.sum() - weights[a]) for b in range(4)] for a in range(4)]
    )
    np.testing.assert_allclose(seen / 8000, expected / weights.sum(), atol=4 * math.sqrt(0.25 / 8000))
    assert seen[3].sum() > seen[0].sum(), "the worst margin comes first more often"


def test_who_labels_a_whole_lot_always_has_a_certificate() -> None:
    lot = [f"{i:064x}" for i in range(30)]
    plan = auditplan.AuditPlan(lot, Promise(alpha=0.05, delta=0.05, ladder=(1.0,)), 0, "", BY_MARGIN)
    given = [label(sha256, "reject" if i % 2 else "accept") for i, sha256 in enumerate(plan.labelling_order)]
    assert (
        plan.audit_results_for_lot_shares(given)[0].bound == 0
        and plan.audit_results_for_lot_shares(given)[0].proven_after is not None
    )
    assert plan.audit_results_for_lot_shares(given[:10])[0].bound > 0.3


@pytest.mark.parametrize("design", [None, BY_MARGIN])
def test_certificates_of_both_orders_hold(design: RankedAuditDesign | None, tmp_path: Path) -> None:
    """One without a design is version 2, byte for byte what older versions wrote and read."""
    policy, lot = policyfile.read_policy("default"), [f"{i:064x}" for i in range(300)]
    plan = auditplan.AuditPlan(lot, policy.promise, 0, policy.sha256, design)
    given = [label(sha256, "accept") for sha256 in plan.labelling_order[:120]]
    made = certificate.make_certificate(plan, given, plan.audit_results_for_lot_shares(given), 0, policy)
    made.write_json_file(path := tmp_path / "certificate.json")
    written = json.loads(path.read_text())
    assert written["version"] == (3 if design else 2) and ("design" in written) == bool(design)
    assert certificate.read_certificate(path) == made and not verify_certificate.recomputed_certificate_problems(
        written
    )
    other = auditplan.AuditPlan(lot[1:] + lot[:1], policy.promise, 0, policy.sha256, design)
    assert (other.labelling_order == plan.labelling_order) == (design is None), (
        "another ranking of the same pictures is another order"
    )
    content = {name: value for name, value in written.items() if name != "sha256"} | {"order_seed": "0" * 64}
    assert "random order" in verify_certificate.recomputed_certificate_problems(content)[-1]
    path.write_text(json.dumps(content | {"sha256": files.canonical_sha256(content)}))
    with pytest.raises(DataError, match="does not hold"):
        certificate.read_certificate(path)


@pytest.mark.parametrize("design", [None, BY_MARGIN, STEEP])
def test_the_packages_own_check_computes_the_same(design: RankedAuditDesign | None) -> None:
    """verify_certificate.py, without numpy: the same order, the same number of labels, for parts of the lot too."""
    lot, rng = [f"{i * 7919:064x}" for i in range(400)], np.random.default_rng(14)
    plan = auditplan.AuditPlan(lot, Promise(alpha=0.05, delta=0.1, ladder=(1.0, 0.7)), 1, "5" * 64, design)
    weights = verify_certificate.audit_sampling_weights_by_rank(
        400, design.json_data_without_defaults() if design else None
    )
    assert verify_certificate.pictures_in_drawn_order(lot, plan.order_seed, weights) == plan.labelling_order
    proofs = 0
    for rejects in (0, 4, 8, 60):
        bad = set(rng.choice(lot, rejects, replace=False))
        given = [label(sha256, "reject" if sha256 in bad else "accept") for sha256 in plan.labelling_order[:300]]
        for attempt in plan.audit_results_for_lot_shares(given):
            labels = [(lot.index(g.sha256), g.is_reject) for g in given if g.sha256 in lot[: attempt.size]]
            told = (labels, attempt.size, 0.05, attempt.delta, weights[: attempt.size])
            found = verify_certificate.labels_until_proven(
                *told, design.json_data_without_defaults() if design else None
            )
            assert found == attempt.proven_after
            proofs += found is not None
    assert proofs >= 4


def test_the_ranking_is_used_unless_it_tells_nothing() -> None:
    margins = [float(i) for i in range(100, 0, -1)]
    assert choose_audit_design(margins, [])[0] == BY_MARGIN
    assert (
        choose_audit_design([1.0] * 60 + margins[:40], [])[0] is None and choose_audit_design([None] * 9, [])[0] is None
    )
    good = [(float(i), False) for i in range(50)]
    worthless, why = choose_audit_design(margins, good + [(float(i), True) for i in range(0, 50, 10)])
    assert worthless is None and "5 rejects in 55 earlier labels: area 0.59" in why, why
    assert choose_audit_design(margins, good + [(float(i), True) for i in range(5)])[0] == BY_MARGIN
    assert choose_audit_design(margins, good + [(49.0, True)] * 4)[0] == BY_MARGIN, "four rejects say little"


@pytest.mark.parametrize("kind", ["good", "worthless", "adversarial"])
def test_promises_are_kept_whatever_the_ranking_is_worth(kind: str) -> None:
    """150 lots each of 1,000 pictures at 5.5 %."""
    rng = np.random.default_rng(11)
    broken = bench.broken_promises(bench.RISKS[kind](1000), 55, 150, rng, 1000)
    assert broken <= audit_allowed(150)


def audit_allowed(count: int) -> float:
    """delta and two standard errors."""
    return 0.05 + 2 * math.sqrt(0.05 * 0.95 / count)


def test_a_good_ranking_saves_labels_and_a_worthless_one_costs_few() -> None:
    rng = np.random.default_rng(12)
    good, even = bench.labels_of_both(bench.RISKS["good"](2000), 40, 150, rng, 2000)
    assert np.log(good / even).mean() < math.log(0.97)
    worthless, even = bench.labels_of_both(bench.RISKS["worthless"](2000), 40, 150, rng, 2000)
    assert np.log(worthless / even).mean() < math.log(1.1)


def test_wealth_that_is_audited_is_the_plans() -> None:
    """labels_until_proven and the bound agree on a ranked order too."""
    rng = np.random.default_rng(13)
    truth = np.zeros(800, int)
    truth[rng.choice(800, 12, replace=False)] = 1
    weights = audit_sampling_weights_by_rank(800, BY_MARGIN)
    order = np.argsort(rng.exponential(size=800) / weights)
    labels, bettor = truth[order], make_weighted_betting_wealth_function(order.tolist(), weights, BY_MARGIN)
    needed = audit.labels_until_proven(labels, 800, 0.05, 0.05, bettor)
    assert needed is not None
    for count, proven in ((needed, True), (needed - 1, False)):
        part = make_weighted_betting_wealth_function(order[:count].tolist(), weights, BY_MARGIN)
        assert (
            audit.upper_bound_on_reject_share_after_removal(labels[:count], 800, 0.05, 0.05, part) <= 0.05
        ) is proven


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (lambda c: c["design"]["gamblers"][0].update(share=10), "bets may win without any evidence"),
        (lambda c: c["design"]["gamblers"][0].update(least_doubt=-0.5), "bets may win without any evidence"),
        (lambda c: c["design"].update(draw=-1), "bets may win without any evidence"),
        (lambda c: c.update(earlier_attempts=-3), "terms are none that an audit can have"),
        (lambda c: c.update(proven=-3), "terms are none that an audit can have"),
        (lambda c: c["promise"].update(ladder=[1.0]), "terms are none that an audit can have"),
        (lambda c: c["promise"].update(delta=2), "terms are none that an audit can have"),
        (lambda c: c.update(says=c["says"].replace("5.0%", "0.1%")), "it says something else than its terms"),
        (lambda c: c["promise"].update(alpha=0.06), "it says something else than its terms"),
    ],
)
def test_the_packages_own_check_believes_no_terms_that_prove_nothing(
    forge: Callable[[dict], object], says: str
) -> None:
    """Labels, order and proof are those of the forged terms: only the terms are not those of an audit."""
    policy, lot = policyfile.read_policy("default"), [f"{i:064x}" for i in range(1000)]
    plan = auditplan.AuditPlan(lot, policy.promise, 0, policy.sha256, BY_MARGIN)
    given = [label(sha256, "accept") for sha256 in plan.labelling_order[:120]]
    made = certificate.make_certificate(
        plan, given, plan.audit_results_for_lot_shares(given), 0, policy
    ).json_data_without_defaults()
    assert not verify_certificate.recomputed_certificate_problems(made)
    forge(made)
    told = ["stylegate-audit-3", lot, policy.sha256, made["design"]]
    made["order_seed"] = verify_certificate.canonical_json_sha256(told)
    assert any(says in problem for problem in verify_certificate.recomputed_certificate_problems(made))
