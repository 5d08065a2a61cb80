"""The encoder is shown what open_clip would show it, in the activation of its weights; a picture is decoded once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import QuickGELU
from PIL import Image
from safetensors.torch import load_file, save_file

from eval.lot.lot import sha256_by_name
from eval.measuring import encoder as encoding
from eval.measuring import encodername, features, foreign, weights
from eval.measuring.encoder import LoadedEncoder
from stylegate import basename, files, pictures
from stylegate.cache import ArrayCache
from stylegate.errors import ModelError
from stylegate.families import FAMILIES

CPU = torch.device("cpu")
GUARD = 1e-5  # of an embedding's number: what batch size, order and neighbours may move (docs/scores.md)


@pytest.fixture(scope="module")
def miniature() -> LoadedEncoder:
    return encoding.load_encoder("miniature", CPU)


def photo(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


NAMES = ["miniature", "ViT-B-32:laion2b_s34b_b79k", "ViT-B-16-SigLIP:webli", "ViT-L-14-quickgelu:openai"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (300, 231)])
def test_pictures_are_shown_as_open_clip_shows_them(name: str, size: tuple[int, int]) -> None:
    """uint8 first, arithmetic later: bit for bit the transform that open_clip makes of the same config."""
    shown, seen = encodername.encoder_preprocessing(name), []
    model, settings = encodername.open_clip_configs(name)
    transform = open_clip.image_transform(
        model["vision_cfg"]["image_size"],
        is_train=False,
        **{key: settings[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in settings},
    )

    class Model:
        visual = None

        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(pixels)
            return pixels.flatten(1)[:, :4]

    encoder = LoadedEncoder(Model(), shown, None, CPU, "", None, None)
    image = photo(*size)
    encoding.encode_pictures(
        encoder, [shown.resized_and_cropped_pixels(image), shown.resized_and_cropped_pixels(image.rotate(180))]
    )
    assert torch.equal(seen[0], torch.stack([transform(image), transform(image.rotate(180))]))  # type: ignore[operator]


def test_weights_and_activation_must_belong_together() -> None:
    """OpenAI's weights in a model with GELU score half a point off; open_clip only warns."""
    with pytest.raises(ModelError) as caught:
        encoding.load_encoder("ViT-L-14:openai", CPU)
    assert "QuickGELU" in str(caught.value) and "encoder=ViT-L-14-quickgelu:openai" in str(caught.value.next_step)
    with pytest.raises(ModelError, match=r"no model ViT-L-41.*ViT-L-14"):
        encoding.load_encoder("ViT-L-41:openai", CPU)
    with pytest.raises(ModelError, match=r"no weights openia.*openai"):
        encoding.load_encoder("ViT-L-14-quickgelu:openia", CPU)


@pytest.mark.parametrize("quick", [True, False])
def test_the_activation_of_a_config_is_the_one_that_runs(quick: bool, tmp_path: Path) -> None:
    """A known answer: the layer itself, x * sigmoid(1.702 x) (CLIP, 2021) or the exact GELU."""
    tiny_encoder(tmp_path, quick)
    model = encoding.load_encoder(str(tmp_path), CPU).model
    layer = model.visual.transformer.resblocks[0].mlp.gelu
    x = torch.linspace(-3, 3, 7)
    wanted = x * torch.sigmoid(1.702 * x) if quick else x * 0.5 * (1 + torch.erf(x / 2**0.5))
    assert isinstance(layer, QuickGELU) == quick and torch.allclose(layer(x), wanted, atol=1e-6)


