"""Policies: a schema, every problem at once, thresholds relative to references."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from eval.policy import file as policyfile
from eval.policy import model as policy
from eval.policy.lines import resolve_check_lines
from eval.policy.model import Threshold
from eval.schemas import schema_texts_by_file_name
from stylegate import files
from stylegate.errors import DataError


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "p.yaml").write_text(text)
    return str(tmp_path / "p.yaml")


def test_shipped_policies_read() -> None:
    found = sorted((files.ROOT / "data" / "policies").glob("*.yaml"))
    assert [path.stem for path in found] == ["default"]
    for path in found:
        assert path.read_text().startswith("# stylegate gate ")
        assert policyfile.read_policy(path.stem).checks


def test_a_waiver_does_not_make_another_policy(tmp_path: Path) -> None:
    """Decisions, labels and calibrations are bound to the digest: a waiver for one picture must not end them."""
    path, text = tmp_path / "p.yaml", "version: 1\nchecks: {contrast: {reject_below: 1}}\n"
    waiver = f"{{sha256: {'a' * 64}, check: contrast, owner: anna, reason: fine, expires: 2090-01-01}}"
    found = []
    for more in ("", f"waivers: [{waiver}]\n", "guideline: another\n"):
        path.write_text(text + more)
        found.append(policyfile.read_policy(str(path)).sha256)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2\nchecks: {style: {reject_below: 1}}", "version: 2"),
        ("version: 1\nchecks: {}", "at least one"),
        ("version: 1\nchecks: [style]", "at least one"),
        ("version: 1\nchekcs: {}", "chekcs: unknown key"),
        ("version: 1\nchecks: {stile: {reject_below: 1}}", "checks.stile: no such score"),
        ("version: 1\nchecks: {style: 3}", "needs reject_below or review_below"),
        ("version: 1\nchecks: {style: {reject_below: }}", "checks.style.reject_below: is empty"),
        ("version: 1\nchecks: {margin: {reject_below: 1}}", "write `margin: calibrated`"),
        ("version: 1\nchecks: {style: calibrated, margin: calibrated}", "one check at most can be calibrated"),
        ("version: 1\nchecks: {contrast: {reject_below: 1}}\nbatch: {acceptance: {fail_below: 0}}", "greater than 0"),
        ("version: 1\nchecks: {contrast: {reject_below: 1}}\nwaivers: [{check: style}]", "waivers[0].owner: missing"),
        (
            "version: 1\nchecks: {contrast: {reject_below: 1}}\npromise: {ladder: [0.5, 1]}",
            "smaller than the one before",
        ),
        ("version: 1\nchecks: {style: {accept_above: 1}}", "checks.style.accept_above: unknown key"),
        ("version: 1\nchecks: {style: {reject_below: .nan}}", "checks.style.reject_below: must be a number"),
        ("version: 1\nchecks: {style: {reject_below: yes}}", "must be a number"),
        ("version: 1\nchecks: {style: {reject_below: {spreads: 1, quantile: 0}}}", "must be a number"),
        (
            "version: 1\nchecks: {style: {reject_below: {quantile: 2}}}",
            "reject_below.quantile: input should be less than or equal to 1",
        ),
        (
            "version: 1\nmax_failed_share: 3\nchecks: {style: {reject_below: 1}}",
            "max_failed_share: input should be less",
        ),
        ("version: 1\nchecks: {style: {reject_below: 1, optional: 3}}", "optional: must be true or false"),
        ("version: 1\nchecks: {style: {reject_below: 1" + "0" * 400 + "}}", "must be a number"),
        ("version: true\nchecks: {style: {reject_below: 1}}", "version: True"),
        ("version: 1\nchecks: {style: {reject_below: {number: 6}}}", "checks.style.reject_below: must be a number"),
        ("version: 1\nchecks: {style: {calibrated: true}}", "checks.style: write `calibrated` in place of the mapping"),
        ("version: 1\nversion: 1\nchecks: {style: {reject_below: 1}}", "stands twice"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_bad_policies_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        policyfile.read_policy(write(tmp_path, text))
    assert says in str(error.value)


def test_all_problems_come_together(tmp_path: Path) -> None:
    text = "version: 9\nx: 1\nchecks: {stile: {reject_below: a}, style: {}}"
    with pytest.raises(DataError) as error:
        policyfile.read_policy(write(tmp_path, text))
    assert len(error.value.problems) == 5, error.value.problems


def test_the_hash_is_of_the_meaning(tmp_path: Path) -> None:
    first = policyfile.read_policy(write(tmp_path, "version: 1\nchecks: {style: {reject_below: 0.5}}"))
    second = policyfile.read_policy(write(tmp_path, "# words\nchecks:\n  style: {reject_below: 0.50}\nversion: 1"))
    third = policyfile.read_policy(write(tmp_path, "version: 1\nchecks: {style: {reject_below: 0.6}}"))
    assert first.sha256 == second.sha256 != third.sha256


def test_a_policy_in_force_does_not_change() -> None:
    """Its digest stands in every verdict."""
    found = policyfile.read_policy("default")
    for part, name in ((found, "max_failed_share"), (found.promise, "alpha"), (found.checks["contrast"], "optional")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, 1)


def test_thresholds() -> None:
    references = np.linspace(0, 1, 101)
    assert Threshold.model_validate(3).numeric_threshold_given_references("style", references) == 3
    assert Threshold(quantile=0.25).numeric_threshold_given_references("style", references) == pytest.approx(0.25)
    assert Threshold(spreads=-2).numeric_threshold_given_references("style", references) == pytest.approx(
        0.5 - 2 * 0.34
    )
    assert Threshold(spreads=-2, alone=7).numeric_threshold_given_references("style", None) == 7
    assert Threshold(spreads=-2).numeric_threshold_given_references("style", None) is None


def test_a_line_that_nothing_falls_below_is_lifted() -> None:
    """References that vary widely: median - 14 spreads is far below every score; foreign pictures bound it."""
    references, foreign = np.linspace(0, 1, 101), [i / 200 for i in range(101)]
    alone = Threshold(spreads=-14).numeric_threshold_given_references("style", references, foreign)
    assert alone is not None and alone < -4
    lifted = Threshold(spreads=-14, foreign=0.9)
    assert lifted.numeric_threshold_given_references("style", references, foreign) == pytest.approx(0.45)
    assert lifted.numeric_threshold_given_references("style", references) == alone
    assert Threshold(spreads=0, foreign=0.9).numeric_threshold_given_references(
        "style", references, foreign
    ) == pytest.approx(0.5)
    words = policyfile.threshold_in_words(Threshold(spreads=-14, keep=0.0, foreign=0.0))
    assert words.endswith(", and at most what 0% of them reach, at least the 0% quantile of foreign pictures")


def test_what_the_references_show_themselves_is_no_fault() -> None:
    """Icons, some of which have a frame: a line far from the others would refuse a tenth of the brand's own."""
    framed = np.concatenate([np.linspace(-1, 0, 90), np.full(10, -8.0)])
    line, kept = (
        Threshold(spreads=-5, keep=keep).numeric_threshold_given_references("unframed", framed) for keep in (None, 0.98)
    )
    assert line is not None and -8 < line < -1 and kept == pytest.approx(-8)
    assert Threshold(spreads=-5, keep=0.98).numeric_threshold_given_references(
        "unframed", framed[:90]
    ) == pytest.approx(
        Threshold(spreads=-5).numeric_threshold_given_references("unframed", framed[:90])  # type: ignore[arg-type]
    )
    lifted = Threshold(spreads=-5, keep=0.98, foreign=0.9).numeric_threshold_given_references(
        "unframed", framed, [-2.0] * 101
    )
    assert lifted == -2, "foreign pictures go before"


