"""What `inspect` says of a program, against the program: diffusers' own loader on files as people have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from stylegate import adapter, loracontents, lorafile, loraheader, loranames, readers
from stylegate.adapter import LoraOrDoraLayer
from stylegate.families import FAMILIES
from stylegate.loraheader import ADAPTER_METADATA

BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0."
Q, K, V = (f"{BLOCK}attn1.to_{name}" for name in "qkv")
FF, CONV = f"{BLOCK}ff.net.0.proj", "unet.conv_in"
TEXT = "text_encoder.encoder.layers.0."
TEXT_Q, TEXT_OUT, FC1, FC2 = (f"{TEXT}{n}" for n in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"))
FLAT = loranames.layer_name_in_kohya(Q)
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """The miniature's pipeline and its modules; the pipeline is loaded again after a refusal."""
    return {}


def pipeline_of(base: dict[str, Any]) -> Any:
    if "pipeline" not in base:
        base["pipeline"] = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32).pipeline
        base["modules"] = lorafile.adaptable_modules_of_pipeline(base["pipeline"])
    return base["pipeline"]


def layer(modules: dict[str, Any], name: str, rank: int = 2, alpha: float = 1.0) -> LoraOrDoraLayer:
    shape = adapter.weight_shape_of(modules[name])
    return LoraOrDoraLayer(torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *[1] * (len(shape) - 2)), alpha)


