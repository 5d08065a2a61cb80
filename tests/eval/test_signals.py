"""Signals of the market: a proposal within what was promised, with its reasons, which a person accepts."""

from pathlib import Path

import pytest

from eval.planning.traitsfile import read_traits_file
from eval.signals import MOST, PRIOR, column_mean_ratios_by_trait_value, trait_value_pairs_of_item
from stylegate import files
from stylegate.cli import main

FILE = """prompt: "{hat} {mood}"
tiers: {rare: 1}
traits:
  hat: {crown: 1, cap: 2, 010: {weight: 3, at_most: 4}, halo: {tier: rare}, horns: {count: 2}}
  mood: {on: 1, off: 1}
rules:
  forbid: [{hat: crown, mood: off}]
"""


@pytest.fixture
def traits(tmp_path: Path) -> Path:
    (tmp_path / "t.yaml").write_text(FILE)
    return tmp_path / "t.yaml"


def told(run_exactly, tmp_path: Path, table: str, *words: str) -> tuple[int, str]:
    (tmp_path / "s.csv").write_text(table)
    return run_exactly("signals", str(tmp_path / "s.csv"), *words)


def test_weights_follow_and_what_was_promised_stays(run_exactly, traits: Path, tmp_path: Path) -> None:
    rows = [("crown", 90)] * 20 + [("cap", 10)] * 20 + [("010", 30)] * 20 + [("halo", 99)] * 20 + [("horns", 1)] * 20
    table = "trait,value,sales\n" + "".join(f"hat,{value},{sales}\n" for value, sales in rows)
    out = tmp_path / "next.yaml"
    code, text = told(run_exactly, tmp_path, table, f"traits={traits}", f"out={out}")
    assert code == 0 and "-    crown: 1\n" in text
    assert "hat: crown 1 -> 1.77: sales 1.77 of the mean of hat (20 rows)" in text
    for value in ("halo", "horns"):
        assert f"note: hat: {value} stays as it is, its count or tier was promised" in text
    before, after = read_traits_file(traits), read_traits_file(out)
    assert after.rules == before.rules and after.tiers == before.tiers and list(after.traits) == list(before.traits)
    hats = after.traits["hat"]
    assert hats["crown"].weight == 1.77 and hats["cap"].weight == pytest.approx(2 * 0.5) and hats["010"].at_most == 4
    assert hats["halo"] == before.traits["hat"]["halo"] and hats["horns"].count == 2
    assert after.traits["mood"] == before.traits["mood"], "of which nothing was told"
    code, text = told(run_exactly, tmp_path, table, f"traits={traits}", f"out={out}")
    assert code == 2 and "exists" in text


def test_few_rows_say_little() -> None:
    def ratio(rows: int) -> float:
        told = [([("hat", "crown")], {"sales": 30.0})] * rows + [([("hat", "cap")], {"sales": 10.0})] * rows
        return column_mean_ratios_by_trait_value(told)["hat", "crown"][0].ratio

    assert ratio(1) == pytest.approx((30 + PRIOR * 20) / (1 + PRIOR) / 20) and ratio(1) < ratio(10) < ratio(1000) < 1.5
    assert MOST == 2


def test_items_are_known_by_their_package(run_exactly, traits: Path, tmp_path: Path) -> None:
    """And what cannot be used is said in one message."""
    for table, words, says in (
        ("id,sales\n1,2\n", (), "which traits do they have?"),
        ("id,sales\n1,2\n", (f"package={tmp_path}",), "is no bag"),
        ("colour,sales\nred,2\n", (), "neither a column id nor columns trait and value"),
        ("trait,value,sales\nhat,cap,-1\nhat,cap,many\n", (), "line 3: could not convert"),
        ("trait,value,sales\n", (), ""),
        ("trait,value,sales\nhat,cap,1\n", ("out=next",), "out=./next"),
    ):
        code, text = told(run_exactly, tmp_path, table, f"traits={traits}", *words)
        assert code == 2 and says in text and "Traceback" not in text, text
    assert main(["signals", "x.csv"]) == 2
    code, text = told(run_exactly, tmp_path, "trait,value,sales\nhat,cap,5\nhat,crown,5\n", f"traits={traits}")
    assert code == 0 and "nothing is to be changed" in text
    code, text = told(run_exactly, tmp_path, "trait,value,sales\nHat,cap,5\nhat,wizard,5\n", f"traits={traits}")
    assert code == 0 and "note: left out, since t.yaml does not have it: Hat: cap, hat: wizard" in text, text


def test_a_row_of_json_lines_is_read_as_a_row_of_csv_and_says_what_it_lacks(
    run_exactly, traits: Path, tmp_path
) -> None:
    table = tmp_path / "s.jsonl"
    rows = [{"trait": "hat", "value": value, "sales": sales} for value, sales in (("crown", 90), ("cap", 0)) * 20]
    table.write_text(files.json_lines_text(rows))
    code, text = run_exactly("signals", str(table), f"traits={traits}")
    assert code == 0 and "hat: cap 2 -> 1: sales 0.20 of the mean of hat (20 rows)" in text, text
    table.write_text(files.json_lines_text([*rows, {"value": "cap", "sales": 1}, {"trait": "hat", "value": ["cap"]}]))
    code, text = run_exactly("signals", str(table), f"traits={traits}")
    assert code == 2 and 'line 41: trait is null and value is "cap"; both must be text' in text, text
    assert 'line 42: trait is "hat" and value is ["cap"]' in text and "the package has no item" not in text


def test_an_item_that_the_package_lacks_is_named() -> None:
    assert trait_value_pairs_of_item(" 7", {7: {"hat": "cap"}}) == [("hat", "cap")]
    for written in (None, 1.5, "7.0", 8, [7], True):
        with pytest.raises(ValueError, match="no item with the id"):
            trait_value_pairs_of_item(written, {1: {}, 7: {}})


def test_a_proposal_that_no_plan_can_keep_is_refused(run_exactly, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        'prompt: "{hat} {mood}"\n'
        "traits:\n  hat: {crown: 5, cap: 5}\n  mood: {calm: 1, wild: 1, odd: 1, shy: 1, sad: 1}\n"
        "rules:\n  limit: [{of: {hat: crown}, at_most: 5}]\n"
    )
    table = "trait,value,sales\n" + "hat,crown,90\nhat,cap,10\n" * 20
    words = (f"traits={tmp_path / 't.yaml'}", f"out={tmp_path / 'next.yaml'}")
    code, text = told(run_exactly, tmp_path, table, *words, "slots=10")
    assert code == 2 and "no proposal: no plan of 10 slots keeps these together" in text and "slots=N" in text, text
    assert not (tmp_path / "next.yaml").exists()
    code, text = told(run_exactly, tmp_path, table, *words, "slots=5")
    assert code == 0 and (tmp_path / "next.yaml").exists(), text
    assert told(run_exactly, tmp_path, table, *words, "slots=many")[0] == 2