def tiny_encoder(folder: Path, quick: bool) -> None:
    """An open_clip folder of random weights, 32 pixels a side."""
    import json

    config = {
        "embed_dim": 16,
        "quick_gelu": quick,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


@pytest.fixture
def hub_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of an encoder that open_clip knows by name, `tiny-test:local`; in this test alone."""
    tiny_encoder(tmp_path, False)
    config = files.read_json(tmp_path / "open_clip_config.json", "config")["model_cfg"]
    checkpoint = tmp_path / "open_clip_model.safetensors"
    entry = {"file": str(checkpoint), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-test", config)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-test", {"local": entry})
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(weights, "located", {})
    return checkpoint


def test_a_digest_of_an_encoder_by_name_covers_its_weights(hub_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known without loading and in another process; other weights under the same name have another digest."""
    name = "tiny-test:local"
    assert encodername.encoder_digest(name) != encodername.encoder_digest(name), "not known before it was loaded"
    first, key = encoding.load_encoder(name, CPU), encodername.encoder_digest(name)
    monkeypatch.setattr(weights, "located", {})  # another process
    assert encodername.encoder_digest(name) == key

    tensors = load_file(hub_clip)
    tensors["visual.proj"] += 1
    save_file(tensors, hub_clip)
    assert encodername.encoder_digest(name) != key
    second = encoding.load_encoder(name, CPU)
    assert second.sha256 != first.sha256 and encodername.encoder_digest(name) == encodername.encoder_digest(name)

    hub_clip.unlink()
    assert encodername.encoder_digest(name) != encodername.encoder_digest(name), "gone"
    (files.CACHE / weights.RECORD).write_text("{")
    assert encodername.encoder_digest(name) != encodername.encoder_digest(name), "a torn record is none"
    with pytest.raises(ModelError, match="its weights are not at"):
        encoding.load_encoder(name, CPU)


def test_weights_that_change_while_they_are_loaded_are_refused(hub_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = open_clip.create_model_and_transforms

    def create_and_change(*words, **more):
        made = create(*words, **more)
        tensors = load_file(hub_clip)
        tensors["visual.proj"] += 1
        save_file(tensors, hub_clip)
        return made

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create_and_change)
    with pytest.raises(ModelError, match="changed while it was loaded"):
        encoding.load_encoder("tiny-test:local", CPU)


def test_scores_of_a_name_whose_weights_changed_are_made_again(
    run, hub_clip: Path, judged: Path, tmp_path: Path
) -> None:
    for path in sorted(judged.glob("*.png"))[3:]:
        path.unlink()
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "encoder=tiny-test:local")

    def score() -> str:
        code, text = run("score", *words)
        assert code == 0, text
        return text

    assert "nothing new" not in score() and "nothing new" in score()
    tensors = load_file(hub_clip)
    tensors["visual.proj"] += 1
    save_file(tensors, hub_clip)
    assert "nothing new" not in score()


def test_a_known_picture_has_its_known_embedding(miniature: LoadedEncoder, pictures_of_neon: list[Image.Image]) -> None:
    """The shipped encoder's first numbers of a gradient, printed by this test at the commit that shipped it."""
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
    image = Image.fromarray(
        np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 90, np.uint8)], -1)
    )
    found = encoding.encode_pictures(miniature, [miniature.preprocessing.resized_and_cropped_pixels(image)]).embeddings[
        0
    ]
    assert found[:4] == pytest.approx(KNOWN, abs=GUARD)


KNOWN = [-0.113236, -0.053112, -0.130485, 0.189324]


def test_neighbours_order_and_batch_size_do_not_move_an_embedding(
    miniature: LoadedEncoder, pictures_of_neon: list[Image.Image]
) -> None:
    shown = [miniature.preprocessing.resized_and_cropped_pixels(image) for image in pictures_of_neon[:32]]
    alone = [encoding.encode_pictures(miniature, [one]) for one in shown]
    for several in (shown[i::k] for k in (1, 2, 11) for i in range(k)):
        for order in (slice(None), slice(None, None, -1)):
            found = encoding.encode_pictures(miniature, several[order])
            for row, one in enumerate(several[order]):
                single = alone[next(i for i, other in enumerate(shown) if other is one)]
                assert np.abs(found.embeddings[row] - single.embeddings[0]).max() < GUARD / 3
                assert np.abs(found.patches[row].astype(float) - single.patches[0]).max() < 1e-4  # float16


