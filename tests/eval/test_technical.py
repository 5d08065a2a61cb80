"""Technical measures against slow obvious references; each one moves the way that its name says."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from eval.scorers import technical

RANDOM = np.random.default_rng(0)
NONE = np.zeros(0, bool)


def measured(image: Image.Image) -> dict[str, float]:
    return dict(
        zip(
            technical.MEASURES,
            technical.technical_scores([technical.reduced_and_middle_pixels(image)])[0],
            strict=True,
        )
    )


def luma_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[None] @ technical.LUMA


def test_technical_measures_move_as_they_say(pictures_of_neon: list[Image.Image]) -> None:
    image = pictures_of_neon[0]
    pixels = np.asarray(image).astype(float)
    plain = measured(image)

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
    luma = luma_of(pictures_of_neon[0])[0, :12, :12]
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])  # Immerkaer's eq. 2
    padded = np.pad(luma, 1, mode="symmetric")
    slow = np.zeros_like(luma)
    for y in range(12):
        for x in range(12):
            slow[y, x] = (padded[y : y + 3, x : x + 3] * mask).sum()
    assert technical.cleanness(luma[None]) == pytest.approx(-np.log(np.median(np.abs(slow)) + 8))


def test_an_area_of_one_colour_equals_a_slow_flood(pictures_of_neon: list[Image.Image]) -> None:
    """Of pictures that are measured together, each for itself; diagonal neighbours do not touch."""
    grain = Image.fromarray(RANDOM.integers(0, 3, (64, 64)).astype(np.uint8)).convert("RGB")  # of three greys
    noise = Image.fromarray(RANDOM.integers(0, 255, (64, 64, 3)).astype(np.uint8))
    flat = Image.new("RGB", (64, 64), "red")
    together = [flat, flat, *pictures_of_neon[:3], grain, flat, noise]
    found = technical.openness(np.stack([np.asarray(image) for image in together]))
    for image, open_share in zip(together, found, strict=True):
        pixels, largest = np.asarray(image), 0
        unseen = {(y, x) for y in range(64) for x in range(64)}
        while unseen:
            waiting, area = [unseen.pop()], 0
            colour = pixels[waiting[0]]
            while waiting:
                y, x = waiting.pop()
                area += 1
                beside = unseen & {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)}
                near = [place for place in beside if (pixels[place] == colour).all()]
                unseen.difference_update(near)
                waiting += near
            largest = max(largest, area)
        assert open_share == pytest.approx(1 - largest / 4096)


def test_who_is_measured_beside_it_moves_no_measure(pictures_of_neon: list[Image.Image]) -> None:
    """Also of several sizes, and of more than are measured at once."""
    them = [
        technical.reduced_and_middle_pixels(image.resize((64 + 16 * (i % 3), 64)))
        for i, image in enumerate(pictures_of_neon * 2)
    ]
    alone = np.concatenate([technical.technical_scores([one]) for one in them])
    assert np.array_equal(technical.technical_scores(them), alone)
    assert np.array_equal(technical.technical_scores(them[::-1])[::-1], alone)


def test_strong_compression_is_seen_wherever_the_middle_begins(pictures_of_neon: list[Image.Image]) -> None:
    """Against a cosine transform written out; a picture larger than the middle is cut where a block begins."""
    image = pictures_of_neon[0]

    def compressed(quality: int) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        again = io.BytesIO()
        Image.open(buffer).convert("RGB").save(again, "PNG")  # stored without loss since: the steps stay
        return Image.open(again)

    found = {q: technical.uncompressed(luma_of(compressed(q)))[0] for q in (8, 30, 95)}
    whole = technical.uncompressed(luma_of(image))[0]
    assert max(found[8], found[30]) < 3 < min(found[95], whole)
    n = np.arange(8)
    cosine = np.cos(np.pi * (2 * n[None, :] + 1) * n[:, None] / 16) * np.where(n == 0, 8**-0.5, 0.5)[:, None]
    luma, slow = luma_of(compressed(8))[0].astype(float), []
    blocks = [luma[y : y + 8, x : x + 8] for y in range(0, 64, 8) for x in range(0, 64, 8)]
    drawn = [block for block in blocks if block.std() > 4]
    assert len(drawn) > technical.BLOCKS
    some = [block for i, block in enumerate(drawn, 1) if i % 2 == 0]  # no more than are looked at, evenly spread
    for table in technical.jpeg_quantisation_tables_by_quality():
        apart = []
        for block in some:
            coefficients = (cosine @ (block - 128) @ cosine.T).ravel()[1:]
            apart.append(np.mean((coefficients - table * np.round(coefficients / table)) ** 2))
        slow.append(np.log(1 + np.mean(apart)))
    assert found[8] == pytest.approx(min(slow))
    wide = Image.new("RGB", (64 * 11, 64 * 9))
    for y in range(9):
        for x in range(11):
            wide.paste(compressed(8), (x * 64, y * 64))
    assert measured(wide)["uncompressed"] < 3
    assert technical.uncompressed(np.full((1, 64, 64), 7, np.float32)) == technical.UNKNOWN


def test_clipped_values_are_counted(pictures_of_neon: list[Image.Image]) -> None:
    pixels = np.asarray(pictures_of_neon[0])
    bright = (pixels.astype(float) * 1.8).clip(0, 255).astype(np.uint8)
    found = technical.unclipped(np.stack([pixels, bright]))
    slow = [1 - sum(v <= 2 or v >= 253 for v in image.ravel().tolist()) / image.size for image in (pixels, bright)]
    assert found == pytest.approx(slow) and found[1] < found[0] - 0.1
    assert technical.unclipped(np.array([[[[0, 252, 255], [2, 253, 3]]]], np.uint8)) == pytest.approx(2 / 6)


def test_a_frame_is_a_line_that_is_even_and_ends_together(pictures_of_neon: list[Image.Image]) -> None:
    """Against loops over every line; bars at two sides are a frame, a bar at one side and noise are none."""
    plain = pictures_of_neon[0]

    def with_bars(*boxes: tuple[int, int, int, int]) -> Image.Image:
        image = plain.copy()
        for box in boxes:
            image.paste("black", box)
        return image

    above, below, left, right = (0, 0, 64, 9), (0, 57, 64, 64), (0, 0, 5, 64), (60, 0, 64, 64)
    noise = Image.fromarray(RANDOM.integers(0, 255, (64, 64, 3)).astype(np.uint8))
    them = [plain, with_bars(above, below), with_bars(left, right), with_bars(above, below, left, right)]
    them += [with_bars(above), with_bars(above, left), noise]
    found = technical.unframed(np.concatenate([luma_of(image) for image in them]))

    def line(luma: np.ndarray) -> float:
        best = 0.0
        for y in range(16):
            hits = 0
            for x in range(8, 55):
                even = abs(luma[y, x] - luma[y, x + 1]) <= 10
                hits += even and abs(luma[y, x] - luma[y + 1, x]) > 12
            best = max(best, hits / 47)
        return best

    slow = []
    for image in them:
        luma = luma_of(image)[0]
        pairs = [min(line(lines), line(lines[::-1])) for lines in (luma, luma.T)]
        slow.append(np.log(1.02 - max(pairs)))
    assert found == pytest.approx(np.minimum(slow, 0), abs=1e-6)
    assert max(found[1:4]) < -3.5 < -2 < min(found[0], *found[4:])
    assert technical.unframed(np.zeros((2, 1, 256), np.float32)).tolist() == [0, 0]  # of a line of pixels


def test_a_frame_is_found_as_deep_as_docs_say() -> None:
    plain = RANDOM.uniform(100, 220, (64, 64)).astype(np.float32)

    def score(depth: int, sides: int) -> float:
        framed = plain.copy()
        framed[:depth] = framed[-depth:] = 0
        if sides == 4:
            framed[:, :depth] = framed[:, -depth:] = 0
        return float(technical.unframed(framed[None])[0])

    eighth, fourth = 64 // 8, 64 // 4
    assert score(eighth, 2) == score(eighth, 4) == score(fourth, 2) == pytest.approx(np.log(technical.WHOLLY))
    assert score(eighth, 4) < score(fourth, 4) == pytest.approx(-1, abs=0.1)
    assert min(score(fourth + 1, sides) for sides in (2, 4)) > -0.5


def test_size_and_alpha_are_the_usual_ones_or_the_expected() -> None:
    sizes = np.array([[64, 64], [64, 64], [32, 64]])
    assert technical.same_size_score(sizes, None).tolist() == [1, 1, 0]
    assert technical.same_size_score(sizes, (32, 64)).tolist() == [0, 0, 1]
    assert technical.alpha_rule_score(np.array([True, False, True]), NONE).tolist() == [1, 0, 1]
    assert technical.alpha_rule_score(np.array([False, True, True, False]), NONE).tolist() == [
        1,
        0,
        0,
        1,
    ]  # half of them: opaque
    assert technical.alpha_rule_score(np.array([True, True, False]), np.array([False])).tolist() == [0, 0, 1]


def test_a_picture_of_one_row_has_no_halves_across() -> None:
    line = measured(Image.fromarray(RANDOM.integers(0, 255, (16, 4096, 3)).astype(np.uint8)))
    assert np.isfinite(list(line.values())).all()
