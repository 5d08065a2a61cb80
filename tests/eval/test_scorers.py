"""Scores against slow obvious references; each one moves the way that its name says."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors.numpy import save_file
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge

from eval.scorers import SCORES, aesthetic, consistency, duplicates, prompt, style, technical
from stylegate import files, pictures
from stylegate.errors import ModelError

RANDOM = np.random.default_rng(0)
LAION = files.ROOT.parent / "shared" / "data" / "laion-aesthetic" / "v2_sac_logos_ava1_l14_linearMSE.safetensors"


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def cloud(n: int, centre: float, d: int = 16) -> np.ndarray:
    return unit(RANDOM.normal(size=(n, d)) * 0.2 + centre * np.eye(d)[0] + 0.3 * np.eye(d)[1])


def test_style_equals_the_definition() -> None:
    """(W e) . (W m) / (|W e| |W m|) with W = S^-1/2 by scipy's matrix root, one picture at a time."""
    from scipy.linalg import fractional_matrix_power

    references, judged = cloud(20, 1), cloud(5, -1)
    whiten = np.real(np.asarray(fractional_matrix_power(LedoitWolf().fit(references).covariance_, -0.5)))
    centre = whiten @ references.mean(0)
    slow = [float((whiten @ e) @ centre / np.linalg.norm(whiten @ e) / np.linalg.norm(centre)) for e in judged]
    assert style.score(judged, references) == pytest.approx(slow, abs=1e-4)


def test_style_tells_the_brand_from_others() -> None:
    references = cloud(40, 1)
    own, others = style.score(cloud(20, 1), references), style.score(cloud(20, -1), references)
    assert own.min() > others.max()


def test_leave_one_out_leaves_the_reference_out() -> None:
    references = cloud(12, 1)
    odd = np.concatenate([references, cloud(1, -3)])
    assert style.leave_one_out(odd)[-1] < style.score(odd, odd)[-1]
    assert style.leave_one_out(odd)[0] == pytest.approx(style.score(odd[:1], odd[1:])[0])


def test_prompt_is_the_cosine() -> None:
    a, b = cloud(6, 1), cloud(6, 0)
    assert prompt.prompt(a, b) == pytest.approx([float(x @ y) for x, y in zip(a, b, strict=True)], abs=1e-6)


COLOURS = ["blue", "red", "green"]
VALUES = {"body": COLOURS, "hat": ["cap", "none"], "only": ["one"]}
PHRASES = {text: i for i, text in enumerate(["blue body", "red body", "green body", "cap hat", "no hat"])}


def phrases(texts: list[str]) -> np.ndarray:
    """Unit rows of 24 numbers that are nearly those of pictures of the value."""
    return unit(np.eye(24)[[PHRASES[text] for text in texts]] + 0.02)


def seen_of(truth: list[dict[str, str]], noise: float) -> np.ndarray:
    """Pictures that show their body, pulled towards red by the style; hats do not show at all."""
    random = np.random.default_rng(12)
    bodies = np.eye(24)[[COLOURS.index(row["body"]) for row in truth]]
    return unit(0.4 * bodies + 0.7 * np.eye(24)[1] + noise * random.normal(size=(len(truth), 24)))


def rows_of(count: int) -> list[dict[str, str]]:
    random = np.random.default_rng(3)
    return [{"body": COLOURS[i % 3], "hat": str(random.choice(["cap", "none"]))} for i in range(count)]


def test_a_trait_is_asked_only_where_held_out_references_prove_it() -> None:
    """24 numbers fit 40 hats at random if a reader is judged on what it was fitted on: it must not be."""
    truth = rows_of(40)
    readable, areas = prompt.readings(seen_of(truth, 0.05), truth, VALUES, phrases)
    assert set(readable) == {"body"} and areas["body"] > 0.99 and areas["hat"] < 0.75
    assert prompt.readings(seen_of(truth, 0.05), [{}] * 40, VALUES, phrases) == ({}, {})