def test_patches_are_the_tokens_of_two_blocks(miniature: LoadedEncoder, pictures_of_neon: list[Image.Image]) -> None:
    """By hooks on the blocks, place by place; and the embedding is the one that encode_image gives."""
    shown = [miniature.preprocessing.resized_and_cropped_pixels(image) for image in pictures_of_neon[:3]]
    found, tokens = encoding.encode_pictures(miniature, shown), []
    blocks = miniature.model.visual.transformer.resblocks[-3:-1]
    hooks = [block.register_forward_hook(lambda _, inputs, output: tokens.append(output)) for block in blocks]
    pixels = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        whole = miniature.model.encode_image((pixels - 0.5) / 0.5)
    for hook in hooks:
        hook.remove()
    assert np.allclose(found.embeddings, encoding.to_unit_length(whole.numpy()), atol=1e-6)
    slow = []
    for block in tokens:
        places = block[:, 1:].numpy()  # without the class token
        assert places.shape[1] == encoding.GRID**2
        slow.append(
            encoding.to_unit_length(
                (places @ encoding.fixed_random_channel_projection_matrix(places.shape[2]))
                .transpose(0, 2, 1)
                .reshape(3, -1)
            )
        )
    assert np.allclose(found.patches, encoding.to_unit_length(np.concatenate(slow, 1)), atol=1e-3)


def test_a_model_without_patches_is_read_by_its_embedding_alone() -> None:
    class Visual:
        pass

    class Model:
        visual = Visual()

        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.flatten(1)[:, :4]

    encoder = LoadedEncoder(Model(), encodername.encoder_preprocessing("miniature"), None, CPU, "", None, None)
    found = encoding.encode_pictures(encoder, [encoder.preprocessing.resized_and_cropped_pixels(photo(64, 64))])
    assert found.embeddings.shape == (1, 4) and found.patches.shape == (1, 0)


def test_what_generate_kept_is_scored_without_decoding(
    miniature: LoadedEncoder, pictures_of_neon: list[Image.Image], tmp_path: Path, monkeypatch
) -> None:
    """The same features as of the file, to the bit; what was kept is gone once it has been encoded."""
    for i, image in enumerate(pictures_of_neon[:5]):
        image.save(tmp_path / f"{i}.png")
    named = [(path.name, path) for path in sorted(tmp_path.glob("*.png"))]
    sha256 = sha256_by_name(named)

    def extracted() -> features.PictureFeatures:
        return features.cached_features_of_files(named, sha256, miniature, "#ffffff", 2, "")[0]

    monkeypatch.setattr(features, "ArrayCache", lambda: ArrayCache(tmp_path / "one.sqlite"))
    decoded = extracted()
    cache = ArrayCache(tmp_path / "other.sqlite")
    monkeypatch.setattr(features, "ArrayCache", lambda: cache)
    drawn = {sha256[f"{i}.png"]: image for i, image in enumerate(pictures_of_neon[:5])}
    features.store_features_of_drawn(drawn, miniature.preprocessing, "#ffffff")
    monkeypatch.setattr(pictures, "decode_picture", None)
    kept = extracted()
    assert all(np.array_equal(a, b) for a, b in zip(decoded, kept, strict=True))
    assert cache.database.execute("SELECT count(*) FROM entry").fetchone() == (5,)
    assert all(np.array_equal(a, b) for a, b in zip(decoded, extracted(), strict=True))


@pytest.fixture
def two_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_pictures_and_foreign_pictures_are_encoded_on_every_core(
    miniature: LoadedEncoder, tmp_path: Path, two_torch_threads: None
) -> None:
    def two_at_once(image: Image.Image) -> Image.Image:
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait(10)  # BrokenBarrierError where one thread does all
        assert torch.get_num_threads() == 1
        return miniature.preprocessing.geometry(image)

    encoder = miniature._replace(preprocessing=miniature.preprocessing._replace(geometry=two_at_once))
    image = Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8))
    image.save(tmp_path / "a.png")
    png = (tmp_path / "a.png").read_bytes()
    shown = [foreign.ForeignPictureOnBackground("a", png, (i, 0, 0), False) for i in range(foreign.TOGETHER + 1)]
    seen, both = set[int](), threading.Barrier(2)
    assert len(foreign.features_of_foreign_pictures(shown, encoder, "#ffffff")) == len(shown)
    named = [(f"{i}.png", tmp_path / f"{i}.png") for i in range(2)]
    for i, (_, path) in enumerate(named):
        image.rotate(i).save(path)
    seen, both = set[int](), threading.Barrier(2)
    features.cached_features_of_files(named, sha256_by_name(named), encoder, "#ffffff", 64, "")
    assert torch.get_num_threads() == 2


