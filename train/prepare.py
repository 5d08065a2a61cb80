"""Make a run from the config: check and encode the data, load the base, attach the LoRA."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import nn

from stylegate import __version__, brandcheck, brandset, buckets, files, hardware, licence, pictures, sample
from stylegate.brandset import Brand
from stylegate.config import Config, config_as_dict
from stylegate.configgroups import configured_lora_alpha_or_rank
from stylegate.errors import SurroundingsError
from stylegate.families import FAMILIES, Family, LoadedBaseModel, pairing, pipelines
from stylegate.words import counted
from train import batches, encoded, sharding, state
from train.preferences import load_starting_lora, training_pictures_of_run
from train.run import PATIENCE, LiveTrainingRun

DISK_PATIENCE_S = 90.0  # a network disk may show a new file to other machines a minute later


def prepare_training_run(config: Config, directory: Path, accelerator: Accelerator) -> LiveTrainingRun:
    """Check and encode the data, load the base, attach the LoRA, write run.json. Returns the run.

    Raises DataError, ModelError or ConfigError for what is wrong with brand set, base or config, and ConfigError if the
    directory was begun with other data, another base or another number of processes.
    """
    family, main = FAMILIES[config.family.name], accelerator.is_main_process
    brand_set, findings = brandcheck.read_checked_brand_set(brandset.brand_folder(config.brand))
    learned = training_pictures_of_run(config, brand_set)
    licence.require_licence_agreement(config, family.base_folder(config.base))
    if config.draw_base:
        pairing.require_bases_of_same_architecture(family, config.base, config.draw_base)
        licence.require_licence_agreement(config, family.base_folder(config.draw_base), "draw_base")
    device, precision = accelerator.device, hardware.choose_fp32_or_bf16(config.hardware)
    models = load_base_model(config, config.base, brand_set.brand, precision, device)
    sample.require_size_multiples(config, models.multiple)
    learned.require_pairs_drawn_with_base(models.sha256)
    adapted = add_lora(models, family, config)
    encoders = pipelines.text_encoders(models.pipeline)
    for part in (models.pipeline.vae, *encoders):
        part.to(device)
    resolutions = config.train.resolutions or [sample.drawing_resolution(config, models)]
    taught = replace(brand_set, splits=brand_set.splits | {"train": learned.pictures})
    data = encoded.encode_training_set(taught, models, family, config.train, resolutions, accelerator)
    for part in encoders if not config.lora.text_encoder else []:  # draw_pictures fetches them; a card has better use
        part.to("cpu")
    move_or_shard_denoiser(models, config, device)
    drawing, drawing_adapted = models, adapted
    if config.draw_base:
        drawing = load_base_model(config, config.draw_base, brand_set.brand, precision, device)
        for part in (drawing.pipeline.vae, *pipelines.text_encoders(drawing.pipeline)):
            part.to(device)
        side = resolutions[0]
        pixels = encoded.autoencoder_input_pixels(learned.pictures[0], brand_set.brand, models.draws_alpha, side, side)
        pairing.require_same_latents_of_autoencoders(family, models, drawing, pixels)
        drawing_adapted = add_lora(drawing, family, config)
        move_or_shard_denoiser(drawing, config, device)
    pairs = config.preferences is not None
    run = LiveTrainingRun(
        config=config,
        directory=directory,
        brand_set=brand_set,
        family=family,
        models=models,
        adapted=adapted,
        drawing=drawing,
        drawing_adapted=drawing_adapted,
        accelerator=accelerator,
        learned=learned.pictures,
        data=data,
        buckets=buckets.view_indices_by_bucket(data.views[: len(data.views) // (2 if pairs else 1)]),
        precision=precision,
        facts={
            "data": brand_set.sha256_of_training_content(),
            "base": models.sha256,
            "processes": accelerator.num_processes,
        }
        | ({"draw_base": drawing.sha256} if config.draw_base else {})
        | learned.facts,
        reference=load_starting_lora(adapted, learned.start) if pairs else [],
    )
    set_threads_and_compilation(run)
    state.require_unchanged_run_facts(directory, run.facts)
    accelerator.wait_for_everyone()
    if main:
        record = {
            "stylegate": __version__,
            "facts": run.facts,
            "config": config_as_dict(config),
            "versions": library_versions(),
        }
        files.write_json(directory / "run.json", record)
        print(f"run: {files.display_path(directory)}")
        remarks = findings.all_remarks() + brandcheck.remarks_on_long_captions(brand_set, config)
        for remark in remarks + learned.remarks + remarks_on_base_and_picture_sizes(run, resolutions):
            print(f"note: {remark}")
    accelerator.wait_for_everyone()
    require_common_disk(run)
    return run


def require_common_disk(run: LiveTrainingRun) -> None:
    """Raise SurroundingsError, on all processes, if one of them does not see what the others have written: run.json,
    and an encoded picture of each.
    """
    record, keys = run.directory / "run.json", list(dict.fromkeys(run.data.latent_keys))
    until = time.monotonic() + DISK_PATIENCE_S
    while not record.exists() and time.monotonic() < until:
        time.sleep(0.5)
    missing = [
        record.exists(),
        None not in run.data.cache.read_arrays_of_keys(keys[: run.accelerator.num_processes]),
    ].count(False)
    blind = torch.tensor(float(missing > 0), device=run.accelerator.device)
    if num_blind := int(run.accelerator.reduce(blind, "sum")):  # type: ignore[arg-type]
        raise SurroundingsError(
            f"{num_blind} of {run.accelerator.num_processes} processes do not see what the others write",
            next_step=f"{files.display_path(files.RUNS)} and {files.display_path(files.CACHE)} must lie on a disk that "
            "all machines see, at the same place of STYLEGATE_HOME.",
        )


def load_base_model(config: Config, base: str, brand: Brand, precision: str, device: torch.device) -> LoadedBaseModel:
    """Load the base model named `base` into main memory; its transparent pictures get the background that the brand
    says.
    """
    weights = hardware.weights_dtype(precision, device)
    models = FAMILIES[config.family.name].load(base, torch.device("cpu"), weights)
    if config.hardware.nf4:
        models = pipelines.quantise_to_four_bits(models, device)
    return models._replace(background=brand.background_for_drawn_pictures())


def move_or_shard_denoiser(models: LoadedBaseModel, config: Config, device: torch.device) -> None:
    """Move the denoiser with its LoRA to the device; with hardware.shard=true each process keeps its part of the base
    there.
    """
    if config.hardware.shard:
        sharding.shard_base(models.denoiser, device, PATIENCE)
    else:
        models.denoiser.to(device)


def remarks_on_base_and_picture_sizes(run: LiveTrainingRun, resolutions: list[int]) -> list[str]:
    """Sentences on base, sizes and buckets that a person should know before the first step."""
    settings = run.config.train
    largest, found = max(min(pictures.upright_size_of(item.unchanged_file_bytes())) for item in run.learned), []
    if run.models.distilled:
        found.append(
            "This base is distilled to few steps, which a LoRA undoes. Train on the model it was made from, and name "
            "this one as draw_base=."
        )
    if largest >= 1.5 * max(resolutions):
        found.append(
            f"Pictures of up to {largest} pixels are scaled to {max(resolutions)}. For more, raise "
            "family.resolution, with a base= that draws such pictures (hub id or folder)."
        )
    batch = settings.batch_size * run.accelerator.num_processes
    for bucket in run.buckets if len(run.buckets) > 1 else []:
        view = run.data.views[bucket[0]]
        few = " A batch shows them more than once: add pictures of this shape, or give train.buckets=false."
        shape = f"bucket {view.width} x {view.height}: {counted(len(bucket), 'picture')}; none is left out."
        found.append(shape + (few if len(bucket) < batch else ""))
    return found


def add_lora(models: LoadedBaseModel, family: Family, config: Config) -> nn.ModuleDict:
    """Attach LoRA adapters to the configured parts of the base. Returns these parts by component ("unet",
    "text_encoder", ...).

    A is random from the seed and B is zero, so at first the LoRA changes nothing.
    """
    targets = {family.COMPONENT: family.lora_targets(config.lora.targets)}
    if config.lora.text_encoder:
        targets |= family.text_encoder_lora_targets(models)
    adapted = nn.ModuleDict()
    with torch.random.fork_rng():
        torch.manual_seed(batches.seeded_generator(config.train.seed, batches.INIT).initial_seed())
        for component, endings in targets.items():
            part = getattr(models.pipeline, component)
            adapter = LoraConfig(
                r=config.lora.rank,
                lora_alpha=configured_lora_alpha_or_rank(config.lora),  # type: ignore[arg-type]
                use_rslora=config.lora.rslora,
                use_dora=config.lora.dora,
                init_lora_weights="gaussian",
                target_modules=endings,
                exclude_modules=list(models.unused_layers) or None,
            )
            part.add_adapter(adapter)
            cast_training_params(part, torch.float32)  # what is trained stays exact
            recompute_dora_magnitudes_in_fp32(part)
            adapted[component] = part
    return adapted


@torch.no_grad()
def recompute_dora_magnitudes_in_fp32(part: nn.Module) -> None:
    """Compute a DoRA's magnitudes in fp32: PEFT's are in the base's precision and would change the base at once."""
    for layer in part.modules():
        for vector in getattr(layer, "lora_magnitude_vector", {}).values():
            weight: Any = layer.get_base_layer().weight  # type: ignore[operator]
            vector.weight.data.copy_(weight.float().flatten(1).norm(dim=1).reshape(vector.weight.shape))


def set_threads_and_compilation(run: LiveTrainingRun) -> None:
    """Set CPU threads, gradient checkpointing and compilation, and add to `run.facts` those settings that change bits.

    The number of threads is the configured one, else the one that the run began with, else torch's own choice on the
    main process.
    """
    wanted, denoiser = run.config.hardware, run.models.denoiser
    record = run.directory / "run.json"
    before = files.read_json(record, "the run's record", "facts")["facts"].get("threads") if record.exists() else None
    threads = [wanted.threads or before or torch.get_num_threads()]
    broadcast_object_list(threads)
    torch.set_num_threads(threads[0])
    if wanted.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    if wanted.compile:
        denoiser.compile_repeated_blocks()  # type: ignore[operator]
    run.facts |= {"precision": run.precision, "threads": threads[0], "compile": wanted.compile}


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that a run depends on, by name."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "peft", "accelerate", "transformers")}