def respelled(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


def added(key: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {key: torch.ones(shape)}


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if part not in key}


def with_endings(down: str, up: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: respelled("lora_B", up)(respelled("lora_A", down)(tensors))


def of_type(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor.to(dtype) for key, tensor in tensors.items()}


PLAIN = [(Q, 2, 1.0), (K, 2, 1.0), (V, 2, 1.0)]
SAME = respelled("", "")
RANK_0 = {f"{FLAT}.lora_down.weight": torch.zeros(0, 64), f"{FLAT}.lora_up.weight": torch.zeros(64, 0)}
CASES: dict[str, tuple[str, list[tuple[str, int, float]], Callable[[Tensors], Tensors]]] = {
    "plain": ("kohya", PLAIN, SAME),
    "dotted": ("diffusers", PLAIN, SAME),
    "text encoder": ("kohya", [(Q, 2, 1.0), (TEXT_Q, 2, 1.0), (TEXT_OUT, 2, 1.0), (FC1, 2, 1.0)], SAME),
    "text encoder without out_proj": ("kohya", [(Q, 2, 1.0), (TEXT_Q, 2, 1.0), (FC1, 2, 1.0)], SAME),
    "text encoder, attention alone": ("kohya", [(Q, 2, 1.0), (TEXT_Q, 2, 1.0)], SAME),
    "text encoder, alphas": ("kohya", [(TEXT_Q, 2, 1.0), (TEXT_OUT, 2, 1.0), (FC1, 2, 3.0), (FC2, 2, 1.0)], SAME),
    "dotted text encoder, alphas": ("diffusers", [(Q, 2, 1.0), (TEXT_Q, 2, 1.0), (FC1, 4, 3.0)], SAME),
    "lycoris prefix": ("kohya", PLAIN, respelled("lora_unet_", "lycoris_")),
    "alphas of attention": ("kohya", [(Q, 2, 1.0), (K, 2, 2.0), (V, 2, 2.0)], SAME),
    "alphas elsewhere": ("kohya", [(Q, 2, 1.0), (K, 2, 1.0), (FF, 2, 4.0), (CONV, 2, 2.0)], SAME),
    "ranks with alphas": ("kohya", [(Q, 4, 4.0), (K, 2, 2.0), (V, 2, 2.0)], SAME),
    "ranks, one alpha": ("kohya", [(Q, 4, 2.0), (K, 2, 2.0), (V, 2, 2.0)], SAME),
    "ranks, no alpha": ("kohya", [(Q, 4, 4.0), (K, 2, 2.0)], without(".alpha")),
    "one without alpha": ("kohya", PLAIN, without(f"{FLAT}.alpha")),
    "alpha 0": ("kohya", [(Q, 2, 0.0), (K, 2, 0.0)], SAME),
    "alpha below 0": ("kohya", [(Q, 2, -1.0)], SAME),
    "lone alpha": ("kohya", PLAIN, without(f"{FLAT}.lora")),
    "no up": ("kohya", PLAIN, without(f"{FLAT}.lora_up")),
    "no down": ("kohya", PLAIN, without(f"{FLAT}.lora_down")),
    "rank 0": ("kohya", PLAIN, lambda t: t | RANK_0),
    "alpha of two": ("kohya", PLAIN, added(f"{FLAT}.alpha", 2)),
    "LoKr": ("kohya", PLAIN, added(f"{FLAT}.lokr_w1", 2, 2)),
    "LoHa": ("kohya", PLAIN, added(f"{FLAT}.hada_w1_a", 2, 2)),
    "OFT": ("kohya", PLAIN, added(f"{FLAT}.oft_blocks", 2, 2, 2)),
    "GLoRA": ("kohya", PLAIN, added(f"{FLAT}.a1.weight", 2, 2)),
    "norm": ("kohya", PLAIN, added("lora_unet_conv_norm_out.w_norm", 64)),
    "whole difference": ("kohya", PLAIN, added(f"{FLAT}.diff", 64, 64)),
    "bias difference": ("kohya", PLAIN, added(f"{FLAT}.diff_b", 64)),
    "dotted bias": ("diffusers", PLAIN, added(f"{Q}.lora_B.bias", 64)),
    "Tucker": ("kohya", PLAIN, added(f"{FLAT}.lora_mid.weight", 2, 2, 3, 3)),
    "dotted Tucker": ("diffusers", PLAIN, added(f"{Q}.lora_mid.weight", 2, 2, 3, 3)),
    "dotted LoKr": ("diffusers", PLAIN, added(f"{Q}.lokr_w1", 2, 2)),
    "bundled embedding": ("kohya", PLAIN, added("bundle_emb.acme.clip_l", 2, 64)),
    "unknown": ("kohya", PLAIN, added(f"{FLAT}.bogus", 1)),
    "dotted alpha": ("diffusers", PLAIN, added(f"{Q}.alpha", 1)),
    "compiled": ("diffusers", PLAIN, respelled("unet.", "unet._orig_mod.")),
    "compiled, kohya": ("kohya", PLAIN, respelled("lora_unet_", "lora_unet__orig_mod_")),
    "PEFT's prefix": ("diffusers", PLAIN, respelled("unet.", "unet.base_model.model.")),
    "original names": ("diffusers", PLAIN, respelled(BLOCK, "unet.input_blocks.1.1.transformer_blocks.0.")),
    "ComfyUI's names": ("diffusers", PLAIN, respelled(BLOCK, "diffusion_model.input_blocks.1.1.transformer_blocks.0.")),
    "two schemes": ("kohya", PLAIN, respelled(FLAT, FLAT.replace("down_blocks_0_attentions_0", "input_blocks_1_1"))),
    "older endings": ("diffusers", PLAIN, with_endings("lora.down", "lora.up")),
    "kohya's endings, dotted": ("diffusers", PLAIN, with_endings("lora_down", "lora_up")),
    "PEFT's endings": ("diffusers", PLAIN, with_endings("lora_A.default", "lora_B.default")),
    "bare": ("diffusers", PLAIN, respelled("unet.", "")),
    "partly bare": ("diffusers", PLAIN, respelled(Q, Q.removeprefix("unet."))),
    "bfloat16": ("kohya", PLAIN, of_type(torch.bfloat16)),
    "float8": ("diffusers", PLAIN, of_type(torch.float8_e4m3fn)),
    "int8": ("kohya", PLAIN, of_type(torch.int8)),
}  # fmt: skip
HEADERS = {
    "none": None,
    "not JSON": "{",
    "no targets": '{"unet.r": 2, "unet.lora_alpha": 1}',
    "no alpha": '{"unet.r": 2, "unet.target_modules": ["to_q"]}',
    "another rank": '{"unet.r": 4, "unet.lora_alpha": 1, "unet.target_modules": ["to_q"]}',
    "unknown to PEFT": '{"unet.r": 2, "unet.new": 1, "unet.target_modules": ["to_q"]}',
    "another component": '{"text_encoder.r": 2, "text_encoder.target_modules": ["q_proj"]}',
    "ends of names": '{"unet.r": 2, "unet.target_modules": ["to_q"], "unet.alpha_pattern": {"to_k": 1}}',
    "rsLoRA": '{"unet.r": 2, "unet.lora_alpha": 4, "unet.target_modules": ["to_q"], "unet.use_rslora": true}',
}


def hold_against_diffusers(base: dict[str, Any], path: Path) -> str:
    """Load the file with diffusers; `inspect`'s answer must agree: refusal, layers read, strength of each.

    Returns the answer. The layers that are meant are those that we read and merge.
    """
    pipeline = pipeline_of(base)
    tensors, metadata = lorafile.load_tensors_and_metadata(path)
    answer = readers.lora_problems_by_program(loracontents.parse_lora_contents(tensors, metadata))["diffusers"]
    try:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    except Exception:
        base.clear()
        assert answer.startswith("refuses it: "), answer
        return answer
    loaded = {
        f"{component}.{name}": module.get_delta_weight(next(iter(module.lora_A)))  # type: ignore[operator]
        for component in ("unet", "text_encoder")
        for name, module in getattr(pipeline, component).named_modules()
        if isinstance(module, LoraLayer)
    }
    pipeline.unload_lora_weights()
    meant, _ = adapter.lora_layers_and_problems(tensors, metadata, base["modules"])
    whole = {name: tensor for name, tensor in loaded.items() if not tensor.is_meta and name in meant}
    same = [
        name
        for name, t in whole.items()
        if torch.allclose(t.double(), adapter.weight_change(meant[name]), rtol=1e-3, atol=1e-5)
    ]
    if answer.startswith("refuses it: "):
        assert not whole, (answer, list(whole))  # names that PEFT takes without a module: nothing arrives
    else:
        layers = {key_parts.layer for key in tensors if (key_parts := loranames.parse_lora_key(key))}
        assert ("ignores" in answer) == (len(whole) < len(layers) or "other keys" in answer), (answer, list(loaded))
        assert ("another strength" in answer) == (len(same) < len(whole)), (answer, same)
    return answer


@pytest.mark.parametrize("case", CASES)
def test_inspect_agrees_with_diffusers(base: dict[str, Any], tmp_path: Path, case: str) -> None:
    torch.manual_seed(0)
    pipeline_of(base)
    style, wanted, change = CASES[case]
    layers = {name: layer(base["modules"], name, rank, alpha) for name, rank, alpha in wanted}
    tensors, header = adapter.to_diffusers(layers) if style == "diffusers" else (adapter.to_kohya(layers), None)
    changed = {key: tensor.contiguous() for key, tensor in change(tensors).items()}
    save_file(changed, tmp_path / "x.safetensors", header if list(changed) == list(tensors) else None)
    hold_against_diffusers(base, tmp_path / "x.safetensors")


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
@pytest.mark.parametrize("header", HEADERS)
def test_inspect_agrees_with_diffusers_on_headers(
    base: dict[str, Any], tmp_path: Path, header: str, style: str
) -> None:
    torch.manual_seed(0)
    pipeline_of(base)
    layers = {name: layer(base["modules"], name, rank, alpha) for name, rank, alpha in PLAIN}
    tensors = adapter.to_diffusers(layers)[0] if style == "diffusers" else adapter.to_kohya(layers)
    text = HEADERS[header]
    save_file(tensors, tmp_path / "x.safetensors", {ADAPTER_METADATA: text} if text else None)
    answer = hold_against_diffusers(base, tmp_path / "x.safetensors")
    assert answer.startswith("refuses it") == (
        header not in ("none", "no alpha", "ends of names", "rsLoRA") or (style == "kohya" and text is not None)
    )


WHOLE_LOKR = {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(6, 6)}


@pytest.mark.parametrize(
    ("family", "layer", "reads"),
    [
        ("Flux2KleinPipeline", "diffusion_model.double_blocks.0.img_attn.proj", True),
        ("Flux2KleinPipeline", "transformer.transformer_blocks.0.attn.to_q", True),
        ("ZImagePipeline", "diffusion_model.layers.0.attention.to_q", True),
        ("FluxPipeline", "transformer.transformer_blocks.0.attn.to_q", False),
        ("QwenImagePipeline", "transformer.transformer_blocks.0.attn.to_q", False),
        ("Krea2Pipeline", "transformer.transformer_blocks.0.attn.to_q", False),
    ],
)
def test_diffusers_reads_lokr_for_the_families_that_inspect_names(family: str, layer: str, reads: bool) -> None:
    tensors = {f"{layer}.{part}": tensor for part, tensor in WHOLE_LOKR.items()}
    answers = readers.lora_problems_by_program(loracontents.parse_lora_contents(tensors, {}))
    assert answers["diffusers"] == "reads LoKr for FLUX.2 and Z-Image alone"
    kind = getattr(diffusers, family)
    empty = object.__new__(kind)  # the loader checks the keys before it needs a model
    with pytest.raises(AttributeError if reads else ValueError):
        empty.load_lora_weights(dict(tensors))


INVOKEAI: dict[str, tuple[Tensors, str]] = {  # tests/bench/lora_invokeai.py holds such answers against its own code
    "kohya's": ({f"{FLAT}.lora_down.weight": torch.ones(2, 64), f"{FLAT}.lora_up.weight": torch.ones(64, 2)}, "reads"),
    "LoKr": ({f"{FLAT}.{part}": tensor for part, tensor in WHOLE_LOKR.items()}, "reads all of it"),
    "half a LoKr": ({f"{FLAT}.lokr_w1": torch.ones(2, 2)}, "refuses it: lora_unet_"),
    "diffusers'": (
        {f"{Q}.lora_A.weight": torch.ones(2, 64), f"{Q}.lora_B.weight": torch.ones(64, 2)},
        "is not kohya's name",
    ),
    "OFT": ({f"{FLAT}.oft_blocks": torch.ones(2, 2, 2)}, "it does not know OFT"),
    "alpha beside lora_A": (
        {f"transformer.layers.0.attention.to_q.{part}": torch.ones(2, 2) for part in ("lora_A.weight", "lora_B.weight")}
        | {"transformer.layers.0.attention.to_q.alpha": torch.tensor(1.0)},
        "takes 1 layer at strength 1 there",
    ),
    "LoKr, dotted": (
        {f"transformer.layers.0.attention.to_q.{p}": t for p, t in WHOLE_LOKR.items()},
        "LoKr in dotted names",
    ),
}


@pytest.mark.parametrize("case", INVOKEAI)
def test_what_inspect_says_of_invokeai(case: str) -> None:
    tensors, says = INVOKEAI[case]
    assert says in readers.lora_problems_by_program(loracontents.parse_lora_contents(tensors, {}))["InvokeAI"]


def test_settings_beside_the_tensors_are_not_read_by_others() -> None:
    """A LoKr of PEFT, trained at alpha / r: programs that know its tensors alone take it at 1."""
    layer = "transformer.layers.0.attention.to_q"
    tensors = {f"{layer}.{part}": tensor for part, tensor in WHOLE_LOKR.items()}
    file = loracontents.parse_lora_contents(tensors, {loraheader.PEFT_CONFIG: '{"r": 8, "alpha": 2}'})
    assert file.strengths == {layer: 0.25}
    assert "takes 1 layer at strength 1" in readers.lora_problems_by_program(file)["ComfyUI"]
    dylora = {"ss_network_args": '{"algo": "dylora", "block_size": "2"}'}
    tensors = adapter.to_kohya({Q: LoraOrDoraLayer(torch.ones(4, 64), torch.ones(64, 4), 2.0)})
    answers = readers.lora_problems_by_program(loracontents.parse_lora_contents(tensors, dylora))
    for program in ("diffusers", "ComfyUI", "A1111", "InvokeAI"):
        assert "0.5" in answers[program] and answers["stylegate"] == "reads all of it"


SPOILED: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "not finite": ({f"{FLAT}.lora_up.weight": torch.full((64, 2), float("nan"))}, "not finite: 1 layer"),
    "alpha not finite": ({f"{FLAT}.alpha": torch.tensor(float("nan"))}, "not finite: 1 layer"),
    "changes nothing": ({f"{FLAT}.lora_up.weight": torch.zeros(64, 2)}, "changes nothing"),
    "alpha is 0": ({f"{FLAT}.alpha": torch.tensor(0.0)}, "changes nothing"),
    "halves that do not fit": ({f"{FLAT}.lora_up.weight": torch.ones(64, 3)}, "do not share a rank: 1 layer"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_wrong_for_every_reader_is_a_problem(run, tmp_path: Path, case: str) -> None:
    spoiled, says = SPOILED[case]
    tensors = adapter.to_kohya({Q: LoraOrDoraLayer(torch.ones(2, 64), torch.ones(64, 2), 1.0)}) | spoiled
    save_file(tensors, tmp_path / "x.safetensors")
    code, text = run("inspect", str(tmp_path / "x.safetensors"))
    (problem,) = (line for line in text.splitlines() if line.startswith("  problem"))
    assert code == 0 and says in problem
    assert ("stylegate  refuses it" in text) == ("nothing" not in says)


def test_a_file_without_plain_layers_is_answered_too(run, tmp_path: Path) -> None:
    """LoKr alone: what it is, who reads it; of OFT alone nothing is known, and the exit code is 2."""
    lokr = {"lokr_w1": torch.ones(4, 4), "lokr_w2": torch.ones(16, 16), "alpha": torch.tensor(9.0)}
    save_file({f"{FLAT}.{part}": tensor for part, tensor in lokr.items()}, tmp_path / "x.safetensors")
    code, text = run("inspect", str(tmp_path / "x.safetensors"))
    assert code == 0 and "also holds LoKr 1" in text and "diffusers  refuses it: it does not know LoKr" in text
    assert "ComfyUI    reads all of it" in text and "stylegate  reads all of it" in text
    assert "rank       whole" in text and "strength   1 " in text and "problem" not in text
    assert "LyCORIS trains it at 1" in text and "applies it twice" not in text
    loha = {f"hada_w{i}_{half}": torch.ones(64, 2) if half == "a" else torch.ones(2, 64) for i in "12" for half in "ab"}
    save_file({f"{FLAT}.{k}": t for k, t in (loha | {"alpha": torch.tensor(1.0)}).items()}, tmp_path / "z.safetensors")
    text = run("inspect", str(tmp_path / "z.safetensors"))[1]
    assert "strength   0.5 (alpha / rank); LyCORIS' own merge of LoHa and LoKr applies it twice" in text
    save_file({f"{FLAT}.oft_blocks": torch.ones(4, 4, 4)}, tmp_path / "y.safetensors")
    code, text = run("inspect", str(tmp_path / "y.safetensors"))
    assert code == 2 and "stylegate  refuses it: holds OFT" in text and "base=" not in text


def test_control_characters_of_a_file_do_not_reach_the_terminal(run, tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\n"
    tensors = adapter.to_kohya({Q: LoraOrDoraLayer(torch.ones(2, 64), torch.ones(64, 2), 1.0)})
    tensors |= {f"{evil}.lora_down.weight": torch.ones(1, 1), f"x.{evil}": torch.ones(1)}
    metadata = {
        "modelspec.architecture": evil,
        evil: evil,
        ADAPTER_METADATA: f'{{"a{evil!r}": 1, "{evil!r}.lora_alpha": "x"}}'.replace("'", ""),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    _, text = run("inspect", str(tmp_path / "x.safetensors"))
    assert all(line.isprintable() for line in text.splitlines()) and "title" in text
