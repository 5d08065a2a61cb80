"""Finding and loading a diffusers pipeline of any family, from safetensors only; what is wrong is one error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTokenizer

from stylegate import files
from stylegate.errors import ModelError


def locate(base: str, family: str, pipeline: type) -> Path:
    """Folder of a shipped name, a path or a hub id (downloaded once). Raises ModelError for another family's."""
    shipped = files.MODELS / base / family
    folder = shipped if base and shipped.is_dir() else Path(base).expanduser()
    if not folder.exists() and base.count("/") == 1 and not base.startswith((".", "~", "/")):
        try:
            folder = Path(pipeline.download(base, use_safetensors=True))  # type: ignore[attr-defined]
        except Exception as error:  # network, name, licence not accepted: whatever the hub client raises
            raise ModelError(f"base={base}: neither a folder nor a hub model at hand: {error}") from None
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"base={base} is not a diffusers pipeline: {index} is missing",
            next_step="base=miniature, a folder saved with save_pretrained, or a hub id.",
        )
    kind = files.read_json(index, "the base's index", "_class_name")["_class_name"]
    if kind != pipeline.__name__:
        raise ModelError(f"base={base} is a {kind}, family={family} takes a {pipeline.__name__}")
    return folder.resolve()


def load(
    folder: Path, pipeline: Any, parts: Sequence[str], device: torch.device, dtype: torch.dtype, **told: Any
) -> Any:
    """The pipeline with its `parts` frozen, without progress bars. Raises ModelError for what is missing or broken."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        loaded = pipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, **told)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"base={files.shown(folder)} cannot be loaded: {reason}", next_step="copy or download the base again."
        ) from None
    loaded.set_progress_bar_config(disable=True)
    loaded.to(device)
    for part in parts:
        getattr(loaded, part).requires_grad_(False)
    return loaded


def clip_lengths(folder: Path, captions: Sequence[str]) -> tuple[int, list[int]]:
    """A CLIP text encoder's limit, and each caption's length in its tokens, start and end included."""
    limit_key = "max_position_embeddings"
    limit = files.read_json(folder / "text_encoder" / "config.json", "the text encoder's config", limit_key)[limit_key]
    transformers.logging.set_verbosity_error()  # it warns of long captions in words of its own
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"base={files.shown(folder)}: its tokenizer cannot be loaded: {reason}") from None
    return limit, [len(tokenizer(caption).input_ids) for caption in captions]
