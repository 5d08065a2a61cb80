"""The commands of docs/first-real-run.md, in order, as a reader types them: with a tiny base and little of each."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from stylegate import files
from tests.tiny import BASES

BASE = "base=stabilityai/stable-diffusion-xl-base-1.0"
LITTLE = ["hardware=cpu", "encoder=miniature", "family.resolution=64", "train.max_steps=1", "train.batch_size=2"]
LITTLE += ["train.num_samples=0", "generate.num_inference_steps=2", "plan.num_images=2"]


def commands() -> list[list[str]]:
    """The verbs with their words, from the document's blocks."""
    blocks = re.findall(r"```\n(.*?)```", (files.ROOT / "docs" / "first-real-run.md").read_text(), re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def test_every_command_of_the_first_real_run_does_what_is_said(
    run, tmp_path: Path, pictures_of_neon: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for i, image in enumerate(pictures_of_neon):
        image.save(f"pictures/{i}.png")
        Path(f"pictures/{i}.txt").write_text(f"creature {i} with a hat")
    Path("prompts.txt").write_text("a fox\na cat\n")
    tiny = f"base={BASES['sdxl'](tmp_path / 'base')}"
    verbs = []
    for verb, *words in commands():
        assert any(word == BASE for word in words) or verb == "brand"
        words = [tiny if word == BASE else word for word in words]
        verbs.append(verb)
        if verb == "train":  # as it stands: a dry run needs no card
            code, text = run(verb, *words, *([] if "dry_run=true" in words else ["dry_run=true"]))
            assert code == 0 and "each seen" in text and "licence apache-2.0" in text, text
        if verb in ("brand", "check"):
            code, text = run(verb, *words)
        elif "dry_run=true" not in words:
            little = [word for word in words if word.split("=")[0] not in ("hardware", "plan.num_images")]
            code, text = run(verb, *little, *LITTLE)
        wanted = {"gate": (10, 11), "export": (2,)}.get(
            verb, (0,)
        )  # noise is not accepted, and there is nothing to export
        assert code in wanted and "Traceback" not in text and "unknown key" not in text, (verb, text)
    assert verbs == ["brand", "check", "train", "train", "plan", "generate", "gate", "export"]