def test_a_line_may_lie_where_copies_of_references_do(tmp_path: Path) -> None:
    near = Threshold(copies=0.95, alone=0.02)
    percentiles = [k / 1000 for k in range(101)]
    assert near.numeric_threshold_given_references("distinct", np.full(20, 0.3), (), percentiles) == pytest.approx(
        0.095
    )
    assert (
        near.numeric_threshold_given_references("distinct", None, (), percentiles)
        == near.numeric_threshold_given_references("distinct", np.full(20, 0.3))
        == 0.02
    )
    checks = policy_of(tmp_path, "  distinct: {reject_below: {copies: 0.95, alone: 0.02}}\n")
    bounds, _, _ = resolve_check_lines(
        checks, {"distinct"}, {"distinct": np.full(20, 0.3)}, 20, {}, {"distinct": percentiles}
    )
    assert bounds[0].reject_below == pytest.approx(0.095) and bounds[0].relative


def test_spread_is_never_below_the_resolution() -> None:
    assert policy.score_spread("openness", np.full(20, 0.9)) == 0.02


def policy_of(tmp_path: Path, checks: str) -> policy.Policy:
    return policyfile.read_policy(write(tmp_path, f"version: 1\nchecks:\n{checks}"))


RELATIVE = "  style: {reject_below: {spreads: -3}, optional: true}\n"
ALONE = "  sharpness: {reject_below: {spreads: -3, alone: 1}}\n"


def test_a_share_is_said_as_it_is_written(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "  style: {review_below: {quantile: 0.035, foreign: 0.995}}\n")
    text = "\n".join(policyfile.policy_in_words(policy, tmp_path / "mine.yaml"))
    assert f"file {tmp_path / 'mine.yaml'}" in text
    assert "review below the references' 3.5% quantile, at least the 99.5% quantile of foreign pictures" in text


