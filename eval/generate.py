"""Draw the open slots of a plan: those without a picture, and those whose last picture was rejected.

    stylegate generate brand=neon traits=collectible
    accelerate launch --num_processes 8 -m eval generate brand=neon traits=collectible    the same, on several cards
    stylegate generate brand=neon traits=collectible engine=slurm engine.workers=40       the same, by jobs of Slurm

Reads plan.parquet and verdicts.jsonl of the batch; writes images/<slot>-<attempt>.png and base/, what the base alone
draws (eval/lot/base.py). Every attempt has its own seed. Stopped and started again it draws what is missing, and the
pictures are the same; so they are from any number of processes, on devices of one kind.
"""

import hashlib
import io
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState
from PIL import Image

from eval.engines.parts import Row
from eval.engines.run import Work
from eval.lot.attempts import SlotAttempts, advice_on_exhausted_slots, due_attempts, slot_attempts
from eval.lot.base import chosen_prompts, draw_base_pictures, write_base_pictures
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
from eval.lot.drawing import DrawPictures, settings_of_drawing
from eval.lot.drawn import begin_drawn, note_drawn
from eval.measuring import encoder as encoding
from eval.measuring import features
from stylegate import brandset, files, hardware, pictures, progress
from stylegate.cache import ArrayCache
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError, ExitCode, SurroundingsError


def generate(config: Config, first_slots: int | None = None) -> int:
    """Draw what is due; of several processes each draws its share of it.

    With `first_slots` only the first attempts at so many slots are drawn, for a trial.

    Returns 0; 11 if nothing is due, slots are missing, and only a person can fill them.
    """
    folder, _ = batch_folder(config)
    images, size = folder / "images", config.generate.batch_size
    processes = hardware.launched_processes(hardware.of_this_process(config))
    main, rank, world = processes.is_main_process, processes.process_index, processes.num_processes
    if world > 1 and config.engine.name != "local":
        raise ConfigError(
            f"engine={config.engine.name} beside accelerate launch", next_step="leave one of the two out."
        )
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
        if config.engine.name != "local" and parts:
            draw_by_engine(parts, images, config, folder, standing)
        elif parts[rank::world]:
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


Attempt = tuple[PlanSlot, int]  # a slot and the number of the attempt at it
NAMED = 5  # parts that an error names


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
    parts: list[list[Attempt]],
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
    record = read_existing_batch_record(folder)
    drawn_with = replace(config.generate, **record.facts.generate.content())  # a trial may have chosen others
    settings = settings_of_drawing(config, record, drawn_with)
    stage = DrawPictures(**settings | {"device": str(processes.device), "threads": None})
    precision, brand = settings["precision"], brand_of_batch(config)
    if settings["lora"] and processes.is_main_process:
        with hardware.autocast_to_bf16(stage.device, precision):
            drawn_as, models = (stage.resolution, precision), stage.with_lora(False)
            draw_base_pictures(models, record.facts, read_plan(folder), folder, drawn_with, drawn_as)
    if processes.is_main_process:
        note_drawing(folder, config, precision, stage.resolution)
    began, drawn_so_far = time.monotonic(), 0
    with progress.progress_bar("generate", sum(map(len, parts)), visible=processes.is_main_process) as tick:
        for part in parts:
            stop_if_plan_changed(folder, config, planned)
            drawn = stage.draw(*zip(*map(told_of_attempt, part), strict=True))
            content = [pictures.png_bytes(image) for image in drawn]
            new = keep_pictures(folder, images, part, content)
            by_digest = {sha256: drawn[i] for i, sha256 in new.items()}
            features.store_features_of_drawn(by_digest, shown, brand.background if brand else "#ffffff")
            drawn_so_far += len(part)
            in_all = drawn_so_far * processes.num_processes
            seconds_each = (time.monotonic() - began) / in_all
            tick(len(part), standing.state_in_words(in_all, seconds_each, config.hardware.price_per_hour))


