"""Weights in place for a while: what was there before is back bit for bit."""

import torch
from torch.nn import functional

from stylegate.config import Config
from stylegate.families import FAMILIES
from train.prepare import add_lora
from train.weights import merging_lora_on_cpu_temporarily, setting_lora_strength_temporarily


def test_a_merged_lora_computes_the_same_and_leaves_no_bit_changed() -> None:
    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    adapted = add_lora(models, FAMILIES["sd"], Config(brand="neon"))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 50
    noisy, levels = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([500])
    words = FAMILIES["sd"].encode_prompts(models, ["a fox"])

    @torch.no_grad()
    def predicted() -> torch.Tensor:
        return FAMILIES["sd"].predict(models, models.denoiser, noisy, levels, words)

    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    full = predicted()
    with setting_lora_strength_temporarily(adapted, 0.8):
        weaker = predicted()
        with torch.no_grad(), merging_lora_on_cpu_temporarily(adapted):
            merged = predicted()
    assert functional.mse_loss(merged, weaker) < 1e-10 < functional.mse_loss(full, weaker)
    assert torch.equal(predicted(), full)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())
