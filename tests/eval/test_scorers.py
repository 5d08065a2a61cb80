"""Scores against slow obvious references; each one moves the way that its name says."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors.numpy import save_file
from sklearn.covariance import LedoitWolf

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


AXES = {"red body": 0, "blue body": 1, "no hat": 2, "cap hat": 3}
VALUES = {"body": ["blue", "red"], "hat": ["cap", "none"], "only": ["one"]}


def basis(texts: list[str]) -> np.ndarray:
    return np.eye(4)[[AXES[text] for text in texts]]


def test_traits_counts_what_is_nearest() -> None:
    planned = [{"body": "red", "hat": "cap"}, {"body": "blue", "hat": "none"}, {}]
    pictures_seen = unit(np.array([[1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1]], float))
    readable = {
        trait: prompt.Reading(
            VALUES[trait], basis([prompt.phrase(trait, v) for v in VALUES[trait]]), np.zeros(2, np.float32)
        )
        for trait in ("body", "hat")
    }
    found = prompt.traits(pictures_seen, planned, readable)
    assert found[:2].tolist() == [1.0, 0.5] and np.isnan(found[2])


def test_a_trait_is_read_against_what_is_usual_and_only_where_references_prove_it() -> None:
    """A style that looks red to the encoder throughout; hats cannot be seen in it."""
    truth = [{"body": "red", "hat": "cap"}, {"body": "blue", "hat": "none"}] * 5
    seen = unit(np.array([[9, 1, 1, 1] if row["body"] == "red" else [8, 2, 1, 1] for row in truth], float))
    readable, shares = prompt.readings(seen, truth, VALUES, basis)
    assert set(readable) == {"body"} and shares == {"body": 1.0, "hat": 0.5}
    assert prompt.traits(seen, truth, readable).tolist() == [1.0] * 10
    assert prompt.readings(seen, [{}] * 10, VALUES, basis) == ({}, {})


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
    assert technical.cleanness(luma) == pytest.approx(-np.log(np.median(np.abs(slow)) + 2))


def test_size_is_the_common_one_or_the_expected() -> None:
    sizes = np.array([[64, 64], [64, 64], [32, 64]])
    assert technical.size(sizes, None).tolist() == [1, 1, 0]
    assert technical.size(sizes, (32, 64)).tolist() == [0, 0, 1]


def test_duplicates_keep_the_first(pictures_of_neon: list[Image.Image]) -> None:
    three = [pictures_of_neon[0], pictures_of_neon[5], pictures_of_neon[0]]
    signatures = np.stack([pictures.signature(image) for image in three])
    found = duplicates.distinct(signatures)
    assert found[0] == 1 and found[1] > 0.1 and found[2] == pytest.approx(0, abs=1e-4)
    assert duplicates.novelty(signatures, signatures[1:2])[1] == pytest.approx(0, abs=1e-4)
    assert duplicates.leave_one_out(signatures)[0] == pytest.approx(0, abs=1e-4)


def test_every_score_is_described() -> None:
    assert set(technical.MEASURES) < set(SCORES)
    assert all(score.kind in ("pixels", "encoder") and score.resolution > 0 for score in SCORES.values())
