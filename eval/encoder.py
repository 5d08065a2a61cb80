"""The open_clip model that scores: loading, encoding pictures and texts, and the domain it knows.

torch and open_clip are imported where they are used: what only names an encoder must not wait for them.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stylegate import files
from stylegate.errors import ModelError


class Domain(NamedTuple):
    """What an encoder was made for: domain.json and known.safetensors beside its weights."""

    side: int  # picture side in pixels
    max_distance: float  # cosine distance to the nearest known picture; beyond it a picture is foreign
    known: NDArray[np.float32]  # [n, d] unit embeddings of known pictures


class Encoder(NamedTuple):
    model: Any
    preprocess: Any
    tokenizer: Any
    device: Any  # torch.device
    sha256: str  # names weights and preprocessing in cache keys and records
    domain: Domain | None  # None: no limit is declared (a CLIP trained on the open web)
    folder: Path | None


def encoder_key(name: str) -> str:
    """What stands for the encoder in records, without loading it: the digest of its folder, or its open_clip name."""
    folder = folder_of(name)
    return files.folder_digest(folder, "*") if folder else name


def folder_of(name: str) -> Path | None:
    """The encoder's folder; None for open_clip's MODEL:PRETRAINED. Raises ModelError for anything else."""
    for folder in (files.MODELS / name / "clip", Path(name).expanduser()):
        if name and (folder / "open_clip_config.json").is_file():
            if not (folder / "open_clip_model.safetensors").is_file():
                raise ModelError(
                    f"encoder={name}: {folder} has no open_clip_model.safetensors (pickles are not opened)"
                )
            return folder.resolve()
    if re.fullmatch(r"[\w.-]+:[\w.-]+", name):
        return None
    raise ModelError(
        f"encoder={name} is neither a shipped name, nor an open_clip folder, nor MODEL:PRETRAINED",
        next_step="encoder=miniature, encoder=FOLDER, or encoder=ViT-L-14-quickgelu:openai.",
    )


def load(name: str, device: Any) -> Encoder:
    """Raises ModelError if the encoder cannot be loaded."""
    import open_clip

    folder = folder_of(name)
    try:
        if folder:
            source = f"local-dir:{folder}"
            model, _, preprocess = open_clip.create_model_and_transforms(source)  # type: ignore[misc]
            tokenizer = open_clip.get_tokenizer(source, context_length=model.context_length)  # type: ignore[arg-type]
        else:
            architecture, pretrained = name.split(":")
            model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=pretrained)  # type: ignore[misc]
            tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:
        raise ModelError(
            f"encoder={name} cannot be loaded: {error}", next_step="check the name, or the network."
        ) from None
    model.eval().requires_grad_(False).to(device)
    return Encoder(
        model,
        preprocess,
        tokenizer,
        device,
        files.digest([encoder_key(name), str(preprocess)]),
        domain_of(folder),
        folder,
    )


def domain_of(folder: Path | None) -> Domain | None:
    if not folder or not (folder / "domain.json").is_file():
        return None
    described = files.read_json(folder / "domain.json", "the encoder's domain", "side", "max_distance")
    try:
        known = load_file(folder / "known.safetensors")["known"].astype(np.float32)
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"the known pictures beside {folder} cannot be read: {error}") from None
    return Domain(described["side"], described["max_distance"], known)


def encode_pictures(encoder: Encoder, prepared: list[Any]) -> NDArray[np.float32]:
    """Unit embeddings [n, d] of pictures that went through `encoder.preprocess` (tensors [3, h, w])."""
    import torch

    if not prepared:
        return np.zeros((0, 0), np.float32)
    with torch.no_grad():
        return unit(encoder.model.encode_image(torch.stack(prepared).to(encoder.device)).float().cpu().numpy())


def encode_texts(encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    """Unit embeddings [n, d]; texts beyond the context are cut."""
    import torch

    with torch.no_grad():
        return unit(encoder.model.encode_text(encoder.tokenizer(texts).to(encoder.device)).float().cpu().numpy())


def unit(vectors: NDArray) -> NDArray[np.float32]:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
