"""What stopping hopeless pictures early would gain: their clean-image prediction, decoded and scored on the way.

    python -m tests.bench.early_stop [riso:80 pixel:80]        BRAND:STEPS OF TRAINING; about 4 minutes each

Draws SLOTS pictures in STEPS steps. After each step the prediction of the clean picture is decoded and scored by the
gate; a logistic regression on its scores, fitted on other slots (FOLDS), says how likely the finished picture is
accepted. The line loses LOST of those that would have been accepted. Gain: accepted pictures per step, against none
stopped. Decoding and scoring the previews is not counted; its seconds are printed beside those of drawing.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eval.lot.batch import PlanSlot, read_plan
from eval.scorers import SCORES
from stylegate import files, lorafile, pictures, sample
from stylegate.config import GenerateConfig
from stylegate.families import FAMILIES
from stylegate.families.base import LoadedBaseModel
from tests.bench.accepted import quietly, trained

SLOTS, TOGETHER, STEPS, FOLDS, LOST = 96, 16, 6, 8, 0.05
DEFAULT = ["riso:80", "pixel:80"]


def clean_predictions(models: LoadedBaseModel) -> list[torch.Tensor]:
    """A list that fills, step by step, with the latents that the denoiser takes for clean (v prediction)."""
    assert models.schedule.prediction == "v"
    scheduler, found = models.pipeline.scheduler, []
    step = scheduler.step

    def watched(output: torch.Tensor, level: Any, noisy: torch.Tensor, *given: Any, **named: Any) -> Any:
        at = int(level)
        found.append(float(models.schedule.signal[at]) * noisy - float(models.schedule.sigma[at]) * output)
        return step(output, level, noisy, *given, **named)

    scheduler.step = watched
    return found


def draw(name: str, slots: list[PlanSlot], lora: str) -> tuple[float, float]:
    """Draw the slots and their previews into batches; seconds of processor time a picture and a preview."""
    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    lorafile.merge_lora_file(models, Path(lora))
    found, pipeline = clean_predictions(models), models.pipeline
    drawing = decoding = 0.0
    for start in range(0, len(slots), TOGETHER):
        part = slots[start : start + TOGETHER]
        began, _ = time.process_time(), found.clear()
        settings = GenerateConfig(num_inference_steps=STEPS)
        images = sample.draw_pictures(
            models, [s.prompt for s in part], [s.seed_of_attempt(0) for s in part], settings, 64
        )
        drawing += time.process_time() - began
        keep(name, part, images)
        began = time.process_time()
        for done, latents in enumerate(found[:-1], start=1):
            with torch.no_grad():
                decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
            keep(f"{name}-{done}", part, pipeline.image_processor.postprocess(decoded, output_type="pil"))
        decoding += time.process_time() - began
    return drawing / len(slots), decoding / len(slots) / (STEPS - 1)


def keep(batch: str, slots: list[PlanSlot], images: list[Any]) -> None:
    for slot, image in zip(slots, images, strict=True):
        files.write_atomically(files.BATCHES / batch / "images" / slot.file(0), pictures.png_bytes(image))


def measure(brand: str, steps: int) -> None:
    lora, name = trained(brand, steps), f"{brand}{steps}-stop"
    words = [f"brand={brand}", "traits=collectible", f"lora_file={lora}", f"generate.num_inference_steps={STEPS}"]
    words += [f"batch={name}", "generate.by_trial=false"]
    quietly("plan", *words, f"plan.num_images={SLOTS}")
    slots = read_plan(files.BATCHES / name)
    a_picture, a_preview = draw(name, slots, lora)
    quietly("gate", *words)
    rows = {row["file"]: row["verdict"] for row in files.read_jsonl(files.BATCHES / name / "verdicts.jsonl")}
    good = np.array([rows[slot.file(0)] == "accept" for slot in slots])
    print(f"{brand}, {steps} steps of training: accepted {good.mean():.2f}; {a_picture:.3f} s a picture")
    print(f"  {a_preview:.3f} s a preview, without its scores")
    for done in range(1, STEPS):
        place = files.BATCHES / f"{name}-{done}"
        for file in ("batch.json", "plan.parquet"):
            shutil.copy(files.BATCHES / name / file, place / file)
        began = time.process_time()
        quietly("gate", f"batch={place.name}", f"brand={brand}")
        seconds = (time.process_time() - began) / SLOTS
        table = {row["file"]: row for row in pq.read_table(place / "scores.parquet").to_pylist()}
        of_slots = [table[slot.file(0)] for slot in slots]
        names = [score for score in SCORES if of_slots[0].get(score) is not None]
        scores = np.array([[row[score] for score in names] for row in of_slots])
        reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        hope = np.asarray(cross_val_predict(reader, scores, good, cv=FOLDS, method="decision_function"))
        stopped = float((hope < np.quantile(hope[good], LOST)).mean())
        share = done / STEPS
        gain = (1 - LOST) / (share + (1 - stopped) * (1 - share))
        area = roc_auc_score(good, hope)
        print(f"  after {done} of {STEPS} steps: area {area:.2f}, stopped {stopped:.2f}, gain {gain:.2f}", end="")
        print(f"; the gate takes {seconds:.3f} s a preview", flush=True)


if __name__ == "__main__":
    for asked in sys.argv[1:] or DEFAULT:
        of, _, trained_for = asked.partition(":")
        measure(of, int(trained_for))
