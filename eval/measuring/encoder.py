"""The model that scores: loading, encoding pictures and texts, and the domain it knows. Names of encoders are

    miniature                                  the shipped one
    ./FOLDER                                   a folder of open_clip's
    ViT-L-14-quickgelu:openai                  MODEL:PRETRAINED, which open_clip downloads
    ViT-B-16-SigLIP2:./FILE.safetensors        open_clip's MODEL, with the weights of a file
    timm:NAME, timm:NAME:./FILE.safetensors    an image tower of timm's (eval/measuring/towers.py)
    csd:./FILE.safetensors                     a CLIP tower with a head for style
    miniature+csd:./FILE.safetensors           several: the first makes every score, all of them read the brand

Pictures are prepared as the architecture's own values say. torch, open_clip and timm are imported where they are used:
what only names an encoder must not wait for them.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.lot.batch import RECORD, read_existing_batch_record
from eval.measuring.domain import EncoderDomain, read_encoder_domain
from eval.measuring.weights import (
    checkpoint_digest_or_unique_text,
    checkpoint_file_or_download,
    record_checkpoint_location,
)
from stylegate import brandset, files, hub
from stylegate.config import Config
from stylegate.digests import sha256_of_files
from stylegate.errors import ModelError

ACTIVATIONS, FEW = 20_000_000, 8  # bytes at once on a CPU, in the widest layer; pictures of a model without tokens
DEFAULT = "miniature"  # the shipped encoder
FULL = {"mean", "std", "interpolation", "resize_mode"}  # settings that say how pictures are prepared
WITH_FILE = r"((?:timm:)?[\w.-]+):([~./].*)"  # a name that leads to a file of weights
GRID, CHANNELS = 8, 64  # places a side, numbers a place, that are kept of an encoder's patches

Made = TypeVar("Made")
_KEPT: ContextVar[dict[tuple[str, str, str], "LoadedEncoder"] | None] = ContextVar("kept encoders", default=None)


class EncoderPreprocessing(NamedTuple):
    """What an encoder is shown of a picture: open_clip's transform, cut where uint8 becomes float.

    The first half is done once a picture and can be kept; the second is done a batch at a time, on the device. Together
    they give the transform's own bits (tests/eval/test_encoder.py).
    """

    geometry: Any  # torchvision transforms on PIL pictures: resize and crop
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str  # the whole transform, as it prints itself

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture, resized and cropped for the encoder: uint8 [h, w, 3]."""
        return np.asarray(self.geometry(image))


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
    def sha256_of_all(self) -> str:
        """The digest of the weights and preprocessing of this encoder and of the others."""
        every = [self.sha256, *(one.sha256 for one in self.others)]
        return files.canonical_sha256(every) if self.others else self.sha256


def encoder_name(config: Config) -> str:
    """The name of the encoder that judges: encoder=, else that of the brand's brand.yaml, else DEFAULT.

    The brand is that of brand=, of the batch, or of references= where these are a brand set.
    """
    if config.encoder:
        return config.encoder
    folder = None
    record = files.BATCHES / config.batch / RECORD if config.batch else None
    if brand := config.brand or (
        read_existing_batch_record(record.parent).words.brand if record and record.exists() else None
    ):
        folder = brandset.brand_folder(brand)
    elif config.references:
        folder = files.resolve_name(config.references, files.BRANDS, "references")
    known = folder is not None and (folder / "brand.yaml").is_file()
    return (brandset.read_brand_file(folder).encoder if folder and known else "") or DEFAULT


def split_encoder_names(name: str) -> list[str]:
    """The names of the encoders that `name` joins by +, each once. A path that exists is one name, even with a + in
    it.
    """
    found = re.fullmatch(WITH_FILE, name)
    path = found[2] if found else name
    if files.is_path(path) and Path(path).expanduser().exists():
        return [name]
    return list(dict.fromkeys(name.split("+")))


def results_for_each_encoder(name: str, make: Callable[[str], Made]) -> list[Made]:
    """What `make` returns for each of the joined names. Raises one ModelError that names every encoder that fails."""
    made, failed = [], []
    for one in split_encoder_names(name):
        try:
            made.append(make(one))
        except ModelError as error:
            failed.append(error)
    if failed and not made and len(failed) == 1:
        raise failed[0]
    if failed:
        listing = [f"{error.summary} {error.next_step}".strip() for error in failed]
        raise ModelError(f"encoder={name}: encoders that cannot be used:", listing, "leave them out, or mend them.")
    return made


def encoder_name_without_folders(name: str) -> str:
    """The encoder's name for people elsewhere: each path in it is cut to the name of the folder or file that it leads
    to.
    """

    def without_folder(one: str) -> str:
        found = re.fullmatch(WITH_FILE, one)
        return f"{found[1]}:{Path(found[2]).name}" if found else Path(one).name if files.is_path(one) else one

    return "+".join(map(without_folder, split_encoder_names(name)))


