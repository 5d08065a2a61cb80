"""Try fewer denoising steps and no guidance for a LoRA: the same slots are drawn again, the gate judges each picture.

    stylegate trial brand=neon traits=collectible      minutes on two cores; a run of LARGE slots or more does it itself
    stylegate trial batch=NAME                         the slots of a batch that is planned; the batch says the rest

Begins with generate.num_inference_steps and generate.guidance_scale. The first slots of the plan are drawn with the
same prompts and seeds at ever fewer steps, and then without guidance, which halves the work. The best setting has the
most accepted pictures for its work, surely, while pictures that it and the first setting accept keep their margin. It
is written down for this base and LoRA: the same arguments draw with it from then on, unless generate.by_trial=false.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from eval.generate import generate
from eval.judging.judge import judge
from eval.judging.verdicts import Verdict
from eval.lot.batch import (
    PLAN,
    PlanSlot,
    batch_facts_from_config,
    batch_folder_and_facts,
    read_existing_batch_record,
    read_plan,
    sampler_trial_path,
)
from eval.lot.lot import locked_lot
from eval.lot.record import SamplerSetting, SamplerTrial, TriedSamplerSetting
from eval.plan import plan, read_earlier_slots, write_plan_and_move_outdated_pictures
from eval.policy.file import read_policy
from stylegate import files
from stylegate.config import Config

LARGE = 500  # slots from which on `run` makes a trial by itself: of fewer, the trial would cost a large share
PICTURES = 48  # slots that are drawn at each setting, at least
FEWER = (0.5, 0.3, 0.25, 0.2, 0.15)  # shares of the steps that are tried, one after the other
QUANTILE = 1.28  # of the normal distribution: each bound holds with a confidence of 90 %
WORSE = 0.5  # spreads: what the mean margin of pictures that both settings accept may fall by, at most
WITHOUT_GUIDANCE = 1.0
ONE_PASS = ("flux",)  # families whose guidance is told to the model, and costs no second pass


class SamplerSettingWithVerdicts(NamedTuple):
    """The verdicts on the pictures that were drawn with one setting, in the order of the slots."""

    setting: SamplerSetting
    verdicts: list[Verdict]

    def accepted_per_slot(self) -> np.ndarray:
        """[n] 1.0 for a slot with an accepted picture, else 0.0."""
        return np.array([float(verdict.verdict == "accept") for verdict in self.verdicts])


def trial(config: Config) -> int:
    """Draw and judge the same slots with fewer denoising steps and without guidance, write down the best setting, print
    all of them. Returns 0.
    """
    if planned_slots(config):
        batch_folder_and_facts(config, plan_stays=True)  # refuses arguments that are not those of the batch
    told = config.generate
    first = SamplerSetting(num_inference_steps=told.num_inference_steps, guidance_scale=told.guidance_scale)
    reference = draw_and_judge_setting(config, first)
    if not reference.accepted_per_slot().any():
        print(f"trial: none of {len(reference.verdicts)} pictures was accepted, so nothing can be compared")
        return 0
    tried = [compare_with_first_setting(config, reference, reference)]
    for share in FEWER:
        setting = first.model_copy(update={"num_inference_steps": max(1, round(share * first.num_inference_steps))})
        if setting.num_inference_steps >= tried[-1].setting.num_inference_steps:
            continue
        tried.append(compare_with_first_setting(config, draw_and_judge_setting(config, setting), reference))
        if not tried[-1].holds:
            break
    if first.guidance_scale > WITHOUT_GUIDANCE and config.family.name not in ONE_PASS:
        setting = most_accepted_per_work(tried).setting.model_copy(update={"guidance_scale": WITHOUT_GUIDANCE})
        tried.append(compare_with_first_setting(config, draw_and_judge_setting(config, setting), reference))
    found = SamplerTrial(
        pictures=len(reference.verdicts),
        policy_sha256=read_policy(config.policy).sha256,
        tried=tried,
        chosen=most_accepted_per_work(tried).setting,
    )
    found.write_json_file(sampler_trial_path(batch_facts_from_config(config)))
    print_tried_sampler_settings(found)
    if planned_slots(config):
        print(f"       {config.batch} was planned before, and keeps its steps")
    return 0


def planned_slots(config: Config) -> list[PlanSlot]:
    """The slots of the batch that `batch=` names; [] without it. Raises DataError if there is no such batch."""
    return read_plan(files.BATCHES / config.batch) if config.batch else []


def draw_and_judge_setting(config: Config, setting: SamplerSetting) -> SamplerSettingWithVerdicts:
    """Plan the batch of this setting, unless that was done, draw the first attempts at its first slots that are not
    drawn yet, and judge them all. Returns their verdicts.
    """
    settings = replace(config.generate, **setting.json_data_without_defaults(), by_trial=False, stop_early_at=None)
    size, slots = settings.batch_size, planned_slots(config)
    count = math.ceil(PICTURES / size) * size  # whole parts: the batch goes on from them
    count = min(len(slots) or config.plan.num_images, count)
    if slots:
        name = f"{config.batch}-trial-{setting.num_inference_steps}-{setting.guidance_scale:g}"
        told = replace(config, generate=settings, batch=name)
        plan_same_slots(config, told, slots)
    else:
        told = replace(config, generate=settings)
        folder = batch_folder_and_facts(told)[0]
        if not (folder / PLAN).exists() or len(read_plan(folder)) < count:  # an earlier trial may have been of fewer
            plan(told, with_next_step=False)
    generate(told, count)
    with locked_lot(told) as lot:
        judged = judge(told, lot)
    assert judged.lot.slots is not None
    by_file = judged.lot.slots
    first = {by_file[v.file].slot: v for v in judged.verdicts if v.file == by_file[v.file].picture_file_name(0)}
    return SamplerSettingWithVerdicts(setting, [first[number] for number in range(count)])


def plan_same_slots(config: Config, told: Config, slots: list[PlanSlot]) -> None:
    """Plan the batch that `told` names with the slots of the batch that `config` names."""
    folder, facts = batch_folder_and_facts(told, replanned=True)
    planned = read_existing_batch_record(files.BATCHES / (config.batch or "")).facts.plan
    whole = replace(told, plan=replace(told.plan, num_images=len(slots), num_wanted=None))
    with files.exclusive_lock(folder):
        write_plan_and_move_outdated_pictures(
            folder, facts.model_copy(update={"plan": planned}), whole, read_earlier_slots(folder), slots, False
        )


def compare_with_first_setting(
    config: Config, outcome: SamplerSettingWithVerdicts, reference: SamplerSettingWithVerdicts
) -> TriedSamplerSetting:
    """What a setting accepts, and at what cost, beside `reference`, the first setting with the same slots and seeds."""
    ours, theirs = outcome.accepted_per_slot(), reference.accepted_per_slot()
    change = ours - theirs
    spare = QUANTILE * math.sqrt((change.var() + 1 / len(change)) / len(change)) if change.any() else 0.0
    margins = [
        a.margin - b.margin
        for a, b in zip(outcome.verdicts, reference.verdicts, strict=True)
        if a.verdict == b.verdict == "accept" and a.margin is not None and b.margin is not None
    ]
    fall = float(np.mean(margins)) if margins else 0.0
    at_least = max(0.0, float(theirs.mean() + change.mean()) - spare)
    work = denoiser_passes_per_picture(config, outcome.setting) / denoiser_passes_per_picture(config, reference.setting)
    return TriedSamplerSetting(
        setting=outcome.setting,
        work=round(work, 4),
        accepted=int(ours.sum()),
        accepted_share_at_least=round(at_least, 4),
        margin_change=round(fall, 4),
        holds=fall >= -WORSE and at_least > 0,
    )


def denoiser_passes_per_picture(config: Config, setting: SamplerSetting) -> float:
    """How often the denoiser runs for one picture: guidance above 1 takes two runs a step, but for families that are
    told it.
    """
    twice = setting.guidance_scale > WITHOUT_GUIDANCE and config.family.name not in ONE_PASS
    return setting.num_inference_steps * (2.0 if twice else 1.0)


def most_accepted_per_work(tried: list[TriedSamplerSetting]) -> TriedSamplerSetting:
    """The setting with the highest lower bound of the accepted share for its work, of those that hold; of equal ones
    the first.
    """
    return max((t for t in tried if t.holds), key=lambda t: t.accepted_share_at_least / t.work)


def print_tried_sampler_settings(found: SamplerTrial) -> None:
    """Print a table with a row for each setting that was tried, and the one that was chosen."""
    table = Table(box=None)
    for heading in ("steps", "guidance", "work", f"accepted of {found.pictures}", "at least", "margin"):
        table.add_column(heading, justify="right")
    for one in found.tried:
        s = one.setting
        numbers = (
            f"{one.work:.2f}",
            str(one.accepted),
            f"{one.accepted_share_at_least:.0%}",
            f"{one.margin_change:+.2f}",
        )
        table.add_row(str(s.num_inference_steps), f"{s.guidance_scale:g}", *numbers)
    Console().print(table)
    print(f"trial: {found.chosen.sampler_setting_in_words()}; the same arguments draw with it from now on")
    print("       (generate.by_trial=false draws as the configuration says)")
