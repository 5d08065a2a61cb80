"""Which encoder a name means: its files, its digest, and how it wants pictures prepared. Names are

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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.lot.batch import RECORD, read_existing_batch_record
from eval.measuring.weights import checkpoint_digest_or_unique_text
from stylegate import brandset, files
from stylegate.config import Config
from stylegate.digests import sha256_of_files
from stylegate.errors import ModelError

DEFAULT = "miniature"  # the shipped encoder
FULL = {"mean", "std", "interpolation", "resize_mode"}  # settings that say how pictures are prepared
WITH_FILE = r"((?:timm:)?[\w.-]+):([~./].*)"  # a name that leads to a file of weights
Made = TypeVar("Made")


class EncoderPreprocessing(NamedTuple):
    """What an encoder is shown of a picture: open_clip's transform, cut where uint8 becomes float.

    The first half is done once a picture and can be kept; the second is done a batch at a time, on the device. Together
    they give the transform's own bits (tests/eval/test_encoder.py).
    """

    geometry: Any  # torchvision transforms on PIL pictures: resize and crop
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str  # the whole transform, as it prints itself

    def resized_and_cropped_pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture, resized and cropped for the encoder: uint8 [h, w, 3]."""
        return np.asarray(self.geometry(image))


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
        folder = files.resolve_name_or_path(config.references, files.BRANDS, "references")
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


def call_for_each_encoder_name(name: str, make: Callable[[str], Made]) -> list[Made]:
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

    def one_encoder_name_without_folder(one: str) -> str:
        found = re.fullmatch(WITH_FILE, one)
        return f"{found[1]}:{Path(found[2]).name}" if found else Path(one).name if files.is_path(one) else one

    return "+".join(map(one_encoder_name_without_folder, split_encoder_names(name)))


def encoder_digest(name: str) -> str:
    """The digest of the weights and settings of all encoders of this name, found without loading them.

    Raises ModelError if one is no encoder. While the weights are not known here, the digest differs at every call
    (eval/measuring/weights.py).
    """
    found = call_for_each_encoder_name(name, digest_of_one_encoder)
    return found[0] if len(found) == 1 else files.canonical_sha256(found)


def digest_of_one_encoder(name: str) -> str:
    """The `encoder_digest` of a name of one encoder, without "+"."""
    if folder := encoder_folder(name):
        return files.folder_digest(folder, "*")
    architecture, weights = architecture_and_file_from_encoder_name(name)
    return (
        files.canonical_sha256([architecture, *sha256_of_files([weights])])
        if weights
        else checkpoint_digest_or_unique_text(name)
    )


def architecture_and_file_from_encoder_name(name: str) -> tuple[str, Path | None]:
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
    if architecture_and_file_from_encoder_name(name)[1]:
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
        next_step=files.advice_to_write_dot_slash(name)
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
    if architecture_and_file_from_encoder_name(name)[1] and (model := open_clip.get_model_config(architecture)):
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

    architecture, weights = architecture_and_file_from_encoder_name(name)
    if architecture.startswith("timm:") or architecture == "csd":
        from eval.measuring import towers

        if architecture != "csd":
            return towers.timm_transform(architecture.removeprefix("timm:"))
        assert weights is not None
        settings, side = {}, towers.style_tower_image_and_patch_size(weights)[0]
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
    return call_for_each_encoder_name(name, preprocessing_of_one_encoder)[0]


def preprocessing_of_one_encoder(name: str) -> EncoderPreprocessing:
    """The `encoder_preprocessing` of a name of one encoder, without "+"."""
    transform = picture_transform_of(name)
    *geometry, to_tensor, normalize = transform.transforms
    assert "ToTensor" in type(to_tensor).__name__ and type(normalize).__name__ == "Normalize", transform
    mean, std = (tuple(float(value) for value in values) for values in (normalize.mean, normalize.std))
    return EncoderPreprocessing(type(transform)(geometry), mean, std, str(transform))


def encoder_name_with_absolute_path(name: str) -> str:
    """The encoder's name with absolute paths, which then means the same in every working directory."""

    def absolute_name_of_one_encoder(one: str) -> str:
        architecture, weights = architecture_and_file_from_encoder_name(one)
        if weights:
            return f"{architecture}:{weights}"
        return str(Path(one).expanduser().resolve()) if files.is_path(one) else one

    return "+".join(map(absolute_name_of_one_encoder, split_encoder_names(name)))
