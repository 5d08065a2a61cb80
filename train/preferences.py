"""What a run with `objective=dpo` begins with: its pairs, and the LoRA that it goes on from (train/step.py trains)."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from stylegate import files, lorafile
from stylegate.brandset import BrandPicture, BrandSet
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError, ModelError
from stylegate.preferenceset import PreferenceSet, read_preference_set, require_pairs_of_brand


class RunTrainingPictures(NamedTuple):
    """The pictures that a run learns from, and what run.json records of them."""

    pictures: list[BrandPicture]  # of pairs the chosen ones, then the rejected ones in the same order
    facts: dict[str, str | None]
    remarks: list[str]
    start: Path | None  # the LoRA file that training goes on from; None for a new LoRA
    base_sha256: str | None  # digest of the base that drew the pairs; None without pairs

    def require_pairs_drawn_with_base(self, sha256: str) -> None:
        """Raise DataError if the pairs were drawn with another base than the one with this digest."""
        if self.base_sha256 not in (None, sha256):
            drew = str(self.base_sha256)[:12]
            raise DataError(
                f"the preferences were drawn with the base {drew}..., the arguments name {sha256[:12]}...",
                next_step="give the arguments of the batch (base=, hardware.nf4=).",
            )


def training_pictures_of_run(config: Config, brand_set: BrandSet) -> RunTrainingPictures:
    """The pictures that a run learns from: train/ of the brand set, or with `preferences=` the pictures of its pairs.
    Needs no model.

    Raises ConfigError if no set is named where one is needed, DataError for one that cannot be used or is of another
    brand, and ModelError if the LoRA that drew the pictures is not there.
    """
    if config.objective.name == "dpo" and config.preferences is None:
        raise ConfigError(
            "objective=dpo learns from a preference set, and none is named",
            next_step="preferences=DIR; stylegate preferences makes one of a judged batch.",
        )
    if config.preferences is None:
        return RunTrainingPictures(brand_set.splits["train"], {}, [], None, None)
    found = read_preference_set(config.preferences)
    remarks = require_pairs_of_brand(found, brand_set)
    start = starting_lora_path(config.objective.start, found)
    digest = lorafile.lora_file_digest(start) if start else None
    if digest != found.record.lora_sha256:
        remarks.append("training begins with another LoRA than the one that drew the pairs (objective.start)")
    facts = {"preferences": found.record.sha256, "start": digest}
    return RunTrainingPictures(found.chosen_then_rejected_pictures(), facts, remarks, start, found.record.base_sha256)


def starting_lora_path(named: str | None, found: PreferenceSet) -> Path | None:
    """The LoRA file that training begins with: `named`, else the one that drew the pairs; None to begin with the base
    alone.

    Raises ModelError if it is not there.
    """
    if named == "none" or (named is None and found.record.lora_sha256 is None):
        return None
    if named is not None:
        path = Path(named).expanduser().resolve()
        path = lorafile.lora_file_in_peft_folder(path) if path.is_dir() else path
        lorafile.load_tensors_and_metadata(path)
        return path
    for path in sorted((files.RUNS / (found.record.run or "") / "lora").glob("*.safetensors")):
        if files.sha256_of_file(path) == found.record.lora_sha256:
            return path
    where = f"checkpoints/{found.record.run}/lora/" if found.record.run else "a file that its batch was told"
    raise ModelError(
        f"the LoRA that drew the pairs (sha256 {str(found.record.lora_sha256)[:12]}..., {where}) is not there any more",
        next_step="objective.start=FILE names a LoRA to begin with; objective.start=none begins with the base.",
    )


def load_starting_lora(adapted: nn.ModuleDict, start: Path | None) -> list[Tensor]:
    """Load the LoRA file `start`, if any, into the adapter. Returns copies of the trained parameters, in order: the
    reference that dpo compares with.

    Raises ModelError if the file's LoRA has another form than the config says.
    """
    if start:
        lorafile.load_lora_into_adapters(start, adapted)
    return [parameter.detach().clone() for parameter in adapted.parameters() if parameter.requires_grad]
