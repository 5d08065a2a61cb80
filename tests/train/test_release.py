"""The model card says what the brand says, whatever characters are in it."""

import html
import re

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from train import release

TEXTS = [
    'neon "style": 50 %, {trigger} {lora_sha256} !!python/object',
    "line\n---\nlicense: stolen\n---\n# Heading",
    "<img src=x onerror=alert(1)> [link](http://example.com) `code` **bold** &amp; | ![p](q) <!-- \\",
    "yes",
    "@acme: #1 - 'quoted' 日本 é",
    "```\n~~~\n> quote\n1. item\n$x$",
]
NUMBERS = {"num_pictures": 28, "then": "", "steps": 300, "scale": 1.0, "batch": 4, "rank": 16}
WORDS = ["name", "brand", "style", "trigger", "licence", "source", "passed", "targets", "data", "base_sha256", "other"]


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
