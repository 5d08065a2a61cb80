"""Stopping hopeless pictures early: whether its bound holds in simulated batches, and what it saves.

    python -m tests.bench.early_stop [pixel:70 riso:80]      BRAND:STEPS OF TRAINING; about 10 minutes each on two cores

Measured: POOL slots are drawn by the verbs, ATTEMPTS times each with other seeds, in STEPS steps with guidance; their
previews are scored after AT of the steps, and the gate judges every picture. Beside them, the same slots are drawn once
without previews, for the seconds that these cost.

Simulated: BATCHES batches of SLOTS slots. Each slot is one of the pool's, each attempt at it one of its attempts, both
drawn at random, so that a hard slot stays hard. The product's own code learns every line (eval/lot/early.py). A batch
loses the pictures that would have been accepted and were stopped, as a share of all that would have been accepted. Exit
1 if more than LOST of them are lost in more than 1 - CONFIDENCE of the batches.
"""

import sys
import time
from typing import NamedTuple

import numpy as np

from eval.lot import early
from eval.lot.batch import read_plan, write_plan
from eval.lot.early import EarlyStopPreview, EarlyStopRound
from stylegate import files
from tests.bench.accepted import quietly, trained

POOL, ATTEMPTS, STEPS, AT = 64, 3, 20, 0.3
BATCHES, SLOTS, MOST_ATTEMPTS, TOGETHER = 500, 1000, 4, 16
DEFAULT = ["pixel:70", "riso:80"]


class Pool(NamedTuple):
    """Attempts at slots of a real batch: [slots, attempts] each."""

    accepted: np.ndarray  # bool
    scores: list[list[dict[str, float | None]]]  # of the preview
    seconds: float  # of processor time for a picture without a preview
    of_preview: float  # more for a picture with one


def measured(brand: str, steps: int) -> Pool:
    lora, accepted, scores, spent = trained(brand, steps), [], [], []
    for attempt in range(ATTEMPTS + 1):
        plain = attempt == ATTEMPTS  # the first attempts once more, without previews
        name = f"{brand}{steps}-early-{attempt}"
        words = [f"brand={brand}", "traits=collectible", f"lora_file={lora}", f"batch={name}", "hardware=cpu"]
        words += ["generate.by_trial=false", f"generate.num_inference_steps={STEPS}"]
        words += [] if plain else [f"generate.stop_early_at={AT}"]
        folder = files.BATCHES / name
        quietly("plan", *words, f"plan.num_images={POOL}")
        slots = [
            slot.model_copy(update={"seed": slot.seed_of_attempt(attempt % ATTEMPTS)}) for slot in read_plan(folder)
        ]
        write_plan(folder, slots) if not (folder / "images").exists() else None
        if not (folder / "seconds.json").exists():  # drawn in an earlier run
            began = time.process_time()
            quietly("generate", *words, "hardware.threads=1")
            files.write_json(folder / "seconds.json", {"drawing": (time.process_time() - began) / POOL})
        spent.append(files.read_json(folder / "seconds.json", "the seconds", "drawing")["drawing"])
        if plain:
            break
        quietly("gate", *words)
        rows = {row["file"]: row["verdict"] for row in files.read_jsonl(folder / "verdicts.jsonl")}
        previews = early.read_early_stop_preview_rows(folder)
        accepted.append([rows[slot.picture_file_name(0)] == "accept" for slot in slots])
        scores.append([previews[slot.picture_file_name(0)].scores for slot in slots])
    by_slot = [list(of_slot) for of_slot in zip(*scores, strict=True)]
    return Pool(np.array(accepted).T, by_slot, spent[-1], float(np.median(spent[1:-1])) - spent[-1])


class Drawn(NamedTuple):
    """What became of one simulated batch."""

    filled: int  # slots with an accepted picture
    finished: int
    stopped: int
    lost: int  # stopped ones that would have been accepted
    good: int  # attempts that would have been accepted, stopped or not
    good_under_line: int  # of these, those that were drawn under a line and not finished unseen


