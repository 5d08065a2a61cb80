"""The miniature: its world tells the truth, nothing of a demo brand leaks into training, what is shipped loads."""

import json
from pathlib import Path
from random import Random

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn

from stylegate import brandset, files
from stylegate.families import FAMILIES
from train.miniature import base, clip, corpus, fit, knowledge, text, world
from train.miniature.brands import SPLITS, balanced_trait_combinations
from train.miniature.captions import PHRASES, random_caption
from train.miniature.drawing import render_collectible
from train.miniature.styles import BRANDS, NAMED, Style, is_brand_like, unnamed_style

MINIATURE = files.MODELS / "miniature"
TRAITS = {
    "background": "teal",
    "body": "red",
    "species": "cat",
    "eyes": "round",
    "mouth": "smile",
    "headwear": "crown",
    "item": "book",
}
ALL_STYLES = [*NAMED, *BRANDS.values(), *(unnamed_style(i) for i in range(3))]


@pytest.mark.parametrize("style", ALL_STYLES, ids=lambda s: s.name)
def test_every_trait_shows_in_every_style(style: Style) -> None:
    first = np.asarray(render_collectible(TRAITS, style, 7), dtype=np.int64)
    assert np.array_equal(first, np.asarray(render_collectible(TRAITS, style, 7)))
    for trait, values in world.TRAITS.items():
        for value in values:
            if value != TRAITS[trait]:
                other = np.asarray(render_collectible(TRAITS | {trait: value}, style, 7), dtype=np.int64)
                assert (np.abs(first - other).max(-1) > 20).sum() >= 12, f"{trait}: {value} can hardly be seen"


def test_no_brand_can_reach_base_or_encoder() -> None:
    """The corpora that they learn from: styles by rule, names in captions, and the drawn pictures."""
    assert all(is_brand_like(style) for style in BRANDS.values())
    possible = [*NAMED, *(unnamed_style(i) for i in range(corpus.NUM_UNNAMED))]
    assert not any(is_brand_like(style) for style in possible)
    names = {style.name for style in possible}
    assert len(names) == len(possible) and not names & set(BRANDS)
    r = Random(5)
    for name in ("base", "twins", "kin"):
        for number in range(2):
            for style, traits, _ in corpus.styles_traits_and_seeds_of_part(name, number):
                assert style in possible
                said = random_caption(traits, style.name, r, 0.5, 1.0).text
                assert not any(brand in said.split() for brand in BRANDS)
        assert corpus.SOURCES[name] is corpus.random_style_for_base


def test_the_leak_rule_would_catch_a_brand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "NAMED", [*NAMED, BRANDS["neon"]])
    drawn = [corpus.random_style_for_base(np.random.default_rng(i)) for i in range(200)]
    assert any(is_brand_like(style) for style in drawn)


def test_what_is_held_out_is_never_drawn() -> None:
    drawn = [traits for name in corpus.SOURCES for _, traits, _ in corpus.styles_traits_and_seeds_of_part(name, 1)]
    assert not any(corpus.is_held_out(traits) for traits in drawn)
    share = np.mean([corpus.is_held_out(world.random_traits(np.random.default_rng(i))) for i in range(4000)])
    assert 0.04 < share < 0.09


@pytest.mark.parametrize("name", corpus.CHANGES)
def test_a_family_differs_in_one_trait_from_one_to_the_next(name: str) -> None:
    rows = corpus.styles_traits_and_seeds_of_part(name, 2)
    for i in range(0, len(rows), corpus.FAMILY):
        for (style, before, seed), (other, after, again) in zip(
            rows[i : i + corpus.FAMILY], rows[i + 1 : i + corpus.FAMILY], strict=False
        ):
            assert style == other and seed == again
            changed = [t for t in before if before[t] != after[t]]
            assert len(changed) == 1 and changed[0] in corpus.CHANGES[name]


def test_a_corpus_that_another_order_would_change_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("base", "judge", "kin")
    before = {name: corpus.corpus_fingerprint.__wrapped__(name) for name in names}
    monkeypatch.setitem(corpus.CHANGES, "kin", corpus.HARDEST[::-1])
    monkeypatch.setattr(corpus, "SOURCES", {name: corpus.SOURCES[name] for name in ("base", "judge", "twins", "kin")})
    after = {name: corpus.corpus_fingerprint.__wrapped__(name) for name in names}
    assert [name for name in names if before[name] != after[name]] == ["judge", "kin"]


