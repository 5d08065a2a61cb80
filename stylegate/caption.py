"""Write captions for pictures that have none, by a vision-language model of transformers.

    stylegate caption images=DIR captioner=Salesforce/blip-image-captioning-base
    stylegate caption images=DIR captioner=./smolvlm ask="Say what is shown, without its style."

cat.png gets cat.png.txt. A picture that has a caption keeps it, whoever wrote it; so the same command goes on where it
was stopped. The model is a hub id or a folder; weights are read from safetensors alone, and no code that comes with a
model is run. Look at every caption: a sheet of pictures and captions is written to out=.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from stylegate import files, hardware, hub, pictures, progress, sheets
from stylegate.brand import pictures_and_captions_of_folder
from stylegate.brandset import CheckReport, raise_if_problems
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError, ModelError
from stylegate.listing import list_folder
from stylegate.words import counted

LONGEST = 80  # tokens of a caption
SHOWN = 96  # pictures on the sheet
SIDE = 256  # pixels of a picture on the sheet
BY_HAND = "Captions need no model: a CSV among the pictures, with the columns file_name and text, gives them too."


class Captioner(NamedTuple):
    """A vision-language model that writes captions, with its processor and the question that it is asked."""

    model: Any
    processor: Any
    ask: str  # for models that are spoken to; others have one task

    @torch.inference_mode()
    def generate_caption_of_picture(self, image: Image.Image) -> str:
        """What the model says of a picture, on one line; the same picture gives the same words."""
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image", "image": image}, {"type": "text", "text": self.ask}]
            inputs = self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            asked = inputs["input_ids"].shape[1]
        else:
            inputs, asked = self.processor(images=image, return_tensors="pt"), 0
        inputs = inputs.to(self.model.device, self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)[:, asked:]
        return " ".join(self.processor.batch_decode(tokens, skip_special_tokens=True)[0].split())


def caption_pictures(config: Config) -> int:
    """Write a text file with a model's caption beside each picture of images= that has none, and a sheet of all
    captions. Returns 0.

    Raises DataError that lists what cannot be read, before anything is written, and pictures of which the model says
    nothing, at the end.
    """
    if not config.images or not config.captioner:
        step = "stylegate caption images=DIR captioner=HUB_ID_OR_FOLDER"
        raise ConfigError("caption needs images= and captioner=", next_step=step)
    source = Path(config.images).expanduser().resolve()
    if not source.is_dir():
        raise DataError(f"images={config.images} is not a folder", next_step="name the folder of the pictures.")
    require_folder_of_captioner(config.captioner)
    out = Path(config.out).expanduser().resolve() if config.out else source.parent / f"{source.name}-captions.png"
    if out.is_relative_to(source):
        raise DataError(f"out={config.out} lies in the folder of the pictures", next_step="give another out=.")
    findings = CheckReport()
    found, given = pictures_and_captions_of_folder(source, list_folder(source), findings)
    if not found:
        raise DataError(f"{source} holds no pictures", next_step="name the folder that holds the pictures.")
    waiting = {name: path for name, path in found.items() if name not in given.by_picture}
    for name, path in found.items():  # those that have a caption too: the sheet shows them
        try:
            pictures.decode_picture(pictures.read_picture_file_bytes(path), config.background)
        except (pictures.PictureError, OSError) as error:
            findings.problems.append(f"{name}: {error}")
    raise_if_problems(source, findings)
    print(f"{counted(len(waiting), 'picture')} of {len(found)} without a caption")
    with files.exclusive_lock(source):
        silent = write_missing_captions(config, waiting) if waiting else []
    found, given = pictures_and_captions_of_folder(source, list_folder(source), CheckReport())
    rows = [
        (caption.first_caption, [pictures.decode_picture(found[name].read_bytes(), config.background).image])
        for name, caption in sorted(given.by_picture.items())[:SHOWN]
    ]
    if rows:
        page = sheets.draw_picture_grid_with_captions(("captions", "", ""), rows, SIDE)
        files.write_atomically(out, pictures.png_bytes(page))
        print(f"look at every caption: {files.display_path(out)}")
    if silent:
        raise DataError("the captioner says nothing of:", silent, "write these captions yourself.")
    return 0


def require_folder_of_captioner(name: str) -> None:
    """Raise ModelError if `name` can only be a folder, as it is no hub id, and there is none."""
    no_hub_id = name.startswith((".", "~", "/")) or name.endswith("/") or name.count("/") > 1
    if no_hub_id and not Path(name).expanduser().is_dir():
        step = f"name the folder of a model of transformers, or its hub id. {BY_HAND}"
        raise ModelError(f"captioner={name}: there is no folder {name}", next_step=step)


def write_missing_captions(config: Config, waiting: dict[str, Path]) -> list[str]:
    """Write cat.png.txt for each picture (path by name). Returns the names of those of which the model says nothing."""
    captioner, silent = load_captioner(config), []
    with progress.progress_bar("caption", len(waiting)) as tick:
        for name, path in waiting.items():
            image = pictures.decode_picture(path.read_bytes(), config.background).image
            text, target = captioner.generate_caption_of_picture(image), path.with_name(f"{path.name}.txt")
            if not text:
                silent.append(name)
            elif not target.exists():  # somebody may have written it meanwhile
                files.write_atomically(target, f"{text}\n")
            tick(1, "")
    return silent


def load_captioner(config: Config) -> Captioner:
    """Load the model that captioner= names, and its processor, onto the configured device. Raises ModelError if that
    fails, or if it has no weights in safetensors.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    name = str(config.captioner)
    path = Path(name).expanduser()
    if not path.is_dir():
        hub.go_offline_if_hub_unreachable()
    where, device = str(path) if path.is_dir() else name, hardware.set_threads_and_choose_device(config.hardware)
    dtype = hardware.weights_dtype(hardware.choose_fp32_or_bf16(config.hardware), device)
    try:
        processor = AutoProcessor.from_pretrained(where, trust_remote_code=False)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            where, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except Exception as error:  # whatever transformers raises for a name, a format, a missing package
        what = f"captioner={name} cannot be loaded: {hub.first_line_of_error(error)}"
        raise ModelError(what, next_step=f"{hub.WITHOUT_NETWORK} {BY_HAND}") from None
    return Captioner(model.to(device).eval(), processor, config.ask)
