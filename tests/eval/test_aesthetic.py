"""Aesthetic heads: LAION's fold exactly and are held to their encoder; a brand's own labels make one."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from eval.measuring.encoder import load_encoder
from eval.measuring.head import aesthetic_head_and_notes
from eval.scorers import aesthetic
from stylegate import files
from stylegate.config import Config, ScoreConfig
from stylegate.errors import DataError, ModelError

RANDOM = np.random.default_rng(0)
LAYERS = files.ROOT.parent / "shared" / "data" / "laion-aesthetic" / "v2_sac_logos_ava1_l14_linearMSE.safetensors"
HEADS = files.ROOT / "data" / "heads"


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def stack(widths: list[int]) -> dict[str, np.ndarray]:
    return {
        name: RANDOM.normal(size=shape).astype(np.float32)
        for i, (a, b) in enumerate(pairwise(widths))
        for name, shape in ((f"layers.{i * 2}.weight", (b, a)), (f"layers.{i * 2}.bias", (b,)))
    }


def through(layers: dict[str, np.ndarray], numbers: tuple[int, ...], embeddings: np.ndarray) -> np.ndarray:
    x = embeddings.astype(np.float64)
    for i in numbers:
        x = x @ layers[f"layers.{i}.weight"].T.astype(np.float64) + layers[f"layers.{i}.bias"]
    return x[:, 0]


def test_linear_layers_fold_to_one(tmp_path: Path) -> None:
    layers = stack([16, 12, 11, 8, 4, 3, 1])  # more than ten numbers: layers.10 comes after layers.2
    save_file(layers, tmp_path / "head.safetensors")
    e = unit(RANDOM.normal(size=(5, 16)))
    found = aesthetic.score(e, aesthetic.load_aesthetic_head(tmp_path / "head.safetensors", 16))
    assert found == pytest.approx(through(layers, (0, 2, 4, 6, 8, 10), e), rel=1e-5)
    with pytest.raises(ModelError, match="another encoder"):
        aesthetic.load_aesthetic_head(tmp_path / "head.safetensors", 768)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8"])
def test_a_head_of_any_float_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    """Also of those that numpy does not have; of whole numbers, whose scale is not in the file, none."""
    kept = {n: torch.tensor(v).to(getattr(torch, kind)) for n, v in {"weight": [[0.5, -2.0]], "bias": [1.5]}.items()}
    save_torch(kept, tmp_path / "head.safetensors")
    if kind == "int8":
        with pytest.raises(ModelError, match="weight is I8"):
            aesthetic.load_aesthetic_head(tmp_path / "head.safetensors", 2)
    else:
        weight, bias = aesthetic.load_aesthetic_head(tmp_path / "head.safetensors", 2)
        assert weight.tolist() == [0.5, -2.0] and bias == 1.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bias": np.zeros(3)}, "bias has 3 numbers"),
        ({"weight": np.full((1, 2), np.nan)}, "not finite: weight"),
        ({"weight": np.zeros((1, 2, 2))}, "another encoder"),
    ],
)
def test_heads_that_mean_nothing_are_refused(tmp_path: Path, change: dict, says: str) -> None:
    save_file({"weight": np.zeros((1, 2)), "bias": np.zeros(1)} | change, tmp_path / "head.safetensors")
    with pytest.raises(ModelError, match=says):
        aesthetic.load_aesthetic_head(tmp_path / "head.safetensors", 2)


def test_laions_heads_are_those_that_were_published() -> None:
    """Lengths, biases and the angle between the two, as measured on the published files."""
    (one, bias_of_one), (two, bias_of_two) = (
        aesthetic.load_aesthetic_head(HEADS / f"laion-{v}.safetensors", 768) for v in ("v1", "v2")
    )
    assert np.linalg.norm(one) == pytest.approx(28.444, abs=1e-3) and bias_of_one == pytest.approx(3.529, abs=1e-3)
    assert np.linalg.norm(two) == pytest.approx(17.9956, abs=1e-4) and bias_of_two == pytest.approx(5.23665, abs=1e-5)
    assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) == pytest.approx(0.369, abs=1e-3)
    for name in ("laion-v1-b-16", "laion-v1-b-32"):
        assert aesthetic.load_aesthetic_head(HEADS / f"{name}.safetensors", 512)[0].shape == (512,)


@pytest.mark.skipif(not LAYERS.exists(), reason="LAION's layers are not shipped; the fold is compared where they are")
def test_laions_second_folds_exactly() -> None:
    e = unit(RANDOM.normal(size=(8, 768)))
    found = aesthetic.score(e, aesthetic.load_aesthetic_head(HEADS / "laion-v2.safetensors", 768))
    assert np.abs(found - through(load_file(LAYERS), (0, 2, 4, 6, 7), e)).max() < 1e-6


def test_a_head_is_held_to_its_encoder(run, judged: Path) -> None:
    path = HEADS / "laion-v2.safetensors"
    aesthetic.load_aesthetic_head(path, 768, "ViT-L-14-quickgelu:openai")
    with pytest.raises(ModelError, match="not of ViT-L-14:laion2b_s32b_b82k"):
        aesthetic.load_aesthetic_head(path, 768, "ViT-L-14:laion2b_s32b_b82k")
    code, text = run("score", f"images={judged}", "score.aesthetic_head=laion-v2")
    assert code == 2 and "is for another encoder" in text
    code, text = run("score", f"images={judged}", "score.aesthetic_head=laion-v3")
    assert code == 2 and "laion-v1, laion-v1-b-16" in text


def test_a_brands_own_labels_make_a_head(run, judged: Path, tmp_path: Path, capsys) -> None:
    """Blurred pictures are called bad; the head learned from half of them tells the other half."""
    import pyarrow.parquet as pq

    rows, place = ["file,label"], tmp_path / "labelled"
    place.mkdir()
    for i, path in enumerate(sorted(judged.glob("*.png"))):
        image = Image.open(path).convert("RGB")
        image.filter(ImageFilter.GaussianBlur(2)).save(judged / f"blurred-{path.name}")
        if i % 2:
            for name, label in ((path.name, "good"), (f"blurred-{path.name}", "bad")):
                Image.open(judged / name).save(place / name)
                rows.append(f"{name},{label}")
    (place / "labels.csv").write_text("\n".join(rows))
    words = [f"images={judged}", f"out={tmp_path / 'out'}", f"score.labels={place / 'labels.csv'}"]
    config = Config(score=ScoreConfig(labels=str(place / "labels.csv")))
    capsys.readouterr()
    aesthetic_head_and_notes(config, load_encoder("miniature", torch.device("cpu")), 0, "#ffffff", quiet=True)
    assert capsys.readouterr() == ("", ""), "as a checkpoint is judged while a LoRA is trained"
    code, text = run("gate", *words, "observe=true")
    assert code == 0 and "aesthetic head of 32 labels: area under the ROC curve" in text
    table = pq.read_table(tmp_path / "out" / "scores.parquet").to_pydict()
    unseen = {
        name: value
        for name, value in zip(table["file"], table["aesthetic"], strict=True)
        if name not in {row.split(",")[0] for row in rows}
    }
    bad = [value for name, value in unseen.items() if name.startswith("blurred")]
    good = [value for name, value in unseen.items() if not name.startswith("blurred")]
    assert np.mean(np.array(good)[:, None] > np.array(bad)) > 0.9
    assert "nothing new" in run("score", *words)[1]
    (place / "labels.csv").write_text("\n".join(rows[:-1]))
    assert "nothing new" not in run("score", *words)[1], "a changed label makes other scores"
    assert run("score", *words, "score.aesthetic_head=laion-v2")[0] == 2


def test_labelled_pictures_are_laid_on_the_brands_background(tmp_path: Path) -> None:
    """As the lot's are: the head is that of the same pictures without alpha, laid on that colour."""
    rows, heads = ["file,label"], {}
    for i in range(20):
        sheet = Image.new("RGBA", (64, 64))
        sheet.paste(Image.new("RGBA", (40, 15 + 2 * i), (12 * i, 90, 200, 255)), (10, 5))
        for name in ("clear", "red"):
            (tmp_path / name).mkdir(exist_ok=True)
        sheet.save(tmp_path / "clear" / f"{i}.png")
        laid = Image.new("RGB", (64, 64), "#cc0000")
        laid.paste(sheet.convert("RGB"), mask=sheet.getchannel("A"))
        laid.save(tmp_path / "red" / f"{i}.png")
        rows.append(f"{i}.png,{'good' if i % 2 else 'bad'}")
    encoder = load_encoder("miniature", torch.device("cpu"))
    for name, background in (("clear", "#cc0000"), ("clear", "#ffffff"), ("red", "#ffffff")):
        (tmp_path / name / "labels.csv").write_text("\n".join(rows))
        config = Config(score=ScoreConfig(labels=str(tmp_path / name / "labels.csv")))
        head, _ = aesthetic_head_and_notes(config, encoder, 0, background, quiet=True)
        assert head is not None
        heads[name, background] = head[0]
    assert np.array_equal(heads["clear", "#cc0000"], heads["red", "#ffffff"])
    assert not np.allclose(heads["clear", "#cc0000"], heads["clear", "#ffffff"])


def test_problems_of_labels_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "l.csv").write_text("file,label\na.png,good\na.png,fine\nb.png,bad\n")
    with pytest.raises(DataError) as caught:
        aesthetic.read_aesthetic_labels(tmp_path / "l.csv")
    said = "\n".join(caught.value.problems)
    assert all(
        part in said for part in ("line 3: label 'fine'", "line 3: a.png is labelled", "line 4: no file 'b.png'")
    )
    assert "at least 10 are needed" in said
    (tmp_path / "l.csv").write_text("name\n")
    with pytest.raises(DataError, match="first line"):
        aesthetic.read_aesthetic_labels(tmp_path / "l.csv")
