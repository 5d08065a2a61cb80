"""What a finished run hands out: the LoRA file and its model card."""

from pathlib import Path

from stylegate import files, lorafile
from stylegate.brandset import BrandSet
from stylegate.config import Config, run_name
from stylegate.families import Family, Models

CARD = """---
library_name: diffusers
tags: [lora, text-to-image]
base_model: {base}
instance_prompt: "{trigger}"
license: "{licence}"
---
# {name}

A LoRA for the style of {brand}: {style}. Put "{trigger}" into the prompt.

- Learned from {num_pictures} pictures; source: {source}; licence of the pictures: {licence}.
- {steps} steps of batch {batch}, rank {rank}, alpha {alpha:g} (strength {scale:g} is folded into it), on {targets}.
- {passed}
- Digests (sha256): this file {lora_sha256}, data {data}, base {base_sha256}.

```python
pipeline.load_lora_weights(".", weight_name="{file}")
```

Made by stylegate. It knows only what its pictures show; judge what it draws with `stylegate gate`.
"""


def write(
    config: Config, directory: Path, models: Models, family: Family, brand_set: BrandSet, facts: dict, selection: dict
) -> Path:
    """lora/<name>.safetensors and lora/README.md of the weights as they are loaded; returns the file."""
    brand, name = brand_set.brand, run_name(config)
    described = {"brand": brand.name, "trigger_phrase": brand.trigger, "data": facts["data"], "base": facts["base"]}
    path = directory / "lora" / f"{name}.safetensors"
    scale, rate = selection["scale"], selection["pass_rate"]
    files.write(path, lorafile.release_bytes(models.denoiser, family.PREFIX, described, scale))
    passed = "Its pictures were not judged while it was trained."
    if rate is not None:
        passed = f"{rate:.0%} of {selection['num_prompts']} pictures of held-out captions passed the gate."
    card = CARD.format(
        name=name,
        brand=brand.name,
        style=brand.style or "see its pictures",
        trigger=brand.trigger,
        licence=brand.licence,
        source=brand.source,
        base=config.base,
        num_pictures=len(brand_set.splits["train"]),
        steps=selection["step"],
        scale=scale,
        passed=passed,
        batch=config.train.batch_size * facts["processes"],
        rank=config.lora.rank,
        alpha=config.lora.alpha * scale,
        targets=", ".join(config.lora.targets),
        lora_sha256=files.sha256(path),
        data=facts["data"],
        base_sha256=facts["base"],
        file=path.name,
    )
    files.write(path.parent / "README.md", card)
    return path
