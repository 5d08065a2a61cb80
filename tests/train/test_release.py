"""The model card says what the brand says, whatever characters are in it; ComfyUI's workflow fits its nodes."""

import html
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from stylegate.configgroups import GenerateConfig
from train import release
from train.comfyui import WorkflowSettings, comfyui_workflow

TEXTS = [
    'neon "style": 50 %, {trigger} {lora_sha256} !!python/object',
    "line\n---\nlicense: stolen\n---\n# Heading",
    "<img src=x onerror=alert(1)> [link](http://example.com) `code` **bold** &amp; | ![p](q) <!-- \\",
    "yes",
    "@acme: #1 - 'quoted' 日本 é",
    "```\n~~~\n> quote\n1. item\n$x$",
]
NUMBERS = {"num_pictures": 28, "then": "", "steps": 300, "scale": 1.0, "batch": 4, "rank": 16}
WORDS = ["name", "brand", "style", "trigger", "licence", "source", "passed", "bases", "targets", "data", "base_sha256"]
WORDS += ["draw_base", "others"]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_card_says_any_text_as_it_is(text: str) -> None:
    """Front matter as huggingface_hub reads it; the rest as a Markdown reader shows it, without markup of the text."""
    front = {"library_name": "diffusers", "base_model": text, "instance_prompt": text, "license": text}
    facts = dict.fromkeys([*WORDS, "lora_sha256"], text) | NUMBERS
    card = ModelCard(release.model_card_text(front, file="x.safetensors", **facts))
    assert card.data.to_dict() == front
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)
    tags = set(re.findall(r"</?([a-zA-Z][a-z0-9]*)", rendered))
    assert tags <= {"h1", "p", "ul", "li", "pre", "code"} and "<!--" not in rendered
    shown = html.unescape(re.sub(r"<[^>]*>", "", rendered))
    assert " ".join(shown.split()).count(" ".join(text.split())) >= len(WORDS)


# ComfyUI's core nodes, with the names of their inputs and the kinds of their outputs: facts, looked up in its package
# comfyui-workflow-templates-json 0.1.123 and its nodes.py. A kind in capitals is a link, any other is a value.
NODES = {
    "CheckpointLoaderSimple": ({"ckpt_name": str}, ["MODEL", "CLIP", "VAE"]),
    "LoraLoader": (
        {"model": "MODEL", "clip": "CLIP", "lora_name": str, "strength_model": float, "strength_clip": float},
        ["MODEL", "CLIP"],
    ),
    "CLIPTextEncode": ({"clip": "CLIP", "text": str}, ["CONDITIONING"]),
    "EmptyLatentImage": ({"width": int, "height": int, "batch_size": int}, ["LATENT"]),
    "KSampler": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"}
        | {"seed": int, "steps": int, "cfg": float, "sampler_name": str, "scheduler": str, "denoise": float},
        ["LATENT"],
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ["IMAGE"]),
    "ModelSamplingDiscrete": ({"model": "MODEL", "sampling": str, "zsnr": bool}, ["MODEL"]),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": str}, []),
}


@pytest.mark.parametrize("v_prediction", [False, True])
def test_every_node_of_the_workflow_gets_the_inputs_that_comfyui_asks_for(v_prediction: bool) -> None:
    facts = WorkflowSettings("acme.kohya.safetensors", "acme style", 512, "acme", v_prediction)
    workflow = comfyui_workflow(facts, GenerateConfig(num_inference_steps=7, guidance_scale=3.5))
    for node in workflow.values():
        wanted, _ = NODES[node["class_type"]]
        assert node["inputs"].keys() == wanted.keys()
        for name, value in node["inputs"].items():
            kind = wanted[name]
            if isinstance(kind, str):
                source, slot = value
                assert NODES[workflow[source]["class_type"]][1][slot] == kind
            else:
                assert isinstance(value, kind), (node["class_type"], name)
    (sampler,) = (node["inputs"] for node in workflow.values() if node["class_type"] == "KSampler")
    assert (sampler["steps"], sampler["cfg"]) == (7, 3.5)
    kind = workflow[sampler["model"][0]]["class_type"]
    assert kind == ("ModelSamplingDiscrete" if v_prediction else "LoraLoader")
    assert workflow["2"]["inputs"]["lora_name"] == facts.lora_file


def test_a_published_name_of_a_base_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name means what is shipped, whatever lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "miniature").mkdir()
    named = {"miniature": "miniature", "acme/tiny": "acme/tiny", "./miniature": "a local base"}
    named[str(tmp_path)] = "a local base"
    assert {base: release.base_name_for_publication(base) for base in named} == named
