"""Encoders of every kind of name, on tiny random weights of their architecture: what they are shown, who they are."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from eval.encoders import TIMED, EncoderMeasurement, fastest_of_surest_encoders, write_encoder_into_brand_file
from eval.lot.lot import sha256_by_name
from eval.measuring import encoder as encoding
from eval.measuring import encodername
from eval.measuring.features import cached_features_of_files
from eval.measuring.record import SeparationFromForeignSet, StyleReadability
from eval.measuring.redrawn import encode_at_size_of_foreign_pictures
from stylegate import files
from stylegate.errors import DataError, ModelError

CPU = torch.device("cpu")
HALVES, BICUBIC = (0.5, 0.5, 0.5), {"interpolation": "bicubic", "resize_mode": "squash"}
SIGLIP = {
    "embed_dim": 64,
    "custom_text": True,
    "vision_cfg": {"image_size": 64, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "none"},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
}
CSD = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "heads": 1, "mlp_ratio": 4.0, "output_dim": 24}


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8))


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


@pytest.fixture
def siglip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of an architecture that, as SigLIP's, is shown other numbers than CLIP, and squashed pictures."""
    entry = {"mean": HALVES, "std": HALVES, **BICUBIC}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-siglip", SIGLIP)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-siglip", {"webli": entry})
    saved(tmp_path / "open_clip_model.safetensors", open_clip.create_model("tiny-siglip").state_dict())
    return tmp_path / "open_clip_model.safetensors"


@pytest.fixture
def csd(tmp_path: Path) -> str:
    torch.manual_seed(0)
    visual = VisionTransformer(**CSD).state_dict()
    tensors = {f"module.backbone.{name}": tensor for name, tensor in visual.items() if name != "proj"}
    heads = {f"module.last_layer_{of}": visual["proj"].clone() for of in ("style", "content")}
    return f"csd:{saved(tmp_path / 'csd.safetensors', tensors | heads)}"


def timm_tower(folder: Path, architecture: str) -> str:
    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False)
    return f"timm:{architecture}:{saved(folder / f'{architecture}.safetensors', model.state_dict())}"


@pytest.mark.parametrize("by", ["folder", "file"])
def test_weights_by_path_are_shown_what_their_architecture_is_made_for(by: str, siglip: Path) -> None:
    """open_clip itself would show them CLIP's mean and deviation, and cut the sides off a wide picture."""
    (siglip.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIGLIP}))
    name = str(siglip.parent) if by == "folder" else f"tiny-siglip:{siglip}"
    shown, wide = encoding.load_encoder(name, CPU).preprocessing, noise(300, 100)
    assert (shown.mean, shown.std) == (HALVES, HALVES)
    whole = open_clip.image_transform(64, is_train=False, mean=HALVES, std=HALVES, **BICUBIC)  # type: ignore[arg-type]
    ours = torch.tensor(shown.resized_and_cropped_pixels(wide)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
    assert torch.equal(ours, whole(wide))  # type: ignore[operator]
    _, _, theirs = open_clip.create_model_and_transforms("tiny-siglip", pretrained=str(siglip))  # type: ignore[misc]
    assert not torch.equal(ours, theirs(wide)), "where open_clip is right, ours can go"  # type: ignore[operator]


def test_what_a_folder_states_of_its_preprocessing_holds(siglip: Path) -> None:
    stated = {"mean": [0.1] * 3, "std": [0.2] * 3}
    (siglip.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIGLIP, "preprocess_cfg": stated}))
    shown = encodername.encoder_preprocessing(str(siglip.parent))
    assert shown.mean == (0.1,) * 3 and shown.resized_and_cropped_pixels(noise(300, 100)).shape == (64, 64, 3)


def test_weights_that_do_not_say_how_pictures_are_prepared_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "clip.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="in different ways"):
        encodername.encoder_preprocessing(f"ViT-L-14:{path}")
    assert encodername.encoder_preprocessing(f"ViT-L-14-quickgelu:{path}").mean[0] == pytest.approx(0.48145466)


