"""What LoRA files call their layers: ours, and those of other programs.

One namespace in memory, `unet.down_blocks.0.attentions.0.proj_in`: the pipeline's component, then the module's path in
diffusers.

    style       a key                                                        alpha            read by
    diffusers   unet.down_blocks.0...to_q.lora_A.weight (or .lora.down)      in the header    diffusers
    kohya       lora_unet_down_blocks_0_..._to_q.lora_down.weight            .alpha           ComfyUI, A1111, diffusers
    comfyui     diffusion_model.layers.0.attention.qkv.lora_A.weight         .alpha           ComfyUI, diffusers

kohya's own SDXL files call blocks as the original UNet does (input_blocks_4_1_...), some files with dots
(diffusion_model.input_blocks.4.1...). All are read; diffusers' names are written, which the three programs read.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "base_model.model.")  # of torch.compile, FSDP and PEFT: no layers
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
    "dora_scale": "dora_scale",
    "lora_mid.weight": "mid",
    ".diff": "diff",
    ".diff_b": "bias",
    **{f".hada_{part}": f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{part}": f"lokr_{part}" for part in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")},
}
WRITTEN = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}  # before a flattened path
FLAT = {  # as read: the prefix of a flattened path, and the components it can mean
    "lora_unet_": ("unet", "transformer"),
    "lycoris_": ("unet", "transformer"),
    "lora_transformer_": ("transformer",),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": ("text_encoder_2", "text_encoder_3"),  # T5, the last text encoder of FLUX.1 and of SD 3.5
}


KINDS = {  # endings of keys of other adapters than a plain LoRA, as LyCORIS and kohya write them, and their names
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "LoKr": ("lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    "Tucker middle": ("lora_mid.weight",),
    "OFT": ("oft_blocks", "oft_diag", "oft_R.weight", "boft_R"),
    "GLoRA": ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    "IA3": ("on_input",),
    "norm difference": ("w_norm", "b_norm"),
    "weight difference": ("diff",),
    "bias difference": ("diff_b",),
    "whole weight": ("set_weight", "set_bias"),
    "low-rank bias": ("lora_B.bias", "lora_up.bias"),
}
READ_HERE = {"LoHa", "LoKr", "Tucker middle", "weight difference", "bias difference"}  # stylegate/lycoris.py


class KeyParts(NamedTuple):
    """The meaning of a LoRA file's key, which names one tensor of one layer."""

    style: str  # diffusers, kohya, comfyui (the original model's paths), or bare: without the component, as PEFT has it
    layer: str  # as the file calls it
    part: str  # down, up, alpha, magnitude (PEFT's), dora_scale (LyCORIS', kohya's), or of stylegate/lycoris.py


def parse_lora_key(key: str) -> KeyParts | None:
    """The style of names, the layer and the part (down, up, alpha, ...) of a LoRA file's key; None for a key of no kind
    that is read here.
    """
    ending = max((e for e in ENDINGS if key.endswith(e)), key=len, default="")
    layer = key.removesuffix(ending).rstrip(".") if ending else ""
    return (
        KeyParts(naming_style_of_layer_name(without_wrapper_prefixes(layer)), layer, ENDINGS[ending]) if layer else None
    )


def naming_style_of_layer_name(layer: str) -> str:
    """The style of names (see `KeyParts`) that a layer's name belongs to."""
    if layer.startswith(("diffusion_model.", "model.diffusion_model.")):
        return "comfyui"
    if "." not in layer and layer.startswith(tuple(FLAT)):
        return "kohya"
    return "diffusers" if layer.startswith(tuple(f"{name}." for name in COMPONENTS)) else "bare"


def without_wrapper_prefixes(layer: str) -> str:
    """A layer's name without the parts that torch.compile, FSDP and PEFT put into the names of modules."""
    for wrapper in WRAPPERS:
        layer = f".{layer}".replace(f".{wrapper}", ".").removeprefix(".")
    for prefix in FLAT:
        if layer.startswith(f"{prefix}_orig_mod_"):
            layer = prefix + layer.removeprefix(f"{prefix}_orig_mod_")
    return layer


def layer_and_other_adapter_kind(key: str) -> tuple[str, str] | None:
    """The layer and the kind of adapter (of `KINDS`) that a key belongs to; None for any other key, so of a plain LoRA
    too.
    """
    for kind, endings in KINDS.items():
        for ending in endings:
            if key.endswith(f".{ending}"):
                return key.removesuffix(f".{ending}"), kind
    return ("bundle_emb", "bundled embedding") if key.startswith("bundle_emb.") else None