def test_batches_that_are_begun_ahead_come_in_order() -> None:
    begun: list[int] = []
    for (number,), _ in features.submit_ahead([[i] for i in range(6)], lambda batch: begun.append(batch[0]) or [], 2):
        assert begun == list(range(min(number + 3, 6)))


def test_a_file_that_was_away_for_a_moment_is_read_when_it_is_back(judged: Path) -> None:
    named = [("a.png", judged / "0032.png")]
    digests, loaded = sha256_by_name(named), encoding.load_encoder("miniature", torch.device("cpu"))
    content = (judged / "0032.png").read_bytes() + b"\0"  # bytes that no cache knows
    (judged / "0032.png").write_bytes(content)
    digests = sha256_by_name(named)
    (judged / "0032.png").unlink()
    assert (
        features.cached_features_of_files(named, digests, loaded, "#ffffff", 4, "")[1][0].reason
        == "changed while it was read"
    )
    (judged / "0032.png").write_bytes(content)
    assert features.cached_features_of_files(named, digests, loaded, "#ffffff", 4, "")[1] == []


def test_a_folder_in_the_working_directory_never_stands_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for the miniature nor for open_clip's MODEL:PRETRAINED nor for a model on the hub."""
    monkeypatch.chdir(tmp_path)
    for name in ("miniature", "acme", "ViT-B-32:openai"):
        (tmp_path / name).mkdir()
        for file in ("open_clip_config.json", "open_clip_model.safetensors"):
            (tmp_path / name / file).touch()
    assert encodername.encoder_folder("miniature") == files.MODELS / "miniature" / "clip"
    assert encodername.encoder_folder("./miniature") == tmp_path / "miniature"
    assert encodername.encoder_folder("ViT-B-32:openai") is None
    with pytest.raises(ModelError, match=r"write \./acme"):
        encodername.encoder_folder("acme")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"write \./owner/name"):
        basename.parse_hub_id("owner/name")
    assert basename.parse_hub_id("./owner/name") is None and basename.parse_hub_id("owner/name@main") == (
        "owner/name",
        "main",
    )
    with pytest.raises(ModelError, match=r"write \./acme"):
        FAMILIES["sd"].base_folder("acme")


def test_large_features_lie_on_disk_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were not filled are left out without a second copy of the others, in memory and on disk."""
    found = []
    for large in (2**40, 1):
        monkeypatch.setattr(features, "LARGE", large)
        monkeypatch.setattr(features, "TOGETHER", 3)
        table, random = features.FeatureArrays(10), np.random.default_rng(0)
        for i in (0, 2, 3, 5, 6, 7, 9):
            row = {"size": np.array([64, 64]), "transparent": np.array(False), "technical": np.float32(i)}
            row |= {"signature": random.integers(0, 256, (64, 64, 3), np.uint8)}
            table.copy_features_into_row(
                i, row | {"embedding": random.random(8, np.float32), "patches": np.zeros(4, np.float16)}
            )
        assert isinstance(table.columns["signature"].base, np.memmap) == (large == 1)
        found.append(table.features_of_filled_rows(list("abcdefghij"), dict.fromkeys("abcdefghij", "")))
    assert found[0].names == found[1].names == list("acdfghj")
    assert found[0].technical[:, 0].tolist() == [0, 2, 3, 5, 6, 7, 9]
    for one, other in zip(found[0][2:], found[1][2:], strict=True):
        assert np.array_equal(one, other)
