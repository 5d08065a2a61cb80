"""Encode pictures ahead, by the workers of an engine: what is scored then is at hand in the cache."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from eval.engines.parts import Row
from eval.engines.run import EngineWork
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, sha256_by_name
from eval.measuring import encodername
from eval.measuring.encoder import LoadedEncoder
from eval.measuring.features import pixel_features_key
from stylegate import files, hardware, progress
from stylegate.cache import ArrayCache
from stylegate.config import Config

A_PART, A_PART_SENT = 256, 128  # pictures; fewer where they are sent to an object store
KILLED = "each worker that read it died (engine): give a copy that was saved anew, or leave it out"


def fill_feature_cache_by_engine_workers(
    config: Config, lot: Lot, compared: ComparisonPictures, encoder: LoadedEncoder, quiet: bool
) -> None:
    """Have the engine's workers encode the pictures of the lot, its references and its training pictures that the cache
    does not hold; the features go into the cache.

    What workers finished for an earlier start that was stopped is taken first. A picture that kills its workers is
    stored as one that cannot be read. Raises what `EngineWork` raises.
    """
    first = encodername.split_encoder_names(encodername.encoder_name(config))[0]
    settings = {
        "stage": "encode",
        "encoder": encodername.encoder_name_with_absolute_path(first),  # a worker may start in another folder
        "encoder_sha256": encoder.sha256,
        "background": compared.background,
        "batch_size": config.score.batch_size,
        "device": hardware.device_type(config.hardware),
    }
    before = pixel_features_key(encoder.preprocessing, compared.background)
    prefix = files.canonical_sha256([before, encoder.sha256])
    cache, work = ArrayCache(), EngineWork(config.engine, settings, lot.out)

    def cache_rows_computed_by_workers(found: dict[str, Row], killed: Iterable[str]) -> None:
        broken = np.frombuffer(KILLED.encode(), np.uint8)
        rows = found | {sha256: {"broken": broken} for sha256 in killed}
        cache.store_arrays_by_key(
            {f"{prefix}:{sha256}": row for sha256, row in rows.items()}, [f"{before}:{sha256}" for sha256 in rows]
        )

    paths: dict[str, Path] = {}  # by sha256; a name may stand in the lot and among the references
    for named in (lot.files, compared.references, compared.training):
        digests = lot.sha256 if named is lot.files else sha256_by_name(named)
        paths |= {digests[name]: path for name, path in named if digests[name]}
    with work.locked_against_other_commands():
        work.hand_over_results_of_earlier_start(cache_rows_computed_by_workers)
        shas = list(paths)
        there = cache.read_arrays_of_keys([f"{prefix}:{sha256}" for sha256 in shas])
        rows = [
            {"id": sha256, "path": str(paths[sha256].resolve())}
            for sha256, row in zip(shas, there, strict=True)
            if row is None
        ]
        if not rows and not quiet:
            print(f"note: every picture was encoded before: engine={config.engine.name} has nothing to do")
        with progress.progress_bar("encode", len(rows), visible=bool(rows) and not quiet) as tick:

            def store_rows_and_tick(found: dict[str, Row], killed: list[str]) -> None:
                cache_rows_computed_by_workers(found, killed)
                tick(len(found) + len(killed))

            size = config.engine.part_size or (A_PART_SENT if config.engine.store else A_PART)
            work.do_rows_in_parts(rows, size, store_rows_and_tick, settings["device"] == "cuda")
