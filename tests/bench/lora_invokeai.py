"""What `stylegate inspect` says of InvokeAI, against InvokeAI's own code that loads LoRA files.

    pip install --no-deps --target .venv/readers -r tests/bench/readers.txt      as make prove does
    PYTHONPATH=.:.venv/readers python -m tests.bench.lora_invokeai

InvokeAI 6.14.2 comes without its own pins; only its code for LoRA files is run. Of each file: does InvokeAI raise, at
which strength does it take the layers? A few seconds on one CPU; the exit code is 1 if an answer is wrong.
"""

import logging
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import Tensor

from stylegate import invokeai, loracontents

Tensors = dict[str, Tensor]
WIDTH, RANK, ALPHA = 24, 2, 1.0
LAYERS: dict[str, tuple[str, str]] = {  # InvokeAI's name of the base, and of a layer
    "SD, kohya": ("sd-1", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"),
    "SD, lycoris": ("sd-1", "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"),
    "SD, diffusers": ("sd-1", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
    "SD, text encoder": ("sd-1", "lora_te_text_model_encoder_layers_0_self_attn_q_proj"),
    "FLUX.1, original": ("flux", "diffusion_model.double_blocks.0.img_attn.proj"),
    "FLUX.1, kohya": ("flux", "lora_unet_double_blocks_0_img_attn_proj"),
    "FLUX.2, original": ("flux2", "diffusion_model.double_blocks.0.img_attn.proj"),
    "FLUX.2, diffusers": ("flux2", "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"),
    "Z-Image, diffusers": ("z-image", "transformer.layers.0.attention.to_q"),
    "Qwen-Image, diffusers": ("qwen-image", "transformer.transformer_blocks.0.attn.to_q"),
    "Qwen-Image, kohya": ("qwen-image", "lora_unet_transformer_blocks_0_attn_to_q"),
}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape)


KINDS: dict[str, Callable[[], Tensors]] = {  # the tensors of a layer
    "LoRA": lambda: {"lora_down.weight": random(RANK, WIDTH), "lora_up.weight": random(WIDTH, RANK)},
    "LoRA, PEFT's": lambda: {"lora_A.weight": random(RANK, WIDTH), "lora_B.weight": random(WIDTH, RANK)},
    "LoHa": lambda: {f"hada_w{i}_{h}": random(*s) for i in "12" for h, s in (("a", (WIDTH, 2)), ("b", (2, WIDTH)))},
    "LoKr": lambda: {"lokr_w1": random(2, 2), "lokr_w2_a": random(12, 2), "lokr_w2_b": random(2, 12)},
    "LoKr, whole": lambda: {"lokr_w1": random(2, 2), "lokr_w2": random(12, 12)},
    "half a LoKr": lambda: {"lokr_w1": random(2, 2)},
    "difference": lambda: {"diff": random(WIDTH, WIDTH)},
    "DoRA of the inputs": lambda: KINDS["LoRA"]() | {"dora_scale": torch.ones(1, WIDTH)},
    "LoHa, DoRA": lambda: KINDS["LoHa"]() | {"dora_scale": torch.ones(1, WIDTH)},
    "OFT": lambda: {"oft_blocks": random(2, 2, 2)},
    "GLoRA": lambda: {"a1.weight": random(2, 2)},
}


def load_with_invokeai(base: str, tensors: Tensors) -> list[float]:
    """The strength of each layer that InvokeAI's loader makes of a file for a base; raises what it raises."""
    import invokeai.backend.model_manager.load  # type: ignore[import-not-found]  # noqa: F401  (its parts import each other)
    from invokeai.backend.model_manager.load.model_loaders.lora import LoRALoader  # type: ignore[import-not-found]
    from invokeai.backend.model_manager.taxonomy import BaseModelType, ModelFormat  # type: ignore[import-not-found]

    loader = object.__new__(LoRALoader)  # without an application around it
    loader._model_base, loader._torch_dtype = BaseModelType(base), torch.float32
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x.safetensors")
        save_file(tensors, path)
        model = loader._load_model(SimpleNamespace(path=str(path), format=ModelFormat.LyCORIS, base=base))
    return [layer.scale() for layer in model.layers.values()]


def wrong_answer(base: str, tensors: Tensors) -> str | None:
    """How inspect's answer differs from what InvokeAI does with a file; None if it does not."""
    file = loracontents.parse_lora_contents(tensors, {})
    answer = "; ".join(invokeai.lora_problems_in_invokeai(file))
    try:
        strengths = load_with_invokeai(base, tensors)
    except Exception as error:  # whatever it raises
        refused = answer.startswith("refuses it")
        return None if refused else f"it raises {type(error).__name__}; said: {answer or 'reads all'}"
    if answer.startswith("refuses it"):
        return f"it reads the file; said: {answer}"
    other = [strength for strength in strengths if strength not in file.strengths.values()]
    if bool(other) != ("at strength 1" in answer):
        return f"it takes a layer at {strengths}, meant is {file.strengths}; said: {answer or 'reads all'}"
    return None


def main() -> int:
    """Print each answer that is wrong; 1 if there is one."""
    logging.disable(logging.CRITICAL)
    wrong, count = 0, 0
    for name, (base, layer) in LAYERS.items():
        for kind, make in KINDS.items():
            for alpha in ({}, {"alpha": torch.tensor(ALPHA)}):
                tensors = {f"{layer}.{part}": tensor for part, tensor in (make() | alpha).items()}
                count += 1
                if problem := wrong_answer(base, tensors):
                    print(f"  {name}, {kind}{', alpha' if alpha else ''}: {problem}")
                    wrong += 1
    print(f"invokeai {version('invokeai')}: {count} files, {wrong} wrong answers")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
