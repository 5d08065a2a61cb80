"""A brand's reader: what it sees, how surely it reads, and what is refused where it cannot."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageChops

from eval.lot.comparison import given_foreign_pictures_by_style
from eval.measuring.foreign import shipped_pictures_on_backgrounds
from eval.measuring.measured import ForeignSet
from eval.measuring.record import (
    OF_BASE,
    BatchMeanStyleScore,
    BatchMeasures,
    SeparationFromForeignSet,
    StyleReadability,
)
from eval.measuring.redrawn import copy_degraded_like_model_drawing
from eval.measuring.whole import batch_summary_in_words
from eval.scorers import brand, brandfeatures, ridge
from stylegate import files
from stylegate.config import Config

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


def redrawn(signatures: np.ndarray) -> np.ndarray:
    return np.stack([copy_degraded_like_model_drawing(one) for one in signatures])


def learned(own: ForeignSet, others: list[ForeignSet]) -> brand.BrandClassifier:
    """A reader of pixels alone. Half of each foreign set is redrawn, as eval/measuring/foreign.py shows them."""
    for one in others:
        one.signatures[1::2] = redrawn(one.signatures[1::2])
    return brand.learn_brand_classifier(own, own._replace(signatures=redrawn(own.signatures)), others)  # type: ignore[arg-type]


def test_another_hand_is_told_and_the_same_hand_is_not() -> None:
    random = np.random.default_rng(0)
    own, others = hand(230, random), [hand(colour, random) for colour in (20, 70, 120)]
    reader = learned(own, others)
    assert min(found.low for found in reader.separations) > brand.READABLE
    again, unseen = hand(230, random), hand(45, random)
    assert np.median(reader.log_odds_of_brand(again)) > 0 > reader.log_odds_of_brand(unseen).max()  # type: ignore[arg-type]
    refused = 0
    for seed in range(20):  # the brand's own pictures as another's
        random = np.random.default_rng(seed)
        others = [hand(colour, random) for colour in (20, 70, 120)]
        same = learned(hand(230, random), [*others, hand(230, random, given=True)])
        refused += same.separations[0].name == "colour 230" and same.separations[0].low < brand.READABLE
    assert refused == 20


def with_line(width: int, ground: int, ink: tuple[int, ...]) -> np.ndarray:
    """One signature: a grey ground with an upright line of `width` pixels."""
    picture = np.full((1, 64, 64, 3), ground, np.uint8)
    picture[:, :, 20 : 20 + width] = ink
    return picture


@pytest.mark.parametrize(("ground", "level"), [(0, 255), (255, 0)])
def test_the_width_of_strokes_is_measured_bright_and_dark(ground: int, level: int) -> None:
    """A line of 4 pixels is removed by the square of 5, the next of WIDTHS, and by no smaller one."""
    measures = brandfeatures.stroke_width_measures(with_line(4, ground, (level,) * 3))[0].reshape(2, -1, 2)
    next_width = brandfeatures.WIDTHS.index(5)
    assert measures[int(level < ground), next_width] == pytest.approx(np.sqrt(4 / 64), abs=1e-3)
    measures[int(level < ground), next_width] = 0
    assert not measures.any()


def test_each_pixel_counts_once_among_the_colours() -> None:
    random = np.random.default_rng(0)
    found = brandfeatures.colour_histograms(random.integers(0, 256, (40, 64, 64, 3), np.uint8)) ** 2
    assert np.allclose(found[:, :216].sum(1), 1) and np.allclose(found[:, 216:].sum(1), 2)
    grey = brandfeatures.colour_histograms(np.full((1, 64, 64, 3), 255, np.uint8))[0, :216] ** 2
    share = brandfeatures.ONE_CHANNEL[-1]
    assert np.allclose(grey, np.einsum("i,j,k->ijk", share, share, share).ravel(), atol=1e-6)


def test_a_reference_is_read_by_a_reader_that_does_not_know_it() -> None:
    random = np.random.default_rng(0)
    own, other = hand(200, random, 24), hand(120, random, 24)
    rows = np.concatenate([np.concatenate(brandfeatures.brand_feature_blocks(one), axis=1) for one in (own, other)])  # type: ignore[arg-type]
    truth, weights = np.repeat([1.0, -1.0], 24), np.random.default_rng(1).uniform(1, 2, 48)
    weights[12:24] = weights[:12]  # the two views of a picture weigh alike
    fitted = ridge.fit_ridge(rows, truth, weights)
    alone = fitted.responses_left_out(rows, truth, weights)
    pairs = fitted.responses_left_out(rows[:24], truth[:24], weights[:24], views=2)
    for left, places in [(alone, [i]) for i in (0, 5, 30)] + [(pairs, [i, i + 12]) for i in (0, 7)]:
        rest = np.setdiff1d(np.arange(48), places)
        # The slow way keeps the weights as shares of all, hence a penalty that grows as they shrink.
        w = weights[rest] / weights.sum()
        mean, level = np.average(rows[rest], axis=0, weights=w), np.average(truth[rest], weights=w)
        centred = rows[rest] - mean
        found = np.linalg.solve(
            (centred * w[:, None]).T @ centred + ridge.RIDGE * np.eye(rows.shape[1]),
            (centred * w[:, None]).T @ (truth[rest] - level),
        )
        assert left[places] == pytest.approx((rows[places] - mean) @ found + level, abs=2e-6), places


def test_both_views_of_a_reference_are_left_out_together() -> None:
    """Else each would be read by its own twin, and pictures by the same hand would seem to be told apart."""
    areas = []
    for seed in range(6):
        random = np.random.default_rng(seed)
        own = hand(120, random, 32)
        reader = brand.learn_brand_classifier(own, own, [hand(120, random, given=True) for _ in range(2)])  # type: ignore[arg-type]
        areas += [found.area for found in reader.separations]
    assert np.mean(areas) < 0.5, "0.56 where the twin is known"


def test_a_shipped_set_is_read_by_a_reader_that_has_not_seen_it() -> None:
    """It stands for hands that nobody has seen, so it is told less surely than a set that was given to be known."""
    areas: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(6):
        for given, found in areas.items():
            random = np.random.default_rng(seed)
            own, far = hand(230, random), [hand(20, random), hand(60, random)]
            reader = learned(own, [*far, hand(200, random, given=given)])
            found += [one.area for one in reader.separations if one.name == "colour 200"]
    assert np.mean(areas[False]) < np.mean(areas[True]) - 0.01


def test_what_the_base_draws_is_learned_from_only_where_it_is_not_told_unseen() -> None:
    random = np.random.default_rng(0)
    own, others = hand(230, random), [hand(colour, random) for colour in (20, 70, 120)]
    alone, seen = learned(own, others), np.zeros(2, bool)
    for i, colour in enumerate((60, 205)):
        of_base = hand(colour, random, 32, given=True)._replace(name=OF_BASE)
        reader = brand.learn_brand_classifier(own, own._replace(signatures=redrawn(own.signatures)), [of_base, *others])  # type: ignore[arg-type]
        assert OF_BASE in [found.name for found in reader.separations]
        seen[i] = not np.array_equal(reader.fitted.weights, alone.fitted.weights)
    assert seen.tolist() == [False, True]


def test_lines_rest_on_the_worse_view_of_a_reference() -> None:
    random = np.random.default_rng(0)
    own, paler = hand(230, random, 32), hand(200, random, 32)
    reader = brand.learn_brand_classifier(own, paler, [hand(colour, random) for colour in (20, 70, 120)])  # type: ignore[arg-type]
    assert np.median(reader.own) < np.median(reader.log_odds_of_brand(own)), "above it where the better view counts"  # type: ignore[arg-type]


def test_shipped_pictures_lie_on_the_grounds_of_references_too() -> None:
    """Else a brand of dark grounds would be told from them by its ground alone."""
    own = hand(230, np.random.default_rng(0), 4)
    own.signatures[:, :2] = own.signatures[:, -2:] = own.signatures[:, :, :2] = own.signatures[:, :, -2:] = 20
    grounds = {one.ground for one in shipped_pictures_on_backgrounds(own, "#ffffff")}  # type: ignore[arg-type]
    assert grounds == {(255, 255, 255), (20, 20, 20)}


def test_a_set_is_left_out_as_if_it_had_never_been_there() -> None:
    """And with it both views of a reference, whose response would else know it."""
    random = np.random.default_rng(0)
    counts, k = (24, 10, 15), 30  # rows of references in two views, and of two sets
    rows = [random.normal(size=(count, k)) for count in counts]
    truths = [np.full(n, s) for n, s in zip(counts, (1.0, -1.0, -1.0), strict=True)]
    weights = [np.full(n, 1 / n / (2 if i == 0 else 4)) for i, n in enumerate(counts)]
    stays = 1 - weights[2].sum() / sum(map(np.sum, weights))
    fitted = ridge.fit_ridge(*map(np.concatenate, (rows, truths, weights)), ridge.RIDGE * stays)  # type: ignore[arg-type]
    parts = list(zip(rows, truths, weights, strict=True))
    apart, mine = fitted.responses_without_set(parts[2], parts[0], views=2)
    without = ridge.fit_ridge(*(np.concatenate(one[:2]) for one in (rows, truths, weights)))  # type: ignore[arg-type]
    assert apart == pytest.approx(without.predicted_responses(rows[2]))
    assert mine == pytest.approx(without.responses_left_out(*parts[0], views=2))


def test_a_redrawn_copy_is_near_its_picture_and_the_same_whatever_stands_beside_it() -> None:
    some = hand(200, np.random.default_rng(0), 4).signatures
    copies = redrawn(some)
    assert (redrawn(some[::-1])[::-1] == copies).all()
    moved = np.abs(copies.astype(int) - some).mean((1, 2, 3))
    assert (moved > 1).all() and (moved < 25).all()


def test_of_few_references_less_is_said() -> None:
    few, many = (brand.roc_area_and_lower_bound(np.ones(n), np.zeros(48)) for n in (8, 64))
    assert few[0] == many[0] == 1 and few[1] < many[1] < 1
    assert brand.roc_area_and_lower_bound(np.zeros(8), np.ones(48)) == (0, 0)


def of_split(part: str) -> list[Path]:
    return sorted((NEON / part).glob("*.png"))


def copied(place: Path, paths: list[Path]) -> Path:
    place.mkdir(parents=True)
    for path in paths:
        shutil.copy(path, place)
    return place


def test_a_style_that_cannot_be_read_is_refused_and_says_from_what(run: Call, judged: Path, tmp_path: Path) -> None:
    every = of_split("test")
    # The folder is called as a shipped set is, and stays apart from it.
    references, same = copied(tmp_path / "ours", every[::2]), copied(tmp_path / "noto-v1", every[1::2])
    words = [f"images={judged}", f"references={references}", f"out={tmp_path / 'out'}"]
    run("gate", *words)
    readable = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert readable["counts"]["accept"] >= 24 and readable["readability"]["readable"]
    assert "other styles that come with stylegate" in readable["summary"][0]
    code, text = run("gate", *words, f"foreign={same}")
    found = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert code in (10, 11) and found["counts"]["accept"] == 0
    shipped = len(readable["readability"]["separations"])
    said = f"the style can NOT be read: of {shipped + 1} other styles, {shipped} of which come with stylegate, noto-v1"
    assert f"\n{said} is the hardest" in f"\n{text}"
    assert "note: the style cannot be read, so no check of style is used" in text and "stylegate encoders" in text
    assert "the references are too hard to distinguish from noto-v1" in text
    written = ((tmp_path / "out" / name).read_text() for name in ("summary.md", "report/index.html"))
    for shown in (text, *written):
        assert shown.count("more references, foreign=DIR with the styles to keep apart, or another vision model") == 1
        assert shown.count("The style cannot be read: a note says what may help.") == 1
    assert not re.search("area|told|MMD", text.partition("note: ")[0]), "plain words"
    areas = found["readability"]["separations"]
    assert areas["noto-v1"]["area"] < areas["noto-v1 (shipped)"]["area"]
    assert found["readability"]["nearest"] == "noto-v1" and found["why"]["review"]["style-unreadable"] >= 24


def test_numbers_of_a_lot_are_said_with_their_range() -> None:
    """In plain words, so that nobody has to know what an area under a curve, an MMD or an effective number is."""
    sets = {
        "noto": SeparationFromForeignSet(area=0.971, low=0.7999),
        "icons": SeparationFromForeignSet(area=1.0, low=0.97),
        OF_BASE: SeparationFromForeignSet(area=1.0, low=0.95),
    }
    unread = StyleReadability(
        readable=False,
        different_references=32,
        needed=0.8,
        nearest="noto",
        separations=sets,
        reads=["encoder"],
        shipped=2,
    )
    read = unread.model_copy(update={"readable": True})
    found = BatchMeasures(
        style=BatchMeanStyleScore(mean=0.9, low=0.88, high=0.92, references=0.95),
        mmd2=0.0123,
        mmd2_p=0.001,
        vendi=9.2,
        vendi_of=32,
        vendi_references=11.6,
    )
    lines = batch_summary_in_words(found, {"hat": 0.61, "eyes": 0.97}, ["hat", "eyes", "item"], read)
    assert lines == [
        "the style can be read: of 3 other styles, 2 of which come with stylegate, noto is the hardest to distinguish "
        "from the references (right in 97 of 100 comparisons, in at least 79; the lower number must reach 80, and 50 "
        "is guessing); the base's own pictures: right in 100 of 100 comparisons, in at least 95",
        "style: 0.900 on average, between 0.880 and 0.920 with 95 % confidence; the references have 0.950 (higher is "
        "closer to their style, 1 is the most)",
        "all pictures together differ from the references more than chance explains: 0.0123 (0 is no difference; "
        "chance alone gives as much in 0.1% of cases)",
        "variety of the pictures: 9, of the references: 12 (1 is all alike, 32 is all different)",
        "traits that are not checked, since their values are too hard to distinguish on these references: hat 61 "
        "(right in so many of 100 comparisons; 50 is guessing, 90 is needed)",
        "traits that are not checked, since too few references say which value they show: item",
    ]
    lines = batch_summary_in_words(found, {}, [], unread)
    assert lines[0].startswith("the style can NOT be read: ") and [line[:7] for line in lines[1:]] == ["variety"]
    for shipped, said in ((3, "of 3 other styles that come with stylegate, noto"), (0, "of 3 other styles, noto")):
        assert said in read.model_copy(update={"shipped": shipped}).readability_in_words()


def test_a_subfolder_that_is_called_as_its_folder_is_a_style_of_its_own(tmp_path: Path) -> None:
    place = copied(tmp_path / "theirs", of_split("test")[:8])
    copied(place / "theirs", of_split("test")[8:16])
    found = given_foreign_pictures_by_style(Config(foreign=str(place)), [], [])
    assert {style: len(named) for style, named in found.items()} == {"theirs": 8, "theirs itself": 8}
    assert all(path.parent == place for _, path in found["theirs itself"])


def references_named_as_training_pictures(place: Path) -> None:
    """Pictures of references/, and the same ones in `place`; train/0000.png is the name of a training picture too."""
    for path, taken in zip(of_split("test")[:8], of_split("train"), strict=False):
        for folder in (place, place.parent / "references" / "train"):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / taken.name)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda place: None, "is not a folder"),
        (lambda place: place.mkdir(), "holds no pictures"),
        (lambda place: copied(place, of_split("train")), "the brand's own"),
        (lambda place: references_named_as_training_pictures(place), "the brand's own"),
        (lambda place: copied(place, of_split("validation")[:3]), "theirs: 3"),
        (lambda place: copied(place / OF_BASE, of_split("validation")), "rename this subfolder"),
        (lambda place: (copied(place, of_split("validation")) / "x.png").write_bytes(b"no"), "theirs/x.png"),
    ],
)
def test_foreign_folders_that_say_nothing_are_refused(
    run: Call, judged: Path, tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / "theirs")
    words = [f"images={judged}", "brand=neon", f"foreign={tmp_path / 'theirs'}", f"out={tmp_path / 'o'}"]
    words += [f"references={tmp_path / 'references'}"] * (tmp_path / "references").exists()
    code, text = run("gate", *words)
    assert code == 2 and says in text and "Traceback" not in text


def test_references_that_are_one_picture_are_no_style(run: Call, judged: Path, tmp_path: Path) -> None:
    place = tmp_path / "one"
    place.mkdir()
    for i in range(12):
        shutil.copy(NEON / "test" / "0064.png", place / f"{i}.png")
    code, text = run("gate", f"images={judged}", f"references={place}", f"out={tmp_path / 'out'}")
    assert code in (10, 11) and "only 1 reference differ" in text.replace("references", "reference")
    assert json.loads((tmp_path / "out" / "gate.json").read_text())["counts"]["accept"] == 0


def pictures_of_shipped_set(name: str) -> list[bytes]:
    return [row["png"] for row in pq.read_table(files.FOREIGN).to_pylist() if row["set"] == name]


def save_on_white(png: bytes, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB").save(path)


def test_a_brand_that_is_a_shipped_set_is_not_told_from_itself(run: Call, tmp_path: Path) -> None:
    rows = pictures_of_shipped_set("streamline-stickies-color")
    for part, pngs in (("ours", rows[:32]), ("new", rows[32:])):
        for i, png in enumerate(pngs):
            save_on_white(png, tmp_path / part / f"{i}.png")
    _, text = run("gate", f"images={tmp_path / 'new'}", f"references={tmp_path / 'ours'}", f"out={tmp_path / 'out'}")
    assert "streamline-stickies-color is left aside" in text and "the style can be read" in text
    assert "another style that comes with stylegate" not in text


def test_pictures_of_a_shipped_set_are_named(run: Call, judged: Path, tmp_path: Path) -> None:
    """As they are shipped, with transparency, and on white; the brand's own and changed ones are not."""
    rows = pictures_of_shipped_set("icon-park")
    for i, png in enumerate(rows[:6]):
        save_on_white(png, judged / f"icon{i}.png")
    (judged / "emoji.png").write_bytes(pictures_of_shipped_set("noto-v1")[0])
    save_on_white(rows[7], judged / "turned.png")
    with Image.open(judged / "turned.png") as picture:
        picture.rotate(90).save(judged / "turned.png")
    _, text = run("gate", f"images={judged}", "brand=neon", f"out={tmp_path / 'out'}")
    said = re.findall(r"note: (\d pictures? (?:is|are) of .*)", text)
    assert said == [
        "6 pictures are of icon-park, another style that comes with stylegate: icon0.png, icon1.png, icon2.png, "
        "icon3.png, icon4.png and 1 more",
        "1 picture is of noto-v1, another style that comes with stylegate: emoji.png",
    ]


