"""Pictures and captions as the base sees them, encoded once and read back from the cache step by step.

Nothing is held in memory: a set may be larger than it. A key names all that a value depends on, so that a changed
picture or caption, another base, size, background or version of the code is another entry, never a stale one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import ImageColor
from torch import Tensor

from stylegate import brandset, buckets, files, pictures, progress
from stylegate.brandset import Brand, BrandPicture, BrandSet
from stylegate.buckets import PictureAtTrainingSize
from stylegate.cache import ArrayCache
from stylegate.configgroups import TrainConfig
from stylegate.errors import StylegateError
from stylegate.families import Conditions, Family, LoadedBaseModel
from train import batches

LATENTS, PROMPTS = "latents-3", "prompts-4"  # versions of what is cached; raise one when its computation changes
IMAGES_AT_ONCE, TEXTS_AT_ONCE = 8, 32
WORDINGS = 8  # of a caption, if train.shuffle_captions is true


class EncodedTrainingSet(NamedTuple):
    """Pictures and captions to learn from, encoded in the cache: the keys of the latents of each view, of each
    picture's captions in each of their wordings, and of the empty prompt.
    """

    cache: ArrayCache
    views: list[PictureAtTrainingSize]
    latent_keys: list[str]  # [views]
    prompt_keys: list[list[str]]  # [items][wordings]
    empty_key: str
    wordings: list[list[str]]  # [items][wordings]
    seed: int  # that draws the wordings

    def latent_mean_and_deviation_of_views(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of the views with the indices `chosen`, which share one bucket:
        float32 [n, c, h, w] each.
        """
        found = [self.read_required_cache_entry(self.latent_keys[i]) for i in chosen]
        mean, deviation = (torch.from_numpy(np.stack([f[k] for f in found])) for k in ("mean", "std"))
        return mean, deviation

    def encoded_captions_of_microbatch(self, items: Sequence[int], step: int, dropped: Tensor) -> Conditions:
        """The encoded captions of `items`, arrays [n, ...] by name: of several wordings the one that is drawn for this
        training pass. Where `dropped` [n] is set, the encoding of the empty prompt.

        `step` is the index of the pass.
        """
        keys = [self.prompt_keys[i][self.drawn_wording_index(i, step)] for i in items]
        found = [
            self.read_required_cache_entry(self.empty_key if out else key)
            for key, out in zip(keys, dropped.tolist(), strict=True)
        ]
        return {name: torch.from_numpy(stack_with_padding([one[name] for one in found])) for name in found[0]}

    def caption_texts_of_microbatch(self, items: Sequence[int], step: int, dropped: Tensor) -> list[str]:
        """[n] the captions as texts whose encodings `conditions` returns for the same arguments; "" where `dropped`."""
        texts = [self.wordings[i][self.drawn_wording_index(i, step)] for i in items]
        return ["" if out else text for text, out in zip(texts, dropped.tolist(), strict=True)]

    def drawn_wording_index(self, item: int, step: int) -> int:
        """The index of the wording of the picture `item` that is drawn for the pass `step`; seed, pass
        and item fix it.
        """
        count = len(self.wordings[item])
        return (
            int(np.random.default_rng([self.seed, batches.WORDING_DRAW, step, item]).integers(count))
            if count > 1
            else 0
        )

    def read_required_cache_entry(self, key: str) -> dict[str, NDArray]:
        """The arrays of one cache entry, by name: the latents of one view, or one encoded caption.

        Raises StylegateError if the entry is gone.
        """
        value = self.cache.read_arrays_of_key(key)
        if value is None:
            raise StylegateError(
                "the cache has lost an entry that training needs", next_step="run the same command again."
            )
        return value


