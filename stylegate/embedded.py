"""Text encoders that read each prompt once in a process, however many pictures it is drawn for."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.utils.generic import ModelOutput

from stylegate.families import pipelines

MOST_BYTES = 2**30  # of what is kept of one text encoder; the prompts used longest ago are forgotten first


def install_cache_in_text_encoders(pipeline: Any) -> None:
    """Change the pipeline's text encoders in place: each encodes every prompt by itself, and keeps the result for later
    calls.

    A prompt's embedding then depends on no other prompt of its batch.
    """
    for encoder in pipelines.text_encoders(pipeline):
        encoder.forward = CachedTextEncoder(encoder.forward)


class CachedTextEncoder:
    """The `forward` of a text encoder, called for each row of a batch by itself and only for rows that are new."""

    def __init__(self, forward: Callable[..., Any], most_bytes: int = MOST_BYTES) -> None:
        self.forward, self.most_bytes = forward, most_bytes
        self.rows: OrderedDict[tuple, Any] = OrderedDict()  # by the arguments of the encoder
        self.held_bytes = 0

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        count = next(len(value) for value in (*arguments, *keywords.values()) if isinstance(value, torch.Tensor))
        return concatenate_rows(
            [
                self.encode_prompt_tokens_once([select_row(v, i) for v in arguments], select_row(keywords, i))
                for i in range(count)
            ]
        )

    def encode_prompt_tokens_once(self, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """The text encoder's output for one row of token ids, computed once and then taken from memory."""
        key = (
            *map(hashable_form_of_encoder_argument, arguments),
            *((name, hashable_form_of_encoder_argument(value)) for name, value in sorted(keywords.items())),
        )
        if key not in self.rows:
            self.rows[key] = replace_non_tensors_by_none(self.forward(*arguments, **keywords))
            self.held_bytes += memory_bytes_of_tensors(self.rows[key])
            while self.held_bytes > self.most_bytes and len(self.rows) > 1:
                self.held_bytes -= memory_bytes_of_tensors(self.rows.popitem(last=False)[1])
        self.rows.move_to_end(key)
        return self.rows[key]


def select_row(value: Any, i: int) -> Any:
    """Row i of a tensor, or of each tensor of a mapping; everything else as it is."""
    if isinstance(value, dict):
        return {
            name: select_row(part, i) if name != "position_ids" else select_row_of_position_ids(part, i)
            for name, part in value.items()
        }
    return value[i : i + 1] if isinstance(value, torch.Tensor) else value


def select_row_of_position_ids(positions: torch.Tensor, i: int) -> torch.Tensor:
    """Row i of position ids [n, tokens], or [3, n, tokens] of encoders that count time, height and width."""
    return positions[..., i : i + 1, :]


def hashable_form_of_encoder_argument(value: Any) -> Any:
    """A hashable form of one argument of a text encoder: equal for equal arguments, and for no others."""
    if isinstance(value, torch.Tensor):
        return str(value.device), str(value.dtype), tuple(value.shape), value.cpu().numpy().tobytes()
    return repr(value)


def replace_non_tensors_by_none(found: Any) -> Any:
    """A text encoder's output with None for all that is no tensor, such as a cache of attention, which no pipeline
    reads.
    """
    if isinstance(found, ModelOutput):
        return type(found)(**{name: replace_non_tensors_by_none(part) for name, part in found.items()})
    if isinstance(found, tuple | list):
        return tuple(replace_non_tensors_by_none(part) for part in found)
    return found if isinstance(found, torch.Tensor) else None


def concatenate_rows(rows: Sequence[Any]) -> Any:
    """One output for the whole batch, concatenated from the outputs of its rows."""
    first = rows[0]
    if isinstance(first, ModelOutput):
        return type(first)(**{name: concatenate_rows([row[name] for row in rows]) for name in first})
    if isinstance(first, tuple):
        return tuple(concatenate_rows(parts) for parts in zip(*rows, strict=True))
    return None if first is None else torch.cat(list(rows))


def memory_bytes_of_tensors(found: Any) -> int:
    """The bytes of memory that all tensors in a text encoder's output take; 0 for None."""
    if isinstance(found, torch.Tensor):
        return found.numel() * found.element_size()
    parts = found.values() if isinstance(found, ModelOutput) else found
    return sum(map(memory_bytes_of_tensors, parts)) if found is not None else 0