def encoder_digest(name: str) -> str:
    """The digest of the weights and settings of all encoders of this name, found without loading them.

    Raises ModelError if one is no encoder. While the weights are not known here, the digest differs at every call
    (eval/measuring/weights.py).
    """
    found = results_for_each_encoder(name, digest_of_one_encoder)
    return found[0] if len(found) == 1 else files.canonical_sha256(found)


def digest_of_one_encoder(name: str) -> str:
    """The `encoder_digest` of a name of one encoder, without "+"."""
    if folder := encoder_folder(name):
        return files.folder_digest(folder, "*")
    architecture, weights = architecture_and_weights_file(name)
    return (
        files.canonical_sha256([architecture, *sha256_of_files([weights])])
        if weights
        else checkpoint_digest_or_unique_text(name)
    )


def architecture_and_weights_file(name: str) -> tuple[str, Path | None]:
    """What stands before a file of weights in an encoder's name, and the file; the name and None if it names no file.

    Raises ModelError for a file that is missing or no safetensors.
    """
    found = re.fullmatch(WITH_FILE, name)
    if not found:
        return name, None
    path = Path(found[2]).expanduser().resolve()
    if path.suffix != ".safetensors" or not path.is_file():
        raise ModelError(f"encoder={name}: {found[2]} is no file of safetensors (pickles are not opened)")
    return found[1], path


def encoder_folder(name: str) -> Path | None:
    """The folder of a shipped encoder, or of one that is given as a path; None for the other forms of a name.

    Raises ModelError for what is no name of an encoder.
    """
    if architecture_and_weights_file(name)[1]:
        return None
    folder = Path(name).expanduser() if files.is_path(name) else files.MODELS / name / "clip"
    if name and (folder / "open_clip_config.json").is_file():
        if not (folder / "open_clip_model.safetensors").is_file():
            raise ModelError(f"encoder={name}: {folder} has no open_clip_model.safetensors (pickles are not opened)")
        return folder.resolve()
    if re.fullmatch(r"[\w.-]+:[\w.-]+", name):
        return None
    raise ModelError(
        f"encoder={name} is neither a shipped name, nor an open_clip folder, nor MODEL:PRETRAINED",
        next_step=files.path_advice(name)
        or "encoder=miniature, ./FOLDER, ViT-L-14-quickgelu:openai, MODEL:./FILE.safetensors, timm:NAME, or "
        "csd:./FILE.safetensors.",
    )


