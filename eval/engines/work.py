"""A worker: does parts of the work in a place. `python -m eval.engines.work PLACE` is one of several processes."""

import json
import os
import sys
from collections.abc import Sequence
from functools import cache

from eval.engines import parts
from eval.engines.place import place_from_uri_or_path


def run_named_parts(place: str, names: Sequence[str]) -> None:
    """Do the parts of these names that have no result yet. The stage is loaded once in a process."""
    parts.run_unfinished_parts(
        place_from_uri_or_path(place), names, lambda settings: loaded_stage(json.dumps(settings))
    )


@cache
def loaded_stage(settings: str) -> parts.Stage:
    """The stage of these settings (a JSON object), with its model loaded."""
    told = json.loads(settings)
    if told.pop("stage") == "draw":
        from eval.lot.drawing import PictureDrawingStage  # torch, only in a worker

        return PictureDrawingStage(**told)
    from eval.measuring.stage import PictureFeatureStage

    return PictureFeatureStage(**told)


def take_own_device() -> None:
    """Of several processes on a machine each takes a CUDA device of its own, where there are any."""
    import torch

    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU") != "true":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def main() -> int:
    """Do this process's share of the parts in the place that the first argument names. Returns 0."""
    take_own_device()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    run_named_parts(sys.argv[1], parts.read_json(place_from_uri_or_path(sys.argv[1]), parts.NAMES)[rank::world])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
