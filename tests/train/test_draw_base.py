"""Trained on one base, drawn on another: what is chosen, written down and refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eval.lot.lot import lot_of_batch, origin_digests_of_lot
from stylegate import files, lorafile
from stylegate.cli import main
from tests.conftest import FAST, merged
from tests.eval.packages import provenance_of
from tests.worksheets import fill_in
from train.basegap import base_gap_in_words, checkpoint_rank_correlation_and_interval

MINIATURE = files.MODELS / "miniature" / "sd"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature, further tuned: its denoiser's weights are a little others."""
    folder = tmp_path_factory.mktemp("tuned") / "tuned"
    shutil.copytree(MINIATURE, folder)
    (weights,) = (folder / "unet").glob("*.safetensors")
    noise = torch.Generator().manual_seed(0)
    changed = {
        name: tensor + 0.02 * tensor.float().std() * torch.randn(tensor.shape, generator=noise)
        if tensor.ndim > 1
        else tensor
        for name, tensor in load_file(weights).items()
    }
    weights.unlink()
    save_file(changed, weights, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def on_tuned(tuned: Path) -> Path:
    """A run that was trained on the miniature and drawn on `tuned`; to be read only."""
    words = [f"draw_base={tuned}", "name=pair", "train.max_steps=1", "train.evaluate_every=1", "train.num_samples=2"]
    words += ["train.evaluation_share=1", "train.keep_newest=9", "train.scales=[1]", f"policy={lenient(tuned.parent)}"]
    words += ["train.learning_rate=1e-2", "train.warmup_steps=1", "accept_licence=unknown"]
    words.append("generate.num_inference_steps=1")
    assert main(["train", *merged("brand=neon", *FAST, *words)]) == 0
    (found,) = files.RUNS.glob("pair-sd-*")
    return found


def lenient(folder: Path) -> Path:
    path = folder / "lenient.yaml"
    path.write_text("version: 1\nchecks: {contrast: {reject_below: 1}}\n")
    return path


def record(path: Path) -> dict:
    return json.loads(path.read_text())


def test_both_bases_are_named_wherever_the_lora_goes(on_tuned: Path) -> None:
    facts = record(on_tuned / "run.json")["facts"]
    assert facts["base"] != facts["draw_base"]
    _, header = lorafile.load_tensors_and_metadata(on_tuned / "lora" / "pair.safetensors")
    assert (header["stylegate.base"], header["stylegate.draw_base"]) == (facts["base"], facts["draw_base"])
    card = (on_tuned / "lora" / "README.md").read_text()
    assert facts["base"] in card and facts["draw_base"] in card and "trained on miniature" in card
    assert str(on_tuned.parent) not in card and "tuned" not in header["modelspec.description"]
    ledger = files.read_jsonl(on_tuned / "lineage.jsonl", "type", "sha256")
    assert [row["sha256"] for row in ledger if row["type"] == "base"] == [facts["base"], facts["draw_base"]]
    page = (on_tuned / "index.html").read_text()
    assert facts["draw_base"] in page and "drawn on …/tuned" in page


def test_the_base_that_draws_draws_and_the_other_shows_the_gap(on_tuned: Path) -> None:
    drawn = record(on_tuned / "samples" / "step-000001" / "drawn.json")
    assert drawn["base"] == record(on_tuned / "run.json")["facts"]["draw_base"]
    gap = record(on_tuned / "selection.json")["bases"]
    assert (gap["num_prompts"], gap["steps"]) == (2, [1]) and gap["pass_rates_draw_base"] == [1.0]
    low, high = gap["pass_rate_difference_interval"]
    assert low <= gap["pass_rate_difference"] <= high and gap["rank_correlation"] is None
    places = [base / "samples" / "step-000001" for base in (on_tuned, on_tuned / "training-base")]
    assert len({(place / "with" / "0.png").read_bytes() for place in places}) == 2
    assert "100% and 100% pass, difference +0% [" in base_gap_in_words(gap) and "fewer than three" in base_gap_in_words(
        gap
    )
    three = gap | {"steps": [1, 2, 3], "rank_correlation": 0.5, "rank_correlation_interval": [-0.5, 1.0]}
    assert "rank correlation of 3 checkpoints by style 0.50 [-0.50, 1.00]" in base_gap_in_words(three)


def test_the_order_of_checkpoints_has_an_interval() -> None:
    rising = [[[0.1 * step + 0.01 * prompt for prompt in range(8)]] * 2 for step in range(4)]
    found = checkpoint_rank_correlation_and_interval(torch.tensor(rising).numpy())
    assert found == {"rank_correlation": 1.0, "rank_correlation_interval": [1.0, 1.0]}
    turned = [[one, rising[3 - i][1]] for i, (one, _) in enumerate(rising)]
    assert checkpoint_rank_correlation_and_interval(torch.tensor(turned).numpy())["rank_correlation"] == -1.0
    assert checkpoint_rank_correlation_and_interval(torch.tensor(rising[:2]).numpy())["rank_correlation"] is None


def test_a_batch_is_drawn_and_recorded_with_the_base_that_draws(run_exactly, on_tuned: Path, tuned: Path) -> None:
    words = ["brand=neon", f"draw_base={tuned}", "batch=pair", f"lora_file={on_tuned / 'lora' / 'pair.safetensors'}"]
    words += ["traits=collectible", "generate.num_inference_steps=1", "hardware.device=cpu"]
    for verb, *more in (["plan", "plan.num_images=2"], ["generate"]):
        code, text = run_exactly(verb, *words, *more)
        assert code == 0, text
    facts, batch = record(on_tuned / "run.json")["facts"], record(files.BATCHES / "pair" / "batch.json")
    assert batch["facts"]["base"] == facts["draw_base"] and batch["facts"]["training_base"] == facts["base"]
    assert batch["words"]["base"] == str(tuned) and batch["words"]["training_base"] == "miniature"
    made_from = origin_digests_of_lot(lot_of_batch(files.BATCHES / "pair"))  # what an export's provenance says
    assert (made_from["base_sha256"], made_from["training_base_sha256"]) == (facts["draw_base"], facts["base"])
    assert len(list((files.BATCHES / "pair" / "images").glob("*.png"))) == 2

    policy, sheet = tuned.parent / "promised.yaml", files.BATCHES / "pair" / "audit.csv"
    policy.write_text(
        "version: 1\nchecks: {contrast: {reject_below: 1}}\npromise: {alpha: 0.5, delta: 0.4, ladder: [1.0]}\n"
    )
    told = ["batch=pair", f"policy={policy}", "hardware.device=cpu"]
    run_exactly("gate", *told)
    run_exactly("certify", *told)
    filled = fill_in(sheet, lambda i, row: {"verdict": "accept", "who": "anna", "why": f"seen {i}"})
    code, text = run_exactly("certify", *told, f"decisions={filled}")
    assert code == 0, text
    code, text = run_exactly("export", "batch=pair", "name=pair", "accept_licence=unknown")
    assert code == 0, text
    package = files.EXPORTS / "pair-v1"
    said = provenance_of(package)["made_from"]
    assert (said["base_sha256"], said["training_base_sha256"]) == (facts["draw_base"], facts["base"])
    code, text = run_exactly("verify", str(package))
    assert code == 0 and "certif" in text, text


def test_a_dry_run_counts_both_denoisers(run, tuned: Path) -> None:
    """Without weights in half precision each of the miniature's 10.04 M numbers takes 4 bytes."""
    memory = []
    for more in ([], [f"draw_base={tuned}"]):
        code, text = run("train", "brand=neon", *FAST, "accept_licence=unknown", *more, "dry_run=true")
        assert code == 0, text
        (found,) = re.findall(r"memory +about ([\d.]+) GB for (the denoiser|both denoisers) at", text)
        memory.append(found)
    (alone, one), (together, both) = memory
    assert (one, both) == ("the denoiser", "both denoisers")
    assert float(together) - float(alone) == pytest.approx(0.04, abs=0.011)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(record(path) | values))


