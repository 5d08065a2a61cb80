"""Likeness of pictures against a slow obvious reference, and near-duplicates."""

import numpy as np
import pytest
from PIL import Image

from stylegate import files, nearest, similarity
from stylegate.pictures import decode_picture
from tests.stylegate.test_pictures import encoded, gradient


def slow_likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Per shift, pixel by pixel: the cosine of the overlapping parts of the centred pictures."""
    a, b = a.astype(float) - a.mean((0, 1)), b.astype(float) - b.mean((0, 1))
    best = -1.0
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            pairs = [(y, x) for y in range(64) for x in range(64) if 0 <= y - dy < 64 and 0 <= x - dx < 64]
            left = np.array([a[y, x] for y, x in pairs]).ravel()
            right = np.array([b[y - dy, x - dx] for y, x in pairs]).ravel()
            best = max(best, float(left @ right / np.linalg.norm(left) / np.linalg.norm(right)))
    return best


def test_likeness_equals_the_slow_reference(pictures_of_neon: list[Image.Image]) -> None:
    a, b = (similarity.signature_of_picture(image) for image in pictures_of_neon[:2])
    assert similarity.likeness_of_two_picture_signatures(a, b) == pytest.approx(slow_likeness(a, b), abs=1e-5)


def test_likeness_of_copies_and_others(pictures_of_neon: list[Image.Image]) -> None:
    image = pictures_of_neon[0]
    brighter = Image.fromarray((np.asarray(image) * 1.03).clip(0, 255).astype(np.uint8))
    shifted = Image.fromarray(np.roll(np.asarray(image), 1, axis=1))
    recompressed = decode_picture(encoded(shifted, "JPEG", quality=60)).image
    own = similarity.signature_of_picture(image)
    assert all(
        similarity.likeness_of_two_picture_signatures(own, similarity.signature_of_picture(p)) > similarity.NEAR
        for p in (image, brighter, recompressed)
    )
    others = [
        similarity.likeness_of_two_picture_signatures(own, similarity.signature_of_picture(p))
        for p in pictures_of_neon[1:]
    ]
    assert max(others) < similarity.NEAR


def test_likeness_of_flat_pictures_is_defined() -> None:
    flat, other = (similarity.signature_of_picture(Image.new("RGB", (64, 64), c)) for c in ("red", "blue"))
    assert similarity.likeness_of_two_picture_signatures(flat, other) == 1.0
    assert similarity.likeness_of_two_picture_signatures(flat, similarity.signature_of_picture(gradient(64))) == 0.0


def test_nearest_equals_brute_force(pictures_of_neon: list[Image.Image]) -> None:
    signatures = np.stack([similarity.signature_of_picture(image) for image in pictures_of_neon[:12]])
    found, index = nearest.nearest_by_likeness(signatures)
    assert found[0] == 0 and index[0] == -1
    for i in range(1, 12):
        every = [similarity.likeness_of_two_picture_signatures(signatures[i], signatures[j]) for j in range(i)]
        assert found[i] == pytest.approx(max(every), abs=0.02)


def test_groups_join_whoever_is_near_to_one_of_them(pictures_of_neon: list[Image.Image]) -> None:
    """Against every pair: also where the nearest one of a picture is another than the one that joins two groups."""
    images = list(pictures_of_neon[:6])
    for shift, base in ((4, 0), (6, 0), (2, 0), (1, 3)):  # 0 and 4 are no near-duplicates, 2 lies between them
        moved = Image.new("RGB", (64, 64), images[base].getpixel((0, 0)))
        moved.paste(pictures_of_neon[base], (shift, 0))
        images.append(moved)
    images += [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    signatures = np.stack([similarity.signature_of_picture(image) for image in images])
    labels = similarity.near_duplicate_group_numbers(signatures)
    joined = np.array(
        [
            [similarity.likeness_of_two_picture_signatures(a, b) >= similarity.NEAR for a in signatures]
            for b in signatures
        ]
    )
    for _ in images:
        joined |= joined.astype(int) @ joined.astype(int) > 0
    assert np.array_equal(labels[:, None] == labels[None], joined)
    assert sorted(np.bincount(labels))[-3:] == [2, 2, 4]


@pytest.mark.parametrize("count", [32, 128, 900])
def test_moved_copies_are_found_among_few_and_among_many(count: int) -> None:
    """Halftone pictures moved by 2 of 64 pixels and recompressed, against brute force (of 900: against their source).

    Proposed by thumbnails of 16 x 16 alone, 1 in 16 is missed among 128 and among 900.
    """
    random = np.random.default_rng(0)
    signatures = halftones(random, count)
    moves = [tuple(random.choice((-2, 2), 2)) for _ in range(32)]
    copies = np.stack([recompressed(np.roll(signatures[i], move, (0, 1))) for i, move in enumerate(moves)])
    found, _ = nearest.nearest_by_likeness(copies, signatures)
    for i, copy in enumerate(copies):
        others = range(count) if count < 900 else (i,)
        assert (
            found[i] >= max(similarity.likeness_of_two_picture_signatures(copy, signatures[j]) for j in others) - 1e-5
        )


def halftones(random: np.random.Generator, count: int) -> np.ndarray:
    """[count, 64, 64, 3]: the shipped pictures of riso; of more than there are, mixtures of two of them."""
    paths = sorted((files.ROOT / "data" / "brands" / "riso").rglob("*.png"))
    shipped = np.stack([similarity.signature_of_picture(Image.open(path).convert("RGB")) for path in paths])
    pairs = random.integers(0, len(shipped), (2, max(count - len(shipped), 0)))
    mixed = shipped[pairs[0]] // 2 + np.roll(shipped[pairs[1]], 8, axis=1) // 2
    return np.concatenate([shipped, mixed])[:count]


def recompressed(signature: np.ndarray) -> np.ndarray:
    return np.asarray(decode_picture(encoded(Image.fromarray(signature), "JPEG", quality=30)).image)


def test_nearest_leaves_out_the_own_group(pictures_of_neon: list[Image.Image]) -> None:
    one = similarity.signature_of_picture(pictures_of_neon[0])
    twice = np.stack([one, one])
    assert nearest.nearest_by_likeness(twice)[0][1] == pytest.approx(1, abs=1e-4)
    assert nearest.nearest_by_likeness(twice, groups=np.array([7, 7]))[0][1] == 0
    assert nearest.nearest_by_likeness(twice, groups=np.array([7, 8]))[0][1] == pytest.approx(1, abs=1e-4)
    others = np.stack([one, similarity.signature_of_picture(pictures_of_neon[5])])
    found, index = nearest.nearest_by_likeness(twice, others, np.array([7, 8]), groups_of_others=np.array([7, -1]))
    assert index.tolist() == [1, 0] and found[0] < 0.9 < found[1]
    alone = nearest.nearest_by_likeness(twice, others[:1], np.array([7, 8]), groups_of_others=np.array([7]))
    assert alone[1].tolist() == [-1, 0] and alone[0][0] == 0
