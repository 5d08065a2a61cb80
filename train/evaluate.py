"""What a checkpoint is worth: fixed prompts and seeds are drawn, and the gate judges the pictures.

The references are the pictures of validation/, and those of train/ as well where validation/ is too small to show a
style. samples/step-000100/ holds with/ (captions of validation/), without/ (a few of them without the trigger phrase),
unrelated/ (prompts that have nothing to do with the brand), judged/ (the gate's own files) and result.json, the
numbers. samples/grid.png shows all steps. Step 0 is the base: the LoRA changes nothing yet. Its pictures in with/ are
foreign pictures for every step (eval/scorers/brand.py). All of these are previews, of few denoising steps: they compare
checkpoints (tests/bench/previews.py). What is handed out is judged by pictures of as many denoising steps as
`generate` draws, in samples/handed-out/.

A policy may have a calibrated check, whose threshold comes from people's labels of a finished batch. It cannot be asked
during training. Pictures that every other check accepts then stand in review, and no pass rate is claimed.
"""

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eval.judging.judge import judge, write_verdicts_and_gate_record
from eval.judging.judged import JudgedLot
from eval.judging.verdicts import NOT_ASKED
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.comparison import base_pictures_as_foreign_set
from eval.lot.lot import read_lot, sha256_by_name
from eval.measuring import encoder as encoding
from eval.measuring import encodername
from eval.measuring.features import cached_features_of_files
from eval.measuring.record import OF_BASE
from eval.policy import file as policyfile
from eval.policy import model as policy
from eval.policy.lines import MIN_REFERENCES
from eval.scorers import style
from stylegate import files, hardware, pictures, progress, sample, sheets, similarity
from stylegate.config import Config, config_as_dict
from stylegate.configgroups import GenerateConfig
from train import batches, losses, sharding
from train.encoded import autoencoder_input_pixels
from train.run import LiveTrainingRun
from train.weights import (
    copy_lora_weights_to_other_base,
    merging_lora_on_cpu_temporarily,
    setting_lora_strength_temporarily,
    with_averaged_weights,
)

FINAL = "handed-out"  # folder in samples/ of the pictures of what is handed out
SHOWN = 4  # rows of the grid
APART = 4  # pictures without the trigger phrase, and unrelated ones
UNRELATED = ["a lighthouse on a rock", "a bowl of fruit on a table", "a red bicycle", "a portrait of an old man"]
FAR_SEED = 1_000_000  # unrelated pictures are drawn from seeds far from all others
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the noise schedule at which the validation loss is computed