@pytest.mark.parametrize(("architecture", "patches"), [("test_vit.r160_in1k", 8192), ("test_resnet.r160_in1k", 0)])
def test_a_tower_of_timm_is_shown_timms_own_transform(tmp_path: Path, architecture: str, patches: int) -> None:
    encoder = encoding.load_encoder(timm_tower(tmp_path, architecture), CPU)
    model = timm.create_model(architecture, pretrained=False, num_classes=0).eval()
    weights = load_file(tmp_path / f"{architecture}.safetensors")
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    prepare = create_transform(**resolve_data_config(model=model))
    image = noise(210, 170)
    with torch.inference_mode():
        theirs = encoding.to_unit_length(model(prepare(image)[None]).numpy())  # type: ignore[index]
    made = encoding.encode_pictures(encoder, [encoder.preprocessing.resized_and_cropped_pixels(image)] * 2)
    assert np.abs(made.embeddings - theirs).max() < 1e-5
    assert made.patches.shape == (2, patches), "a tower whose blocks have other sizes shows none"
    assert encoder.tokenizer is None


def test_a_style_tower_is_clips_with_the_head_for_style(csd: str) -> None:
    encoder = encoding.load_encoder(csd, CPU)
    torch.manual_seed(0)
    clip = VisionTransformer(**CSD, act_layer=open_clip.model.QuickGELU).eval()
    image = noise(90, 60)
    transform = open_clip.image_transform(32, is_train=False)
    with torch.inference_mode():
        theirs = encoding.to_unit_length(clip(transform(image)[None]).numpy())  # type: ignore[operator, index]
    made = encoding.encode_pictures(encoder, [encoder.preprocessing.resized_and_cropped_pixels(image)])
    assert np.abs(made.embeddings - theirs).max() < 1e-5 and made.patches.shape[1] > 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("csd:{}/gone.safetensors", None, "is no file of safetensors"),
        ("csd:{}/x.pth", {"x": torch.zeros(1)}, "is no file of safetensors"),
        ("csd:{}/x.safetensors", {"x": torch.zeros(1)}, "holds no style encoder"),
        ("timm:test_vit.r160_in1k:{}/x.safetensors", {"x": torch.zeros(1)}, "holds no weights of test_vit"),
        ("timm:test_wit:{}/x.safetensors", {"x": torch.zeros(1)}, "near it: test_vit"),
        ("ViT-B-32:{}/x.safetensors", {"x": torch.zeros(1)}, "cannot be loaded"),
        ("ViT-B-33:{}/x.safetensors", {"x": torch.zeros(1)}, "near it: ViT-B-32"),
    ],
)
def test_names_that_lead_to_no_weights_are_refused(name: str, content: dict | None, says: str, tmp_path: Path) -> None:
    if content:
        saved(tmp_path / Path(name).name, content)
    with pytest.raises(ModelError, match=says):
        encoding.load_encoder(name.format(tmp_path), CPU)


def test_a_digest_covers_the_weights_and_not_the_place(tmp_path: Path) -> None:
    name = timm_tower(tmp_path, "test_vit.r160_in1k")
    first = encoding.load_encoder(name, CPU).sha256
    (tmp_path / "elsewhere").mkdir()
    moved = timm_tower(tmp_path / "elsewhere", "test_vit.r160_in1k")
    assert encodername.encoder_digest(moved) == encodername.encoder_digest(name)
    file = Path(name.rpartition(":")[2])
    tensors = load_file(file)
    tensors["norm.weight"] += 1
    save_file(tensors, file)
    assert encoding.load_encoder(name, CPU).sha256 != first != encodername.encoder_digest(name)


