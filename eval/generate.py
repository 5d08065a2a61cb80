"""Draw the open slots of a plan: those without a picture, and those whose last picture was rejected.

    stylegate generate brand=neon traits=collectible
    stylegate generate batch=NAME                          the batch says the rest
    accelerate launch --num_processes 8 -m eval generate brand=neon traits=collectible    the same, on several cards
    stylegate generate brand=neon traits=collectible engine=slurm engine.workers=40       the same, by jobs of Slurm
    stylegate generate brand=neon traits=collectible generate.stop_early_at=0.3    hopeless pictures are not finished

Reads plan.parquet and verdicts.jsonl of the batch; writes images/<slot>-<attempt>.png and base/, what the base alone
draws (eval/lot/base.py). Every attempt has its own seed. Stopped and started again it draws what is missing, and the
pictures are the same; so they are from any number of processes, on devices of one kind. With generate.stop_early_at
it draws in rounds (eval/lot/early.py); previews.jsonl and rounds.jsonl say which attempts ended early, and why.
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
from eval.engines.run import EngineWork
from eval.lot import early
from eval.lot.attempts import advice_on_exhausted_slots
from eval.lot.base import draw_and_write_base_pictures, prompts_for_base_pictures, write_base_pictures
from eval.lot.batch import (
    PLAN,
    RECORD,
    batch_folder_and_facts,
    has_picture_of_attempt,
    names_of_attempts_with_picture,
    read_batch_record_or_name_others,
    read_existing_batch_record,
    read_plan,
    traits_or_prompts_digest,
)
from eval.lot.drawing import PictureDrawingStage, arguments_for_picture_drawing_stage
from eval.lot.drawn import append_drawn_digests, start_drawn_digests_file
from eval.lot.early import EarlyStopRound
from eval.lot.rounds import (
    VERDICTS,
    Attempt,
    BatchProgress,
    attempts_in_unfinished_parts,
    read_batch_progress,
    recorded_round_or_one_with_learnt_line,
    unfinished_or_next_drawing_round,
)
from eval.measuring import encodername, features
from eval.measuring.previews import PreviewScorer
from stylegate import brandset, files, firststeps, hardware, pictures, progress
from stylegate.cache import ArrayCache
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError, ExitCode, SurroundingsError

NAMED = 5  # parts that an error names


def generate(config: Config, first_slots: int | None = None) -> int:
    """Draw the attempts of a batch that are due, and print how many; of several processes each draws its share.

    With `first_slots` only the first attempts at so many slots are drawn, for a trial.

    Returns 0; 11 if nothing is due, slots are missing, and only a person can fill them. Raises ConfigError for an
    engine beside accelerate launch or stop_early_at, DataError without a plan, or if the plan changes meanwhile.
    """
    if config.batch:
        read_batch_record_or_name_others(files.BATCHES / config.batch)  # before a LoRA is asked for
    folder, facts = batch_folder_and_facts(config, plan_stays=True)
    processes = hardware.accelerate_process_state(hardware.hardware_config_cpu_if_workers_elsewhere(config))
    main, rank, world = processes.is_main_process, processes.process_index, processes.num_processes
    ends_after = early.steps_of_preview(facts.generate)
    if world > 1 and config.engine.name != "local":
        raise ConfigError(
            f"engine={config.engine.name} beside accelerate launch", next_step="leave one of the two out."
        )
    if ends_after and config.engine.name != "local":
        raise ConfigError(
            f"engine={config.engine.name} with generate.stop_early_at", next_step="leave one of the two out."
        )
    with files.exclusive_lock(folder) if main else nullcontext():
        processes.wait_for_everyone()  # until the folder is locked
        before, standing = (
            names_of_attempts_with_picture(folder / "images"),
            read_batch_progress(folder, config.plan.max_attempts),
        )
        parts = [] if ends_after else due_attempts_in_parts(config, folder, standing, first_slots)
        if main and (parts or ends_after):
            start_drawn_digests_file(
                folder, of_earlier_version=read_existing_batch_record(folder).precision is not None
            )
            early.cut_torn_row_of_previews(folder)
        processes.wait_for_everyone()  # until all have seen what exists
        if ends_after:
            draw_rounds_with_early_stopping(config, folder, processes, ends_after)
        elif config.engine.name != "local" and parts:
            draw_by_engine(parts, folder / "images", config, folder, standing)
        elif parts[rank::world]:
            draw_attempts(
                load_drawing_stage_of_batch(config, folder, processes), parts[rank::world], config, folder, processes
            )
        processes.wait_for_everyone()  # until all is drawn
    return print_what_was_drawn(config, folder, len(before)) if main else ExitCode.PASS


def due_attempts_in_parts(
    config: Config, folder: Path, standing: BatchProgress, first_slots: int | None
) -> list[list[Attempt]]:
    """The attempts that are due now, in parts that are drawn together; with `first_slots` the first ones at these."""
    due = [
        (slot, attempt)
        for slot, attempt in standing.due
        if first_slots is None or (attempt == 0 and slot.slot < first_slots)
    ]
    return attempts_in_unfinished_parts(due, config.generate.batch_size, folder)


def print_what_was_drawn(config: Config, folder: Path, before: int) -> int:
    """Print how many pictures were drawn, where `before` had been there already, and what is to be done next. Returns
    the exit code of `generate`.
    """
    standing, there = (
        read_batch_progress(folder, config.plan.max_attempts),
        set(names_of_attempts_with_picture(folder / "images")),
    )
    new = len(there - standing.judged)
    told = f"; not judged yet: {new} (stylegate gate, with the same arguments)" if new else ""
    told += f"; stopped early: {standing.stopped}" if standing.stopped else ""
    print(f"generate: {len(there) - before} drawn, {len(there)} in {files.display_path(folder / 'images')}{told}")
    if early.read_early_stop_rounds(folder) and attempts_in_unfinished_parts(standing.due, 1, folder):
        print("          the others are drawn once these are judged: gate, then generate again")
    if standing.due or standing.filled >= standing.wanted or not standing.exhausted:
        return ExitCode.PASS
    rows, stopped = files.read_jsonl(folder / VERDICTS, "file"), early.names_of_stopped_attempts(folder)
    traits = read_existing_batch_record(folder).words.traits
    for line in advice_on_exhausted_slots(standing.exhausted, standing.states, rows, stopped, folder.name, traits):
        print(line)
    return ExitCode.REVIEW


def digests_of_plan_and_its_source(folder: Path, config: Config) -> tuple[str, str | None]:
    """Digests of plan.parquet and of the traits or prompts file that the plan was made from."""
    return files.sha256_of_file(folder / PLAN), traits_or_prompts_digest(config)


def require_unchanged_plan(folder: Path, config: Config, planned: tuple[str, str | None]) -> None:
    """Raises DataError where the plan, or the file it was made from, is not what it was when drawing began."""
    for before, now, what in zip(
        planned, digests_of_plan_and_its_source(folder, config), ("plan", "traits or prompts file"), strict=True
    ):
        if before != now:
            raise DataError(
                f"the {what} was changed while {files.display_path(folder)} was drawn; the pictures so far are kept",
                next_step="stylegate plan with the same arguments and batch= keeps what still fits; then generate.",
            )


def load_drawing_stage_of_batch(config: Config, folder: Path, processes: PartialState) -> PictureDrawingStage:
    """Load base and LoRA into the stage that draws. On the way the main process draws the pictures of the base alone,
    and writes batch.json.
    """
    encodername.encoder_preprocessing(encodername.encoder_name(config))  # a wrong name is said before anything is drawn
    record = read_existing_batch_record(folder)
    drawn_with = replace(
        config.generate, **record.facts.generate.json_data_without_defaults()
    )  # a trial may have chosen others
    settings = arguments_for_picture_drawing_stage(config, record, drawn_with)
    stage = PictureDrawingStage(**settings | {"device": str(processes.device), "threads": None})
    if settings["lora"] and processes.is_main_process:
        with hardware.autocast_to_bf16(stage.device, stage.precision):
            drawn_as, models = (stage.resolution, stage.precision), stage.merge_or_remove_lora(False)
            draw_and_write_base_pictures(models, record.facts, read_plan(folder), folder, drawn_with, drawn_as)
    if processes.is_main_process:
        write_drawing_settings_into_record(folder, config, stage.precision, stage.resolution)
    return stage


def draw_rounds_with_early_stopping(config: Config, folder: Path, processes: PartialState, ends_after: int) -> None:
    """Draw round after round, until nothing is due before the next gate. A picture whose preview after `ends_after`
    denoising steps is hopeless is not finished.
    """
    size, attempts = config.generate.batch_size, config.plan.max_attempts
    stage, scorer = None, None
    while found := unfinished_or_next_drawing_round(folder, size, attempts):
        if stage is None or scorer is None:
            stage = load_drawing_stage_of_batch(config, folder, processes)
            processes.wait_for_everyone()  # until the base's own pictures are there
            scorer = PreviewScorer(config, folder, stage.device)
        if processes.is_main_process:
            early.append_early_stop_round_if_new(
                folder, recorded_round_or_one_with_learnt_line(folder, found, scorer.key)
            )
        processes.wait_for_everyone()  # until the line is written
        stopping = HopelessAttemptStopper(scorer, early.read_early_stop_rounds(folder)[found.number], ends_after)
        share = found.parts[processes.process_index :: processes.num_processes]
        draw_attempts(stage, share, config, folder, processes, stopping)
        processes.wait_for_everyone()  # until the round is drawn


class HopelessAttemptStopper(NamedTuple):
    """Scores previews of a round's attempts, and ends those that are hopeless."""

    scorer: PreviewScorer
    round: EarlyStopRound
    ends_after: int  # denoising steps

    def draw_hopeful_pictures(
        self, stage: PictureDrawingStage, part: list[Attempt], folder: Path
    ) -> tuple[list[Attempt], list[Image.Image]]:
        """Draw the attempts of a part, and stop after `ends_after` steps those whose preview is hopeless. Returns the
        others and their finished pictures. Each attempt gets a row in previews.jsonl.
        """

        def draw_attempts_at_indices(some: list[int]) -> list[Image.Image]:
            return stage.draw_with_lora_and_watermark(
                *zip(*(prompts_and_seed_of_attempt(part[i]) for i in some), strict=True)
            )

        models = stage.merge_or_remove_lora(True)
        first = firststeps.draw_previews_by_first_steps(models, len(part), self.ends_after, draw_attempts_at_indices)
        rows = [
            self.round.preview_with_stop_decision(
                slot.picture_file_name(attempt), slot.seed_of_attempt(attempt), self.scorer.key, scores
            )
            for (slot, attempt), scores in zip(part, self.scorer.score_previews(part, first.previews), strict=True)
        ]
        early.append_early_stop_preview_rows(folder, rows)
        chosen = [i for i, row in enumerate(rows) if not row.stopped]
        return [part[i] for i in chosen], firststeps.finish_pictures_after_previews(
            models, first, chosen, draw_attempts_at_indices
        )


