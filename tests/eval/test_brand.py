"""A brand's reader: what it sees, how surely it reads, and what is refused where it cannot."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.measuring.measured import ForeignSet
from eval.scorers import brand
from stylegate import files

NEON = files.ROOT / "data" / "brands" / "neon"
Call = Callable[..., tuple[int, str]]


def hand(colour: int, random: np.random.Generator, count: int = 48, given: bool = False) -> ForeignSet:
    """Pictures of coloured squares at random places: a hand is a colour."""
    signatures = np.full((count, 64, 64, 3), 255, np.uint8)
    for picture in signatures:
        x, y = random.integers(0, 40, 2)
        picture[y : y + 20, x : x + 20] = np.clip(random.normal([colour, 120, 60], 12), 0, 255)
    nothing = np.zeros((count, 0), np.float32)
    return ForeignSet(f"colour {colour}", given, nothing, nothing.astype(np.float16), signatures)


def test_another_hand_is_told_and_the_same_hand_is_not() -> None:
    random = np.random.default_rng(0)
    own, others = hand(230, random), [hand(colour, random) for colour in (20, 70, 120)]
    reader = brand.learn(own, others, with_encoder=False)  # type: ignore[arg-type]
    assert min(found.low for found in reader.separations) > brand.READABLE
    again, unseen = hand(230, random), hand(45, random)
    assert np.median(reader.log_odds(again)) > 0 > reader.log_odds(unseen).max()  # type: ignore[arg-type]
    refused = 0
    for seed in range(20):  # the brand's own pictures as another's
        random = np.random.default_rng(seed)
        same = brand.learn(hand(230, random), [*others, hand(230, random, given=True)], with_encoder=False)  # type: ignore[arg-type]
        refused += same.separations[0].name == "colour 230" and same.separations[0].low < brand.READABLE
    assert refused == 20


def test_a_reference_is_read_by_a_reader_that_does_not_know_it() -> None:
    random = np.random.default_rng(0)
    own, other = hand(200, random, 24), hand(120, random, 24)
    rows = np.concatenate([np.concatenate(brand.appearance(one, False), axis=1) for one in (own, other)])  # type: ignore[arg-type]
    truth, weights = np.repeat([1.0, -1.0], 24), np.random.default_rng(1).uniform(1, 2, 48)
    quick = brand.fit(rows, truth, weights).left_out
    for i in (0, 5, 30):
        rest = np.arange(48) != i
        # The slow way keeps the weights as shares of all, hence a penalty that grows as they shrink.
        share = weights[rest].sum() / weights.sum()
        mean, level = (
            np.average(rows[rest], axis=0, weights=weights[rest]),
            np.average(truth[rest], weights=weights[rest]),
        )
        centred, w = rows[rest] - mean, weights[rest] / weights.sum()
        found = np.linalg.solve(
            (centred * w[:, None]).T @ centred + brand.RIDGE * np.eye(rows.shape[1]),
            (centred * w[:, None]).T @ (truth[rest] - level),
        )
        assert quick[i] == pytest.approx((rows[i] - mean) @ found + level, abs=2e-6), share


def test_of_few_references_less_is_said() -> None:
    few, many = (brand.area_with_bound(np.ones(n), np.zeros(48)) for n in (8, 64))
    assert few[0] == many[0] == 1 and few[1] < many[1] < 1
    assert brand.area_with_bound(np.zeros(8), np.ones(48)) == (0, 0)


def of_split(part: str) -> list[Path]:
    return sorted((NEON / part).glob("*.png"))


def copied(place: Path, paths: list[Path]) -> Path:
    place.mkdir()
    for path in paths:
        shutil.copy(path, place)
    return place


def test_a_style_that_cannot_be_read_is_refused_and_says_from_what(run: Call, judged: Path, tmp_path: Path) -> None:
    every = of_split("test")
    references, same = copied(tmp_path / "ours", every[::2]), copied(tmp_path / "theirs", every[1::2])
    words = [f"images={judged}", f"references={references}", f"out={tmp_path / 'out'}"]
    run("gate", *words)
    readable = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert readable["counts"]["accept"] >= 24 and readable["readability"]["readable"]
    code, text = run("gate", *words, f"foreign={same}")
    found = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert code in (10, 11) and found["counts"]["accept"] == 0
    assert "note: the references cannot be told surely from theirs (area 0." in text and "foreign=" in text
    assert found["readability"]["nearest"] == "theirs" and found["why"]["review"]["style-unreadable"] >= 24


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda place: None, "is not a folder"),
        (lambda place: place.mkdir(), "holds no pictures"),
        (lambda place: copied(place, of_split("train")), "the brand's own"),
        (lambda place: copied(place, of_split("validation")[:3]), "theirs: 3"),
        (lambda place: (copied(place, of_split("validation")) / "x.png").write_bytes(b"no"), "theirs/x.png"),
    ],
)
def test_foreign_folders_that_say_nothing_are_refused(
    run: Call, judged: Path, tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / "theirs")
    code, text = run(
        "gate", f"images={judged}", "brand=neon", f"foreign={tmp_path / 'theirs'}", f"out={tmp_path / 'o'}"
    )
    assert code == 2 and says in text and "Traceback" not in text


def test_references_that_are_one_picture_are_no_style(run: Call, judged: Path, tmp_path: Path) -> None:
    place = tmp_path / "one"
    place.mkdir()
    for i in range(12):
        shutil.copy(NEON / "test" / "0064.png", place / f"{i}.png")
    code, text = run("gate", f"images={judged}", f"references={place}", f"out={tmp_path / 'out'}")
    assert code in (10, 11) and "only 1 reference differ" in text.replace("references", "reference")
    assert json.loads((tmp_path / "out" / "gate.json").read_text())["counts"]["accept"] == 0


def test_a_brand_that_is_a_shipped_set_is_not_told_from_itself(run: Call, tmp_path: Path) -> None:
    rows = [row["png"] for row in pq.read_table(files.FOREIGN).to_pylist() if row["set"] == "streamline-stickies-color"]
    for part, pngs in (("ours", rows[:32]), ("new", rows[32:])):
        (tmp_path / part).mkdir()
        for i, png in enumerate(pngs):
            picture = Image.open(io.BytesIO(png)).convert("RGBA")
            flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
            flat.save(tmp_path / part / f"{i}.png")
    _, text = run("gate", f"images={tmp_path / 'new'}", f"references={tmp_path / 'ours'}", f"out={tmp_path / 'out'}")
    assert "streamline-stickies-color is left aside" in text and "the style can be read" in text
