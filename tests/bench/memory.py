"""What a training step of each family needs on a card, estimated from the shapes of the released models.

    python -m tests.bench.memory        about a minute; downloads nothing, allocates nothing (torch's meta device)

As `stylegate train dry_run=true` estimates it: weights in bf16, LoRA with gradients and AdamW's moments in fp32, and
what layers put out that the backward pass needs; LoRA on attention, rank 16. A card holds CUDA's own gigabyte besides.
While it trains the text encoders lie in main memory; to draw samples they lie beside the denoiser (the last columns, to
which the work of drawing comes). The columns after the batches are of one picture at 1024 pixels. The configs are those
that the makers published.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from peft import LoraConfig

from stylegate.config import Config
from stylegate.families import FAMILIES
from train import dryrun

UNET: dict[str, Any] = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4}
SDXL_LEVELS = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
KL: dict[str, Any] = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4}
FLUX2: dict[str, Any] = {"in_channels": 128, "attention_head_dim": 128, "guidance_embeds": False}
TEXT = {  # billions of parameters of the text encoders, as published
    "Stable Diffusion 1.5": 0.12,
    "SDXL": 0.82,
    "Stable Diffusion 3.5 medium": 5.6,
    "FLUX.2 klein 4B": 4.0,
    "FLUX.2 klein 9B": 8.2,
    "Z-Image": 4.0,
    "FLUX.1 dev": 4.9,
    "Qwen-Image": 8.3,
    "Krea 2": 4.4,
    "Qwen-Image 2.1": 8.8,
}
RELEASED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # family, configs of denoiser and autoencoder
    "Stable Diffusion 1.5": (
        "sd",
        UNET | {"sample_size": 64, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768},
        KL,
    ),
    "SDXL": (
        "sdxl",
        UNET
        | {
            "sample_size": 128,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": SDXL_LEVELS,
            "up_block_types": [name.replace("Down", "Up") for name in reversed(SDXL_LEVELS)],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        KL,
    ),
    "Stable Diffusion 3.5 medium": (
        "sd3",
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "dual_attention_layers": list(range(13)),
            "qk_norm": "rms_norm",
            "pos_embed_max_size": 384,
            "pooled_projection_dim": 2048,
        },
        KL,
    ),
    "FLUX.2 klein 4B": (
        "flux2",
        FLUX2 | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
        KL,
    ),
    "FLUX.2 klein 9B": (
        "flux2",
        FLUX2 | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
        KL,
    ),
    "Z-Image": ("zimage", {"cap_feat_dim": 2560}, KL),
    "FLUX.1 dev": ("flux", {"guidance_embeds": True, "pooled_projection_dim": 768}, KL),
    "Qwen-Image 2.1": ("qwenimage21", {"context_in_dim": 4096}, {"z_dim": 64}),
    "Krea 2": ("krea2", {"text_hidden_dim": 2560}, {"temperal_downsample": [False, True, True]}),
    "Qwen-Image": ("qwenimage", {"joint_attention_dim": 3584}, {"temperal_downsample": [False, True, True]}),
}
BATCHES = (1, 2, 4)
SIDES = (512, 1024)


def write_configs(title: str, folder: Path) -> str:
    """A released model's configs as they lie in a folder of its pipeline; returns its family."""
    family, denoiser, vae = RELEASED[title]
    for part, config in ((FAMILIES[family].COMPONENT, denoiser), ("vae", vae)):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
    return family


def gigabytes(
    family: str, folder: Path, batch: int, side: int, checkpointing: bool, nf4: bool = False
) -> tuple[float, float]:
    """Billions of parameters, those in 4 bits counted by their bytes, and what a step needs in GB."""
    sketch, settings = FAMILIES[family].weightless_model(folder), Config().lora
    frozen = sum(p.numel() for p in sketch.denoiser.parameters())
    packed = dryrun.num_weights_in_4_bits(sketch.denoiser)
    targets = FAMILIES[family].lora_targets(["attention"])
    sketch.denoiser.add_adapter(LoraConfig(r=settings.rank, target_modules=targets))
    trained = sum(p.numel() for p in sketch.denoiser.parameters() if p.requires_grad)
    _, kept = dryrun.num_forward_operations_and_activations(
        sketch.denoiser, sketch.example_inputs(batch, side, side), checkpointing
    )
    weights = (frozen - packed + packed * dryrun.NF4_BYTES / 2 if nf4 else frozen) / 1e9
    return weights, dryrun.training_memory_bytes(
        frozen, trained, kept, half_precision=True, on_card=True, num_in_4_bits=packed if nf4 else 0
    ) / 1e9


def main() -> None:
    columns = [f"{side} px, {batch}" for side in SIDES for batch in BATCHES]
    print("| base | parameters | " + " | ".join(columns) + " | no checkpointing | 4 bits | drawing | in 4 bits |")
    print("|---" * (len(columns) + 6) + "|")
    for title in RELEASED:
        with tempfile.TemporaryDirectory() as place:
            family = write_configs(title, Path(place))
            found = [gigabytes(family, Path(place), b, side, True) for side in SIDES for b in BATCHES]
            whole = gigabytes(family, Path(place), 1, 1024, False)
            small = gigabytes(family, Path(place), 1, 1024, True, nf4=True)
        cells = " | ".join(f"{needed:.0f} GB" for _, needed in [*found, whole, small])
        text, parameters = 2 * TEXT[title], found[0][0]  # bf16: 2 bytes a parameter
        drawing = f"{2 * parameters + text:.0f} GB | {2 * small[0] + text:.0f} GB"
        print(f"| {title} | {parameters:.1f} B | {cells} | {drawing} |", flush=True)


if __name__ == "__main__":
    main()
