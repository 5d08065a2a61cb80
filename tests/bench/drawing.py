"""How near `stylegate generate` comes to a bare pipeline call: the same prompts, seeds, batch, steps and precision.

    python -m tests.bench.drawing        about 3 minutes on two cores; exit 1 below WANTED

Both load the base and draw COUNT pictures; generate also writes them, stores their features, and keeps its books. They
take turns, and processor time counts, so that other work on the machine matters little.
"""

import statistics
import time

import torch

from eval.lot.batch import PlanSlot, read_plan
from stylegate import files
from stylegate.families import FAMILIES
from tests.bench.accepted import quietly

COUNT, TOGETHER, STEPS, GUIDANCE, TURNS, WANTED = 48, 16, 20, 3.0, 3, 0.95


def bare(slots: list[PlanSlot]) -> float:
    """Seconds of processor time of the pipeline alone."""
    began = time.process_time()
    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    for start in range(0, COUNT, TOGETHER):
        part = slots[start : start + TOGETHER]
        models.pipeline(
            [slot.prompt for slot in part],
            generator=[torch.Generator().manual_seed(slot.seed_of_attempt(0)) for slot in part],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
        )
    return time.process_time() - began


def main() -> int:
    torch.set_num_threads(1)
    ratios = []
    for turn in range(TURNS):
        name = f"drawing-{turn}-{time.time_ns()}"
        words = ["traits=collectible", "lora_file=none", f"batch={name}", "hardware=cpu", "generate.by_trial=false"]
        words += [f"generate.num_inference_steps={STEPS}", f"generate.guidance_scale={GUIDANCE}"]
        words += [f"generate.batch_size={TOGETHER}"]
        assert quietly("plan", *words, f"plan.num_images={COUNT}", f"plan.seed={turn}") == 0
        slots = read_plan(files.BATCHES / name)
        alone = bare(slots)
        began = time.process_time()
        assert quietly("generate", *words, f"plan.seed={turn}", "hardware.threads=1") == 0
        ours = time.process_time() - began
        assert len(list((files.BATCHES / name / "images").iterdir())) == COUNT
        ratios.append(alone / ours)
        print(f"bare {alone / COUNT:.3f} s, generate {ours / COUNT:.3f} s a picture: {ratios[-1]:.3f}", flush=True)
    found = statistics.median(ratios)
    print(f"generate draws {found:.3f} of what a bare pipeline does (wanted {WANTED})")
    return 0 if found >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
