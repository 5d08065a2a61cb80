"""Draw the open slots of a plan: those without a picture, and those whose last picture was rejected.

    stylegate generate brand=neon traits=collectible
    accelerate launch --num_processes 8 -m eval generate brand=neon traits=collectible    the same, on several cards

Reads plan.parquet and verdicts.jsonl of the batch; writes images/<slot>-<attempt>.png. Every attempt has its own
seed. Stopped and started again it draws what is missing, and the pictures are the same; so they are from any number
of processes, on devices of one kind.
"""

import hashlib
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import PartialState

from eval.lot.batch import PLAN, RECORD, Slot, attempt_and_slot, batch_folder, prompts_digest, read_plan, read_record
from eval.measuring import encoder as encoding
from eval.measuring import features
from stylegate import brandset, files, hardware, lorafile, pictures, progress, sample
from stylegate.config import Config
from stylegate.errors import DataError
from stylegate.families import FAMILIES, pipelines

FAILED = ("reject", "error")


def generate(config: Config) -> int:
    """Draw what is due; of several processes each draws its share of it. Returns 0."""
    folder, _ = batch_folder(config)
    images, size = folder / "images", config.generate.batch_size
    processes = hardware.launched_processes(config.hardware)
    main, rank, world = processes.is_main_process, processes.process_index, processes.num_processes
    with files.exclusive_lock(folder) if main else nullcontext():
        processes.wait_for_everyone()  # until the folder is locked
        due = due_attempts(read_plan(folder), folder, config.plan.max_attempts)
        parts = [due[i : i + size] for i in range(0, len(due), size)]
        # A part is drawn whole: the number drawn together can change last bits.
        parts = [part for part in parts if not all((images / slot.file(attempt)).exists() for slot, attempt in part)]
        processes.wait_for_everyone()  # until all have seen what exists
        if parts[rank::world]:
            draw_in_parts(parts[rank::world], images, config, folder, processes)
        processes.wait_for_everyone()  # until all is drawn
    if main:
        count = sum(1 for _ in images.glob("*.png")) if images.exists() else 0
        print(f"generate: {sum(map(len, parts))} drawn, {count} in {files.display_path(images)}")
    return 0


def plan_digests(folder: Path, config: Config) -> tuple[str, str | None]:
    """Digests of plan.parquet and of the traits or prompts file that the plan was made from."""
    return files.sha256(folder / PLAN), prompts_digest(config)


def stop_if_plan_changed(folder: Path, config: Config, planned: tuple[str, str | None]) -> None:
    """Raises DataError where the plan, or the file it was made from, is not what it was when drawing began."""
    for before, now, what in zip(
        planned, plan_digests(folder, config), ("plan", "traits or prompts file"), strict=True
    ):
        if before != now:
            raise DataError(
                f"the {what} was changed while {files.display_path(folder)} was drawn; the pictures so far are kept",
                next_step="stylegate plan with the same words and batch=, which keeps what still fits; then generate.",
            )


def due_attempts(slots: list[Slot], folder: Path, max_attempts: int) -> list[tuple[Slot, int]]:
    """(slot, attempt) to draw now: attempt 0, or the one after a failed picture; none beyond max_attempts."""
    failed: dict[int, int] = {}
    settled: set[int] = set()
    for row in files.read_jsonl(folder / "verdicts.jsonl", "file", "verdict"):
        attempt, slot = attempt_and_slot(row["file"])
        if row["verdict"] in FAILED:
            failed[slot] = max(failed.get(slot, 0), attempt + 1)
        else:
            settled.add(slot)
    due = [(s, failed.get(s.slot, 0)) for s in slots if s.slot not in settled]
    return [(slot, attempt) for slot, attempt in sorted(due, key=lambda d: (d[1], d[0].slot)) if attempt < max_attempts]


def draw_in_parts(
    parts: list[list[tuple[Slot, int]]], images: Path, config: Config, folder: Path, processes: PartialState
) -> None:
    """Load base and LoRA once and draw the attempts, part by part, into `images`; an existing file is kept unchanged.

    The main process writes batch.json and shows progress. Features for scoring are computed while a picture is in
    memory, so that scoring need not decode it.
    """
    shown = encoding.preprocessing_of(config.encoder)  # a wrong name is said before anything is drawn
    planned = plan_digests(folder, config)
    device, family = torch.device(str(processes.device)), FAMILIES[config.family.name]
    record = read_record(folder)
    precision = record.precision or hardware.precision_of(config.hardware)  # a batch keeps what it began in
    models = family.load(config.base, torch.device("cpu"), hardware.weights_dtype(precision, device))
    if config.hardware.nf4:
        models = pipelines.quantise_to_four_bits(models, device)
    models.pipeline.to(device)
    resolution = sample.drawing_resolution(config, models)
    if lora := lorafile.lora_path(config):
        lorafile.merge_lora_file(models, lora)
    if processes.is_main_process:
        record.model_copy(update={"precision": precision, "size": resolution}).write(folder / RECORD)
    background = brandset.read_brand_file(brandset.brand_folder(config.brand)).background if config.brand else "#ffffff"
    with progress.progress_bar("generate", sum(map(len, parts)), visible=processes.is_main_process) as tick:
        for part in parts:
            stop_if_plan_changed(folder, config, planned)
            prompts = [slot.prompt for slot, _ in part]
            negatives = [slot.negative_prompt for slot, _ in part]
            seeds = [slot.attempt_seed(attempt) for slot, attempt in part]
            with hardware.autocast(device, precision):
                drawn = sample.draw_pictures(models, prompts, seeds, config.generate, resolution, negatives)
            kept = {}
            for (slot, attempt), image in zip(part, drawn, strict=True):
                if not (images / slot.file(attempt)).exists():
                    content = pictures.png_bytes(image)
                    files.write_atomically(images / slot.file(attempt), content)
                    kept[hashlib.sha256(content).hexdigest()] = image
            features.store_features_of_drawn(kept, shown, background)
            tick(len(part))