def draw_attempts(
    stage: PictureDrawingStage,
    parts: list[list[Attempt]],
    config: Config,
    folder: Path,
    processes: PartialState,
    stopping: HopelessAttemptStopper | None = None,
) -> None:
    """Draw the attempts, each part whole, and write into images/ the pictures that are not there yet. With `stopping`,
    hopeless attempts are not finished and get none.

    The main process shows progress. Features for scoring are computed while a picture is in memory, so that scoring
    need not decode it.
    """
    shown = encodername.encoder_preprocessing(encodername.encoder_name(config))
    planned = digests_of_plan_and_its_source(folder, config)
    standing, brand = read_batch_progress(folder, config.plan.max_attempts), read_configured_brand_or_none(config)
    began, drawn_so_far = time.monotonic(), 0
    with progress.progress_bar("generate", sum(map(len, parts)), visible=processes.is_main_process) as tick:
        for part in parts:
            require_unchanged_plan(folder, config, planned)
            if stopping:
                finished, drawn = stopping.draw_hopeful_pictures(stage, part, folder)
            else:
                finished, drawn = (
                    part,
                    stage.draw_with_lora_and_watermark(*zip(*map(prompts_and_seed_of_attempt, part), strict=True)),
                )
            content = [pictures.png_bytes(image) for image in drawn]
            new = write_missing_pictures_of_attempts(folder, folder / "images", finished, content)
            by_digest = {sha256: drawn[i] for i, sha256 in new.items()}
            features.store_features_of_drawn(by_digest, shown, brand.background if brand else "#ffffff")
            drawn_so_far += len(part)
            in_all = drawn_so_far * processes.num_processes
            seconds_each = (time.monotonic() - began) / in_all
            tick(len(part), standing.progress_in_words(in_all, seconds_each, config.hardware.price_per_hour))