def canonical_layer_name(key_parts: KeyParts, by_flat_name: Mapping[str, str], modules: Iterable[str]) -> str | None:
    """The canonical name of the module that a file's layer means; None if it is none of `modules`.

    `by_flat_name` is `canonical_names_by_flat_name(modules)`.
    """
    layer = without_wrapper_prefixes(key_parts.layer)
    if key_parts.style == "kohya":
        return by_flat_name.get(layer)
    if key_parts.style == "comfyui":
        path = layer.removeprefix("model.").removeprefix("diffusion_model.")
        same = f"transformer.{path}"  # some original models, such as Qwen-Image, have diffusers' names
        return same if same in modules else canonical_name_of_original_path(path, by_flat_name)
    name = layer.replace(".processor.", ".")
    spelled = [name.replace(".text_model.", ".") if name.startswith("text_encoder") else name, name]
    if key_parts.style == "bare":
        of_text_encoders = possible_text_encoder_module_names(name, modules)
        spelled = [f"unet.{name}", f"transformer.{name}", *(of_text_encoders if len(of_text_encoders) == 1 else [])]
    candidates = [*spelled, *(f"{name}.0" for name in spelled)]  # to_out is a list of a layer and a dropout
    found = next((c for c in candidates if c in modules), None)
    return found or canonical_name_of_original_path(name.removeprefix("unet."), by_flat_name)


def possible_text_encoder_module_names(layer: str, modules: Iterable[str]) -> list[str]:
    """The text encoders' modules, by canonical name, that a layer named without its component may be (PEFT's names)."""
    path = without_wrapper_prefixes(layer).removeprefix("text_model.")
    names = [f"{part}.{inner}{path}" for part in COMPONENTS[2:] for inner in ("", "text_model.")]
    return [name for name in names if name in modules]


def canonical_name_of_original_path(path: str, by_flat_name: Mapping[str, str]) -> str | None:
    """The canonical name of a module by its dotted path in the original code of a UNet (input_blocks.4.1...) or of Krea
    2 (blocks.0.attn.wq), or None.

    Other transformers' layers are fused in the original code: diffusers separates them (stylegate/fusednames.py).
    """
    found = by_flat_name.get("lora_unet_" + path.replace(".", "_"), "")
    return found if found.startswith("unet.") or original_krea2_path(found.partition(".")[2]) == path else None


def canonical_names_by_flat_name(modules: Iterable[str]) -> dict[str, str]:
    """The canonical name of every module, by each flattened name that kohya's and LyCORIS' files have for it."""
    found: dict[str, str] = {}
    for name in modules:
        component, _, path = name.partition(".")
        spellings = [path]
        if component == "unet":
            spellings.append(original_unet_path(path) or path)
        elif component == "transformer":
            spellings.append(original_krea2_path(path) or path)
        elif component.startswith("text_encoder"):
            spellings.append(clip_path_before_transformers_5(path))
        for prefix, components in FLAT.items():
            if component in components:
                found |= {prefix + spelling.replace(".", "_"): name for spelling in spellings}
    return found


def layer_name_in_diffusers(name: str) -> str:
    """The name that diffusers and ComfyUI use for a canonical name: text encoders as before transformers 5."""
    component, _, path = name.partition(".")
    return f"{component}.{clip_path_before_transformers_5(path)}" if component.startswith("text_encoder") else name


def layer_name_in_kohya(name: str) -> str:
    """The flattened name that kohya uses for a canonical name."""
    component, _, path = name.partition(".")
    path = clip_path_before_transformers_5(path) if component.startswith("text_encoder") else path
    return WRITTEN[component] + path.replace(".", "_")


def clip_path_before_transformers_5(path: str) -> str:
    """A text encoder's module path as before transformers 5, which is how LoRA files still have it; T5's as it is."""
    return path if path.startswith(("text_model.", "encoder.block.")) else f"text_model.{path}"


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


def original_unet_path(path: str) -> str | None:
    """The path of a UNet module in the original code (LDM, SGM), as kohya's SDXL files have it.

    None for a path that is not of a layer in diffusers' UNet.
    """
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


KREA2_BLOCK = re.compile(r"(transformer_blocks|text_fusion\.(?:layerwise|refiner)_blocks)\.(\d+)\.(attn|ff)\.(.+)")
KREA2_ATTENTION = {"to_q": "wq", "to_k": "wk", "to_v": "wv", "to_gate": "gate", "to_out.0": "wo"}
KREA2_OUTSIDE = {
    "img_in": "first",
    "time_embed.linear_1": "tmlp.0",
    "time_embed.linear_2": "tmlp.2",
    "time_mod_proj": "tproj.1",
    "txt_in.linear_1": "txtmlp.1",
    "txt_in.linear_2": "txtmlp.3",
    "text_fusion.projector": "txtfusion.projector",
    "final_layer.linear": "last.linear",
}


def original_krea2_path(path: str) -> str | None:
    """The path of a Krea 2 module in the original code, which ai-toolkit and musubi-tuner have in their LoRA files.

    None for a path that is not of a layer in diffusers' Krea 2 transformer.
    """
    match = KREA2_BLOCK.fullmatch(path)
    if not match:
        return KREA2_OUTSIDE.get(path)
    blocks, number, kind, layer = match.groups()
    inner = KREA2_ATTENTION.get(layer) if kind == "attn" else layer
    place = blocks.removeprefix("transformer_").replace("text_fusion", "txtfusion")
    return inner and f"{place}.{number}.{'attn' if kind == 'attn' else 'mlp'}.{inner}"
