"""The model that scores: loading it, encoding pictures and texts (its name: eval/measuring/encodername.py)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.measuring.domain import EncoderDomain, read_encoder_domain
from eval.measuring.encodername import (
    FULL,
    EncoderPreprocessing,
    architecture_and_file_from_encoder_name,
    call_for_each_encoder_name,
    digest_of_one_encoder,
    encoder_digest,
    encoder_folder,
    open_clip_configs,
    preprocessing_of_one_encoder,
)
from eval.measuring.weights import find_or_download_checkpoint, record_checkpoint_location
from stylegate import files, hub
from stylegate.digests import sha256_of_files
from stylegate.errors import ModelError

ACTIVATIONS, FEW = 20_000_000, 8  # bytes at once on a CPU, in the widest layer; pictures of a model without tokens
GRID, CHANNELS = 8, 64  # places a side, numbers a place, that are kept of an encoder's patches

_KEPT: ContextVar[dict[tuple[str, str, str], "LoadedEncoder"] | None] = ContextVar("kept encoders", default=None)


class LoadedEncoder(NamedTuple):
    """A loaded model with its preprocessing, tokenizer, device and digest, and the domain that it knows."""

    model: Any  # open_clip.CLIP, or what has its methods, for inference
    preprocessing: EncoderPreprocessing
    tokenizer: Any  # texts to token numbers; None: the encoder reads no texts
    device: Any  # torch.device
    sha256: str  # names weights and preprocessing in cache keys and records
    domain: EncoderDomain | None  # None: no limit is declared (a CLIP trained on the open web)
    folder: Path | None  # None of open_clip's MODEL:PRETRAINED
    others: tuple["LoadedEncoder", ...] = ()  # what the reader of the brand sees too (eval/scorers/brand.py)

    @property
    def sha256_of_all_encoders(self) -> str:
        """The digest of the weights and preprocessing of this encoder and of the others."""
        every = [self.sha256, *(one.sha256 for one in self.others)]
        return files.canonical_sha256(every) if self.others else self.sha256


def load_encoder(name: str, device: Any) -> LoadedEncoder:
    """The encoder, on a torch.device, for inference; of joined names the first, which holds the others.

    Weights that a name leads to are downloaded if need be. Raises one ModelError that names every encoder that cannot
    be loaded, or would be shown something else than its config says.
    """
    kept = _KEPT.get()
    key = (name, str(device), "" if kept is None else encoder_digest(name))
    if kept and key in kept:
        return kept[key]
    first, *others = call_for_each_encoder_name(name, lambda one: load_one_encoder(one, device))
    found = first._replace(others=tuple(others))
    if kept is not None:
        kept.clear()  # one encoder at a time stays in memory
        kept[key] = found
    return found


@contextmanager
def keeping_encoder_loaded() -> Iterator[None]:
    """Inside, the encoder that was loaded last in this thread is not loaded again while its files stay the same."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def load_one_encoder(name: str, device: Any) -> LoadedEncoder:
    """Load the encoder of a name without "+" (see `load_encoder`)."""
    folder, preprocessing = encoder_folder(name), preprocessing_of_one_encoder(name)
    weights = [path] if (path := architecture_and_file_from_encoder_name(name)[1]) else []
    before = sha256_of_files(weights)
    try:
        architecture, _, _ = name.partition(":")
        model, tokenizer = (
            load_timm_or_style_tower(name)
            if architecture in ("timm", "csd")
            else load_open_clip_model(name, preprocessing)
        )
    except Exception as error:
        raise ModelError(
            f"encoder={name} cannot be loaded: {hub.first_line_of_error(error)}",
            next_step=(error.next_step if isinstance(error, ModelError) else "") or hub.WITHOUT_NETWORK,
        ) from None
    if sha256_of_files(weights) != before:
        raise ModelError(f"encoder={name}: its weights changed while they were loaded")
    model.eval().requires_grad_(False).to(device)
    sha256 = files.canonical_sha256([digest_of_one_encoder(name), preprocessing.name])
    return LoadedEncoder(model, preprocessing, tokenizer, device, sha256, read_encoder_domain(folder), folder)


def load_open_clip_model(name: str, preprocessing: EncoderPreprocessing) -> tuple[Any, Any]:
    """An open_clip model and its tokenizer. The tokenizer is None where the weights are given by path and it cannot be
    loaded.
    """
    import open_clip

    folder, (architecture, path), settings = (
        encoder_folder(name),
        architecture_and_file_from_encoder_name(name),
        open_clip_configs(name)[1],
    )
    shown = {f"image_{key}": settings[key] for key in FULL if key in settings}
    if folder:
        source = f"local-dir:{folder}"
        model, _, preprocess = open_clip.create_model_and_transforms(source, **shown)  # type: ignore[misc]
        tokenizer = open_clip.get_tokenizer(source, context_length=model.context_length)  # type: ignore[arg-type]
    elif path:
        model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=str(path), **shown)  # type: ignore[misc]
        try:
            hub.go_offline_if_hub_unreachable()
            tokenizer = open_clip.get_tokenizer(architecture)
        except Exception:  # of the hub's client: such an encoder reads pictures, and no texts
            tokenizer = None
    else:
        architecture, pretrained = name.split(":")
        hub.go_offline_if_hub_unreachable()
        checkpoint = find_or_download_checkpoint(name, settings)
        before = sha256_of_files([checkpoint])
        model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=pretrained)  # type: ignore[misc]
        tokenizer = open_clip.get_tokenizer(architecture)
        if (find_or_download_checkpoint(name, settings), sha256_of_files([checkpoint])) != (checkpoint, before):
            raise ModelError(f"{checkpoint} changed while it was loaded")  # its digest would be of other weights
        record_checkpoint_location(name, checkpoint)
    if str(preprocess) != preprocessing.name:
        raise ModelError(f"open_clip prepares pictures by {preprocess}, not by {preprocessing.name}")
    return model, tokenizer