def test_optional_checks_are_left_out_where_nothing_was_given(tmp_path: Path) -> None:
    bounds, left_out, lacking = resolve_check_lines(
        policy_of(tmp_path, RELATIVE + ALONE), {"sharpness"}, {}, num_references=0, foreign={}, copies={}
    )
    assert [b.score for b in bounds] == ["sharpness"] and bounds[0].reject_below == 1 and not bounds[0].relative
    assert left_out == ["style: no references were given"] and lacking == []


def test_too_few_references_are_not_the_same_as_none(tmp_path: Path) -> None:
    few = {"style": np.ones(7), "sharpness": np.ones(7)}
    checks = policy_of(tmp_path, RELATIVE + ALONE)
    bounds, left_out, lacking = resolve_check_lines(checks, {"style", "sharpness"}, few, 7, {}, {})
    assert [b.score for b in bounds] == ["sharpness"] and left_out == [] and lacking == ["style", "sharpness"]
    assert resolve_check_lines(checks, {"sharpness"}, {}, 12, {}, {})[2] == ["style", "sharpness"]
    others = policy_of(tmp_path, "  drawing: {reject_below: {spreads: -6}, optional: true}\n" + ALONE)
    assert resolve_check_lines(others, {"sharpness"}, {}, 7, {}, {})[2] == ["drawing", "sharpness"]


def test_a_check_that_cannot_be_computed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="asks for what cannot be computed") as error:
        resolve_check_lines(
            policy_of(tmp_path, "  aesthetic: {reject_below: 1}\n" + ALONE),
            {"sharpness"},
            {},
            num_references=0,
            foreign={},
            copies={},
        )
    assert error.value.problems[0].startswith("aesthetic")


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        ("  contrast: {warn_below: 6}\n  style: {warn_below: {spreads: -3}}\n", "checks: hold no picture back"),
        ("  contrast: {reject_below: 0}\n", "checks.contrast.reject_below: nothing falls below 0"),
        ("  style: {reject_below: {spreads: -3, alone: -1}}\n", "checks.style.reject_below: nothing falls below -1"),
        (
            "  contrast: {reject_below: 6, review_below: 5}\n",
            "checks.contrast.review_below: never acts, since what is below it is below reject_below already",
        ),
        ("  style: {reject_below: {spreads: -3}, review_below: {spreads: -4}}\n", "style.review_below: never acts"),
        ("  style: {fail_batch_below: {quantile: 0.1}, reject_below: {quantile: 0.05}}\n", "reject_below: never acts"),
        ("  contrast: {reject_below: 6, warn_below: -1}\n", "checks.contrast.warn_below: nothing falls below -1"),
    ],
)
def test_a_policy_that_would_hold_nothing_back_is_refused(tmp_path: Path, checks: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        policy_of(tmp_path, checks)
    assert says in str(error.value)
    assert policy_of(tmp_path, checks + "  size: {review_below: 1}\n").checks if "warn_below: 6" in checks else True


@pytest.mark.parametrize(
    "lines",
    [
        "reject_below: {spreads: -4}, review_below: {spreads: -5, foreign: 0.9}",  # higher if foreign ones are near
        "reject_below: {spreads: -4}, review_below: {spreads: -5, alone: 0.5}",  # without references it alone acts
        "reject_below: {spreads: -4}, review_below: {quantile: 0}",
        "reject_below: 0.5, warn_below: 0.4",
    ],
)
def test_a_line_that_may_act_is_kept(tmp_path: Path, lines: str) -> None:
    assert policy_of(tmp_path, f"  style: {{{lines}}}\n").checks


@pytest.mark.parametrize(
    ("checks", "references"),
    [
        (RELATIVE, {}),  # left out, and nothing else is asked
        (RELATIVE + "  contrast: {warn_below: 6}\n", {}),  # only a warning is left
        ("  style: {reject_below: {spreads: -14}}\n", {"style": np.linspace(0, 1, 101)}),  # a line below -1
    ],
)
def test_checks_of_which_none_holds_back_in_this_lot_are_refused(tmp_path: Path, checks: str, references) -> None:
    columns = {"contrast", *references}
    with pytest.raises(DataError, match="would accept every picture") as error:
        resolve_check_lines(
            policy_of(tmp_path, checks), columns, references, sum(map(len, references.values())), {}, {}
        )
    assert any(problem.startswith("style: ") for problem in error.value.problems)


def test_the_schema_of_a_policy_knows_both_forms_of_a_line() -> None:
    """Editors offer what a file may say: a bare number or a mapping, a word or lines, and no other form."""
    forms = json.loads(schema_texts_by_file_name()["policy.json"])["$defs"]
    number, mapping = forms["Threshold"]["anyOf"]
    assert number == {"type": "number"} and set(mapping["properties"]) == {*policy.RELATIVE, "keep", "foreign", "alone"}
    word, lines = forms["PolicyCheck"]["anyOf"]
    assert word == {"const": "calibrated"} and set(lines["properties"]) == {*policy.LINES, "optional"}
    assert not lines["additionalProperties"] and lines["properties"]["reject_below"]["description"]
