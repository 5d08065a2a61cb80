"""Draw the open slots of a plan: those without a picture, and those whose last picture was rejected.

    stylegate generate brand=neon traits=collectible
    accelerate launch --num_processes 8 -m eval generate brand=neon traits=collectible    the same, on several cards

Reads plan.parquet and verdicts.jsonl of the batch; writes images/<slot>-<attempt>.png and base/, what the base alone
draws (eval/lot/base.py). Every attempt has its own seed. Stopped and started again it draws what is missing, and the
pictures are the same; so they are from any number of processes, on devices of one kind.
"""

import hashlib
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState

from eval.lot.attempts import SlotAttempts, advice_on_exhausted_slots, due_attempts, slot_attempts
from eval.lot.base import draw_base_pictures
from eval.lot.batch import (
    PLAN,
    RECORD,
    PlanSlot,
    attempt_and_slot,
    attempt_names,
    batch_folder,
    has_picture,
    read_existing_batch_record,
    read_plan,
    traits_or_prompts_digest,
)
from eval.lot.drawn import begin_drawn, note_drawn
from eval.measuring import encoder as encoding
from eval.measuring import features
from stylegate import brandset, files, hardware, lorafile, pictures, progress, sample
from stylegate.basename import base_that_draws
from stylegate.config import Config
from stylegate.embedded import read_each_prompt_once
from stylegate.errors import DataError, ExitCode
from stylegate.families import FAMILIES, pipelines
from stylegate.watermark import load_watermark, watermark_bits


def generate(config: Config, first_slots: int | None = None) -> int:
    """Draw what is due; of several processes each draws its share of it.

    With `first_slots` only the first attempts at so many slots are drawn, for a trial.

    Returns 0; 11 if nothing is due, slots are missing, and only a person can fill them.
    """
    folder, _ = batch_folder(config)
    images, size = folder / "images", config.generate.batch_size
    processes = hardware.launched_processes(config.hardware)
    main, rank, world = processes.is_main_process, processes.process_index, processes.num_processes
    with files.exclusive_lock(folder) if main else nullcontext():
        processes.wait_for_everyone()  # until the folder is locked
        standing = read_batch_progress(folder, config.plan.max_attempts)
        due = [
            (slot, attempt)
            for slot, attempt in standing.due
            if first_slots is None or (attempt == 0 and slot.slot < first_slots)
        ]
        parts = [due[i : i + size] for i in range(0, len(due), size)]
        # A part is drawn whole: the number drawn together can change last bits.
        parts = [part for part in parts if not all(has_picture(images, slot, attempt) for slot, attempt in part)]
        if main and parts:
            begin_drawn(folder, of_earlier_version=read_existing_batch_record(folder).precision is not None)
        processes.wait_for_everyone()  # until all have seen what exists
        if parts[rank::world]:
            draw_in_parts(parts[rank::world], images, config, folder, processes, standing)
        processes.wait_for_everyone()  # until all is drawn
    if not main:
        return ExitCode.PASS
    there = set(attempt_names(images))
    new = len(there - standing.judged)
    told = f"; not judged yet: {new} (stylegate gate, with the same arguments)" if new else ""
    print(f"generate: {sum(map(len, parts))} drawn, {len(there)} in {files.display_path(images)}{told}")
    if due or standing.filled >= standing.wanted or not standing.exhausted:
        return ExitCode.PASS
    for line in advice_on_exhausted_slots(standing.exhausted, standing.states):
        print(line)
    return ExitCode.REVIEW


class BatchProgress(NamedTuple):
    """The progress of a batch by its verdicts so far: which slots are filled, and what is still to be drawn."""

    states: SlotAttempts
    due: list[tuple[PlanSlot, int]]  # (slot, attempt) to draw now
    exhausted: list[int]  # slots whose attempts are all used
    judged: set[str]  # file names of the pictures that have a verdict
    accepted: int  # pictures that are accepted
    filled: int  # slots that have an accepted picture
    wanted: int  # slots that must have one

    def state_in_words(self, drawn: int, seconds_each: float, price_per_hour: float | None) -> str:
        """The state in a few words, after `drawn` pictures of this round at `seconds_each`; a price is of an hour."""
        if not self.judged:
            return "not judged yet"
        filled = f"{self.filled} of {self.wanted} slots filled"
        if not self.accepted:
            return f"{filled}, none of {len(self.judged)} judged pictures accepted"
        share = self.accepted / len(self.judged)
        each = seconds_each / share
        left = max((self.wanted - self.filled) / share - drawn, 0.0) * seconds_each
        money = "" if price_per_hour is None else f" and {price_per_hour * each / 3600:.2g} in money"
        cost = f"{each:.3g} s{money} for each accepted picture"
        return f"{filled}, {share:.0%} accepted, {cost}, all slots in {left:.0f} s"