def load_timm_or_style_tower(name: str) -> tuple[Any, None]:
    """The image tower of a name that begins with timm: or csd:, and None in place of a tokenizer: it reads no texts."""
    from eval.measuring import towers

    architecture, weights = architecture_and_file_from_encoder_name(name)
    if architecture == "csd":
        assert weights is not None
        return towers.load_style_tower(weights), None
    kind = architecture.removeprefix("timm:")
    if not weights:
        weights = towers.find_or_download_timm_weights(kind)
        record_checkpoint_location(name, weights)
    return towers.load_timm_tower(kind, weights), None


class EmbeddingsAndPatches(NamedTuple):
    """What an encoder computes of n pictures; every row has length 1."""

    embeddings: NDArray[np.float32]  # [n, d]
    patches: NDArray[np.float16]  # [n, 2 * GRID * GRID * CHANNELS], or [n, 0] of a model that has none


def encode_pictures(encoder: LoadedEncoder, pixels: Sequence[NDArray[np.uint8]]) -> EmbeddingsAndPatches:
    """Embeddings and patches of n pictures, each resized and cropped as the encoder wants it: uint8 [h, w, 3].

    Patches are the tokens of the two blocks before the last (which gathers for the embedding what the patches knew),
    averaged to GRID x GRID places, their channels projected to CHANNELS by a fixed random matrix, which keeps distances
    (Johnson and Lindenstrauss 1984).
    """
    if not pixels:
        return EmbeddingsAndPatches(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float16))
    step = pictures_per_pass(encoder) or len(pixels)
    parts = [encode_in_one_pass(encoder, pixels[start : start + step]) for start in range(0, len(pixels), step)]
    return EmbeddingsAndPatches(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def pictures_per_pass(encoder: LoadedEncoder) -> int | None:
    """The most pictures that go through the model in one forward pass; None on an accelerator, which takes all at once.

    A CPU is fastest while its cache holds what passes between layers; of a large model that is a few pictures.
    """
    if encoder.device.type != "cpu":
        return None
    tokens = getattr(encoder.model.visual, "positional_embedding", None)  # [tokens, width]
    return max(1, ACTIVATIONS // (16 * tokens.numel())) if tokens is not None else FEW  # 4 times as wide, in fp32


def encode_in_one_pass(encoder: LoadedEncoder, pixels: Sequence[NDArray[np.uint8]]) -> EmbeddingsAndPatches:
    """What `encode_pictures` returns, of all pictures in one forward pass of the model."""
    import torch
    from torch.nn.functional import normalize

    mean, std = (
        torch.tensor(values, device=encoder.device).view(3, 1, 1)
        for values in (encoder.preprocessing.mean, encoder.preprocessing.std)
    )
    with torch.inference_mode():
        whole = torch.from_numpy(np.stack(pixels)).to(encoder.device).permute(0, 3, 1, 2).contiguous()
        shown = whole.float().div_(255).sub_(mean).div_(std)
        visual = encoder.model.visual
        try:
            made = visual.forward_intermediates(shown, indices=[-3, -2])
        except (AttributeError, AssertionError):  # a model that shows none, or has fewer
            embeddings = encoder.model.encode_image(shown)
            return EmbeddingsAndPatches(
                to_unit_length(embeddings.float().cpu().numpy()), np.zeros((len(pixels), 0), np.float16)
            )
        patches = [
            normalize(averaged_and_projected_patches(tokens.float()), dim=1) for tokens in made["image_intermediates"]
        ]
        embeddings = to_unit_length(made["image_features"].float().cpu().numpy())
        return EmbeddingsAndPatches(embeddings, normalize(torch.cat(patches, dim=1), dim=1).half().cpu().numpy())


def averaged_and_projected_patches(tokens: Any) -> Any:
    """[n, CHANNELS x places] one flat row for each picture: its tokens [n, c, h, w], projected to CHANNELS numbers and
    averaged to a square of at most GRID x GRID places.
    """
    import torch

    kernel = torch.from_numpy(fixed_random_channel_projection_matrix(tokens.shape[1])).to(tokens).T[..., None, None]
    projected = torch.nn.functional.conv2d(tokens, kernel)
    grid = min(GRID, *tokens.shape[2:])
    averaged = torch.nn.functional.adaptive_avg_pool2d(projected, grid) if max(tokens.shape[2:]) > grid else projected
    return averaged.flatten(1)


@lru_cache
def fixed_random_channel_projection_matrix(channels: int) -> NDArray[np.float32]:
    """[channels, CHANNELS] a random matrix, always the same for the same number of channels."""
    random = np.random.default_rng(channels)
    return (random.normal(size=(channels, CHANNELS)) / CHANNELS**0.5).astype(np.float32)


def encode_texts(encoder: LoadedEncoder, texts: list[str]) -> NDArray[np.float32]:
    """Unit embeddings [n, d] of n texts; texts beyond the context are cut."""
    import torch

    with torch.inference_mode():
        return to_unit_length(
            encoder.model.encode_text(encoder.tokenizer(texts).to(encoder.device)).float().cpu().numpy()
        )


def to_unit_length(vectors: NDArray) -> NDArray[np.float32]:
    """Vectors [..., d] scaled to length 1; zeros stay zeros."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