def draw_by_engine(
    parts: list[list[Attempt]], images: Path, config: Config, folder: Path, standing: BatchProgress
) -> None:
    """Have the attempts drawn by the workers of config.engine; this process writes each picture that comes, once.

    A part of the plan is a row of the work, since it is drawn whole. Features are left to the scoring, whose engine may
    be the same. Raises SurroundingsError when all others are drawn, if workers died at a part.
    """
    planned = digests_of_plan_and_its_source(folder, config)
    record = read_existing_batch_record(folder)
    drawn_with = replace(config.generate, **record.facts.generate.json_data_without_defaults())
    settings = arguments_for_picture_drawing_stage(config, record, drawn_with)
    by_id, rows = {}, []
    for part in parts:
        told = [list(prompts_and_seed_of_attempt(attempt)) for attempt in part]
        by_id[files.canonical_sha256(told)] = part
        rows.append({"id": files.canonical_sha256(told), "pictures": told})
    cache, prompts = ArrayCache(), prompts_for_base_pictures(read_plan(folder)) if settings["lora"] else []
    base_row = {"id": files.canonical_sha256([settings, prompts]), "base": [list(prompt) for prompt in prompts]}
    began, drawn_so_far, killed_parts = time.monotonic(), 0, []
    with progress.progress_bar("generate", sum(map(len, parts))) as tick:

        def write_pictures_of_results(found: dict[str, Row], killed: list[str]) -> None:
            nonlocal drawn_so_far
            require_unchanged_plan(folder, config, planned)
            killed_parts.extend("pictures of the base alone" for row in killed if row == base_row["id"])
            of_plan = [by_id[row] for row in killed if row in by_id]
            killed_parts.extend(
                ", ".join(slot.picture_file_name(attempt) for slot, attempt in part) for part in of_plan
            )
            for row, made in found.items():
                contents = {name: array.tobytes() for name, array in made.items()}
                if row == base_row["id"]:
                    cache.store_arrays_by_key({row: made})
                    write_base_pictures(folder, contents)
                elif part := by_id.get(row):  # of the plan as it is now
                    in_order = [contents[str(i)] for i in range(len(part))]
                    if not drawn_so_far:
                        with Image.open(io.BytesIO(in_order[0])) as first:
                            write_drawing_settings_into_record(folder, config, settings["precision"], first.width)
                    write_missing_pictures_of_attempts(folder, images, part, in_order)
                    drawn_so_far += len(part)
                    seconds_each = (time.monotonic() - began) / drawn_so_far
                    words = standing.progress_in_words(drawn_so_far, seconds_each, config.hardware.price_per_hour)
                    tick(len(part), words)

        work = EngineWork(config.engine, {"stage": "draw", **settings}, folder)
        with work.locked_against_other_commands():
            work.hand_over_results_of_earlier_start(write_pictures_of_results)
            if not prompts:
                write_base_pictures(folder, {})
            elif kept := cache.read_arrays_of_key(base_row["id"]):
                write_pictures_of_results({base_row["id"]: kept}, [])
            else:
                rows.insert(0, base_row)
            open_rows = [
                row
                for row in rows
                if row is base_row or not all(has_picture_of_attempt(images, *attempt) for attempt in by_id[row["id"]])
            ]
            in_a_part = max(1, (config.engine.part_size or 1) // drawn_with.batch_size)
            work.do_rows_in_parts(open_rows, in_a_part, write_pictures_of_results, settings["device"] == "cuda")
    if killed_parts:
        raise SurroundingsError(
            f"{len(killed_parts)} of {len(parts)} parts were not drawn, since each worker that drew them died:",
            killed_parts[:NAMED],
            "give workers more memory; the same command draws what is missing. All other pictures are kept.",
        )


def read_configured_brand_or_none(config: Config) -> brandset.Brand | None:
    """The brand that brand= names; None without it. Another one than the batch's was refused before."""
    return brandset.read_brand_file(brandset.brand_folder(config.brand)) if config.brand else None


def write_drawing_settings_into_record(folder: Path, config: Config, precision: str, size: int) -> None:
    """Write into batch.json how the batch is drawn: precision, side in pixels, attempts at most."""
    told = {"precision": precision, "size": size, "max_attempts": config.plan.max_attempts}
    read_existing_batch_record(folder).model_copy(update=told).write_json_file(folder / RECORD)


def prompts_and_seed_of_attempt(attempt: Attempt) -> tuple[str, str, int]:
    """Prompt, negative prompt and seed of an attempt at a slot."""
    slot, number = attempt
    return slot.prompt, slot.negative_prompt, slot.seed_of_attempt(number)


def write_missing_pictures_of_attempts(
    folder: Path, images: Path, part: list[Attempt], contents: list[bytes]
) -> dict[int, str]:
    """Write the pictures of a part's attempts into `images`, but for attempts that have one there already. Returns the
    sha256 of each file that was written, by its attempt's place in the part. `contents` are PNG files.
    """
    new = {i: contents[i] for i, attempt in enumerate(part) if not has_picture_of_attempt(images, *attempt)}
    names = {i: part[i][0].picture_file_name(part[i][1]) for i in new}
    digests = {i: hashlib.sha256(content).hexdigest() for i, content in new.items()}
    append_drawn_digests(folder, {names[i]: digest for i, digest in digests.items()})
    for i, content in new.items():
        files.write_atomically(images / names[i], content)
    return digests
