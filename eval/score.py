"""Score any folder of pictures, or a batch: each picture is encoded once, every score is read off what was encoded.

    stylegate score images=DIR references=DIR
    stylegate score brand=neon traits=collectible            the batch of these arguments
    stylegate score images=DIR brand=acme encoder=ViT-L-14-quickgelu:openai
    accelerate launch --num_processes 8 -m eval score images=DIR references=DIR      the same, on several cards

Writes scores.parquet (file, sha256, width, height, error, a float32 column a score, null = not computed; `twin` and
`known` name the pictures that `distinct` and `novelty` speak of; `detected_traits` is what the trait readers see), the
references' own scores by leave-one-out in references.parquet, and score.json: what they were made of, and the numbers
of the batch as a whole.
"""

import os

from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, read_lot, sha256_by_name
from eval.measuring import encoder as encoding
from eval.measuring import encodername
from eval.measuring.columns import compute_and_write_scores
from eval.measuring.features import cached_features_of_files
from eval.measuring.scores import read_score_record, scores_are_current, scores_key
from stylegate import files, hardware
from stylegate.config import Config
from stylegate.words import counted


def score(config: Config) -> int:
    """Score, unless the scores at hand are of the same pictures, references and encoder. Returns 0."""
    lot = read_lot(config)
    compared = comparison_pictures_with_decided_ones(config, lot)
    key = scores_key(config, lot, compared)
    at_hand = scores_are_current(lot, key)
    if not at_hand and not encode_share_of_this_process(config, lot, compared):
        return 0  # another process of the launcher's goes on
    if not at_hand:
        with files.exclusive_lock(lot.out):
            compute_and_write_scores(config, lot, compared)
    for line in read_score_record(lot.out).summary:
        print(line)
    where = files.display_path(lot.out / "scores.parquet")
    print(f"score: {counted(len(lot.files), 'picture')}{', nothing new' if at_hand else ''}: {where}")
    return 0


def encode_share_of_this_process(config: Config, lot: Lot, compared: ComparisonPictures) -> bool:
    """Encode this process's share of the pictures into the cache; returns True in the one process that then scores.

    Without `accelerate launch` there is one process, and nothing is encoded ahead.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    processes = hardware.accelerate_process_state(hardware.hardware_config_cpu_if_workers_elsewhere(config))
    encoder = encoding.load_encoder(encodername.encoder_name(config), processes.device)
    for title in ("score", "references", "training"):
        named = lot.files if title == "score" else getattr(compared, title)
        share = named[processes.process_index :: processes.num_processes]
        shown = title if processes.is_main_process else ""
        cached_features_of_files(
            share, sha256_by_name(share), encoder, compared.background, config.score.batch_size, shown
        )
    processes.wait_for_everyone()
    return processes.is_main_process
