"""Scores against torchmetrics, on the same weights: its CLIPScore, and KID's estimator. It is needed by tests alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.image.kid import poly_mmd
from torchmetrics.multimodal import CLIPScore

from eval.measuring import encoder as encoding
from eval.scorers import batch, prompt


def test_clipscore_equals_torchmetrics(pictures_of_neon: list[Image.Image]) -> None:
    """100 times the cosine, on the shipped encoder's weights; torchmetrics gives the mean over a batch."""
    encoder = encoding.load_encoder("miniature", torch.device("cpu"))
    texts = [f"neon style, {name} on black background" for name in ("red robot", "blue cat", "green frog", "fox")]

    class Model(torch.nn.Module):
        """What torchmetrics asks of transformers' CLIPModel."""

        config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=encoder.model.context_length))

        def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
            return encoder.model.encode_image(pixels)

        def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return encoder.model.encode_text(ids)

    def processor(text=None, images=None, **named):
        found = {}
        if images is not None:
            shown = [
                encoder.preprocessing.resized_and_cropped_pixels(Image.fromarray(i.permute(1, 2, 0).numpy()))
                for i in images
            ]
            pixels = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 255
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.preprocessing.mean, encoder.preprocessing.std))
            found["pixel_values"] = (pixels - mean) / std
        if text is not None:
            found["input_ids"] = encoder.tokenizer(text)
            found["attention_mask"] = torch.ones_like(found["input_ids"])
        return found

    metric = CLIPScore(model_name_or_path=lambda: (Model(), processor))
    images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in pictures_of_neon[:4]]
    shown = [encoder.preprocessing.resized_and_cropped_pixels(image) for image in pictures_of_neon[:4]]
    embeddings = encoding.encode_pictures(encoder, shown).embeddings
    ours = prompt.cosine_to_prompt(embeddings, encoding.encode_texts(encoder, texts))
    assert 100 * ours.mean() == pytest.approx(float(metric(images, texts)), abs=1e-3)


@pytest.mark.parametrize("count", [30, 200])
def test_kid_equals_torchmetrics(count: int) -> None:
    random = np.random.default_rng(count)
    x, y = random.normal(size=(count, 64)), random.normal(size=(count, 64)) + 0.2
    theirs = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert batch.kernel_distance(x, y) == pytest.approx(theirs, rel=1e-9)