def encode_training_set(
    brand_set: BrandSet,
    models: LoadedBaseModel,
    family: Family,
    settings: TrainConfig,
    resolutions: Sequence[int],
    accelerator: Accelerator,
) -> EncodedTrainingSet:
    """Encode the pictures and captions of train/ into the cache; each process does its share and waits for the others.

    Returns the cache with the views of the pictures and the keys of both. Raises StylegateError if the base's
    autoencoder gives values that are not finite.
    """
    cache, items, brand = ArrayCache(), brand_set.splits["train"], brand_set.brand
    sizes = [pictures.upright_size_of(item.unchanged_file_bytes()) for item in items]
    views = buckets.training_sizes_of_pictures(sizes, resolutions, models.multiple, settings.buckets)
    wordings = [
        [
            brand.prompt_with_trigger(batches.shuffled_caption(text, n, settings.seed))
            for text in item.all_captions_of_picture()
            for n in range(num_caption_wordings(settings))
        ]
        for item in items
    ]
    prompts = sorted({text for texts in wordings for text in texts} | {""})

    dtype = str(next(p.dtype for p in models.denoiser.parameters() if not p.requires_grad))

    def latent_key(view: PictureAtTrainingSize) -> str:
        item = items[view.item]
        kept = ["alpha"] if models.draws_alpha and brand.alpha == "keep" else []
        return files.canonical_sha256(
            [LATENTS, models.sha256, dtype, view.width, view.height, brand.background, item.sha256, *kept]
        )

    def prompt_key(text: str) -> str:
        return files.canonical_sha256([PROMPTS, models.sha256, dtype, text])

    @torch.no_grad()
    def encode_latents(chosen: list[int]) -> list[dict[str, NDArray]]:
        out = []
        for view in (to_encode[my_keys[i]] for i in chosen):  # one by one: shapes differ, neighbours never move a bit
            pixels = autoencoder_input_pixels(items[view.item], brand, models.draws_alpha, view.width, view.height)
            mean, deviation = (
                t[0].float().cpu().numpy() for t in family.encode_to_latent_mean_and_deviation(models, pixels)
            )
            if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
                raise StylegateError(
                    f"the base's autoencoder gives values that are not finite for {items[view.item].file}"
                )
            out.append({"mean": mean, "std": deviation})
        return out

    @torch.no_grad()
    def encode_conditions(chosen: list[int]) -> list[dict[str, NDArray]]:
        encoded = family.encode_prompts(models, [my_prompts[i] for i in chosen])
        arrays = {name: values.float().cpu().numpy() for name, values in encoded.items()}
        return [
            encoded_caption_without_padding({name: values[i] for name, values in arrays.items()})
            for i in range(len(chosen))
        ]

    rank, world = accelerator.process_index, accelerator.num_processes
    latent_keys = [latent_key(view) for view in views]
    to_encode = dict(zip(latent_keys, views, strict=True))  # once, also where several pairs have one picture
    my_keys, my_prompts = list(to_encode)[rank::world], prompts[rank::world]
    with progress.progress_bar("encode", len(my_keys) + len(my_prompts), visible=accelerator.is_main_process) as tick:
        cache.compute_missing(my_keys, IMAGES_AT_ONCE, encode_latents, tick)
        cache.compute_missing([prompt_key(t) for t in my_prompts], TEXTS_AT_ONCE, encode_conditions, tick)
    accelerator.wait_for_everyone()
    return EncodedTrainingSet(
        cache=cache,
        views=views,
        latent_keys=latent_keys,
        prompt_keys=[[prompt_key(text) for text in texts] for texts in wordings],
        empty_key=prompt_key(""),
        wordings=wordings,
        seed=settings.seed,
    )


def autoencoder_input_pixels(item: BrandPicture, brand: Brand, draws_alpha: bool, width: int, height: int) -> Tensor:
    """A picture as the autoencoder reads it, scaled and cropped to `width` x `height`: [1, 3, height, width] in [-1,
    1].

    It is [1, 4, height, width] for a base that draws alpha; fully transparent pixels then have the brand's background
    colour.
    """
    decoded = brandset.decoded_image_as_rgba if draws_alpha else brandset.decoded_image
    fitted = np.array(pictures.scale_and_crop(decoded(item, brand), width, height))
    if draws_alpha:
        fitted[fitted[..., 3] == 0, :3] = ImageColor.getcolor(brand.background, "RGB")
    return torch.from_numpy(fitted).permute(2, 0, 1)[None].float() / 127.5 - 1


def encoded_caption_without_padding(one: dict[str, NDArray]) -> dict[str, NDArray]:
    """The arrays of one encoded caption, by name; `words` is cut after its `length`. They are unchanged where the
    family gives no length.
    """
    return one | {"words": one["words"][: int(one["length"])]} if "length" in one else one


def stack_with_padding(arrays: Sequence[NDArray]) -> NDArray:
    """The arrays stacked, [n, longest, ...]; shorter ones are padded with zeros at the end of their first axis."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    stacked = np.zeros((len(arrays), max(len(array) for array in arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked


def num_caption_wordings(settings: TrainConfig) -> int:
    """The number of wordings, orders of its parts, that each caption is encoded in."""
    return WORDINGS if settings.shuffle_captions else 1
