"""Exact plans: counts, rules, one-of-ones, what is refused, import and export, rarity."""

import csv
import hashlib
import io
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import OptimizeResult

from eval.lot.batch import read_plan, write_plan
from eval.lot.comparison import traits_spelled_as_planned
from eval.package import verify_traits
from eval.planning import exact, feasible, interchange
from eval.planning.asked import training_combinations_to_exclude
from eval.planning.collection import (
    CollectionItems,
    items_with_one_value_per_trait,
    notes_on_equal_items,
    notes_on_values_like_none,
    read_collection,
)
from eval.planning.deal import find_plan_by_random_swaps
from eval.planning.interchange import export_items
from eval.planning.open_slots import (
    rarity_intervals,
    rarity_scores_and_ranks,
    rarity_scores_and_ranks_if_added,
    value_number_table,
)
from eval.planning.picture import counts_and_rarity_in_words
from eval.planning.problem import OPEN, PlanConstraints, exact_counts_and_problems, make_plan_constraints
from eval.planning.rarity import missing_pairs, rarest_pairs, rarity_of_each_item
from eval.planning.repair import plan_rows_with_other_combinations_in_slots
from eval.planning.slots import notes_on_values_without_slot, slots_from_traits, traits_of_slots_to_keep
from eval.planning.solve import require_feasible_and_return_spare_bits, solve_plan
from eval.planning.traits import TraitsFile, TraitValue
from eval.planning.traitsfile import read_traits_file
from stylegate import files
from stylegate.brandset import NO_BRAND, brand_folder, read_brand_set
from stylegate.config import Config
from stylegate.configgroups import PlanConfig
from stylegate.errors import DataError
from tests.bench.plan import dense_file, random_file

GOLDEN = files.ROOT / "tests" / "golden"


def keeps_everything(problem: PlanConstraints, rows: np.ndarray) -> bool:
    """The slow and obvious check of a plan, value by value and slot by slot."""
    told = [problem.traits_of_row(row) for row in rows]
    assert len({tuple(item.values()) for item in told}) == problem.size == len(rows)
    for trait, values, counts in zip(problem.traits, problem.values, problem.counts, strict=True):
        found = Counter(item[trait] for item in told)
        assert [found[value] for value in values] == counts.tolist()

    def having(rule: Any) -> int:
        return sum(all(mask[row[trait]] for trait, mask in rule.masks.items()) for row in rows)

    assert all(having(rule) == 0 for rule in problem.forbidden)
    assert all(limit.low <= having(limit) <= limit.high for limit in problem.limits)
    assert ((problem.given == OPEN) | (problem.given == rows)).all()
    return True


def file_of(text: str, folder: Path) -> TraitsFile:
    (folder / "t.yaml").write_text(text)
    return read_traits_file(folder / "t.yaml")


RULES = """
prompt: '{trigger}, {hat} {kind}, {item}'
negative_prompt: blurry
tiers: {rare: 1, common: 6}
traits:
  hat: {none: {tier: common}, crown: {count: 9}, halo: {tier: rare, at_least: 4}, cap: {tier: common, at_most: 20}}
  kind: {robot: 3, cat: 3, ghost: 1}
  item: {none: 2, sword: {weight: 1, phrase: big sword}, book: 1, ball: 1}
  color: {red: 1, blue: 1, green: 1}
rules:
  forbid:
  - {hat: crown, color: [red, blue]}
  - {kind: robot, item: ball, color: green}
  require:
  - {when: {kind: ghost}, then: {item: [none, book]}}
  limit:
  - {of: {hat: halo, kind: cat}, at_least: 2, at_most: 3}
one_of_ones:
- {slot: 3, traits: {hat: golden helmet, kind: cat}, name: The First, prompt: a golden cat, seed: 77}
- {traits: {color: rainbow}}
"""


def test_a_plan_keeps_counts_rules_and_one_of_ones(tmp_path: Path) -> None:
    file = file_of(RULES, tmp_path)
    slots = slots_from_traits(file, NO_BRAND, PlanConfig(num_images=60))
    assert slots == slots_from_traits(file, NO_BRAND, PlanConfig(num_images=60))
    assert slots != slots_from_traits(file, NO_BRAND, PlanConfig(num_images=60, seed=1))
    problem = make_plan_constraints(file, 60)
    assert keeps_everything(problem, np.array([problem.value_numbers_of_traits(slot.traits) for slot in slots]))
    counts = {trait: Counter(slot.traits[trait] for slot in slots) for trait in problem.traits}
    assert counts["hat"] == {"none": 26, "crown": 9, "halo": 4, "cap": 20, "golden helmet": 1}
    assert slots[3].traits["hat"] == "golden helmet" and slots[3].traits["kind"] == "cat"
    assert (slots[3].prompt, slots[3].seed, slots[3].negative_prompt) == ("a golden cat", 77, "blurry")
    (rainbow,) = [slot.slot for slot in slots if slot.traits["color"] == "rainbow"]
    assert rainbow != 3
    bare = next(slot for slot in slots if slot.slot != 3 and slot.traits["hat"] == slot.traits["item"] == "none")
    assert bare.prompt == f"{bare.traits['kind']}".join(["", ""]) or "none" not in bare.prompt
    assert any("big sword" in slot.prompt for slot in slots)


