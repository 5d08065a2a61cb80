"""A worker: does parts of the work in a folder. `python -m eval.engines.work FOLDER` is one of several processes."""

import json
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from eval.engines import parts


def do_named_parts(folder: Path, names: Sequence[str]) -> None:
    """Do the parts of these names that have no result yet. The stage is loaded once in a process."""
    parts.do_parts(folder, names, lambda settings: loaded_stage(json.dumps(settings)))


@cache
def loaded_stage(settings: str) -> parts.Stage:
    """The stage of these settings (a JSON object), with its model loaded."""
    from eval.measuring.stage import EncodePictures  # torch, only in a worker

    return EncodePictures(**json.loads(settings))


def main() -> int:
    """Do this process's share of the parts in the folder that the first argument names. Returns 0."""
    folder = Path(sys.argv[1])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    names = sorted(path.stem for path in folder.glob("*.json") if path.name not in (parts.SETTINGS, parts.ERROR))
    do_named_parts(folder, names[rank::world])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
