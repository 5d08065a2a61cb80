"""Image towers that read no texts: timm's models, and a CLIP tower with a head for style (CSD, arXiv 2404.01292).

Weights come from safetensors alone, and each number of the model must be there. What a tower is shown is read from its
own architecture: timm's configuration, or CLIP's transform at the side that the weights were made for.
"""

import difflib
from pathlib import Path
from typing import Any

from open_clip.model import QuickGELU
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stylegate import hub
from stylegate.errors import ModelError

HEAD_WIDTH = 64  # of CLIP's attention
BACKBONE, STYLE_HEAD = "backbone.", "last_layer_style"  # names of tensors in CSD's checkpoint


class TimmTower(nn.Module):
    """A timm model without its classifier, with the methods of an open_clip model that the encoder calls."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def visual(self) -> "TimmTower":
        """The model itself: open_clip's models have their image tower under this name."""
        return self

    @property
    def positional_embedding(self) -> Tensor | None:
        """[tokens, width] of a transformer; None of other models."""
        found = getattr(self.model, "pos_embed", None)
        return None if found is None else found[0]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """The embeddings [n, d] of normalised pictures [n, 3, h, w]."""
        return self.model.forward_head(self.model.forward_features(pixels), pre_logits=True)

    def forward_intermediates(self, pixels: Tensor, indices: list[int]) -> dict[str, Any]:
        """The features [n, d] of pictures [n, 3, h, w], and the tokens [n, c, h, w] of the blocks `indices`, under
        open_clip's names. Raises AssertionError where these blocks have other numbers of places: the tower then shows
        no patches.
        """
        last, blocks = self.model.forward_intermediates(pixels, indices=indices, output_fmt="NCHW")
        assert len({block.shape for block in blocks}) == 1, "blocks of different sizes"
        return {"image_features": self.model.forward_head(last, pre_logits=True), "image_intermediates": blocks}


class StyleTower(nn.Module):
    """A CLIP image tower whose projection is CSD's head for style."""

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        self.visual = visual

    def encode_image(self, pixels: Tensor) -> Tensor:
        """The embeddings [n, d] of normalised pictures [n, 3, h, w]."""
        return self.visual(pixels)


def timm_config(architecture: str) -> Any:
    """timm's pretrained configuration of a model NAME or NAME.TAG. Raises ModelError for an unknown one."""
    import timm

    config = timm.get_pretrained_cfg(architecture)
    if not timm.is_model(architecture) or config is None:
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        raise ModelError(f"timm has no model {architecture}; near it: {', '.join(near) or 'none'}")
    return config


def timm_transform(architecture: str) -> Any:
    """The transform by which timm prepares PIL pictures for this model. Raises ModelError for an unknown one."""
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    settings = resolve_data_config(pretrained_cfg=timm_config(architecture).to_dict(), verbose=False)
    return create_transform(**settings, is_training=False)


def find_or_download_timm_weights(architecture: str) -> Path:
    """The file of a timm model's weights, downloaded from the hub if it is not here yet. Raises ModelError where
    the hub has none.
    """
    from huggingface_hub import hf_hub_download

    hub.go_offline_if_hub_unreachable()
    repository = timm_config(architecture).hf_hub_id
    if not repository:
        raise ModelError(f"timm has no weights of {architecture} on the hub", next_step="give timm:NAME:./FILE.")
    return Path(hf_hub_download(repository, "model.safetensors"))


def load_timm_tower(architecture: str, weights: Path) -> TimmTower:
    """The timm model with the weights of a file, for inference. Raises ModelError if they are another model's."""
    import timm

    model = timm.create_model(architecture, pretrained=False, num_classes=0)
    named = timm_config(architecture).classifier or ()
    classifier = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    tensors = {name: tensor for name, tensor in read_weight_tensors(weights).items() if not name.startswith(classifier)}
    load_weights_strictly(model, tensors, weights, architecture)
    return TimmTower(model)


def style_tower_image_and_patch_size(weights: Path) -> tuple[int, int]:
    """(side, patch): the side in pixels of the pictures that a file of CSD's weights was made for, and of their
    patches. Raises ModelError for other weights.
    """
    try:
        with safe_open(weights, "pt") as file:
            shapes = {name.removeprefix("module."): file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        patch = shapes[f"{BACKBONE}conv1.weight"][-1]
        places = shapes[f"{BACKBONE}positional_embedding"][0] - 1
        assert STYLE_HEAD in shapes and round(places**0.5) ** 2 == places
    except (OSError, SafetensorError, KeyError, IndexError, AssertionError) as error:
        raise ModelError(
            f"{weights} holds no style encoder ({error})",
            next_step=f"give safetensors of CSD's checkpoint: {BACKBONE}* and {STYLE_HEAD}.",
        ) from None
    return round(places**0.5) * patch, patch


def load_style_tower(weights: Path) -> StyleTower:
    """CSD's tower with the weights of a file; its sizes are those of the tensors. Raises ModelError for
    other weights.
    """
    side, patch = style_tower_image_and_patch_size(weights)
    tensors = {name.removeprefix("module."): tensor.float() for name, tensor in read_weight_tensors(weights).items()}
    inside = {name.removeprefix(BACKBONE): tensor for name, tensor in tensors.items() if name.startswith(BACKBONE)}
    width = inside["conv1.weight"].shape[0]
    visual = VisionTransformer(
        image_size=side,
        patch_size=patch,
        width=width,
        layers=len({name.split(".")[2] for name in inside if name.startswith("transformer.resblocks.")}),
        heads=max(1, width // HEAD_WIDTH),
        mlp_ratio=4.0,
        output_dim=tensors[STYLE_HEAD].shape[1],
        act_layer=QuickGELU,  # the tower is OpenAI's
    )
    load_weights_strictly(visual, inside | {"proj": tensors[STYLE_HEAD]}, weights, "CSD")
    return StyleTower(visual)


def read_weight_tensors(weights: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises ModelError if it cannot be read."""
    try:
        return load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{weights} cannot be read as safetensors: {error}") from None


def load_weights_strictly(model: nn.Module, tensors: dict[str, Tensor], weights: Path, name: str) -> None:
    """Load the tensors into the model. Raises ModelError if one is missing, too many, or of another shape."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{weights} holds no weights of {name}: {str(error).splitlines()[-1].strip()}") from None