def test_trait_margins_equal_a_slow_reader() -> None:
    truth = rows_of(30)
    references, texts = seen_of(truth, 0.05).astype(float), phrases([f"{c} body" for c in COLOURS])
    reading = prompt.readings(references, truth, VALUES, phrases)[0]["body"]
    numbers = [COLOURS.index(row["body"]) for row in truth]

    def slow(rows: list[int], picture: np.ndarray, number: int) -> float:
        """Ridge regression in its primal form, d x d, around a common multiple of the phrases."""
        x, mean = references[rows] - references[rows].mean(0), references[rows].mean(0)
        y = np.eye(3)[[numbers[i] for i in rows]]
        y, t = y - y.mean(0), texts - texts.mean(0)
        common = np.vdot(x @ t.T, y) / np.vdot(x @ t.T, x @ t.T)
        weights = common * t.T + np.linalg.inv(x.T @ x + np.eye(24)) @ x.T @ (y - common * x @ t.T)
        response = (picture - mean) @ weights
        return response[number] - max(response[k] for k in range(3) if k != number)

    held_out = [slow([j for j in range(30) if j % 10 != i % 10], references[i], numbers[i]) for i in range(30)]
    low, median, high = np.quantile(held_out, [0.16, 0.5, 0.84])
    assert reading.own == pytest.approx((np.array(held_out) - median) / ((high - low) / 2), abs=1e-6)
    other = seen_of(rows_of(9), 0.2).astype(float)
    wanted = [(slow(list(range(30)), picture, 1) - median) / ((high - low) / 2) for picture in other]
    assert reading.margins(other, ["red"] * 9) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("count", [10, 60])
def test_a_readers_weights_are_those_of_ridge_regression(count: int) -> None:
    """Fewer and more pictures than the 24 numbers of each, against scikit-learn's."""
    truth = rows_of(count)
    rows, texts = seen_of(truth, 0.3).astype(float), phrases([f"{c} body" for c in COLOURS]).astype(float)
    numbers = np.array([COLOURS.index(row["body"]) for row in truth])
    mean, weights = prompt.fit(rows, numbers, texts)
    x, said = rows - rows.mean(0), (rows - rows.mean(0)) @ (texts - texts.mean(0)).T
    y = np.eye(3)[numbers] - np.eye(3)[numbers].mean(0)
    common = max(0.0, (said * y).sum() / (said * said).sum())
    rest = Ridge(alpha=prompt.RIDGE, fit_intercept=False).fit(x, y - common * said).coef_
    assert weights == pytest.approx(common * (texts - texts.mean(0)) + rest, abs=1e-8)
    assert mean == pytest.approx(rows.mean(0))


def test_other_pictures_of_the_brand_teach_a_reader_and_do_not_judge_it() -> None:
    """Held-out margins and weights as if the others were references that are never held out."""
    truth, more_truth = rows_of(30), rows_of(24)
    references, more = seen_of(truth, 0.05).astype(float), seen_of(more_truth, 0.3).astype(float)
    reading = prompt.readings(references, truth, VALUES, phrases, (more, more_truth))[0]["body"]
    numbers, numbers_of_more = ([COLOURS.index(row["body"]) for row in rows] for rows in (truth, more_truth))
    texts = phrases([f"{c} body" for c in COLOURS]).astype(float)
    margins = np.zeros(30)
    for i in range(30):
        others = [j for j in range(30) if j % 10 != i % 10]
        taught = np.r_[np.array(numbers)[others], numbers_of_more]
        mean, weights = prompt.fit(np.concatenate([references[others], more]), taught, texts)
        response = (references[i] - mean) @ weights.T
        margins[i] = response[numbers[i]] - max(response[k] for k in range(3) if k != numbers[i])
    low, median, high = np.quantile(margins, [0.16, 0.5, 0.84])
    assert reading.own == pytest.approx((margins - median) / ((high - low) / 2), abs=1e-6) and len(reading.own) == 30
    alone = prompt.readings(references, truth, VALUES, phrases)[0]["body"]
    assert not np.allclose(alone.weights, reading.weights)


