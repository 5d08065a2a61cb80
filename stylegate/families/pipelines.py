"""Finding and loading a diffusers pipeline of any family, from safetensors only; what is wrong is one error."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from transformers import CLIPTokenizer

from stylegate import basename, files, hub
from stylegate.errors import ConfigError, ModelError
from stylegate.families.base import LoadedBaseModel
from stylegate.pictures import CORES

WEIGHTS = re.compile(r"(model|diffusion_pytorch_model)(-\d+-of-\d+)?\.safetensors")  # no variant, such as fp16
DOWNLOAD_AGAIN = "copy or download the base again."
PLAIN = ["*.json", "*.txt", "*.md", "*.model", "*.jinja"]  # all of a pipeline but its weights


def find_base_folder(base: str, family: str, pipeline: Any, weights: bool) -> Path:
    """The folder of a base: a shipped name, a path (files.is_path), or a hub id, which is downloaded.

    A hub id is downloaded once into the hub's cache, without `weights` all but the weights. Raises ModelError if there
    is nothing of that name, and if it belongs to another family.
    """
    folder = basename.local_base_folder_path(base, family)
    if named := basename.parse_hub_id(base):
        name, revision = named
        hub.go_offline_if_hub_unreachable()
        try:
            if weights:
                folder = Path(pipeline.download(name, revision=revision, use_safetensors=True))
            else:
                folder = Path(snapshot_download(name, revision=revision, allow_patterns=PLAIN))
        except Exception as error:  # network, name, licence not accepted: whatever the hub client raises
            raise ModelError(
                f"base={base}: neither a folder nor a hub model at hand: {hub.first_line_of_error(error)}",
                next_step=f"{hub.WITHOUT_NETWORK} A gated model wants its licence accepted there, and `hf auth login`.",
            ) from None
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"base={base} is not a diffusers pipeline: {index} is missing",
            next_step=files.advice_to_write_dot_slash(base)
            or "base=miniature, the path of a folder saved with save_pretrained, or a hub id.",
        )
    kind = files.read_json(index, "the base's index", "_class_name")["_class_name"]
    if kind != pipeline.__name__:
        raise ModelError(
            f"base={base} is a {kind}, family={family} takes a {pipeline.__name__}",
            next_step="give the family of this base, or a base of this family.",
        )
    return folder.resolve()


def load_pipeline(
    folder: Path, pipeline: Any, parts: Sequence[str], device: torch.device, dtype: torch.dtype, **told: Any
) -> Any:
    """Load the pipeline of the class `pipeline` in `folder` to `device`; its `parts`, by name, are frozen. Its
    libraries print no progress and no warnings from then on.

    The autoencoder stays in fp32: SDXL's overflows in fp16, and it is small. `told` are further arguments of the class.
    Raises ModelError for what is missing or broken.
    """
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        kinds = {"default": dtype, "vae": torch.float32}
        loaded = pipeline.from_pretrained(folder, dtype=kinds, use_safetensors=True, **told)
    except Exception as error:
        reason = hub.first_line_of_error(error)
        raise ModelError(
            f"base={files.display_path(folder)} cannot be loaded: {reason}", next_step=DOWNLOAD_AGAIN
        ) from None
    loaded.set_progress_bar_config(disable=True)
    loaded.to(device)
    for part in filter(None, (getattr(loaded, name) for name in parts)):
        part.requires_grad_(False)
    decode = loaded.vae.decode

    def decode_without_autocast(latents: torch.Tensor, *given: Any, **named: Any) -> Any:
        with torch.autocast(latents.device.type, enabled=False):
            return decode(latents.to(loaded.vae.dtype), *given, **named)

    loaded.vae.decode = decode_without_autocast  # also where the pipeline draws in bf16
    return loaded


def weights_digest(folder: Path) -> str:
    """sha256 over what the pipeline reads of a folder: its index, and the config and weights of each component (all
    files of a component without weights).

    Not over what else lies there: a hub's folder gets other variants and notes when other programs fetch them.
    """
    index = files.read_json(folder / "model_index.json", "the base's index", "_class_name")
    found = [folder / "model_index.json"]
    for name, kind in sorted(index.items()):
        if isinstance(kind, list) and kind and kind[0] and (folder / name).is_dir():
            own = sorted(p for p in (folder / name).iterdir() if p.is_file())
            weights = [p for p in own if WEIGHTS.fullmatch(p.name.removesuffix(".index.json"))]
            found += [p for p in own if p.name == "config.json"] + weights if weights else own
    with ThreadPoolExecutor(CORES) as pool:  # tens of gigabytes, of which a core hashes one or two a second
        digests = list(pool.map(files.sha256_of_file, found))
    return files.canonical_sha256(
        [[path.relative_to(folder).as_posix(), digest] for path, digest in zip(found, digests, strict=True)]
    )


def text_encoders(pipeline: Any) -> list[Any]:
    """The text encoders of a pipeline, in the order of its components."""
    return [part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part]


def quantise_to_four_bits(models: LoadedBaseModel, device: torch.device) -> LoadedBaseModel:
    """Quantise the linear layers of the denoiser's blocks to NF4 (arXiv 2305.14314); returns `models` with a new
    sha256.

    The denoiser is changed in place: it must be in main memory, and is moved to `device`. Raises ConfigError without
    bitsandbytes.
    """
    layer_of, weight_of = bitsandbytes_classes()
    dtype: Any = models.denoiser.dtype
    for block in transformer_blocks_to_quantise(models.denoiser):
        for parent in list(block.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is torch.nn.Linear:
                    small = layer_of(layer.in_features, layer.out_features, layer.bias is not None, dtype)
                    small.weight = weight_of(layer.weight.data, requires_grad=False, quant_type="nf4")
                    small.bias = layer.bias
                    setattr(parent, name, small)
    models.denoiser.to(device)
    return models._replace(sha256=digest_of_base_in_4_bits(models.sha256))


def transformer_blocks_to_quantise(denoiser: torch.nn.Module) -> list[torch.nn.Module]:
    """The denoiser's modules whose class is called ...TransformerBlock: those that hardware.nf4 quantises."""
    return [module for module in denoiser.modules() if type(module).__name__.endswith("TransformerBlock")]