class Evaluator:
    """Carries out the evaluations of one run, and reads their results. Every process calls `evaluate`, and each draws
    its share of the pictures.

    `average` are the averaged weights, one tensor for each trained parameter, or empty where nothing is averaged.

    Checkpoints and strengths are compared by previews, pictures of `train.preview_steps` denoising steps. The `final`
    evaluation is that of what is handed out: its pictures have as many steps as those of `generate`.
    """

    def __init__(self, run: LiveTrainingRun, average: Sequence[Tensor], final: bool = False):
        self.run, self.average, self.final = run, average, final
        self.drawn_with = run.config.generate if final else preview_settings(run.config)
        self.samples: Path = run.directory / "samples"
        self.base_folder = preview_evaluation_folder(run.directory, 0, 1.0)  # of what the base alone draws
        brand, items = run.brand_set.brand, run.brand_set.splits["validation"]
        count = run.config.train.num_samples if items else 0
        shown = items if len(items) >= MIN_REFERENCES else [*items, *run.brand_set.splits["train"]]
        self.references = [(item.file, run.brand_set.folder / item.file) for item in shown]
        self.policy = policyfile.read_policy(run.config.policy)
        judges = [encodername.encoder_digest(encodername.encoder_name(run.config)), self.policy.sha256, OF_BASE]
        self.settings = config_as_dict(self.drawn_with) | ({"base": run.drawing.sha256} if run.config.draw_base else {})
        self.latents: dict[int, Tensor] = {}  # of pictures of validation/, by number, which are encoded once
        self.items = [items[i % len(items)] for i in range(count)]
        # Pictures of one caption may look alike, as attempts at one slot of a batch.
        self.groups = {f"{i}.png": i % len(items) for i in range(count)} if len(items) < count else None
        judges += [len(shown), self.settings, *([self.groups] if self.groups else [])]
        self.judged_by = files.canonical_sha256(judges)
        bare = [item.text.replace(brand.trigger, "").strip(" ,") for item in self.items[:APART]]
        self.prompts = {
            "with": [brand.prompt_with_trigger(item.text) for item in self.items],
            "without": bare,
            "unrelated": UNRELATED[: len(bare)],
        }

    def folder_of_evaluation(self, step: int, scale: float = 1.0) -> Path:
        """The folder of the evaluation of `step` with the LoRA at strength `scale`."""
        return self.samples / FINAL if self.final else preview_evaluation_folder(self.run.directory, step, scale)

    def read_evaluation_result_or_none(self, step: int, scale: float = 1.0) -> dict[str, Any] | None:
        """The content of result.json of `step` at strength `scale`; None if it is missing, or was made with another
        number of prompts or references, encoder, policy, base or other settings of `generate`.
        """
        record = self.folder_of_evaluation(step, scale) / "result.json"
        found = files.read_json(record, "an evaluation", "passed", "prompts") if record.exists() else {"prompts": 0}
        fits = found["prompts"] == len(self.items) and found.get("judged_by") == self.judged_by
        fits = fits and (found["step"], found["scale"]) == (step, scale)  # FINAL may be of another checkpoint
        return found if self.items and fits else None

    def finished_results(self) -> list[dict[str, Any]]:
        """The finished evaluations at strength 1, in the order of their steps."""
        return [found for found in map(self.read_evaluation_result_or_none, self.folders_by_step()) if found]

    def folders_by_step(self) -> dict[int, Path]:
        """The folders of the evaluations at strength 1, finished or not, by step; the steps rise."""
        numbers = {path.name.removeprefix("step-"): path for path in self.samples.glob("step-*")}
        return {step: numbers[name] for step, name in sorted((int(n), n) for n in numbers if n.isdecimal())}

    def seconds_of_all_evaluations(self) -> float:
        """Seconds that all evaluations of this directory have cost, those of earlier starts included."""
        found = (files.read_json(p, "an evaluation") for p in self.run.directory.rglob("samples/*/result.json"))
        return round(sum(result.get("seconds", 0.0) for result in found), 1)

    @torch.no_grad()
    def evaluate(self, step: int, lora_strength: float = 1.0) -> None:
        """Draw and judge pictures with the present weights, which are those of `step`, and the LoRA at strength
        `lora_strength`; write result.json.

        Does nothing if that evaluation exists. Step 0 is the base: the LoRA's strength is 0.
        """
        accelerator, folder, began = (
            self.run.accelerator,
            self.folder_of_evaluation(step, lora_strength),
            time.perf_counter(),
        )
        needed = [bool(self.items) and not self.read_evaluation_result_or_none(step, lora_strength)]
        broadcast_object_list(needed)  # what rank 0 sees on the disk holds for all
        if not needed[0]:
            return
        if accelerator.is_main_process:
            self.remove_pictures_of_other_settings(folder, step, lora_strength)
        accelerator.wait_for_everyone()
        with ExitStack() as weights:
            weights.enter_context(with_averaged_weights(self.run.adapted, self.average))
            copy_lora_weights_to_other_base(self.run.adapted, self.run.drawing_adapted)
            for adapted in {id(a): a for a in (self.run.adapted, self.run.drawing_adapted)}.values():
                weights.enter_context(setting_lora_strength_temporarily(adapted, lora_strength if step else 0.0))
                weights.enter_context(merging_lora_on_cpu_temporarily(adapted))
            self.draw_missing_samples(folder, lora_strength)
            each = (
                validation_losses_by_noise_level(self.run, self.latents)
                if lora_strength == 1.0 and not self.final
                else None
            )
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            loss = float(np.mean(list(each.values()))) if each else None
            found = {
                "step": step,
                "scale": lora_strength,
                **self.make_evaluation_result(folder),
                "eval_loss": loss,
                "eval_losses": each,
            }
            files.write_json(folder / "result.json", found | {"seconds": round(time.perf_counter() - began, 1)})
        accelerator.wait_for_everyone()

    def remove_pictures_of_other_settings(self, folder: Path, step: int, scale: float) -> None:
        """Remove pictures that were drawn with other steps, guidance, batch size, checkpoint or strength; drawn.json
        says with which, and is then written anew. Pictures of prompts that are not drawn any more are removed, too.
        """
        record, settings = folder / "drawn.json", self.settings | ({"step": step, "scale": scale} if self.final else {})
        if not record.exists() or files.read_json(record, "what an evaluation was drawn with") != settings:
            for part in self.prompts:
                shutil.rmtree(folder / part, ignore_errors=True)
            files.write_json(record, settings)
        for part, prompts in self.prompts.items():  # `train.num_samples` was larger
            for path in (folder / part).glob("*.png"):
                if path.stem.isdecimal() and int(path.stem) >= len(prompts):
                    path.unlink()

    def draw_missing_samples(self, folder: Path, scale: float) -> None:
        """Draw the sample pictures that are not in `folder` yet; each process draws its share, and as many as the
        others (train/sharding.py).

        At `scale` 1 these are with/, without/ and unrelated/, at any other strength, and of the final evaluation, with/
        alone. The caller has set the LoRA's strength.
        """
        run, settings = self.run, self.drawn_with
        jobs = [
            (folder / part / f"{i}.png", prompt, i + (FAR_SEED if part == "unrelated" else 0))
            for part, prompts in self.prompts.items()
            for i, prompt in enumerate(prompts if part == "with" or (scale == 1.0 and not self.final) else [])
        ]
        seen = [[number for number, (path, _, _) in enumerate(jobs) if not path.exists()]]
        broadcast_object_list(seen)  # what rank 0 sees on the disk holds for all
        missing = [jobs[number] for number in seen[0]]
        mine = sharding.padded_work_indices_of_process(len(missing), run.accelerator)
        resolution = sample.drawing_resolution(run.config, run.drawing)
        with (
            hardware.autocast_to_bf16(run.accelerator.device, run.precision),
            progress.progress_bar("evaluate", len(mine), visible=run.accelerator.is_main_process) as tick,
        ):
            for start in range(0, len(mine), settings.batch_size):
                some = mine[start : start + settings.batch_size]
                paths, prompts, seeds = zip(*(missing[i or 0] for i in some), strict=True)
                drawn = sample.draw_pictures(run.drawing, prompts, seeds, settings, resolution)
                for i, path, image in zip(some, paths, drawn, strict=True):
                    if i is not None:
                        files.write_atomically(path, pictures.png_bytes(image))
                tick(len(some), f"samples/{folder.name}")

    def make_evaluation_result(self, folder: Path) -> dict[str, Any]:
        """Measure and judge the pictures in `folder`. Returns the content of result.json but for step, strength, loss
        and time: verdicts, style with and without the trigger phrase, drift, distance to the nearest training picture.
        """
        references = self.embed_pictures(self.references)
        bare, base, now = (
            self.embed_pictures([(path.name, path) for path in pictures.find_pictures(place)])
            for place in (folder / "without", self.base_folder / "unrelated", folder / "unrelated")
        )
        enough = len(references) >= MIN_REFERENCES
        moved = (1 - (base * now).sum(1)) / 2 if len(now) else np.zeros(0)
        found: dict[str, Any] = {
            "prompts": len(self.items),
            "judged_by": self.judged_by,
            "verdicts": None,  # of each prompt's picture, where there are enough references to judge by
            "passed": None,  # a bool for each prompt; None where a calibrated check was not asked
            "undecided": None,  # then, and where the style cannot be read: whether every other check accepts it
            "why": {"review": {policy.TOO_FEW: len(self.items)}},
            "style": None,  # mean over the prompts
            "styles": None,  # of each prompt's picture
            "style_of_references": None,  # their mean, each by the others
            "style_spread": None,  # of the references
            "style_without_trigger": mean_if_finite(style.score(bare, references)) if enough and len(bare) else None,
            "drift": mean_if_finite(moved),  # 0 = as the base draws them, up to 1; as PEFT's image benchmark
            "nearest_training": None,
        }
        if enough:
            judged = self.judge_with_gate(folder)
            found |= self.verdicts_as_result_json_fields(judged)
            own = style.leave_one_out(references)
            table = {name: [row[name] for row in judged.scores.rows] for name in ("file", "style", "novelty")}
            found |= {
                "style": mean_if_finite(np.array(table["style"], np.float64)),
                "styles": [table["style"][table["file"].index(f"{i}.png")] for i in range(len(self.items))],
                "style_of_references": mean_if_finite(own),
                "style_spread": policy.score_spread("style", own),
                "nearest_training": math.exp(min(table["novelty"])),  # the score is its logarithm
            }
        return found

    def judge_with_gate(self, folder: Path) -> JudgedLot:
        """Let the gate judge the pictures in with/; its files are written into judged/. Returns the judged lot."""
        paths = {"images": str(folder / "with"), "out": str(folder / "judged"), "references": None, "batch": None}
        config = replace(self.run.config, **paths)
        lot = replace(read_lot(config), groups=self.groups)
        compared = comparison_pictures_with_decided_ones(config, lot)
        foreign = compared.foreign | base_pictures_as_foreign_set(self.base_folder / "with")
        compared = replace(compared, references=self.references, references_name="the brand's own", foreign=foreign)
        judged = judge(config, lot, compared, quiet=True)
        write_verdicts_and_gate_record(judged)
        return judged

    def verdicts_as_result_json_fields(self, judged: JudgedLot) -> dict[str, Any]:
        """The fields of result.json with one value a prompt: `verdicts`, `passed` (not with a calibrated policy) and,
        with a calibrated policy or where the style cannot be read, `undecided`; and `why`, the gate's reason.
        """
        by_file = {row.file: row for row in judged.verdicts}
        each = [by_file[f"{i}.png"] for i in range(len(self.items))]
        found = {"verdicts": [row.verdict for row in each], "why": judged.outcome.why}
        if not self.policy.calibrated_score_name:
            found["passed"] = [row.verdict == "accept" for row in each]
            held_back_by = [{reason.check for reason in row.reasons if reason.verdict != "warn"} for row in each]
            unread = any(policy.UNREADABLE in checks for checks in held_back_by)
            return found | ({"undecided": [checks <= {policy.UNREADABLE} for checks in held_back_by]} if unread else {})
        return found | {"undecided": [any(reason.check == NOT_ASKED for reason in row.reasons) for row in each]}

    @cached_property
    def encoder(self) -> encoding.LoadedEncoder:
        """The encoder that judges, loaded at the first use."""
        return encoding.load_encoder(encodername.encoder_name(self.run.config), self.run.accelerator.device)

    def embed_pictures(self, named: list[tuple[str, Path]]) -> NDArray[np.float32]:
        """Unit vectors [pictures, width] of the encoder, of pictures that are given as (name, path)."""
        ground, size = self.run.brand_set.brand.background, self.run.config.score.batch_size
        return cached_features_of_files(named, sha256_by_name(named), self.encoder, ground, size, "")[0].embeddings

    def write_sample_grid(self) -> Image.Image:
        """Write and return samples/grid.png: a row for each of the first prompts, a column for each step."""
        columns = self.folders_by_step()
        titles = [f"step {step}" if step else "base" for step in columns]
        shown = self.prompts["with"][:SHOWN]
        rows = [(p, [picture_or_blank(c / "with" / f"{i}.png") for c in columns.values()]) for i, p in enumerate(shown)]
        grid = sheets.draw_picture_grid_with_captions(titles, rows)
        files.write_atomically(self.samples / "grid.png", pictures.png_bytes(grid))
        return grid