def open_clip_configs(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's configs of the model and of its preprocessing, without its weights. Raises ModelError for unknown
    models or weights.

    A name whose activation is not the one that its weights were trained with is refused: open_clip only warns, and
    scores move by tenths (OpenAI's weights want QuickGELU).
    """
    import open_clip

    if folder := encoder_folder(name):
        config = files.read_json(folder / "open_clip_config.json", "the encoder's config", "model_cfg")
        model, stated = config["model_cfg"], config.get("preprocess_cfg") or {}
        if stated.keys() >= FULL:
            return model, stated
        known = ((n, open_clip.get_model_config(n) or {}) for n in open_clip.list_models())
        like = [n for n, known_config in known if known_config.get("vision_cfg") == model.get("vision_cfg")]
        return model, (preprocessing_of_architecture(like[0]) if like else {}) | stated
    architecture, tag = name.split(":", 1)
    if architecture_and_weights_file(name)[1] and (model := open_clip.get_model_config(architecture)):
        return model, preprocessing_of_architecture(architecture)
    model, weights = open_clip.get_model_config(architecture), open_clip.get_pretrained_cfg(architecture, tag)
    if model is None:
        near = difflib.get_close_matches(architecture, open_clip.list_models(), 3)
        raise ModelError(f"encoder={name}: open_clip has no model {architecture}; near it: {', '.join(near) or 'none'}")
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ModelError(f"encoder={name}: open_clip has no weights {tag} for {architecture}; there are {tags}")
    if bool(weights.get("quick_gelu")) != bool(model.get("quick_gelu")):
        wanted = f"{architecture}-quickgelu" if weights.get("quick_gelu") else architecture.removesuffix("-quickgelu")
        raise ModelError(
            f"encoder={name}: these weights were trained with {'QuickGELU' if weights.get('quick_gelu') else 'GELU'}, "
            f"the model has the other activation",
            next_step=f"encoder={wanted}:{tag}.",
        )
    return model, weights


def preprocessing_of_architecture(architecture: str) -> dict[str, Any]:
    """How the pictures of an open_clip architecture are prepared: what all its published weights have in common.

    open_clip itself takes CLIP's mean, deviation and crop for weights that are given by path, whatever the model is.
    Empty for an architecture without published weights. Raises ModelError where they differ among themselves.
    """
    import open_clip

    quick = bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu"))
    tags = [
        open_clip.get_pretrained_cfg(architecture, t) for t in open_clip.list_pretrained_tags_by_model(architecture)
    ]
    known = [{key: tag[key] for key in sorted(FULL)} for tag in tags if bool(tag.get("quick_gelu")) == quick]
    if any(one != known[0] for one in known):
        raise ModelError(
            f"the weights of {architecture} are prepared for in different ways, so their file alone does not say how",
            next_step="give MODEL:PRETRAINED, or a folder whose open_clip_config.json has a preprocess_cfg.",
        )
    return known[0] if known else {}


def picture_transform_of(name: str) -> Any:
    """The whole transform of PIL pictures that the encoder is made for. Raises ModelError for what is no name of an
    encoder.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    architecture, weights = architecture_and_weights_file(name)
    if architecture.startswith("timm:") or architecture == "csd":
        from eval.measuring import towers

        if architecture != "csd":
            return towers.timm_transform(architecture.removeprefix("timm:"))
        assert weights is not None
        settings, side = {}, towers.style_tower_sizes(weights)[0]
    else:
        model, settings = open_clip_configs(name)
        side = (model.get("vision_cfg") or {}).get("image_size", 224)
    size = tuple(side) if isinstance(side, list | tuple) else (side, side)
    whole: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(), settings) | {"size": size}
    return image_transform_v2(PreprocessCfg(**whole), is_train=False)


def encoder_preprocessing(name: str) -> EncoderPreprocessing:
    """How pictures are prepared for the first encoder of this name, found without loading any. Raises ModelError naming
    all encoders that fail.
    """
    return results_for_each_encoder(name, preprocessing_of_one_encoder)[0]


def preprocessing_of_one_encoder(name: str) -> EncoderPreprocessing:
    """The `encoder_preprocessing` of a name of one encoder, without "+"."""
    transform = picture_transform_of(name)
    *geometry, to_tensor, normalize = transform.transforms
    assert "ToTensor" in type(to_tensor).__name__ and type(normalize).__name__ == "Normalize", transform
    mean, std = (tuple(float(value) for value in values) for values in (normalize.mean, normalize.std))
    return EncoderPreprocessing(type(transform)(geometry), mean, std, str(transform))


def load_encoder(name: str, device: Any) -> LoadedEncoder:
    """The encoder, on a torch.device, for inference; of joined names the first, which holds the others.

    Weights that a name leads to are downloaded if need be. Raises one ModelError that names every encoder that cannot
    be loaded, or would be shown something else than its config says.
    """
    kept = _KEPT.get()
    key = (name, str(device), "" if kept is None else encoder_digest(name))
    if kept and key in kept:
        return kept[key]
    first, *others = results_for_each_encoder(name, lambda one: load_one_encoder(one, device))
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
    weights = [path] if (path := architecture_and_weights_file(name)[1]) else []
    before = sha256_of_files(weights)
    try:
        architecture, _, _ = name.partition(":")
        model, tokenizer = (
            load_image_tower(name) if architecture in ("timm", "csd") else load_open_clip_model(name, preprocessing)
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
        architecture_and_weights_file(name),
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
        checkpoint = checkpoint_file_or_download(name, settings)
        before = sha256_of_files([checkpoint])
        model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=pretrained)  # type: ignore[misc]
        tokenizer = open_clip.get_tokenizer(architecture)
        if (checkpoint_file_or_download(name, settings), sha256_of_files([checkpoint])) != (checkpoint, before):
            raise ModelError(f"{checkpoint} changed while it was loaded")  # its digest would be of other weights
        record_checkpoint_location(name, checkpoint)
    if str(preprocess) != preprocessing.name:
        raise ModelError(f"open_clip prepares pictures by {preprocess}, not by {preprocessing.name}")
    return model, tokenizer


def load_image_tower(name: str) -> tuple[Any, None]:
    """The image tower of a name that begins with timm: or csd:, and None in place of a tokenizer: it reads no texts."""
    from eval.measuring import towers

    architecture, weights = architecture_and_weights_file(name)
    if architecture == "csd":
        assert weights is not None
        return towers.load_style_tower(weights), None
    kind = architecture.removeprefix("timm:")
    if not weights:
        weights = towers.timm_weights(kind)
        record_checkpoint_location(name, weights)
    return towers.load_timm_tower(kind, weights), None


class EmbeddingsAndPatches(NamedTuple):
    """What an encoder computes of n pictures; every row has length 1."""

    embeddings: NDArray[np.float32]  # [n, d]
    patches: NDArray[np.float16]  # [n, 2 * GRID * GRID * CHANNELS], or [n, 0] of a model that has none


def encode_pictures(encoder: LoadedEncoder, pixels: Sequence[NDArray[np.uint8]]) -> EmbeddingsAndPatches:
    """Embeddings and patches of n pictures, each as `encoder.preprocessing.pixels` gives it: uint8 [h, w, 3].

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

    kernel = torch.from_numpy(patch_projection_matrix(tokens.shape[1])).to(tokens).T[..., None, None]
    projected = torch.nn.functional.conv2d(tokens, kernel)
    grid = min(GRID, *tokens.shape[2:])
    averaged = torch.nn.functional.adaptive_avg_pool2d(projected, grid) if max(tokens.shape[2:]) > grid else projected
    return averaged.flatten(1)


@lru_cache
def patch_projection_matrix(channels: int) -> NDArray[np.float32]:
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