@pytest.mark.parametrize("mode", ["L", "1", "RGBA"])
def test_grey_one_bit_and_transparent_art_is_told_as_any_other(run: Call, tmp_path: Path, mode: str) -> None:
    """A brand in grey, in two levels, on transparent ground; beside its own pictures stands another brand's."""
    for part, paths in (("ours", of_split("test")[:24]), ("new", of_split("validation")[:8])):
        (tmp_path / part).mkdir()
        for path in paths:
            picture = Image.open(path).convert("RGB")
            if mode == "RGBA":
                ground = Image.new("RGB", picture.size, picture.getpixel((0, 0)))  # type: ignore[arg-type]
                inside = Image.fromarray(np.asarray(ImageChops.difference(picture, ground)).max(2) > 8)
                picture.putalpha(inside)
            (picture if mode == "RGBA" else picture.convert(mode)).save(tmp_path / part / path.name)
    shutil.copy(NEON.parent / "riso" / "test" / "0064.png", tmp_path / "new" / "riso.png")
    code, text = run("gate", f"images={tmp_path / 'new'}", f"references={tmp_path / 'ours'}", f"out={tmp_path / 'out'}")
    found = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert code in (10, 11) and "Traceback" not in text and found["readability"]["readable"]
    rows = {row["file"]: row for row in files.read_jsonl(tmp_path / "out" / "verdicts.jsonl")}
    assert rows["riso.png"]["verdict"] == "reject" and found["counts"]["accept"] >= 5


def test_a_brand_of_one_picture_accepts_nothing(run: Call, judged: Path, tmp_path: Path) -> None:
    place = copied(tmp_path / "one", of_split("test")[:1])
    code, text = run("gate", f"images={judged}", f"references={place}", f"out={tmp_path / 'out'}")
    assert code in (10, 11) and "style needs at least 8" in text
    assert json.loads((tmp_path / "out" / "gate.json").read_text())["counts"]["accept"] == 0