def test_the_trait_score_is_that_of_the_least_certain_trait() -> None:
    truth = rows_of(40)
    reading = prompt.readings(seen_of(truth, 0.05), truth, VALUES, phrases)[0]["body"]
    doubtful = reading._replace(median=reading.median + 1)
    pictures_seen = seen_of(truth, 0.05)
    planned = [*truth[:38], {"body": "blue" if truth[38]["body"] != "blue" else "red"}, {}]
    found = prompt.traits(pictures_seen, planned, {"body": reading, "again": doubtful})
    assert found[:39] == pytest.approx(reading.margins(pictures_seen[:39], [r["body"] for r in planned[:39]]))
    assert np.isnan(found[39]) and found[38] < prompt.of_references({"body": reading}).min() - 3
    asked = [row | {"again": row["body"]} if row else row for row in planned]
    both = prompt.traits(pictures_seen, asked, {"body": reading, "again": doubtful})
    assert (both[:39] < found[:39]).all()


def test_consistency_finds_the_odd_one() -> None:
    batch = np.concatenate([cloud(9, 1), cloud(1, -3)])
    scores = consistency.score(batch)
    slow = []
    for i in range(10):
        rest = np.delete(batch, i, 0).sum(0)
        slow.append(float(batch[i] @ rest / np.linalg.norm(rest)))
    assert scores == pytest.approx(slow, abs=1e-5) and scores.argmin() == 9
    assert np.isnan(consistency.score(batch[:2])).all()


def stack(widths: list[int]) -> dict[str, np.ndarray]:
    return {
        name: RANDOM.normal(size=shape).astype(np.float32)
        for i, (a, b) in enumerate(pairwise(widths))
        for name, shape in ((f"layers.{i * 2}.weight", (b, a)), (f"layers.{i * 2}.bias", (b,)))
    }


def test_linear_layers_fold_to_one(tmp_path: Path) -> None:
    layers = stack([16, 12, 11, 8, 4, 3, 1])  # more than ten numbers: layers.10 comes after layers.2
    save_file(layers, tmp_path / "head.safetensors")
    e = unit(RANDOM.normal(size=(5, 16)))
    x = e.astype(np.float64)
    for i in range(6):
        x = x @ layers[f"layers.{i * 2}.weight"].T.astype(np.float64) + layers[f"layers.{i * 2}.bias"]
    assert aesthetic.score(e, aesthetic.load_head(tmp_path / "head.safetensors", 16)) == pytest.approx(
        x[:, 0], rel=1e-5
    )
    with pytest.raises(ModelError, match="another encoder"):
        aesthetic.load_head(tmp_path / "head.safetensors", 768)


@pytest.mark.skipif(
    not LAION.exists(), reason="LAION's head is not shipped; parity is tested where the file is present"
)
def test_laion_v2_folds_exactly() -> None:
    """|w| and b of the fold as published in the notes on the head; the fold equals the stack to 1e-6."""
    from safetensors.numpy import load_file

    weight, bias = aesthetic.load_head(LAION, 768)
    assert np.linalg.norm(weight) == pytest.approx(17.9956, abs=1e-4) and bias == pytest.approx(5.23665, abs=1e-5)
    layers, e = load_file(LAION), unit(RANDOM.normal(size=(8, 768)))
    x = e.astype(np.float64)
    for i in (0, 2, 4, 6, 7):
        x = x @ layers[f"layers.{i}.weight"].T.astype(np.float64) + layers[f"layers.{i}.bias"]
    assert np.abs(aesthetic.score(e, (weight, bias)) - x[:, 0]).max() < 1e-6


def test_technical_measures_move_as_they_say(pictures_of_neon: list[Image.Image]) -> None:
    image = pictures_of_neon[0]
    pixels = np.asarray(image).astype(float)
    plain = dict(zip(technical.MEASURES, technical.measure(image), strict=True))

    def measured(changed: Image.Image) -> dict[str, float]:
        return dict(zip(technical.MEASURES, technical.measure(changed), strict=True))

    noisy = Image.fromarray((pixels + RANDOM.normal(0, 24, pixels.shape)).clip(0, 255).astype(np.uint8))
    half = Image.fromarray(np.vstack([pixels[:32], np.full((32, 64, 3), 9)]).astype(np.uint8))
    patched = image.copy()
    patched.paste((200, 30, 30), (10, 20, 40, 50))
    assert measured(image.filter(ImageFilter.GaussianBlur(2)))["sharpness"] < plain["sharpness"] - 0.5
    assert measured(noisy)["cleanness"] < plain["cleanness"] - 1
    assert measured(half)["completeness"] == 0 < plain["completeness"]
    assert measured(patched)["openness"] == pytest.approx(1 - 900 / 4096, abs=0.001)
    assert measured(Image.new("RGB", (64, 64), "red"))["contrast"] < 1e-6