def test_a_one_of_one_is_called_by_its_name_wherever_its_plan_is_shown(run, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(RULES)
    words = [f"traits={tmp_path / 't.yaml'}", "plan.num_images=60", "lora_file=none", "batch=named"]
    code, text = run("plan", *words, "show=true")
    assert code == 0 and "\none-of-ones (1)\n  slot 3: The First\n" in text
    assert ": slot 3, the one-of-one The First (" in text
    assert (
        run("plan", *words, f"out={tmp_path / 'o.csv'}")[0] == run("plan", *words, f"out={tmp_path / 'o.json'}")[0] == 0
    )
    folder = files.BATCHES / "named"
    assert [slot.name for slot in read_plan(folder) if slot.name] == [read_plan(folder)[3].name] == ["The First"]
    rows = [json.loads(line) for line in (folder / "plan.jsonl").read_text().splitlines()]
    assert rows[3]["name"] == "The First" and not any("name" in row for row in rows if row["slot"] != 3)
    ranked = {row["slot"]: row["one_of_one"] for row in csv.DictReader((folder / "rarity.csv").open())}
    assert ranked["3"] == "The First" and [*ranked.values()].count("") == 59
    assert [row["name"] for row in csv.DictReader((tmp_path / "o.csv").open())][2:4] == ["", "The First"]
    assert [json.loads((tmp_path / "o.json" / f"{i}.json").read_text())["name"] for i in (2, 3)] == ["#2", "The First"]
    before = [(path.name, path.stat().st_size) for path in folder.iterdir() if path.suffix == ".png"]
    (folder / "images").mkdir()
    (folder / "images" / "00003-0.png").touch()
    (tmp_path / "t.yaml").write_text(RULES.replace("The First", "The Very First Of Them All"))
    code, text = run("plan", *words)
    assert code == 0 and "lost" not in text and (folder / "images" / "00003-0.png").exists(), (
        "another name, one picture"
    )
    assert read_plan(folder)[3].name == "The Very First Of Them All"
    assert before != [(path.name, path.stat().st_size) for path in folder.iterdir() if path.suffix == ".png"]


def test_weights_become_counts_by_largest_remainder() -> None:
    weights = {name: TraitValue(weight=weight) for name, weight in zip("abcd", (5.0, 3.0, 1.0, 1.0), strict=True)}
    assert exact_counts_and_problems("t", weights, 10) == ([5, 3, 1, 1], [])
    assert exact_counts_and_problems("t", weights, 7) == ([3, 2, 1, 1], [])  # 3.5, 2.1, .7, .7
    bounded = weights | {"a": TraitValue(weight=5.0, at_most=2), "d": TraitValue(weight=1.0, at_least=3)}
    assert exact_counts_and_problems("t", bounded, 10) == ([2, 4, 1, 3], [])
    assert exact_counts_and_problems("t", {"a": TraitValue(count=3), "b": TraitValue(count=3)}, 7)[1] == [
        "traits.t: its counts sum to 6, for 7 slots"
    ]


def test_a_weight_that_comes_to_no_slot_is_said(tmp_path: Path) -> None:
    text = (
        "prompt: x\ntiers: {rare: 1}\ntraits: {hat: {none: 59, crown: {count: 4}, wizard: TIER, x: MOST}, b: NUMBERS}"
    )
    text = text.replace("NUMBERS", f"{{{', '.join(f'v{i}: 1' for i in range(24))}}}")
    given = text.replace("TIER", "{tier: rare}").replace("MOST", "{weight: 1, at_most: 0}")
    said = ["no slot has hat: wizard (weight 1 of 61 in 20 slots); at_least: 1 keeps it"]
    for now, wanted in ((given, said), (given.replace("{tier: rare}", "{tier: rare, at_least: 1}"), [])):
        file = file_of(now, tmp_path)
        assert (
            notes_on_values_without_slot(file, slots_from_traits(file, NO_BRAND, PlanConfig(num_images=24))) == wanted
        )


@pytest.mark.parametrize("seed", range(3))
def test_random_plans_are_exact(seed: int) -> None:
    problem = make_plan_constraints(random_file(seed, 2000), 2000)
    assert keeps_everything(problem, solve_plan(problem, seed))


def test_a_listing_in_parts_finds_and_proves_what_a_whole_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits and forbidden pairs: the prices of values alone do not say which combinations a floor needs."""
    for seed in range(195, 200):  # the third was called impossible, and is not
        random = np.random.default_rng(seed)
        shares = [np.maximum(random.dirichlet(np.ones(n) * 1.2), 0.03) for n in (6, 6, 5, 4)]
        traits = {f"t{t}": {f"v{v}": {"weight": float(w)} for v, w in enumerate(row)} for t, row in enumerate(shares)}
        pairs = [random.choice(4, 2, replace=False) for _ in range(3)]
        limits = [
            {
                "of": {f"t{t}": f"v{random.integers(4)}" for t in pair},
                "at_least": int(random.integers(1, 9)),
                "at_most": 30,
            }
            for pair in pairs
        ]
        forbid = [{"t0": ["v1"], "t1": ["v2"]}, {"t2": ["v0"], "t3": ["v3"]}][: seed % 3]
        rules = {"limit": limits, "forbid": forbid}
        file = TraitsFile.model_validate({"prompt": "x", "traits": traits, "rules": rules})
        problem = make_plan_constraints(file, int(random.integers(60, 200)))
        whole = exact.solve_relaxation(problem, np.random.default_rng(0))
        with monkeypatch.context() as few:
            few.setattr(exact, "MOST_LISTED", 0)
            parts = exact.solve_relaxation(problem, np.random.default_rng(0))
        assert (parts.taken is None) == (whole.taken is None) and parts.complete == whole.complete, seed


def test_a_plan_with_little_room_is_solved_or_refused_with_a_proof() -> None:
    """The dealing alone does not come to it; the linear programme says which it is."""
    problem = make_plan_constraints(dense_file(0.85), 400)
    assert find_plan_by_random_swaps(problem, np.random.default_rng(0), 50) is None
    rows, found = exact.solve_by_linear_programme(problem, np.random.default_rng(0))
    assert rows is not None and found.complete and keeps_everything(problem, rows)
    with pytest.raises(
        DataError, match="no plan of 400 slots exists: a linear programme over all combinations"
    ) as error:
        solve_plan(make_plan_constraints(dense_file(0.9), 400), 0)
    assert "the nearest counts: " in str(error.value)
    with pytest.raises(DataError, match="different combinations need 8"):
        solve_plan(make_plan_constraints(dense_file(2.5), 400), 0)


@pytest.mark.parametrize("broken", [[7], [7, 8], [3, 400, 1999]])
def test_a_repair_changes_no_more_slots_than_it_must(broken: list[int]) -> None:
    """One slot alone needs one partner, which has no picture if possible; several may be each other's partners."""
    problem = make_plan_constraints(random_file(1, 2000), 2000)
    rows = solve_plan(problem, 1).astype(np.int32)
    filled = set(range(2000)) - {*broken, 1000}
    found = plan_rows_with_other_combinations_in_slots(problem, rows, broken, filled, np.zeros(rows.shape, np.int64), 0)
    assert keeps_everything(problem, found)
    changed = np.flatnonzero((found != rows).any(axis=1)).tolist()
    assert set(broken) <= set(changed) and len(changed) <= len(broken) + 1
    old = {tuple(row) for row in rows[broken].tolist()}
    assert not old & {tuple(row) for row in found.tolist()}, "what was given up comes nowhere again"


@pytest.mark.parametrize("broken", [[7], [7, 8], [3, 400, 1999]])
def test_a_repair_exchanges_the_trait_that_was_seen_wrong_though_another_partner_costs_less(broken: list[int]) -> None:
    """Each slot has another wrong trait, seen wrong twice, and a second one, seen wrong once."""
    problem = make_plan_constraints(random_file(1, 2000), 2000)
    rows = solve_plan(problem, 1).astype(np.int32)
    wrong = np.zeros(rows.shape, np.int64)
    for place, number in enumerate(broken):
        wrong[number, [place, place + 1]] = 2, 1
    filled = set(range(2000)) - {*broken}
    found = plan_rows_with_other_combinations_in_slots(problem, rows, broken, filled, wrong, 0)
    assert keeps_everything(problem, found)
    assert all(found[number, place] != rows[number, place] for place, number in enumerate(broken))
    assert (found != rows).any(axis=1).sum() <= 2 * len(broken)


def test_a_repair_takes_another_trait_where_no_exchange_of_the_wrong_one_keeps_the_rules(tmp_path: Path) -> None:
    text = "prompt: x\ntraits: {a: {x: 1, y: 1}, b: {k: 1, l: 1, m: 1}, c: {p: 1, q: 1}}\n"
    file = file_of(f"{text}one_of_ones: [{{slot: 0, traits: {{a: x}}}}]\n", tmp_path)
    problem = make_plan_constraints(file, 6)
    problem.given[0] = problem.value_numbers_of_traits({"a": "x"})
    rows = solve_plan(problem, 0).astype(np.int32)
    wrong = np.zeros(rows.shape, np.int64)
    wrong[0, 0] = 4
    found = plan_rows_with_other_combinations_in_slots(problem, rows, [0], set(range(1, 6)), wrong, 0)
    assert found[0, 0] == rows[0, 0] and (found[0] != rows[0]).any() and keeps_everything(problem, found)


def test_a_repair_that_one_exchange_does_not_bring_frees_more_slots_or_says_that_there_is_none(tmp_path: Path) -> None:
    file = file_of("prompt: x\ntraits: {a: {x: 1, y: 1}, b: {x: 1, y: 1, z: 1}}", tmp_path)
    problem = make_plan_constraints(file, 6)  # every combination there is
    rows = solve_plan(problem, 0).astype(np.int32)
    with pytest.raises(DataError, match="no plan of 6 slots exists"):
        plan_rows_with_other_combinations_in_slots(problem, rows, [2], {0, 1}, np.zeros(rows.shape, np.int64), 0)
    file = file_of(
        "prompt: x\ntraits: {a: {x: 1, y: 1}, b: {x: 1, y: 1, z: 1}}\none_of_ones: [{slot: 0, traits: {a: x, b: z}}]",
        tmp_path,
    )
    problem = make_plan_constraints(file, 4)
    problem.given[0] = problem.value_numbers_of_traits({"a": "x", "b": "z"})
    rows = solve_plan(problem, 0).astype(np.int32)
    with pytest.raises(DataError, match="one-of-ones fix whole: 0"):
        plan_rows_with_other_combinations_in_slots(problem, rows, [0], set(), np.zeros(rows.shape, np.int64), 0)


def test_every_combination_that_exists_can_be_used(tmp_path: Path) -> None:
    file = file_of("prompt: x\ntraits: {a: {x: 1, y: 1}, b: {x: 1, y: 1, z: 1}}", tmp_path)
    assert len({tuple(s.traits.items()) for s in slots_from_traits(file, NO_BRAND, PlanConfig(num_images=6))}) == 6
    with pytest.raises(DataError, match="7 slots"):
        slots_from_traits(file, NO_BRAND, PlanConfig(num_images=7))


def test_rules_that_conflict_are_named_and_no_others(tmp_path: Path) -> None:
    file = file_of(
        "prompt: x\nnumbers: counts\n"
        "traits:\n  hat: {none: 40, crown: 60}\n  kind: {robot: 50, cat: 50}\n  n: {a: 50, b: 50}\n"
        f"  m: {{{', '.join(f'v{i}: 2' for i in range(50))}}}\n"
        "rules:\n  forbid:\n  - {hat: none, m: v3}\n  - {hat: crown, kind: robot}\n"
        "  limit:\n  - {of: {n: a, kind: cat}, at_least: 1}\n",
        tmp_path,
    )
    with pytest.raises(DataError) as error:
        slots_from_traits(file, NO_BRAND, PlanConfig(num_images=100))
    text = str(error.value)
    assert "rules.forbid[1]: never hat: crown with kind: robot" in text
    assert "forbid[0]" not in text and "limit" not in text
    assert "kind: robot 50 -> 40; kind: cat 50 -> 60" in text or "hat: none 40 -> 50; hat: crown 60 -> 50" in text


def test_a_search_that_was_cut_short_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the nearest counts: the conflict is proven, and that no counts help is not. Of the conflict: nothing is
    refused.
    """
    numbers = ", ".join(f"n{i}: 1" for i in range(100))  # so that all slots can differ
    file = file_of(
        "prompt: x\nnumbers: counts\n"
        f"traits:\n  hat: {{none: 40, crown: 60}}\n  kind: {{robot: 50, cat: 50}}\n  n: {{{numbers}}}\n"
        "rules: {forbid: [{hat: crown, kind: robot}]}\n",
        tmp_path,
    )
    problem, solve, limited = make_plan_constraints(file, 100), feasible.milp, [True]

    def cut_short(*given: Any, **more: Any) -> Any:
        if ("integrality" in more) in limited:
            return OptimizeResult(x=None, status=1)
        return solve(*given, **more)

    monkeypatch.setattr(feasible, "milp", cut_short)
    with pytest.raises(DataError) as error:
        require_feasible_and_return_spare_bits(problem)
    assert "never hat: crown with kind: robot" in str(error.value) and "whether other counts" in str(error.value)
    assert "is not known" in str(error.value) and "no counts of this many slots" not in str(error.value)
    limited.append(False)
    assert not feasible.fewest_count_changes(problem, problem.forbidden).conflicts
    assert require_feasible_and_return_spare_bits(problem) > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("rules: {forbid: [{hat: crwn, kind: cat}]}", "rules.forbid[0].hat: hat has no value crwn"),
        ("rules: {forbid: [{hats: crown, kind: cat}]}", "rules.forbid[0]: there is no trait hats"),
        ("rules: {forbid: [{hat: crown}]}", "rules.forbid[0]: names one trait"),
        ("rules: {forbid: [{}]}", "rules.forbid[0]: is empty"),
        ("rules: {forbid: [{hat: [], kind: cat}]}", "rules.forbid[0].hat: is empty"),
        ("rules: {avoid: []}", "rules.avoid: unknown key"),
        (
            "rules: {require: [{when: {hat: crown}, then: {kind: cat}}, {when: {kind: cat}, then: {hat: crown}}]}",
            "runs in a circle: hat: crown -> kind: cat -> hat: crown",
        ),
        ("rules: {limit: [{of: {hat: crown}, at_least: 3, at_most: 2}]}", "at_least 3 is above at_most 2"),
        (
            "one_of_ones: [{traits: {hat: crown, kind: dog}}]\nrules: {forbid: [{hat: crown, kind: dog}]}",
            "breaks rules",
        ),
        ("one_of_ones: [{slot: 1, traits: {hat: x}}, {slot: 1, traits: {hat: y}}]", "slot 1 is taken twice"),
        ("one_of_ones: [{name: ../x, traits: {hat: x}}]", "one_of_ones[0].name: a name is of letters"),
        ("one_of_ones: [{traits: {hat: CROWN}}]", "crown and CROWN look alike"),
        ("tiers: {rare: 0}", "tiers.rare: 0 is not a number above 0"),
        ("more: {hat: {x: 1, X: 1}}", "more: unknown key"),
        ("rules: {tally: {kind: [hat]}}", "rules.tally.kind: its value cat is no number"),
    ],
)
def test_bad_rules(tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        file_of(f"prompt: x\ntraits: {{hat: {{none: 1, crown: 1}}, kind: {{cat: 1, dog: 1}}}}\n{change}", tmp_path)
    assert says in str(error.value)


def test_a_one_of_one_has_a_number_where_a_tally_is_counted(tmp_path: Path) -> None:
    text = "prompt: x\ntraits: {hat: {none: 1, cap: 1}, n: {'0': 1, '1': 1}}\nrules: {tally: {n: [hat]}}\n"
    with pytest.raises(DataError, match=r"rules\.tally\.n: its value many is no number"):
        file_of(f"{text}one_of_ones: [{{traits: {{n: many}}}}]", tmp_path)


def test_a_one_of_one_that_comes_later_takes_the_slot_of_an_earlier_plan(run, tmp_path: Path) -> None:
    text = "prompt: '{a} {b}'\ntraits: {a: {x: 1, y: 1}, b: {k: 1, l: 1}}\n"
    (tmp_path / "t.yaml").write_text(text)
    words = [f"traits={tmp_path / 't.yaml'}", "lora_file=none", "batch=late", "plan.num_images=2"]
    assert run("plan", *words)[0] == 0
    earlier = read_plan(files.BATCHES / "late")
    new = {"a": earlier[0].traits["a"], "b": earlier[1].traits["b"]}
    (tmp_path / "t.yaml").write_text(f"{text}one_of_ones: [{{traits: {{a: {new['a']}, b: {new['b']}}}}}]\n")
    code, said = run("plan", *words, "repair=0")
    assert code == 2 and "no slot is left for the one-of-one" in said and "Traceback" not in said
    assert run("plan", *words)[0] == 0
    assert new in [slot.traits for slot in read_plan(files.BATCHES / "late")]


def test_a_one_of_one_costs_no_more_earlier_slots_than_those_whose_values_it_takes(tmp_path: Path) -> None:
    text = "prompt: x\nnumbers: counts\ntraits: {a: {x: 1, y: 7}, b: {k: 4, l: 4}, c: {m: 2, n: 2, o: 2, p: 2}}\n"
    before = slots_from_traits(file_of(text, tmp_path), NO_BRAND, PlanConfig(num_images=8))
    owner = next(slot for slot in before if slot.traits["a"] == "x")
    other = {"b": "l" if owner.traits["b"] == "k" else "k"}
    for slot in ("", "slot: 5, "):  # the value x has one slot, which the one-of-one takes with another b
        file = file_of(f"{text}one_of_ones: [{{{slot}traits: {{a: x, b: {other['b']}}}}}]\n", tmp_path)
        plan = PlanConfig(num_images=8)
        kept = traits_of_slots_to_keep(file, before, plan, set(), {slot.slot for slot in before})
        assert owner.slot not in kept and len(kept) >= 6
        after = slots_from_traits(file, NO_BRAND, plan, (), dict(list(kept.items())[:-1]))
        assert [one.traits["b"] for one in after if one.traits["a"] == "x"] == [other["b"]]


def test_all_problems_of_a_traits_file_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        file_of(
            "prompt: '{hut} {hat:>9}'\nextra: 1\n"
            "traits: {hat: {'': 1, crown: .nan, Crown: 2, cafe: 1, cafe\u0301: 1, \uff58: 1, x: 1,"
            " z: {count: 2, weight: 1}, empty: , more: {count: }}}\n"
            "rules: {forbid: [{hat: crown, kind: cat}]}\n",
            tmp_path,
        )
    for text in (
        "{hut} names no trait",
        "{hat} has more than a name in its brackets",
        "traits.hat.empty.weight: nothing is not a number above 0",
        "traits.hat.more.count: nothing is not a whole number",
        "extra: unknown key",
        "traits.hat.: a value has 1 to 200 characters",
        ".nan is not a number",
        "crown and Crown look alike",
        "cafe and cafe\u0301 look alike",
        "\uff58 and x look alike",
        "traits.hat.z: has count and weight",
        "there is no trait kind",
    ):
        assert text in str(error.value), text


def test_a_rule_keeps_its_number_where_others_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        file_of(
            "prompt: x\ntraits: {hat: {none: 1, crown: 1}, kind: {cat: 1, dog: 1}}\n"
            "rules: {forbid: [5, {hat: crown, kind: cat}, 6, {hat: crwn, kind: dog}]}\n"
            "one_of_ones: [{traits: {}}, {traits: {nose: red}}]\n",
            tmp_path,
        )
    assert [text.split(":")[0].strip(" -") for text in str(error.value).splitlines()[1:-1]] == [
        "rules.forbid[0]",
        "rules.forbid[2]",
        "one_of_ones[0].traits",
        "rules.forbid[3].hat",
        "one_of_ones[1]",
    ]


def test_a_million_values_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("prompt: x\ntraits:\n  a:\n" + "".join(f"    v{i}: 1\n" for i in range(10**6)))
    with pytest.raises(DataError, match="more than 1 MB"):
        read_traits_file(tmp_path / "t.yaml")


def test_counts_that_do_not_add_up_come_with_slots_that_do_not_exist(tmp_path: Path) -> None:
    file = file_of(
        "prompt: x\nnumbers: counts\ntraits: {a: {x: 3, y: 3}}\none_of_ones: [{slot: 9, traits: {a: x}}]", tmp_path
    )
    with pytest.raises(DataError) as error:
        make_plan_constraints(file, 7)
    assert "its counts sum to 6, for 7 slots" in str(error.value) and "slot: 9 is beyond" in str(error.value)
    assert 'or remove "numbers: counts"' in str(error.value)
    with pytest.raises(DataError) as error:
        make_plan_constraints(file_of("prompt: x\ntraits: {a: {x: {count: 3}, y: {count: 3}}}", tmp_path), 7)
    assert "numbers: counts" not in str(error.value)


def test_rarity_is_open_raritys() -> None:
    golden = json.loads((GOLDEN / "open_rarity.json").read_text())
    found = rarity_of_each_item(golden["items"])
    for ours, (score, rank, unique) in zip(found, golden["score_rank_unique"], strict=True):
        assert ours.score == pytest.approx(score, abs=1e-9) and (ours.rank, ours.unique) == (rank, unique)
    assert len({r.rank for r in found}) < len(found) and max(r.unique for r in found) > 0
    for (rank, ours), (score, theirs, _) in zip(
        verify_traits.rarity_ranks_and_scores(golden["items"]), golden["score_rank_unique"], strict=True
    ):
        assert ours == pytest.approx(score, abs=1e-9) and rank == theirs, "also as the receiver computes it"


def test_open_slots_leave_rarity_open() -> None:
    """What is computed for many items at once is OpenRarity's too, and the intervals hold what comes to be."""
    golden = json.loads((GOLDEN / "open_rarity.json").read_text())
    scores, ranks = rarity_scores_and_ranks(value_number_table(golden["items"]))
    for score, rank, told in zip(scores, ranks, golden["score_rank_unique"], strict=True):
        assert score == pytest.approx(told[0], abs=1e-9) and rank == told[1]
    random = np.random.default_rng(0)
    items = [{"a": str(a), "b": str(b), "c": str(i)} for i, (a, b) in enumerate(random.integers(0, 4, (40, 2)))]
    assert rarity_intervals(items, set(), set(), 40) is None, "all are wanted: the plan's scores are exact"
    assert rarity_intervals(items, range(40), set(), 40) is None
    wide = rarity_intervals(items, set(), set(), 20)
    narrow = rarity_intervals(items, range(30), {30}, 40)
    assert wide and narrow
    widths = [np.mean([row.highest_score - row.lowest_score for row in found]) for found in (wide, narrow)]
    assert widths[0] > 2 * widths[1] > 0
    inside = []
    for _ in range(50):
        there = np.sort(random.permutation(40)[: random.integers(20, 41)])
        found = rarity_of_each_item([items[i] for i in there])
        inside += [wide[i].lowest_score <= r.score <= wide[i].highest_score for i, r in zip(there, found, strict=True)]
    assert np.mean(inside) > 0.9
    many = [{"a": str(i % 7), "b": str(i % 11)} for i in range(900)]  # few filled: most ends leave most slots empty
    found = rarity_intervals(many, {0}, set(range(1, 400)), 900)
    assert found and all(0 <= row.lowest_score <= row.highest_score for row in found)
    columns = random.integers(0, 9, (300, 5))
    scores, ranks = rarity_scores_and_ranks_if_added(columns[:200], columns[200:])
    true = [[each[-1] for each in rarity_scores_and_ranks(columns[[*range(200), i]])] for i in range(200, 300)]
    assert scores == pytest.approx([score for score, _ in true], abs=1e-12)
    assert np.abs(ranks - [rank for _, rank in true]).mean() < 3


def test_rarest_pairs() -> None:
    items = [{"a": "x", "b": "y"}, {"a": "x", "b": "z"}, {"a": "w", "b": "z"}, {"a": "x", "b": "z"}]
    first = rarest_pairs(items, 1)[0]
    assert first.values == ("a: w", "b: z") or first.count == 1


def test_pairs_that_never_come_are_said_unless_a_rule_says_so(tmp_path: Path) -> None:
    file = file_of(
        "prompt: x\ntraits: {a: {x: 1, y: 1}, b: {x: 1, y: 1, z: 1}, n: {0: 1, 1: 1}}\n"
        "rules: {forbid: [{a: x, b: y}], limit: [{of: {a: x, b: z}, at_most: 0}], tally: {n: [b]}}",
        tmp_path,
    )
    problem = make_plan_constraints(file, 6)
    told = [dict(zip("ab", pair, strict=True)) for pair in ("xx", "xx", "xx", "yy", "yz", "yz")]
    found = missing_pairs(told, 5, lambda pair: False)
    assert found == [(("a: y", "b: x"), 0, 1.5), (("a: x", "b: z"), 0, 1.0)], "of x with y half an item was expected"
    assert [p.values for p in missing_pairs(told, 5, problem.forbids_traits_together)] == [("a: y", "b: x")]
    assert missing_pairs(told, 1, lambda pair: False)[0].values == ("a: y", "b: x")
    assert problem.forbids_traits_together({"n": "0", "b": "x"}) and not problem.forbids_traits_together(
        {"n": "0", "a": "x"}
    )
    lines = counts_and_rarity_in_words(told, problem.forbids_traits_together)
    assert lines[-2:] == ["pairs that never come (forbid them if that is meant)", "  a: y with b: x: 0 of 1.5 expected"]
    place = lines.index("the rank goes by how many values an item alone has, then by the score")
    assert lines[place + 1].startswith("  rank 1: slot 3 (of its own: b y; ")


def test_of_the_rarest_items_the_values_that_they_alone_have_are_named_and_the_number_of_traits_is_one() -> None:
    items = [{"hat": "cap", "item": "sword"}, {"hat": "cap", "item": "none"}, {"hat": "cap", "item": "none"}]
    assert [found.own for found in rarity_of_each_item(items)] == [("item sword", "number of traits 2"), (), ()]
    lines = counts_and_rarity_in_words(items, lambda pair: False)
    assert any(line.startswith("  rank 1: slot 0 (of its own: item sword, number of traits 2; ") for line in lines)
    many = [{f"t{i}": f"v{n}" for i in range(5)} for n in range(2)]
    lines = counts_and_rarity_in_words(many, lambda pair: False)
    assert any("(of its own: t0 v0, t1 v0, t2 v0, 2 more; " in line for line in lines)


def test_a_collection_comes_in_with_its_counts_and_goes_out(run, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(
        "id, face, skin-tone, count, worn\n"
        "0, happy, dark, 2, Cap / Ring\n1, sad, light, 1, Ring\n2, happy, , 0, \n3, sad, dark, 1, Crown\n"
        "4, happy, light, 2, Crown / Ring\n5, sad, dark, 1, Crown\n"
    )
    code, text = run("plan", f"import={tmp_path / 'c.csv'}", f"out={tmp_path / 'c.yaml'}")
    assert code == 0 and "the same item stands more than once: line 5 and line 7" in text
    assert "count is the number of values of worn" in text and "'skin-tone' is called 'skin tone'" in text
    words = [f"traits={tmp_path / 'c.yaml'}", "plan.num_images=6", "lora_file=none", "batch=imported"]
    assert run("plan", *words, f"out={tmp_path / 'new.csv'}")[0] == 0
    items = [slot.traits for slot in read_plan(files.BATCHES / "imported")]
    worn = Counter(v for item in items for t, v in item.items() if t.startswith("worn") and v != "none")
    assert worn == {"Ring": 3, "Crown": 3, "Cap": 1} and Counter(i["face"] for i in items) == {"happy": 3, "sad": 3}
    assert all(int(i["count"]) == sum(v != "none" for t, v in i.items() if t.startswith("worn")) for i in items)
    assert len({tuple(i.items()) for i in items}) == 6 and Counter(i["skin tone"] for i in items)["none"] == 1
    with (tmp_path / "new.csv").open() as file:
        assert [{t: v for t, v in row.items() if t != "id"} for row in csv.DictReader(file)] == items
    ranked = list(csv.DictReader((files.BATCHES / "imported" / "rarity.csv").open()))
    assert len(ranked) == 6 and ranked[0]["rank"] == "1"
    assert "combines the values anew" in text and "rank 1: line " in text and "slot" not in text.split("rank 1")[1][:40]
    code, again = run("plan", f"import={tmp_path / 'c.csv'}", f"out={tmp_path / 'c.yaml'}", "keep_items=true")
    assert code == 2 and "exist already" in again and "OpenRarity" not in again
    (tmp_path / "art.png").write_bytes(b"a person's picture")
    code, again = run("plan", f"import={tmp_path / 'c.csv'}", f"out={tmp_path / 'art.yaml'}")
    assert code == 2 and "art.png exists already" in again and not (tmp_path / "art.yaml").exists()
    assert (tmp_path / "art.png").read_bytes() == b"a person's picture"
    assert run("plan", f"import={tmp_path / 'c.csv'}", f"out={tmp_path / 'c.yaml'}")[0] == 0, "the same once more"
    assert "keep_items=true out=./kept.yaml each item stays" in text and "(of its own: " in text
    code, text = run("plan", f"import={tmp_path / 'c.csv'}", f"out={tmp_path / 'kept.yaml'}", "keep_items=true")
    assert code == 0 and "line 2 is slot 0, and line 6 is slot 4" in text, "line 7 is line 5 again"
    words = [f"traits={tmp_path / 'kept.yaml'}", "plan.num_images=5", "brand=neon", "show=true"]
    code, text = run("plan", *words, f"out={tmp_path / 'shown.csv'}")
    assert code == 0 and "no LoRA has been trained with these arguments" in text, "which a plan can be shown without"
    with (tmp_path / "shown.csv").open() as file:
        shown = list(csv.DictReader(file))
    assert [row["face"] for row in shown] == ["happy", "sad", "happy", "sad", "happy"]
    assert [row["skin tone"] for row in shown] == ["dark", "light", "none", "dark", "light"]


def test_a_column_of_several_values_takes_no_name_of_another_column() -> None:
    items: list[dict[str, list[str]]] = [{"hat": ["a", "b"], "hat 1": ["x"]}, {"hat": ["b"], "hat 1": ["y"]}]
    rows, _, _ = items_with_one_value_per_trait(CollectionItems(items, ["line 2", "line 3"], []))
    assert [row["hat 1"] for row in rows] == ["x", "y"] and len(rows[0]) == 3
    assert [set(row.values()) - {"none"} for row in rows] == [{"x", "a", "b"}, {"y", "b"}]


def test_items_of_unlike_traits_go_out_under_their_headings(tmp_path: Path) -> None:
    export_items(tmp_path / "o.csv", [{"hat": "cap", "eyes": "red"}, {"eyes": "blue", "hat": "none"}, {"eyes": "red"}])
    with (tmp_path / "o.csv").open() as file:
        rows = [(row["hat"], row["eyes"]) for row in csv.DictReader(file)]
    assert rows == [("cap", "red"), ("none", "blue"), ("", "red")]


def test_layers_and_json_come_in(run, tmp_path: Path) -> None:
    for name in (
        "01 Background/red#2.png",
        "01 Background/blue.png",
        "01 Background/green#1.png",
        "01 Background/Thumbs.db",
        "01 Background/notes.txt",
        "Eye color/Gold#0.5.png",
        "Eye color/none#2.png",
    ):
        (tmp_path / "layers" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layers" / name).write_bytes(interchange.PIXEL)
    code, text = run("plan", f"import={tmp_path / 'layers'}", f"out={tmp_path / 'l.yaml'}")
    assert code == 0 and "no pictures, so no values: 01 Background/notes.txt\n" in text
    file = read_traits_file(tmp_path / "l.yaml")
    assert {v: spec.weight for v, spec in file.traits["Background"].items()} == {"red": 2, "blue": 1, "green": 1}
    assert file.traits["Eye color"]["Gold"].weight == 0.5
    words = [f"traits={tmp_path / 'l.yaml'}", "plan.num_images=4", "lora_file=none", "batch=layers"]
    assert run("plan", *words, f"out={tmp_path / 'o.json'}")[0] == 0
    assert run("plan", *words, f"out={tmp_path / 'o.layers'}")[0] == 0
    assert (tmp_path / "o.layers" / "Background" / "red#2.png").exists()
    assert run("plan", f"import={tmp_path / 'o.json'}", f"out={tmp_path / 'again.yaml'}")[0] == 0
    again = read_traits_file(tmp_path / "again.yaml")
    assert {v: spec.count for v, spec in again.traits["Background"].items()} == {"red": 2, "blue": 1, "green": 1}
    assert run("plan", f"import={tmp_path / 'o.layers'}", f"out={tmp_path / 'again.yaml'}")[0] == 2  # exists already


def layers_in(folder: Path, *names: str) -> Path:
    """A folder of layers with a picture of one pixel for each name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(interchange.PIXEL)
    return folder


def test_layers_stand_in_the_order_of_their_numbers_and_hold_only_pictures(run, tmp_path: Path) -> None:
    numbered = [f"{i} T{i}/{'Wide_Open' if i == 2 else 'a'}#3.png" for i in (1, 2, 10, 11)]
    folder = layers_in(tmp_path / "l", *numbered, "Loose/x.png")
    header = struct.pack(">4sHxxxxxxHIIHH", b"8BPS", 1, 3, 1, 1, 8, 3)  # RGB, one pixel; a whole picture to Pillow
    (folder / "2 T2" / "Sword source.psd").write_bytes(header + bytes(4 + 4 + 4 + 2 + 3))
    (folder / "2 T2" / "Broken#5.png").write_text("no picture")
    (folder / "2 T2" / "Torn#5.png").write_bytes(interchange.PIXEL[:50])
    (folder / "2 T2" / "Drawn#2.jpg").write_bytes(jpeg := jpeg_bytes())
    (folder / "2 T2" / "Cut#2.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    code, text = run("plan", f"import={folder}", f"out={tmp_path / 'l.yaml'}", "brand=neon")
    assert Image.open(folder / "2 T2" / "Sword source.psd").convert("RGB").size == (1, 1)
    file = read_traits_file(tmp_path / "l.yaml")
    assert code == 0 and list(file.traits) == ["T1", "T2", "T10", "T11", "Loose"]
    assert {v: spec.weight for v, spec in file.traits["T2"].items()} == {"Wide_Open": 3, "Drawn": 2}
    assert "note: cannot be read as pictures, so no values: 2 T2/Broken#5.png (no picture of a known format)" in text
    assert all(f"2 T2/{name} (" in text for name in ("Sword source.psd", "Torn#5.png", "Cut#2.jpg"))
    assert (
        file.phrase_of_value_in_prompt("T2", "Wide_Open") == "Wide Open"
        and file.phrase_of_value_in_prompt("T2", "Drawn") == "Drawn"
    )
    learned = read_brand_set(brand_folder("neon")).splits["train"]
    assert "neon/train/metadata.jsonl read" in text and sum(f"      {item.text}\n" in text for item in learned) == 2
    for path in (folder / "2 T2").glob("*#*"):
        path.unlink()
    code, text = run("plan", f"import={folder}", f"out={tmp_path / 'no.yaml'}")
    assert code == 2 and "2 T2: holds no picture that can be read: 2 T2/Sword source.psd (" in text
    layers_in(folder, "2 T2/A#0.png", "11 T11/B.png", "11 T11/b.png")
    code, text = run("plan", f"import={folder}", f"out={tmp_path / 'no.yaml'}")
    assert code == 2 and "2 T2/A#0.png: 0 is no weight above 0" in text and "11 T11: B and b look alike" in text
    assert "\nNext: a folder for each layer" in text and "no.yaml" not in text
    (tmp_path / "c.csv").write_text("id,hat\n0,Cap\n1,cap\n")
    code, text = run("plan", f"import={tmp_path / 'c.csv'}", f"out={tmp_path / 'no.yaml'}")
    assert code == 2 and "c.csv: a traits file of it would have problems:\n  - traits.hat: Cap and cap look" in text


def jpeg_bytes() -> bytes:
    sink = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(sink, "JPEG")
    return sink.getvalue()


def test_columns_that_name_an_item_are_no_traits(tmp_path: Path) -> None:
    """A table as spreadsheets write it: semicolons, a mark, capitals, addresses, ranks, numbers as values."""
    head = "\ufeffToken ID;Item;Backdrop;Level;Rank;Rarity Rank;Image URL;Held item\n"
    rows = [f"{i};Critter {i};{'rb'[i % 2]};{i % 3};{i % 2};7;ipfs://x/{i % 5};{'-' * (i == 4)}" for i in range(24)]
    rows[3] = rows[3].replace(";1;7;", ";Captain;7;")
    (tmp_path / "c.csv").write_text(head + "\n".join(rows))
    found = read_collection(tmp_path / "c.csv")
    assert list(found.items[0]) == ["Backdrop", "Level", "Rank", "Held item"] and len(found.items) == 24
    left = "Token ID, Item (it is different for each item), Rarity Rank, Image URL"
    assert found.notes == [f"columns that are no traits: {left}"]
    assert "more than once: line 2 and line 8 and line 14" in notes_on_equal_items(found)[0]
    assert notes_on_values_like_none({"Held item": ["none", "-"]})[0].endswith(": Held item: -")


def test_a_commitment_holds_until_the_plan_changes(run, tmp_path: Path) -> None:
    words = ["traits=collectible", "plan.num_images=5", "lora_file=none", "batch=committed"]
    assert run("plan", *words)[0] == 0
    path = files.BATCHES / "committed" / "commitment.json"
    before = path.read_bytes()
    assert run("plan", *words)[0] == 0 and path.read_bytes() == before
    assert "is the one that was committed to" in run("verify", str(path))[1]
    salt, plan = (path.with_name(name).read_bytes() for name in ("commitment.salt", "plan.jsonl"))
    assert json.loads(before)["commitment"] == hashlib.sha256(salt + plan).hexdigest()
    path.with_name("plan.jsonl").write_bytes(plan + b" ")
    assert run("verify", str(path))[0] == 2
    path.with_name("plan.jsonl").write_bytes(plan)
    slots = read_plan(path.parent)
    write_plan(path.parent, [slots[0].model_copy(update={"seed": 1}), *slots[1:]])
    code, text = run("verify", str(path))
    assert code == 2 and "plan.parquet is not the plan that plan.jsonl says" in text
    older = {"algorithm": "sha256(salt || plan.parquet)", "slots": 5}
    opened = hashlib.sha256(salt + path.with_name("plan.parquet").read_bytes()).hexdigest()
    path.write_text(json.dumps(older | {"commitment": opened}))
    assert run("verify", str(path))[0] == 0, "of before there was plan.jsonl"
    path.with_name("commitment.salt").unlink()
    code, text = run("verify", str(path))
    assert code == 2 and "copy commitment.salt and plan.parquet from the batch's folder" in text
    path.write_text("5")
    code, text = run("verify", str(path))
    assert code == 2 and "Traceback" not in text, "no commitment, and no certificate"


def test_a_plan_that_is_made_longer_or_edited_keeps_what_still_fits(run, tmp_path: Path) -> None:
    text = "prompt: '{a} {b}'\ntraits: {a: {x: 1, y: 1}, b: {k: 1, l: 1, m: 1, n: 1, o: 1, p: 1}}\n"
    (tmp_path / "t.yaml").write_text(text)
    words = [f"traits={tmp_path / 't.yaml'}", "lora_file=none", "batch=edited"]
    folder = files.BATCHES / "edited"
    assert run("plan", *words, "plan.num_images=4")[0] == 0
    short = read_plan(folder)
    assert run("plan", *words, "plan.num_images=8")[0] == 0
    long = read_plan(folder)
    assert long[:4] == short and len(long) == 8
    (folder / "images").mkdir()
    for number in range(8):
        (folder / "images" / f"{number:05d}-0.png").touch()
    files.write_jsonl(folder / "verdicts.jsonl", [{"file": f"{n:05d}-0.png", "verdict": "accept"} for n in range(8)])
    victim = next(slot for slot in long if slot.traits["b"] == "p")  # the only slot with p
    words_of = ", ".join(f"{trait}: {value}" for trait, value in victim.traits.items())
    (tmp_path / "t.yaml").write_text(text + f"rules: {{forbid: [{{{words_of}}}]}}\n")
    code, said = run("plan", *words, "plan.num_images=8", "show=true")
    shown = (files.PLANS / "edited.rarity.csv").read_bytes()
    assert code == 0 and "slots are open" in said and read_plan(folder) == long
    code, said = run("plan", *words, "plan.num_images=8")
    assert (folder / "rarity.csv").read_bytes() == shown, "pictures of slots that change fill none of them"
    edited = read_plan(folder)
    lost = [old.slot for old, new in zip(long, edited, strict=True) if old != new]
    assert code == 0 and not [slot for slot in edited if slot.traits == victim.traits]
    assert victim.slot in lost and len(lost) < 8
    left = sorted(int(path.name[:5]) for path in (folder / "images").iterdir())
    assert left == [n for n in range(8) if n not in lost]
    assert [int(row["file"][:5]) for row in files.read_jsonl(folder / "verdicts.jsonl")] == left
    assert f"slot {victim.slot}: " in said and (folder / "earlier").is_dir()


def test_show_prints_counts_and_writes_no_plan(run) -> None:
    words = ["traits=collectible", "plan.num_images=12", "lora_file=none", "batch=shown", "show=true"]
    code, text = run("plan", *words, "plan.num_wanted=6")
    assert "slots are open: if some get no picture" in text
    with (files.PLANS / "shown.rarity.csv").open() as table:
        row = next(csv.DictReader(table))
    assert float(row["score_low"]) <= float(row["score"]) <= float(row["score_high"])
    assert code == 0 and "headwear (6 values)" in text and "rarity (OpenRarity's score)" in text and "█" in text
    assert not (files.BATCHES / "shown").exists()
    code, text = run("plan", *words, "plan.num_images=4")  # eight backgrounds
    assert "note: no slot has background: purple (weight 1 of 8 in 4 slots); at_least: 1 keeps it\n" in text
    code, text = run("plan", "traits=parade", *words[1:], "plan.num_images=64")
    assert "\npairs that never come (forbid them if that is meant)\n  " in text


@pytest.mark.parametrize(
    ("learned", "says"),
    [(1, "1 of 3 prompts is a caption of a training picture"), (2, "2 of 3 prompts are captions of training pictures")],
)
def test_prompts_that_training_pictures_had_are_said(run, tmp_path: Path, learned: int, says: str) -> None:
    rows = files.read_jsonl(files.ROOT / "data" / "brands" / "neon" / "train" / "metadata.jsonl")
    prompts = [row["text"] for row in rows[:learned]] + ["an owl", "a hen"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts[:3]))
    words = ["brand=neon", "lora_file=none", f"batch=learned-{learned}", f"prompts={tmp_path / 'prompts.txt'}"]
    code, text = run("plan", *words, "plan.num_images=3")
    assert code == 0 and says in text, text


def test_capital_letters_do_not_hide_a_trait_from_the_gate(run, tmp_path: Path) -> None:
    known = {"a.png": {"species": "cat", "head wear": "wizard", "item": "no"}, "b.png": {"item": "ＢＯＯＫ"}}
    planned = [{"Species": "Cat", "Head  Wear": "Crown", "Item": "book"}]
    assert traits_spelled_as_planned(known, planned) == {
        "a.png": {"Species": "Cat", "Head  Wear": "wizard", "Item": "no"},
        "b.png": {"Item": "book"},
    }
    written = (files.ROOT / "data" / "traits" / "collectible.yaml").read_text()
    path = tmp_path / "capital.yaml"
    path.write_text(
        written.replace("{species}", "{Species}")
        .replace("  species:", "  Cape: {long: 1}\n  Species:")
        .replace("wizard", "Wizard_Cap")
    )
    code, text = run("plan", "brand=neon", f"traits={path}", "plan.num_images=8", "lora_file=none", "batch=capital")
    assert code == 0 and "will not look for Cape: no picture" in text, text
    assert "no picture of the brand shows headwear: Wizard_Cap; the gate cannot read that" in text, text
    assert "no picture of the brand shows Species" not in text
    learned = read_brand_set(brand_folder("neon"))
    left_out = training_combinations_to_exclude(Config(), learned, read_traits_file(path))
    assert {dict(one)["Species"] for one in left_out} == {item.traits["species"] for item in learned.splits["train"]}


def test_a_traits_file_that_changes_while_pictures_are_drawn_is_noticed(tmp_path: Path) -> None:
    from eval.generate import digests_of_plan_and_its_source, require_unchanged_plan

    (tmp_path / "plan.parquet").write_bytes(b"a plan")
    (tmp_path / "t.yaml").write_text("a file")
    config = Config(traits=str(tmp_path / "t.yaml"))
    began = digests_of_plan_and_its_source(tmp_path, config)
    require_unchanged_plan(tmp_path, config, began)
    (tmp_path / "t.yaml").write_text("another")
    with pytest.raises(DataError, match="traits or prompts file was changed while"):
        require_unchanged_plan(tmp_path, config, began)