def folder_of_final_or_preview_pictures(directory: Path, step: int, scale: float) -> Path:
    """The folder of the pictures of this checkpoint and strength that were drawn with the settings of `generate`; where
    there are none, that of the previews.
    """
    final = directory / "samples" / FINAL
    record = final / "drawn.json"
    drawn = files.read_json(record, "what an evaluation was drawn with") if record.exists() else {}
    return (
        final
        if (drawn.get("step"), drawn.get("scale")) == (step, scale)
        else preview_evaluation_folder(directory, step, scale)
    )


def preview_evaluation_folder(directory: Path, step: int, scale: float) -> Path:
    """The folder of the previews of `step` with the LoRA at strength `scale`, in the run's directory."""
    return directory / "samples" / (f"step-{step:06d}" + (f"-scale-{scale:g}" if scale != 1.0 else ""))


def preview_settings(config: Config) -> GenerateConfig:
    """The settings that previews are drawn with: those of `generate`, with at most `train.preview_steps` denoising
    steps.
    """
    steps = min(config.train.preview_steps, config.generate.num_inference_steps)
    return replace(config.generate, num_inference_steps=steps)


def validation_losses_by_noise_level(run: LiveTrainingRun, latents: dict[int, Tensor]) -> dict[str, float]:
    """Mean loss on the first pictures of validation/, as many as are drawn, at fixed noise, by noise level: "0.1" is a
    tenth of the schedule.

    Each process computes its share of the pictures; all return the same numbers. `latents` are those of pictures that
    were encoded before, [1, c, h, w] by number; the others are added.
    """
    family, models, schedule = run.family, run.models, run.models.schedule
    brand, device = run.brand_set.brand, run.accelerator.device
    resolution = sample.drawing_resolution(run.config, models)
    total = torch.zeros(len(LEVELS) + 1, device=device)  # the sum of losses of each level, then the number of pictures
    items = run.brand_set.splits["validation"][: run.config.train.num_samples]
    with sample.moving_text_encoders_to_device(models):
        for own in sharding.padded_work_indices_of_process(len(items), run.accelerator):
            i = own or 0
            if i not in latents:
                pixels = autoencoder_input_pixels(items[i], brand, models.draws_alpha, resolution, resolution)
                latents[i] = family.encode_to_latent_mean_and_deviation(models, pixels)[0].float().to(device)
            clean = latents[i].expand(len(LEVELS), -1, -1, -1)
            noise = torch.randn(clean.shape, generator=batches.seeded_generator(i, batches.EVALUATION)).to(device)
            levels = torch.tensor([int(share * len(schedule.signal)) for share in LEVELS], device=device)
            prompt = family.encode_prompts(models, [brand.prompt_with_trigger(items[i].text)])
            conditions = {name: values.expand(len(LEVELS), *values.shape[1:]) for name, values in prompt.items()}
            with hardware.autocast_to_bf16(device, run.precision):
                noisy = losses.add_noise(schedule, clean, noise, levels)
                predicted = family.predict(models, models.denoiser, noisy, levels, conditions)
            each = losses.loss_per_picture(
                predicted.float(), losses.prediction_target(schedule, clean, noise, levels), None
            )
            if own is not None:
                total += torch.cat([each, torch.ones(1, device=device)])
    total = run.accelerator.reduce(total, "sum")
    return {f"{level:g}": float(value / total[-1]) for level, value in zip(LEVELS, total[:-1], strict=True)}


def mean_if_finite(values: NDArray) -> float | None:
    """The mean, rounded to four decimals; None of no values, or if one is not finite."""
    return round(float(np.mean(values)), 4) if len(values) and np.isfinite(values).all() else None


def picture_or_blank(path: Path) -> Image.Image:
    """The picture at `path`, or an empty one if it is missing or damaged (the number of samples was raised later)."""
    try:
        return pictures.decode_picture(path.read_bytes()).image
    except (OSError, pictures.PictureError):
        return Image.new("RGB", (similarity.SIDE, similarity.SIDE), sheets.PAPER)
