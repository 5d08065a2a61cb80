"""What LoRA files call their layers: ours, and those of other programs.

One namespace in memory, `unet.down_blocks.0.attentions.0.proj_in`: the pipeline's component, then the module's path in
diffusers.

    style       a key                                                        alpha            read by
    diffusers   unet.down_blocks.0...to_q.lora_A.weight (or .lora.down)      in the header    diffusers
    kohya       lora_unet_down_blocks_0_..._to_q.lora_down.weight            .alpha           ComfyUI, A1111, diffusers

    comfyui     diffusion_model.layers.0.attention.qkv.lora_A.weight             .alpha           ComfyUI, diffusers

kohya's own SDXL files call blocks as the original UNet does (input_blocks_4_1_...); both ways are read, diffusers'
names are written, which all three take.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
PAIRS = [
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
]
ENDINGS = {ending: part for pair in PAIRS for ending, part in zip(pair, ("down", "up"), strict=True)} | {
    "alpha": "alpha",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector": "magnitude",
    "dora_scale": "magnitude",
}
WRITTEN = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}  # before a flattened path
FLAT = {  # the same, as read: what stands before a flattened path, and the components it can mean
    "lora_unet_": ("unet", "transformer"),
    "lycoris_": ("unet", "transformer"),
    "lora_transformer_": ("transformer",),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": (),
}


class Half(NamedTuple):
    """What a key says: whose tensor of which layer, as the file calls it."""

    style: str  # diffusers, kohya, comfyui (the original model's paths), or bare: without the component, as PEFT has it
    layer: str
    part: str  # down, up, alpha or magnitude


def half_of(key: str) -> Half | None:
    """None for a key of no known kind."""
    ending = max((e for e in ENDINGS if key.endswith(e)), key=len, default="")
    layer = key.removesuffix(ending).rstrip(".") if ending else ""
    if not layer:
        return None
    style = "diffusers" if layer.startswith(tuple(f"{name}." for name in COMPONENTS)) else "bare"
    if "." not in layer and layer.startswith(tuple(FLAT)):
        style = "kohya"
    if layer.startswith("diffusion_model."):
        style = "comfyui"
    return Half(style, layer, ENDINGS[ending])


def canonical(half: Half, flat: Mapping[str, str], modules: Iterable[str]) -> str | None:
    """The module that a file's layer means; None if it is none of `modules`. `flat` is theirs, by `flattened`."""
    if half.style == "kohya":
        return flat.get(half.layer)
    if half.style == "comfyui":
        return None  # fused layers: diffusers takes them apart (stylegate/lorafile.py)
    name = half.layer.removeprefix("base_model.model.").replace(".processor.", ".")
    spelled = [name.replace(".text_model.", ".") if name.startswith("text_encoder") else name, name]
    if half.style == "bare":
        spelled = [f"unet.{name}", f"transformer.{name}"]
    candidates = [*spelled, *(f"{name}.0" for name in spelled)]  # to_out is a list of a layer and a dropout
    return next((c for c in candidates if c in modules), None)


def flattened(modules: Iterable[str]) -> dict[str, str]:
    """kohya's name of every module, in all spellings, to the canonical one."""
    found: dict[str, str] = {}
    for name in modules:
        component, _, path = name.partition(".")
        spellings = [path]
        if component == "unet":
            spellings.append(original(path) or path)
        elif component.startswith("text_encoder"):
            spellings.append(in_clip(path))
        for prefix, components in FLAT.items():
            if component in components:
                found |= {prefix + spelling.replace(".", "_"): name for spelling in spellings}
    return found


def diffusers(name: str) -> str:
    """diffusers' and ComfyUI's name of a canonical one: text encoders as they were before transformers 5."""
    component, _, path = name.partition(".")
    return f"{component}.{in_clip(path)}" if component.startswith("text_encoder") else name


def kohya(name: str) -> str:
    """kohya's name of a canonical one."""
    component, _, path = name.partition(".")
    path = in_clip(path) if component.startswith("text_encoder") else path
    return WRITTEN[component] + path.replace(".", "_")


def flat_original(key: str) -> str:
    """A key of ComfyUI's style as kohya has it; others as they are."""
    half = half_of(key)
    if half is None or half.style != "comfyui":
        return key
    endings = {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha", "magnitude": "dora_scale"}
    return f"lora_unet_{half.layer.removeprefix('diffusion_model.').replace('.', '_')}.{endings[half.part]}"


def in_clip(path: str) -> str:
    """A text encoder's module path as it was before transformers 5, and still is in LoRA files."""
    return path if path.startswith("text_model.") else f"text_model.{path}"


BLOCK = re.compile(r"(down|up|mid)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.?(.*)")
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
LAYERS_PER_BLOCK = 2  # of SD's and SDXL's UNets


def original(path: str) -> str | None:
    """A UNet module's path in the original code (LDM, SGM), as kohya's SDXL files have it; None if there is none."""
    match = BLOCK.fullmatch(path)
    if not match:
        return OUTSIDE.get(path)
    side, block, kind, number, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    inner = RESNET.get(rest, rest) if kind == "resnets" else "op" if kind == "downsamplers" else rest
    if side == "mid":
        place = f"middle_block.{2 * number if kind == 'resnets' else 1}"
    elif side == "down":
        last = LAYERS_PER_BLOCK if kind == "downsamplers" else number
        place = f"input_blocks.{1 + block * (LAYERS_PER_BLOCK + 1) + last}.{int(kind == 'attentions')}"
    else:
        last = LAYERS_PER_BLOCK if kind == "upsamplers" else number
        slot = {"resnets": 0, "attentions": 1, "upsamplers": 2}[kind]
        place = f"output_blocks.{block * (LAYERS_PER_BLOCK + 1) + last}.{slot}"
    return f"{place}.{inner}" if inner else place