def draw_by_engine(
    parts: list[list[Attempt]], images: Path, config: Config, folder: Path, standing: BatchProgress
) -> None:
    """Have the attempts drawn by the workers of config.engine; this process writes each picture that comes, once.

    A part of the plan is a row of the work, since it is drawn whole. Features are left to the scoring, whose engine may
    be the same. Raises SurroundingsError when all others are drawn, if workers died at a part.
    """
    planned = digests_of_plan_and_its_source(folder, config)
    record = read_existing_batch_record(folder)
    drawn_with = replace(config.generate, **record.facts.generate.content())
    settings = settings_of_drawing(config, record, drawn_with)
    by_id, rows = {}, []
    for part in parts:
        told = [list(told_of_attempt(attempt)) for attempt in part]
        by_id[files.canonical_sha256(told)] = part
        rows.append({"id": files.canonical_sha256(told), "pictures": told})
    cache, prompts = ArrayCache(), chosen_prompts(read_plan(folder)) if settings["lora"] else []
    base_row = {"id": files.canonical_sha256([settings, prompts]), "base": [list(prompt) for prompt in prompts]}
    began, drawn_so_far, killed_parts = time.monotonic(), 0, []
    with progress.progress_bar("generate", sum(map(len, parts))) as tick:

        def take(found: dict[str, Row], killed: list[str]) -> None:
            nonlocal drawn_so_far
            stop_if_plan_changed(folder, config, planned)
            killed_parts.extend("pictures of the base alone" for row in killed if row == base_row["id"])
            of_plan = [by_id[row] for row in killed if row in by_id]
            killed_parts.extend(", ".join(slot.file(attempt) for slot, attempt in part) for part in of_plan)
            for row, made in found.items():
                contents = {name: array.tobytes() for name, array in made.items()}
                if row == base_row["id"]:
                    cache.put({row: made})
                    write_base_pictures(folder, contents)
                elif part := by_id.get(row):  # of the plan as it is now
                    in_order = [contents[str(i)] for i in range(len(part))]
                    if not drawn_so_far:
                        with Image.open(io.BytesIO(in_order[0])) as first:
                            note_drawing(folder, config, settings["precision"], first.width)
                    keep_pictures(folder, images, part, in_order)
                    drawn_so_far += len(part)
                    seconds_each = (time.monotonic() - began) / drawn_so_far
                    words = standing.state_in_words(drawn_so_far, seconds_each, config.hardware.price_per_hour)
                    tick(len(part), words)

        work = Work(config.engine, {"stage": "draw", **settings}, folder)
        with work.locked():
            work.take_finished(take)
            if prompts and (kept := cache.get(base_row["id"])):
                take({base_row["id"]: kept}, [])
            elif prompts:
                rows.insert(0, base_row)
            open_rows = [
                row
                for row in rows
                if row is base_row or not all(has_picture(images, *attempt) for attempt in by_id[row["id"]])
            ]
            in_a_part = max(1, (config.engine.part_size or 1) // drawn_with.batch_size)
            work.do(open_rows, in_a_part, take, settings["device"] == "cuda")
    if killed_parts:
        raise SurroundingsError(
            f"{len(killed_parts)} of {len(parts)} parts were not drawn, since each worker that drew them died:",
            killed_parts[:NAMED],
            "give workers more memory; the same command draws what is missing. All other pictures are kept.",
        )


def brand_of_batch(config: Config) -> brandset.Brand | None:
    return brandset.read_brand_file(brandset.brand_folder(config.brand)) if config.brand else None


def note_drawing(folder: Path, config: Config, precision: str, size: int) -> None:
    """Write into batch.json how the batch is drawn: precision, side in pixels, attempts at most."""
    told = {"precision": precision, "size": size, "max_attempts": config.plan.max_attempts}
    read_existing_batch_record(folder).model_copy(update=told).write(folder / RECORD)


def told_of_attempt(attempt: Attempt) -> tuple[str, str, int]:
    """Prompt, negative prompt and seed of an attempt at a slot."""
    slot, number = attempt
    return slot.prompt, slot.negative_prompt, slot.seed_of_attempt(number)


def keep_pictures(folder: Path, images: Path, part: list[Attempt], contents: list[bytes]) -> dict[int, str]:
    """Write the PNG files of a part's attempts that have no picture yet; returns their sha256 by place in the part."""
    new = {i: contents[i] for i, attempt in enumerate(part) if not has_picture(images, *attempt)}
    names = {i: part[i][0].file(part[i][1]) for i in new}
    digests = {i: hashlib.sha256(content).hexdigest() for i, content in new.items()}
    note_drawn(folder, {names[i]: digest for i, digest in digests.items()})
    for i, content in new.items():
        files.write_atomically(images / names[i], content)
    return digests
