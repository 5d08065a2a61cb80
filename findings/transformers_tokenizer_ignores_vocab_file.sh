#!/bin/bash
# What one would guess: BertTokenizerFast(vocab_file="vocab.txt"), the spelling of transformers 4, reads the file, or is
#   refused.
# What is true (transformers 5.23.0): the argument is left aside without a word. The tokenizer has the five
#   special tokens alone: every word becomes [UNK], and the words of a model decode to an empty text. vocab="vocab.txt" reads it.
# Date: 2026-11-29. Source: this run.
# Why it matters: a captioner or text encoder that is packed by such a script loads, runs and trains, on captions that are all the same.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q transformers==5.23.0 tokenizers==0.23.3
printf '%s\n' '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' a cat > "$place/vocab.txt"
"$place/venv/bin/python" - "$place/vocab.txt" 2>/dev/null <<'PYTHON'
import sys

import transformers
from transformers import BertTokenizerFast

by_old_name, by_new_name = BertTokenizerFast(vocab_file=sys.argv[1]), BertTokenizerFast(vocab=sys.argv[1])
print("transformers", transformers.__version__)
print("vocab_file=:", len(by_old_name), "tokens; 'a cat' is", by_old_name("a cat").input_ids)
print("vocab=:     ", len(by_new_name), "tokens; 'a cat' is", by_new_name("a cat").input_ids)
raise SystemExit(by_old_name("a cat").input_ids != [2, 1, 1, 3] or by_new_name("a cat").input_ids != [2, 5, 6, 3])
PYTHON
