"""What the transformers share that were trained by flow matching (arXiv 2210.02747): levels, and prompts as chats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from stylegate import files
from stylegate.errors import ModelError
from stylegate.families.base import Schedule

COMPONENT = "transformer"
LEVELS = 1000  # of the table; the models take any sigma
MAX_TOKENS = 512  # of a prompt in its chat template, as the pipelines have it


def schedule() -> Schedule:
    """x = (1 - sigma) latents + sigma noise, for sigma from 1/1000 to 1."""
    sigma = torch.arange(1, LEVELS + 1) / LEVELS
    return Schedule(1 - sigma, sigma, "flow")


def caption_lengths(folder: Path, captions: Sequence[str]) -> tuple[int, list[int]]:
    """The limit, and each caption's length in tokens within the chat that the pipeline makes of it."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"base={files.shown(folder)}: its tokenizer cannot be loaded: {reason}") from None
    asked = [[{"role": "user", "content": caption}] for caption in captions]
    texts = [tokenizer.apply_chat_template(a, tokenize=False, add_generation_prompt=True) for a in asked]
    return MAX_TOKENS, [len(tokenizer(text).input_ids) for text in texts]