def test_noise_estimate_equals_a_slow_convolution(pictures_of_neon: list[Image.Image]) -> None:
    luma = np.asarray(pictures_of_neon[0]).astype(float)[:12, :12] @ technical.LUMA
    padded = np.pad(luma, 1, mode="symmetric")
    slow = np.zeros_like(luma)
    for y in range(12):
        for x in range(12):
            slow[y, x] = (padded[y : y + 3, x : x + 3] * technical.LAPLACIAN_DIFFERENCE).sum()
    assert technical.cleanness(luma) == pytest.approx(-np.log(np.median(np.abs(slow)) + 8))


def test_size_is_the_common_one_or_the_expected() -> None:
    sizes = np.array([[64, 64], [64, 64], [32, 64]])
    assert technical.size(sizes, None).tolist() == [1, 1, 0]
    assert technical.size(sizes, (32, 64)).tolist() == [0, 0, 1]


def test_duplicates_keep_the_first(pictures_of_neon: list[Image.Image]) -> None:
    three = [pictures_of_neon[0], pictures_of_neon[5], pictures_of_neon[0]]
    signatures = np.stack([pictures.signature(image) for image in three])
    found = duplicates.distinct(signatures, np.arange(3), None, signatures[:0])
    assert found[0] == 1 and found[1] > 0.1 and found[2] == pytest.approx(0, abs=1e-4)
    assert duplicates.novelty(signatures, signatures[1:2])[1] == pytest.approx(0, abs=1e-4)
    assert duplicates.leave_one_out(signatures)[0] == pytest.approx(0, abs=1e-4)


def test_the_best_of_those_that_are_alike_is_kept(pictures_of_neon: list[Image.Image]) -> None:
    signatures = np.stack([pictures.signature(pictures_of_neon[i]) for i in (0, 5, 0, 0)])

    def kept(quality: list[float] | None, attempts: list[int] | None, groups: list[int] | None = None) -> list[bool]:
        rank = duplicates.ranks(
            None if quality is None else np.array(quality), None if attempts is None else np.array(attempts), 4
        )
        slots = None if groups is None else np.array(groups)
        return (duplicates.distinct(signatures, rank, slots, signatures[:0]) > 0.1).tolist()

    assert kept(None, None) == [True, True, False, False]
    assert kept([0.1, 0.2, 0.9, 0.3], None) == [False, True, True, False]
    assert kept([0.1, 0.2, np.nan, np.nan], None) == [True, True, False, False], "unknown is no better than any"
    assert kept([0.1, 0.2, 0.9, 0.3], [0, 0, 1, 0]) == [False, True, False, True], "earlier attempts are settled"
    assert kept([0.1, 0.2, 0.9, 0.3], None, [7, 8, 7, 7]) == [True] * 4, "attempts at one slot"
    rank = np.arange(4)
    assert duplicates.distinct(signatures, rank, None, signatures[1:2])[1] == pytest.approx(0, abs=1e-4), "exported"


def test_copies_of_a_picture_are_nearer_than_other_pictures(pictures_of_neon: list[Image.Image]) -> None:
    signatures = np.stack([pictures.signature(image) for image in pictures_of_neon[:16]])
    line = np.quantile(duplicates.copies(signatures), 0.95)
    near = duplicates.leave_one_out(signatures)
    assert 0 < line < 0.1 < near.min()


def test_every_score_is_described() -> None:
    assert set(technical.MEASURES) < set(SCORES)
    assert all(score.kind in ("pixels", "encoder") and score.resolution > 0 for score in SCORES.values())