def test_a_batch_is_scored_without_texts(run, csd: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat\na blue dog\n")
    words = [f"prompts={tmp_path / 'prompts.txt'}", "lora_file=none", "batch=textless", "plan.num_images=2"]
    words += ["hardware=cpu", "generate.num_inference_steps=1", f"encoder={csd}"]
    assert run("plan", *words)[0] == run("generate", *words)[0] == run("score", *words)[0] == 0
    table = pq.read_table(files.BATCHES / "textless" / "scores.parquet")
    assert "contrast" in table.column_names and "prompt" not in table.column_names


def drawn_by_one_hand(folder: Path, seed: int, side: int) -> Path:
    """32 pictures of coloured blocks and circles; the hand is the same at every seed and side."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    for i in range(32):
        image = Image.new("RGB", (1024, 1024), "white")
        pen = ImageDraw.Draw(image)
        for k in range(6):
            x, y, size = random.integers((0, 0, 80), (900, 900, 400)).tolist()
            shape = pen.ellipse if k % 2 else pen.rectangle
            shape(
                (x, y, x + size, y + size), fill=tuple(random.integers(0, 255, 3).tolist()), outline="black", width=24
            )
        image.resize((side, side), Image.Resampling.BOX).save(folder / f"{i}.png")
    return folder


def test_the_same_art_at_two_sizes_is_one_hand(run, judged: Path, tmp_path: Path) -> None:
    """Shipped foreign pictures have 64 pixels: an encoder of more would know them, and any 64-pixel art, by blur."""
    large, small = drawn_by_one_hand(tmp_path / "large", 1, 256), drawn_by_one_hand(tmp_path / "small", 2, 64)
    name = timm_tower(tmp_path, "test_vit.r160_in1k")
    words = (f"images={judged}", f"encoder={name}", f"out={tmp_path / 'out'}")
    run("score", *words, f"references={large}", f"foreign={small}")
    readability = json.loads((tmp_path / "out" / "score.json").read_text())["readability"]
    assert readability["separations"]["small"]["area"] < 0.75 and readability["nearest"] == "small"

    same = tmp_path / "same"
    same.mkdir()
    for path in large.glob("*.png"):
        Image.open(path).resize((64, 64), Image.Resampling.BOX).save(same / path.name)
    encoder = encoding.load_encoder(name, CPU)
    seen = []
    for folder in (large, same):
        named = [(path.name, path) for path in sorted(folder.glob("*.png"))]
        features, _ = cached_features_of_files(named, sha256_by_name(named), encoder, "#ffffff", 32, "")
        seen.append((features, encode_at_size_of_foreign_pictures(features, encoder)))
    (whole, shown), (_, wanted) = seen
    assert np.allclose(shown.embeddings, wanted.embeddings, atol=1e-5)
    assert np.abs(whole.embeddings - wanted.embeddings).max() > 1e-3, "the encoder itself sees the sizes"


def test_encoders_are_compared_and_the_choice_is_the_gates(
    run, run_exactly, judged: Path, csd: str, tmp_path: Path
) -> None:
    place = tmp_path / "acme"
    shutil.copytree(files.ROOT / "data" / "brands" / "neon", place)
    (place / "brand.yaml").write_text("# by hand\n" + (place / "brand.yaml").read_text())
    words = [f"brand={place}", "hardware.device=cpu"]
    code, text = run_exactly("encoders", *words, f"encoders=miniature,{csd}", "choose=true")
    rows = [line for line in text.splitlines() if re.search(r"( +[01]\.\d{3}){3} +\d", line)]
    assert code == 0 and len(rows) == 2 and rows[0].startswith("miniature") and "best: miniature" in text
    assert "encoder: miniature" in (place / "brand.yaml").read_text()
    assert (place / "brand.yaml").read_text().startswith("# by hand")

    written = (place / "brand.yaml").read_text()
    code, text = run_exactly("encoders", *words, "encoders=miniature,csd:./gone.safetensors,nobody", "choose=true")
    assert code == 2 and "./gone.safetensors is no file" in text and "nobody" in text and "miniature " in text
    assert (place / "brand.yaml").read_text() == written

    (place / "brand.yaml").write_text(written.replace("encoder: miniature", f"encoder: {csd}"))
    for more, wanted in ((), csd), (("encoder=miniature",), "miniature"):
        run("gate", f"images={judged}", words[0], f"out={tmp_path / 'out'}", *more)
        assert json.loads((tmp_path / "out" / "gate.json").read_text())["encoder"] == wanted


def test_several_encoders_read_the_brand_and_one_that_fails_is_named(
    run, run_exactly, judged: Path, csd: str, tmp_path: Path
) -> None:
    """All read the brand, the first makes every other score; a digest covers them all."""
    joined, out = f"miniature+{csd}", tmp_path / "out"
    words = [f"images={judged}", "references=neon", "hardware=cpu", f"out={out}"]
    found = []
    for name in ("miniature", joined):
        run("gate", *words, f"encoder={name}")
        record = json.loads((out / "gate.json").read_text())
        found.append((pq.read_table(out / "scores.parquet"), record))
    (alone, first), (together, second) = found
    for name in ("style", "drawing", "prompt"):
        assert name not in alone.column_names or alone[name].equals(together[name]), name
    assert not alone["brand"].equals(together["brand"]) and second["readability"]["readable"]
    assert second["encoder"] == joined and second["encoder_sha256"] != first["encoder_sha256"]
    assert encodername.encoder_name_without_folders(f"{joined}+timm:x:/a/y.safetensors+/a/clip") == (
        "miniature+csd:csd.safetensors+timm:x:y.safetensors+clip"
    )

    digest = encodername.encoder_digest(joined)
    path = Path(csd.partition(":")[2])
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    assert encodername.encoder_digest(joined) != digest

    before = (out / "gate.json").read_bytes()
    code, text = run_exactly("gate", *words, f"encoder=miniature+nobody+csd:{tmp_path}/gone.safetensors")
    assert code == 2 and "nobody" in text and "gone.safetensors is no file" in text and "Traceback" not in text
    assert (out / "gate.json").read_bytes() == before


def test_a_path_with_a_plus_sign_is_one_encoder(tmp_path: Path) -> None:
    shutil.copytree(files.MODELS / "miniature" / "clip", tmp_path / "c+miniature")
    assert encodername.split_encoder_names(str(tmp_path / "c+miniature")) == [str(tmp_path / "c+miniature")]
    assert encodername.split_encoder_names("miniature+csd:./a.safetensors+miniature") == [
        "miniature",
        "csd:./a.safetensors",
    ]


def measured(name: str, alone: float, seconds: float, readable: bool = True) -> EncoderMeasurement:
    told = SeparationFromForeignSet(area=1.0, low=0.98)
    found = StyleReadability(
        readable=readable, different_references=64, needed=0.8, nearest="x", separations={"x": told}, reads=["encoder"]
    )
    return EncoderMeasurement(name, found, alone, seconds)


def test_of_equally_sure_encoders_the_fastest_is_chosen(tmp_path: Path) -> None:
    slow, fast, unsure = measured("slow", 0.97, 1.0), measured("fast", 0.965, 0.1), measured("unsure", 0.9, 0.01)
    assert (
        fastest_of_surest_encoders([slow, unsure, fast]) is fast and fastest_of_surest_encoders([slow, unsure]) is slow
    )
    assert fastest_of_surest_encoders([measured("blind", 0.99, 1.0, readable=False)]) is None
    with pytest.raises(DataError, match="no encoder reads this style"):
        write_encoder_into_brand_file(tmp_path, None)


def test_the_cost_is_measured_on_references_that_can_be_read(run_exactly, tmp_path: Path) -> None:
    place = tmp_path / "acme"
    shutil.copytree(files.ROOT / "data" / "brands" / "neon", place)
    for path in sorted((place / "test").glob("*.png"))[:TIMED]:
        path.write_bytes(b"damaged")
    code, text = run_exactly("encoders", f"brand={place}", "encoders=miniature", "hardware.device=cpu")
    assert code == 0 and "best: miniature" in text, text


def test_what_encoders_needs_is_said(run_exactly, tmp_path: Path) -> None:
    code, text = run_exactly("encoders", "encoders=miniature")
    assert code == 2 and "encoders needs a brand, or a folder of references" in text
    code, text = run_exactly("encoders", "references=neon", "encoders=miniature", "choose=true")
    assert code == 2 and "no brand is given" in text
    shutil.copytree(files.ROOT / "data" / "brands" / "neon", tmp_path / "few")
    rows = (tmp_path / "few" / "test" / "metadata.jsonl").read_text().splitlines()
    (tmp_path / "few" / "test" / "metadata.jsonl").write_text("\n".join(rows[:7]) + "\n")
    for path in sorted((tmp_path / "few" / "test").glob("*.png"))[7:]:
        path.unlink()
    code, text = run_exactly("encoders", f"brand={tmp_path / 'few'}")
    assert code == 2 and "7 references in test/" in text
    (tmp_path / "few" / "test" / "metadata.jsonl").unlink()
    code, text = run_exactly("encoders", f"references={tmp_path / 'few' / 'test'}")
    assert code == 2 and "7 references;" in text


def test_encoders_are_compared_on_a_folder_of_references(run_exactly, tmp_path: Path) -> None:
    """As the gate takes it: pictures in subfolders too, some of one name, one of them damaged. Nothing is written."""
    place = tmp_path / "style"
    for part in ("a", "b"):
        shutil.copytree(
            files.ROOT / "data" / "brands" / "neon" / "test", place / part, ignore=shutil.ignore_patterns("*.jsonl")
        )
    first = sorted((place / "a").glob("*.png"))[0]
    first.write_bytes(b"damaged")
    before = sorted(place.rglob("*"))
    code, text = run_exactly("encoders", f"references={place}", "encoders=miniature", "hardware.device=cpu")
    assert code == 0 and "best: miniature" in text, text
    assert sorted(place.rglob("*")) == before