def read_batch_progress(folder: Path, max_attempts: int) -> BatchProgress:
    """The progress of the batch in a folder. Raises DataError if it has no plan, or its verdicts cannot be read."""
    rows = files.read_jsonl(folder / "verdicts.jsonl", "file", "verdict")
    states = slot_attempts((row["file"], row["verdict"]) for row in rows)
    good = [row["file"] for row in rows if row["verdict"] == "accept"]
    slots = read_plan(folder)
    return BatchProgress(
        states,
        due_attempts(slots, states, max_attempts),
        states.exhausted(max_attempts),
        {row["file"] for row in rows},
        len(good),
        len({attempt_and_slot(file)[1] for file in good}),
        read_existing_batch_record(folder).wanted if (folder / RECORD).exists() else len(slots),
    )


def digests_of_plan_and_its_source(folder: Path, config: Config) -> tuple[str, str | None]:
    """Digests of plan.parquet and of the traits or prompts file that the plan was made from."""
    return files.sha256(folder / PLAN), traits_or_prompts_digest(config)


def stop_if_plan_changed(folder: Path, config: Config, planned: tuple[str, str | None]) -> None:
    """Raises DataError where the plan, or the file it was made from, is not what it was when drawing began."""
    for before, now, what in zip(
        planned, digests_of_plan_and_its_source(folder, config), ("plan", "traits or prompts file"), strict=True
    ):
        if before != now:
            raise DataError(
                f"the {what} was changed while {files.display_path(folder)} was drawn; the pictures so far are kept",
                next_step="stylegate plan with the same arguments and batch= keeps what still fits; then generate.",
            )


def draw_in_parts(
    parts: list[list[tuple[PlanSlot, int]]],
    images: Path,
    config: Config,
    folder: Path,
    processes: PartialState,
    standing: BatchProgress,
) -> None:
    """Load base and LoRA once and draw the attempts, part by part, into `images`; an existing file is kept unchanged.

    The main process writes batch.json and shows progress. Features for scoring are computed while a picture is in
    memory, so that scoring need not decode it.
    """
    shown = encoding.encoder_preprocessing(
        encoding.encoder_name(config)
    )  # a wrong name is said before anything is drawn
    planned = digests_of_plan_and_its_source(folder, config)
    device, family = torch.device(str(processes.device)), FAMILIES[config.family.name]
    record = read_existing_batch_record(folder)
    drawn_with = replace(config.generate, **record.facts.generate.content())  # a trial may have chosen others
    precision = record.precision or hardware.precision_of(config.hardware)  # a batch keeps what it began in
    models = family.load(base_that_draws(config), torch.device("cpu"), hardware.weights_dtype(precision, device))
    if config.hardware.nf4:
        models = pipelines.quantise_to_four_bits(models, device)
    brand = brandset.read_brand_file(brandset.brand_folder(config.brand)) if config.brand else None
    models = models._replace(background=brand.drawn_background() if brand else None)
    background = brand.background if brand else "#ffffff"
    models.pipeline.to(device)
    resolution = sample.drawing_resolution(config, models)
    mark = load_watermark(config.watermark) if config.watermark else None
    if lora := lorafile.lora_file_for_drawing(config):
        if processes.is_main_process:
            with hardware.autocast_to_bf16(device, precision):
                slots = read_plan(folder)
                draw_base_pictures(models, record.facts, slots, folder, drawn_with, (resolution, precision))
        lorafile.merge_lora_file(models, lora)
    read_each_prompt_once(models.pipeline)
    if processes.is_main_process:
        told = {"precision": precision, "size": resolution, "max_attempts": config.plan.max_attempts}
        record.model_copy(update=told).write(folder / RECORD)
    began, drawn_so_far = time.monotonic(), 0
    with progress.progress_bar("generate", sum(map(len, parts)), visible=processes.is_main_process) as tick:
        for part in parts:
            stop_if_plan_changed(folder, config, planned)
            prompts = [slot.prompt for slot, _ in part]
            negatives = [slot.negative_prompt for slot, _ in part]
            seeds = [slot.seed_of_attempt(attempt) for slot, attempt in part]
            with hardware.autocast_to_bf16(device, precision):
                drawn = sample.draw_pictures(models, prompts, seeds, drawn_with, resolution, negatives)
            new = {}  # by file name: image, bytes, digest
            for (slot, attempt), image in zip(part, drawn, strict=True):
                if not has_picture(images, slot, attempt):
                    if mark:  # before anything judges the picture
                        bits = watermark_bits(record.facts.base, record.facts.lora, slot.seed_of_attempt(attempt))
                        image = mark.embed_bits(image, bits)
                    content = pictures.png_bytes(image)
                    new[slot.file(attempt)] = image, content, hashlib.sha256(content).hexdigest()
            note_drawn(folder, {name: digest for name, (_, _, digest) in new.items()})
            for name, (_, content, _) in new.items():
                files.write_atomically(images / name, content)
            kept = {digest: image for image, _, digest in new.values()}
            features.store_features_of_drawn(kept, shown, background)
            drawn_so_far += len(part)
            in_all = drawn_so_far * processes.num_processes
            seconds_each = (time.monotonic() - began) / in_all
            tick(len(part), standing.state_in_words(in_all, seconds_each, config.hardware.price_per_hour))
