"""The tokenizer that encoder and base share: a byte-level BPE in CLIP's order of ids, learned from captions."""

import json
from random import Random
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from train.miniature.captions import QUALITY, random_caption
from train.miniature.corpus import styles_traits_and_seeds_of_part

VOCABULARY = 1024
CONTEXT = 48  # tokens, with start and end
# As CLIP splits text (openai/CLIP, simple_tokenizer.py): words, single digits, runs of signs.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_tokenizer() -> CLIPTokenizer:
    """A tokenizer of 256 bytes, 256 that end a word, merges, start and end. CLIP finds the end by its highest id."""
    r = Random(0)
    texts = [
        random_caption(traits, style.name, r, 0.5, 0.8).text
        for style, traits, _ in styles_traits_and_seeds_of_part("base", 0)
    ]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator([*texts, *QUALITY], trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    names = [*alphabet, *(f"{byte}</w>" for byte in alphabet)]
    names += [name for name in dict.fromkeys("".join(pair) for pair in merges) if name not in set(names)]
    names = [*names[: VOCABULARY - 2], "<|startoftext|>", "<|endoftext|>"]
    kept: Any = [pair for pair in merges if "".join(pair) in set(names)]
    numbered: Any = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocab=numbered, merges=kept, model_max_length=CONTEXT)