def test_captions_say_what_they_claim() -> None:
    r, number = Random(3), np.random.default_rng(3)
    for _ in range(500):
        traits = world.random_traits(number)
        said = random_caption(traits, "felt", r, 0.5, 0.5)
        assert ("felt style" in said.text) == ("style" in said.says)
        hard = random_caption(traits, "felt", r, 0.2, 0.0, corpus.HARDEST)
        assert hard.says & set(corpus.HARDEST)
        for trait in ("background", "body", "species"):
            assert (trait not in said.says) or traits[trait] in said.text
        for trait, phrases in PHRASES.items():
            value = traits[trait]
            if trait in said.says and value != "none":
                assert any(p in said.text for p in [*phrases[value], f"{value} {trait}"]), (said, traits)


def test_every_value_is_drawn_as_often_in_a_brand() -> None:
    rows = balanced_trait_combinations(32, np.random.default_rng(0))
    for trait, values in world.TRAITS.items():
        counts = [sum(row[trait] == value for row in rows) for value in values]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("name", BRANDS)
def test_shipped_brands_are_what_the_code_draws(name: str) -> None:
    folder, number = files.ROOT / "data" / "brands" / name, list(BRANDS).index(name)
    found = brandset.read_brand_set(folder)
    assert {split: len(items) for split, items in found.splits.items()} == SPLITS
    for split in SPLITS:
        for item in found.splits[split][:4]:
            seed = 9_000_000 + 1000 * number + int(Path(item.file).stem)
            shipped = np.asarray(Image.open(folder / item.file).convert("RGB"))
            assert np.array_equal(shipped, np.asarray(render_collectible(item.traits, BRANDS[name], seed)))


