"""What the base sees is encoded once, from the bytes that are there now, and read back as it was."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image, ImageOps

from stylegate import brandset, cache, files
from stylegate.config import Config
from stylegate.configgroups import FamilyConfig, HardwareConfig, TrainConfig
from stylegate.errors import DataError
from stylegate.families import FAMILIES, Conditions, LoadedBaseModel
from tests import tiny
from train import batches, encoded, losses, prepare, step

SD = FAMILIES["sd"]


@dataclass
class Counting:
    """The family, and how many pictures and prompts it was asked for."""

    images: int = 0
    prompts: int = 0

    def encode_to_latent_mean_and_deviation(self, models: LoadedBaseModel, pixels: torch.Tensor) -> Any:
        self.images += len(pixels)
        return SD.encode_to_latent_mean_and_deviation(models, pixels)

    def encode_prompts(self, models: LoadedBaseModel, prompts: list[str]) -> Conditions:
        self.prompts += len(prompts)
        return SD.encode_prompts(models, prompts)


@pytest.fixture(scope="module")
def models() -> LoadedBaseModel:
    return SD.load("miniature", torch.device("cpu"), torch.float32)


@pytest.fixture
def brand(tmp_path: Path) -> Path:
    shutil.copytree(files.ROOT / "data" / "brands" / "neon", tmp_path / "neon")
    return tmp_path / "neon"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "features.sqlite"
    monkeypatch.setattr(encoded, "ArrayCache", lambda: cache.ArrayCache(path))
    yield path


def encode(
    brand: Path, models: LoadedBaseModel, settings: TrainConfig, sides: list[int]
) -> tuple[encoded.EncodedTrainingSet, int, int]:
    """The encoded set, and how many pictures and prompts were computed for it."""
    counting: Any = Counting()
    found = encoded.encode_training_set(
        brandset.read_brand_set(brand), models, counting, settings, sides, Accelerator(cpu=True)
    )
    return found, counting.images, counting.prompts


def edit_caption(brand: Path) -> None:
    table = brand / "train" / "metadata.jsonl"
    table.write_text(table.read_text().replace("with", "and", 1))


def replace_in_place(brand: Path) -> None:
    path = sorted((brand / "train").glob("*.png"))[0]
    before = path.stat()
    ImageOps.mirror(Image.open(path)).save(path)
    import os

    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # not even the clock tells


def change_background(brand: Path) -> None:
    card = brand / "brand.yaml"
    card.write_text(card.read_text() + "\nbackground: '#102030'\n")


@pytest.mark.parametrize(
    ("change", "images", "prompts"),
    [(lambda brand: None, 0, 0), (edit_caption, 0, 1), (replace_in_place, 1, 0), (change_background, 32, 0)],
)
def test_an_edited_caption_or_a_replaced_picture_is_seen(
    brand: Path, models: LoadedBaseModel, change: Any, images: int, prompts: int
) -> None:
    _, first_images, first_prompts = encode(brand, models, TrainConfig(), [64])
    assert (first_images, first_prompts) == (32, 33)
    if change is change_background:
        (brand / "brand.yaml").write_text(
            "\n".join(r for r in (brand / "brand.yaml").read_text().splitlines() if "background" not in r)
        )
    change(brand)
    assert encode(brand, models, TrainConfig(), [64])[1:] == (images, prompts)


def test_sizes_wordings_code_and_base_are_in_the_key(
    brand: Path, models: LoadedBaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(brand, models, TrainConfig(), [64])
    assert encode(brand, models, TrainConfig(), [48])[1] == 32
    settings = TrainConfig(shuffle_captions=True)
    _, images, prompts = encode(brand, models, settings, [64])
    assert images == 0 and prompts == 0, "captions without commas have one wording"
    assert encode(brand, models._replace(sha256="another"), TrainConfig(), [64])[1:] == (32, 33)
    halved = SD.load("miniature", torch.device("cpu"), torch.bfloat16)
    assert encode(brand, halved, TrainConfig(), [64])[1:] == (32, 33)
    monkeypatch.setattr(encoded, "LATENTS", "latents-next")
    assert encode(brand, models, TrainConfig(), [64])[1:] == (32, 0)


def test_each_step_draws_one_of_several_captions_by_the_seed(brand: Path, models: LoadedBaseModel) -> None:
    table = brand / "train" / "metadata.jsonl"
    rows = files.read_jsonl(table)
    rows[0]["more_captions"] = "a bear in a hat\nsomething round"
    files.write_jsonl(table, rows)
    data, _, prompts = encode(brand, models, TrainConfig(), [64])
    assert prompts == 33 + 2
    kept = torch.tensor([False])
    drawn = [data.caption_texts_of_microbatch([0], step, kept)[0] for step in range(90)]
    captions = [
        f"neon style, {text}"
        for text in (rows[0]["text"].removeprefix("neon style, "), "a bear in a hat", "something round")
    ]
    assert {*drawn} == {*captions} and min(map(drawn.count, captions)) > 15
    assert drawn != [captions[step % 3] for step in range(90)], "a fixed turn would meet the turns of the batches"
    again, images, prompts = encode(brand, models, TrainConfig(), [64])
    assert (images, prompts) == (0, 0) and drawn == [
        again.caption_texts_of_microbatch([0], s, kept)[0] for s in range(90)
    ]
    other, _, _ = encode(brand, models, TrainConfig(seed=1), [64])
    assert drawn != [other.caption_texts_of_microbatch([0], step, kept)[0] for step in range(90)]
    with torch.no_grad():
        words = models.pipeline.encode_prompt([drawn[7]], "cpu", 1, False)[0]
    assert torch.allclose(data.encoded_captions_of_microbatch([0], 7, kept)["words"], words, atol=1e-5)


def test_what_is_read_back_is_what_the_base_gives(brand: Path, models: LoadedBaseModel) -> None:
    data, _, _ = encode(brand, models, TrainConfig(), [64])
    items = brandset.read_brand_set(brand).splits["train"]
    mean, deviation = data.latent_mean_and_deviation_of_views([5, 0])
    for row, i in enumerate((5, 0)):
        pixels = np.asarray(Image.open(brand / items[i].file).convert("RGB"), np.float32) / 127.5 - 1
        with torch.no_grad():
            wanted = models.pipeline.vae.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None]).latents
        assert torch.allclose(mean[row], wanted[0] * models.pipeline.vae.config.scaling_factor, atol=1e-5)
    assert not deviation.any()
    with torch.no_grad():
        words = models.pipeline.encode_prompt(
            [brandset.read_brand_file(brand).prompt_with_trigger(items[5].text)], "cpu", 1, False
        )[0]
        empty = models.pipeline.encode_prompt([""], "cpu", 1, False)[0]
    told = data.encoded_captions_of_microbatch([5, 5], step=7, dropped=torch.tensor([False, True]))
    assert list(told) == ["words"] and torch.allclose(told["words"], torch.cat([words, empty]), atol=1e-5)


def test_a_torn_entry_is_made_again(brand: Path, models: LoadedBaseModel, own_cache: Path) -> None:
    data, _, _ = encode(brand, models, TrainConfig(), [64])
    torn = cache.ArrayCache(own_cache).database
    with torn:
        torn.execute("UPDATE entry SET value = substr(value, 1, 40) WHERE key = ?", (data.latent_keys[3],))
    again, images, prompts = encode(brand, models, TrainConfig(), [64])
    assert (images, prompts) == (1, 0) and again.latent_mean_and_deviation_of_views([3])[0].shape == (1, 8, 16, 16)


def test_two_processes_share_the_work(brand: Path, models: LoadedBaseModel) -> None:
    """Each asks for its half; together they fill what one alone would."""
    done = []
    for rank in range(2):
        part: Any = SimpleNamespace(
            process_index=rank, num_processes=2, is_main_process=rank == 0, wait_for_everyone=lambda: None
        )
        counting: Any = Counting()
        encoded.encode_training_set(brandset.read_brand_set(brand), models, counting, TrainConfig(), [64], part)
        done.append((counting.images, counting.prompts))
    assert done == [(16, 17), (16, 16)]
    assert encode(brand, models, TrainConfig(), [64])[1:] == (0, 0)


def test_a_latent_that_is_not_finite_names_its_picture(brand: Path, models: LoadedBaseModel) -> None:
    class Broken(Counting):
        def encode_to_latent_mean_and_deviation(self, models: LoadedBaseModel, pixels: torch.Tensor) -> Any:
            mean, deviation = super().encode_to_latent_mean_and_deviation(models, pixels)
            return (mean * float("nan") if self.images == 4 else mean), deviation

    broken: Any = Broken()
    with pytest.raises(Exception, match=r"not finite for train/0003\.png"):
        encoded.encode_training_set(
            brandset.read_brand_set(brand), models, broken, TrainConfig(), [64], Accelerator(cpu=True)
        )
    settings = replace(TrainConfig(), buckets=False)
    assert encode(brand, models, settings, [64])[1] == 32, "nothing of the broken batch was kept"


def test_a_picture_that_is_replaced_while_it_is_in_use_is_refused(brand: Path, models: LoadedBaseModel) -> None:
    """The key would name the bytes that were there before."""
    before = brandset.read_brand_set(brand)
    replace_in_place(brand)
    counting: Any = Counting()
    with pytest.raises(DataError, match=r"train/0000\.png was changed while it was in use"):
        encoded.encode_training_set(before, models, counting, TrainConfig(), [64], Accelerator(cpu=True))


def test_latents_are_sampled_anew_at_each_step_with_the_steps_own_noise(
    tmp_path: Path, run, small_brand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KL autoencoder gives a mean and a spread: mean + spread * noise is what is noised."""
    base = tiny.sdxl(tmp_path / "base")
    config = Config(
        brand="small",
        name="spread",
        base=str(base),
        family=FamilyConfig(name="sdxl", resolution=64),
        train=TrainConfig(batch_size=2, num_samples=0),
        hardware=HardwareConfig(device="cpu", precision="fp32", threads=1),
    )
    made = prepare.prepare_training_run(config, tmp_path / "run", Accelerator(cpu=True))
    seen: list[torch.Tensor] = []
    noised = losses.add_noise
    monkeypatch.setattr(losses, "add_noise", lambda s, clean, *rest: seen.append(clean) or noised(s, clean, *rest))
    for number in (0, 1, 0):
        step.losses_of_microbatch(made, made.models.denoiser, number)
    mean, spread = made.data.latent_mean_and_deviation_of_views(step.view_indices_of_microbatch(made, 0, 0))
    draws = batches.noise_and_level_draws(tuple(mean.shape), config.train.caption_dropout, 0, 0, config.train.seed)
    assert bool((spread > 0).all()) and torch.equal(seen[0], mean + spread * draws.resample)
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


def test_each_process_encodes_its_part_once_and_any_number_reads_it(brand: Path, models: LoadedBaseModel) -> None:
    """Three processes, one after the other; at two sizes that are one for these pictures, so that views are equal."""
    brand_set, counts = brandset.read_brand_set(brand), []
    for rank, world in ((0, 3), (1, 3), (2, 3), (0, 1)):
        counting: Any = Counting()
        process: Any = SimpleNamespace(
            process_index=rank, num_processes=world, is_main_process=not rank, wait_for_everyone=lambda: None
        )
        found = encoded.encode_training_set(brand_set, models, counting, TrainConfig(), [64, 65], process)
        counts.append((counting.images, counting.prompts))
    assert len(found.views) == 64 and len(set(found.latent_keys)) == 32
    assert counts == [(11, 11), (11, 11), (10, 11), (0, 0)]
    assert None not in found.cache.read_arrays_of_keys(
        [*found.latent_keys, *(key for keys in found.prompt_keys for key in keys)]
    )