def bitsandbytes_classes() -> tuple[Any, Any]:
    """bitsandbytes' class of a linear layer in 4 bits, and that of its weight. Raises ConfigError if it is not
    installed.
    """
    try:
        from bitsandbytes.nn.modules import Linear4bit, Params4bit
    except ImportError:
        raise ConfigError(
            "hardware.nf4=true needs bitsandbytes, which is not installed",
            next_step="pip install -e '.[optimizers]', or hardware.nf4=false.",
        ) from None
    return Linear4bit, Params4bit


def digest_of_base_in_4_bits(sha256: str) -> str:
    """The digest that stands for a base in 4 bits, from the sha256 of the base."""
    return files.canonical_sha256([sha256, "nf4"])


def build_on_meta_device(kind: Any, config: dict[str, Any]) -> Any:
    """A model of the class `kind` from its config, on torch's meta device: shapes alone, without weights."""
    with torch.device("meta"):
        model = kind.from_config(config)
    model.requires_grad_(False)
    return model


def clip_token_limit_and_lengths(folder: Path, captions: Sequence[str]) -> tuple[int, list[int]]:
    """The most tokens that a CLIP text encoder reads, and each caption's number of tokens, start and end included."""
    limit_key = "max_position_embeddings"
    limit = files.read_json(folder / "text_encoder" / "config.json", "the text encoder's config", limit_key)[limit_key]
    transformers.logging.set_verbosity_error()  # it warns of long captions in words of its own
    tokenizer = load_tokenizer(CLIPTokenizer, folder / "tokenizer")
    return limit, [len(tokenizer(caption).input_ids) for caption in captions]


def load_tokenizer(kind: Any, folder: Path) -> Any:
    """The tokenizer of the class `kind` in `folder`, a part of a base. Raises ModelError if it cannot be loaded."""
    try:
        return kind.from_pretrained(folder)
    except Exception as error:
        raise ModelError(
            f"base={files.display_path(folder.parent)}: its tokenizer cannot be loaded: "
            f"{hub.first_line_of_error(error)}",
            next_step=DOWNLOAD_AGAIN,
        ) from None