def test_contrast_leaves_out_other_captions_that_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (
        nn.functional.normalize(torch.randn(5, 8, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
    )
    truth = np.array([[0, 1], [0, 2], [1, 1], [0, 1], [clip.UNKNOWN, 2]])
    says = np.array([[True, False], [True, True], [True, True], [False, False], [True, False]])
    fits = clip.caption_fits_picture_matrix(truth, says)
    scale, total = 7.0, 0.0
    for i in range(5):  # the slow way: one picture, one caption at a time
        across = [
            scale * float(images[i] @ texts[j]) for j in range(5) if j == i or not agrees(truth[i], truth, says, j)
        ]
        down = [scale * float(images[k] @ texts[i]) for k in range(5) if k == i or not agrees(truth[k], truth, says, i)]
        own = scale * float(images[i] @ texts[i])
        total += np.log(np.exp(across).sum()) - own + np.log(np.exp(down).sum()) - own
    found = clip.contrastive_loss(images, texts, torch.tensor(scale), torch.from_numpy(fits))
    assert float(found) == pytest.approx(total / 10, rel=1e-9)
    assert fits[1, 0] and fits[3, 0] and not fits[2, 0] and fits[:, 3].all() and fits[4, :2].all() and not fits[4, 2]


def agrees(picture: np.ndarray, truth: np.ndarray, says: np.ndarray, j: int) -> bool:
    return all(picture[a] in (truth[j][a], clip.UNKNOWN) for a in range(len(picture)) if says[j][a])


def test_a_recoloured_picture_is_said_to_have_no_colour_and_no_style() -> None:
    random = np.random.default_rng(2)
    traits = [world.random_traits(random) for _ in range(8)]
    pixels = np.stack([np.asarray(render_collectible(row, NAMED[i], i)) for i, row in enumerate(traits)])
    few = corpus.Corpus(pixels, [style.name for style in NAMED[:8]], traits)
    hidden = [clip.ATTRIBUTES.index(name) for name in clip.COLOURED]
    for long in (False, True):
        batch = clip.ContrastiveSampler(few, few, corpus.HARDEST, 1.0).draw_contrastive_batch(True, long, random)
        assert (batch.truth[:, hidden] == clip.UNKNOWN).all() and not batch.says[:, hidden].any()
        assert batch.says.any(1).all() and not any("style" in said or "background" in said for said in batch.texts)
    edges = np.abs(np.diff(pixels[0].astype(int), axis=1)).sum(-1) > 0
    assert np.array_equal(
        np.abs(np.diff(clip.recoloured_picture(pixels[0], random).astype(int), axis=1)).sum(-1) > 0, edges
    )


def test_a_stopped_training_ends_where_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "WORK", tmp_path)

    def train(title: str, stop_at: int | None = None) -> torch.Tensor:
        torch.manual_seed(0)
        layer = nn.Linear(4, 1)

        def loss_of(step: int, r: np.random.Generator) -> torch.Tensor:
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.from_numpy(r.normal(size=(8, 4))).float()
            return (layer(x) - x.sum(1, keepdim=True)).square().mean()

        fit.train_modules_resumably(title, {"layer": layer}, loss_of, 60, {"layer": 1e-2}, "test")
        return layer.weight.detach().clone()

    whole = train("whole")
    monkeypatch.setattr(fit, "SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop_at=37)
    assert torch.equal(train("stopped"), whole)


def test_steps_that_are_trained_again_are_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after step 6, saved at step 3: the rows of 4 and 6 are written anew."""
    monkeypatch.setattr(fit, "WORK", tmp_path)
    monkeypatch.setattr(fit, "NOTE_EVERY", 2)
    monkeypatch.setattr(fit, "SAVE_EVERY_S", -1.0)
    save = fit.save_state
    monkeypatch.setattr(fit, "save_state", lambda place, step, *rest: save(place, step, *rest) if step == 3 else None)

    def train(stop_at: int | None) -> None:
        layer = nn.Linear(4, 1)

        def loss_of(step: int, r: np.random.Generator) -> torch.Tensor:
            if step == stop_at:
                raise KeyboardInterrupt
            return layer(torch.ones(1, 4)).square().mean()

        fit.train_modules_resumably("noted", {"layer": layer}, loss_of, 8, {"layer": 1e-2}, "test")

    with pytest.raises(KeyboardInterrupt):
        train(stop_at=6)
    (place,) = tmp_path.iterdir()
    assert [row["step"] for row in files.read_jsonl(place / "stats.jsonl")] == [2, 4, 6]
    train(stop_at=None)
    assert [row["step"] for row in files.read_jsonl(place / "stats.jsonl")] == [2, 4, 6, 8]


def test_the_text_encoder_begins_as_the_encoders_tower() -> None:
    torch.manual_seed(0)
    made = clip.build_clip().eval()
    ids = torch.tensor([[1022, 5, 9, 700, *[1023] * (text.CONTEXT - 4)]])
    with torch.no_grad():
        x = made.ln_final(
            made.transformer(made.token_embedding(ids) + made.positional_embedding, attn_mask=made.attn_mask)
        )
        assert torch.allclose(base.text_encoder_from_clip(made)(ids).last_hidden_state, x, atol=1e-5)
        assert torch.allclose(clip.encode_short_texts(made, ids[:, :9]), made.encode_text(ids), atol=1e-5)


def test_shipped_models_are_small_and_keep_the_promised_forms() -> None:
    shipped = [path for path in MINIATURE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) <= 30e6
    assert {path.suffix for path in shipped} <= {".safetensors", ".json", ".md"}
    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    assert models.resolution == 64
    assert models.pipeline.tokenizer.model_max_length >= 40
    described = json.loads((MINIATURE / "clip" / "open_clip_config.json").read_text())
    assert described["model_cfg"]["text_cfg"]["context_length"] >= 40
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{MINIATURE / 'clip'}")  # type: ignore[misc]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{MINIATURE / 'clip'}")
    told = tokenizer(["red cat"])
    own = models.pipeline.tokenizer(["red cat"], padding="max_length", max_length=told.shape[1], return_tensors="pt")
    assert torch.equal(told, own.input_ids)
    assert tuple(model.encode_text(told).shape) == (1, described["model_cfg"]["embed_dim"])  # type: ignore[operator]


def test_the_aesthetic_head_tells_degraded_renders() -> None:
    """Weight and bias as eval/scorers/aesthetic.py folds them, on pictures of its own."""
    from eval.measuring import encoder as encoding
    from eval.scorers import aesthetic
    from train.miniature.degrade import DEGRADE

    encoder, r = encoding.load_encoder("miniature", torch.device("cpu")), np.random.default_rng(2)
    pixels = np.stack(
        [np.asarray(render_collectible(world.random_traits(r), NAMED[i % len(NAMED)], i)) for i in range(60)]
    )
    spoilt = np.stack([list(DEGRADE.values())[i % len(DEGRADE)](p, r) for i, p in enumerate(pixels)])
    head = aesthetic.load_aesthetic_head(MINIATURE / "clip" / "aesthetic.safetensors", 128)
    clean, bad = (
        aesthetic.score(knowledge.unit_embeddings_of_pictures(encoder.model, p), head) for p in (pixels, spoilt)
    )
    assert (clean[:, None] > bad[None, :]).mean() > 0.9