def test_a_base_of_another_architecture_is_refused_with_all_reasons(run, tuned: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tuned, other)
    edit(other / "vae" / "config.json", latent_channels=4, scaling_factor=0.5)
    edit(other / "text_encoder" / "config.json", hidden_size=64)
    edit(other / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    edit(other / "unet" / "config.json", cross_attention_dim=64)
    for dry in ("true", "false"):
        before = set(files.RUNS.glob("*"))
        code, text = run("train", "brand=neon", *FAST, f"draw_base={other}", "name=odd", f"dry_run={dry}")
        assert code == 2 and "cannot draw with a LoRA that is trained on base=miniature" in text
        for reason in ("vae: latent_channels is 4", "vae: scaling_factor is 0.5", "text_encoder: hidden_size is 64"):
            assert reason in text
        assert "scheduler: prediction_type is epsilon, trained with v_prediction" in text
        assert "layers have other shapes" in text and "Traceback" not in text
        assert set(files.RUNS.glob("*")) - before <= {
            path for path in files.RUNS.glob("odd-*") if not any(path.glob("*.json"))
        }


def test_an_autoencoder_of_another_latent_space_is_refused(run, tuned: Path, tmp_path: Path) -> None:
    """Its config is the same: only what it makes of a picture shows it."""
    other = tmp_path / "other"
    shutil.copytree(tuned, other)
    (weights,) = (other / "vae").glob("*.safetensors")
    turned = {name: -tensor if name.startswith("encoder") else tensor for name, tensor in load_file(weights).items()}
    weights.unlink()
    save_file(turned, weights, {"format": "pt"})
    words = ["brand=neon", *FAST, f"draw_base={other}", "name=latents", "accept_licence=unknown"]
    code, text = run("train", *words)
    assert code == 2 and "its autoencoder has another latent space" in text