def simulated(pool: Pool, random: np.random.Generator, stops: bool) -> Drawn:
    """Draw and judge a batch of SLOTS slots until each is filled or has used its attempts, as `run` does."""
    of_pool = random.integers(0, POOL, SLOTS)
    attempts, filled = np.zeros(SLOTS, int), np.zeros(SLOTS, bool)
    previews: list[EarlyStopPreview] = []
    verdicts: dict[str, bool] = {}
    rounds: list[EarlyStopRound] = []
    finished = stopped = lost = good = under = 0
    while (due := np.flatnonzero(~filled & (attempts < MOST_ATTEMPTS))).size:
        judged, waiting = len(verdicts), {}
        room = max(early.FIRST, judged) if stops else SLOTS
        while room >= TOGETHER and due.size:  # rounds until the gate comes
            empty = EarlyStopRound(round=len(rounds), verdicts_sha256="", attempts=room, scored="x")
            rounds.append(early.round_with_learnt_stop_line(empty, previews, verdicts, rounds) if stops else empty)
            order = due[np.argsort(attempts[due], kind="stable")][: room // TOGETHER * TOGETHER]
            for slot in order:
                which, seed = random.integers(ATTEMPTS), int(random.integers(2**32))
                accepted = bool(pool.accepted[of_pool[slot], which])
                name = f"{slot:05d}-{attempts[slot]}.png"
                attempts[slot] += 1
                one = rounds[-1].preview_with_stop_decision(name, seed, "x", pool.scores[of_pool[slot]][which])
                previews.append(one)
                good += accepted
                under += accepted and not one.is_exempt_from_stopping()
                if one.stopped:
                    stopped, lost = stopped + 1, lost + accepted
                else:
                    finished, room = finished + 1, room - 1
                    waiting[name] = slot, accepted
            drawn = {slot for slot, _ in waiting.values()}
            due = np.array([s for s in np.flatnonzero(~filled & (attempts < MOST_ATTEMPTS)) if s not in drawn], int)
        for name, (slot, accepted) in waiting.items():
            verdicts[name] = accepted
            filled[slot] |= accepted
        if not waiting:
            break
    return Drawn(int(filled.sum()), finished, stopped, lost, good, under)


def measure(brand: str, steps: int) -> bool:
    """Print what was measured and simulated of one LoRA; whether the bound holds."""
    pool = measured(brand, steps)
    after = round(AT * STEPS)
    print(
        f"{brand}, {steps} steps of training: {pool.accepted.mean():.2f} of {pool.accepted.size} attempts accepted; "
        f"{pool.seconds:.3f} s a picture in {STEPS} steps, {pool.of_preview:+.3f} s with a preview after {after}"
    )
    both = {
        stops: [simulated(pool, np.random.default_rng([seed, stops]), stops) for seed in range(BATCHES)]
        for stops in (False, True)
    }
    ours = both[True]
    shares = np.array([one.lost / max(one.good, 1) for one in ours])
    under = np.array([one.lost / max(one.good_under_line, 1) for one in ours])
    over = int((shares > early.LOST).sum())
    print(
        f"  of {BATCHES} batches of {SLOTS} slots {over} lose more than {early.LOST:.0%} of what would be accepted "
        f"(at most {BATCHES * (1 - early.CONFIDENCE):.0f} may); "
        f"the mean loses {shares.mean():.2%}, the worst {shares.max():.2%}"
    )
    print(f"  of what was drawn under a line the mean loses {under.mean():.2%}; {(under > early.LOST).sum()} lose more")
    stopped, finished, filled = (sum(getattr(one, name) for one in ours) for name in ("stopped", "finished", "filled"))
    plain = sum(one.finished for one in both[False]) / sum(one.filled for one in both[False])
    steps_each = (stopped * AT + finished) / filled
    cost = pool.of_preview / pool.seconds
    print(
        f"  stopped {stopped / (stopped + finished):.2f} of the attempts; slots filled {filled / BATCHES / SLOTS:.3f} "
        f"(without {sum(one.filled for one in both[False]) / BATCHES / SLOTS:.3f})"
    )
    seconds = (stopped * (AT + cost) + finished * (1 + cost)) / filled
    print(
        f"  accepted pictures per denoising step {plain / steps_each:.2f} times, per second of drawing "
        f"{plain / seconds:.2f} times those without stopping",
        flush=True,
    )
    return over <= BATCHES * (1 - early.CONFIDENCE)


def main() -> int:
    held = []
    for asked in sys.argv[1:] or DEFAULT:
        brand, _, steps = asked.partition(":")
        held.append(measure(brand, int(steps)))
    print("the bound holds" if all(held) else "missed: the bound")
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())
