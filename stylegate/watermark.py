"""A watermark in the pixels of pictures that are drawn here: put in before they are judged, read again when they leave.

The weights are TrustMark's encoder and decoder, as one safetensors file that you name (docs/package.md says how to make
it). Nothing is downloaded and nothing is unpickled: both are what the package `trustmark` would do by itself.
"""

import hashlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from PIL import Image

from stylegate import files
from stylegate.errors import ConfigError

BITS = 61  # that TrustMark's most robust kind of error correction but one leaves of its 100
INSTALL = "pip install 'stylegate[watermark]' installs it; its weights you bring yourself (docs/package.md)."
MAKE = "docs/package.md says how TrustMark's weights become one safetensors file."


class Watermark(Protocol):
    """Puts bits into the pixels of a picture, and reads them again."""

    sha256: str  # of the weights

    def embed_bits(self, image: Image.Image, bits: str) -> Image.Image:
        """The picture, RGB or RGBA, with BITS bits, a text of 0 and 1, in its colours; alpha stays as it is."""
        ...

    def read_bits(self, image: Image.Image) -> str:
        """The bits in a picture, RGB or RGBA; "" where none are found."""
        ...


def watermark_bit_string(base_sha256: str | None, lora_sha256: str | None, seed: int) -> str:
    """The BITS bits that a drawn picture carries, a text of 0 and 1: the first of a sha256 over base, LoRA and seed.

    So the record of a picture, which has these three, tells the bits.
    """
    digest = hashlib.sha256(f"{base_sha256 or ''}\n{lora_sha256 or ''}\n{seed}\n".encode()).digest()
    return "".join(f"{byte:08b}" for byte in digest)[:BITS]


def watermark_weights_digest(path: str | None) -> str:
    """The sha256 of the weights that `watermark=` names; "" without any. Raises ConfigError if there is no file."""
    return files.sha256_of_file(watermark_weights_path(path)) if path else ""


def watermark_weights_path(path: str) -> Path:
    """The file of TrustMark's weights that `path`, the value of `watermark=`, names; ~ is the home folder. Raises
    ConfigError if there is no such file.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise ConfigError(f"watermark={path}: there is no such file", next_step=MAKE)
    return found


@cache
def load_watermark(path: str) -> Watermark:
    """The watermark with the weights in the file `path`; each file is loaded once.

    Raises ConfigError if they cannot be read, or trustmark is not installed.
    """
    file = watermark_weights_path(path)
    try:
        return TrustMarkWatermark(file)
    except ImportError as error:
        raise ConfigError(f"watermark={path} needs a package: {error}", next_step=INSTALL) from None
    except Exception as error:  # safetensors and torch have many for a file that is not what it should be
        raise ConfigError(f"watermark={path} does not hold TrustMark's weights: {error}", next_step=MAKE) from None


class TrustMarkWatermark:
    """TrustMark (Bui, Agarwal and Collomosse, ICCV 2025) with weights from one safetensors file, on the CPU."""

    def __init__(self, file: Path) -> None:
        from safetensors.torch import load_file
        from trustmark import TrustMark  # type: ignore[import-not-found]

        self.sha256, weights = files.sha256_of_file(file), load_file(file)
        parts = {"encoder": trustmark_encoder_with_weights(weights), "decoder": trustmark_decoder_with_weights(weights)}

        class TrustMarkWithoutDownload(TrustMark):
            """TrustMark as it is, but for the method that downloads weights and unpickles them."""

            def load_model(self, *_: Any, part: str = "all") -> Any:
                return parts[part]

        self.trustmark = TrustMarkWithoutDownload(
            verbose=False, device="cpu", model_type="Q", encoding_type=TrustMark.Encoding.BCH_5, loadRemover=False
        )

    def embed_bits(self, image: Image.Image, bits: str) -> Image.Image:
        """The picture, RGB or RGBA, with the mark in its colours; alpha stays as it is."""
        marked = self.trustmark.encode(image.convert("RGB"), bits, MODE="binary")
        if image.mode == "RGBA":
            marked.putalpha(image.getchannel("A"))
        return marked

    def read_bits(self, image: Image.Image) -> str:
        bits, found, _ = self.trustmark.decode(image, MODE="binary")
        return bits if found else ""


def trustmark_encoder_with_weights(weights: dict[str, Any]) -> Any:
    """TrustMark's encoder with its weights loaded, of the size that they have, in the form that TrustMark calls.

    The result is a function of (cover, bits) that returns the marked picture and its difference to the cover.
    """
    import torch
    from trustmark.unet import Unet1  # type: ignore[import-not-found]

    mine = weights_under_prefix("encoder.", weights)
    blocks = {name.split(".")[1] for name in mine if name.startswith("middle.")}
    width, bits = mine["pre.conv.weight"].shape[0], mine["secret2image.dense.weight"].shape[1]
    unet = Unet1(secret_len=bits, width=width, nmiddle=len(blocks), activ="silu")
    unet.load_state_dict(mine)
    unet.eval()

    class TrustMarkEncoder:
        device = torch.device("cpu")

        def __call__(self, cover: Any, secret: Any) -> tuple[Any, Any]:
            marked = unet(cover, secret)
            return marked, marked - cover

    return TrustMarkEncoder()


def trustmark_decoder_with_weights(weights: dict[str, Any]) -> Any:
    """TrustMark's decoder with its weights loaded, a ResNet of 18 or 50 layers by what they are, in the form that
    TrustMark calls.
    """
    import torch
    from trustmark.unet import SecretDecoder  # type: ignore[import-not-found]

    mine = weights_under_prefix("decoder.", weights)
    arch = "resnet50" if "decoder.layer1.0.conv3.weight" in mine else "resnet18"
    decoder = SecretDecoder(arch, secret_len=mine["decoder.fc.weight"].shape[0])
    decoder.load_state_dict(mine)
    return SimpleNamespace(decoder=decoder.eval(), device=torch.device("cpu"))


def weights_under_prefix(prefix: str, weights: dict[str, Any]) -> dict[str, Any]:
    """The weights whose names begin with `prefix`, by the rest of their names. Raises ValueError without any."""
    found = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"it has no weights {prefix}*")
    return found
