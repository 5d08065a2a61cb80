"""A watermark: put in before the gate judges, read again when a picture leaves, and never counted where it was not."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.package import marking, marks
from stylegate import files, watermark
from stylegate.errors import ConfigError
from stylegate.watermark import BITS, watermark_bit_string


class SpreadSpectrum:
    """A true watermark, of tests alone: for each bit a pattern of its own is added or taken away from all pixels."""

    def __init__(self, path: str, strength: float = 40.0) -> None:
        self.sha256, self.strength = watermark.watermark_weights_digest(path), strength

    def patterns(self, image: Image.Image) -> np.ndarray:
        return np.random.default_rng(0).choice([-1.0, 1.0], (BITS, image.height, image.width, 1))

    def embed_bits(self, image: Image.Image, bits: str) -> Image.Image:
        signs, patterns = np.array([1 if bit == "1" else -1 for bit in bits]), self.patterns(image)
        added = np.tensordot(signs, patterns, 1) * self.strength / np.sqrt(BITS)
        return Image.fromarray(np.clip(np.asarray(image) + added, 0, 255).round().astype(np.uint8))

    def read_bits(self, image: Image.Image) -> str:
        values = np.asarray(image, float)
        found = [(pattern * (values - values.mean())).mean() for pattern in self.patterns(image)]
        return "".join("1" if value > 0 else "0" for value in found) if min(map(abs, found)) > 1 else ""


def test_the_bits_are_of_what_drew_the_picture() -> None:
    bits = watermark_bit_string("a" * 64, None, 7)
    assert len(bits) == BITS == 61 and set(bits) == {"0", "1"}
    assert len({bits, watermark_bit_string("a" * 64, None, 8), watermark_bit_string(None, "a" * 64, 7)}) == 3


@pytest.fixture
def marked(run, trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a judged batch of three pictures that were drawn with a watermark."""
    for folder in ("BATCHES", "EXPORTS"):  # those of other tests are not looked at
        monkeypatch.setattr(files, folder, tmp_path / folder.lower())
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    for module in (watermark, marking, marks):
        monkeypatch.setattr(module, "load_watermark", SpreadSpectrum)
    monkeypatch.setattr("eval.lot.drawing.load_watermark", SpreadSpectrum)
    (tmp_path / "policy.yaml").write_text("version: 1\nchecks: {contrast: {reject_below: 0.001}}\n")
    words = [*trained, "traits=collectible", "plan.num_images=3", f"policy={tmp_path / 'policy.yaml'}"]
    words.append(f"watermark={tmp_path / 'weights.safetensors'}")
    for verb in ("plan", "generate", "gate"):
        code, text = run(verb, *words)
        assert code == 0, text
    return words


def test_drawn_pictures_are_judged_with_their_watermark_and_leave_with_it(run, marked: list[str]) -> None:
    weights = marked[-1].removeprefix("watermark=")
    code, text = run("export", *marked)
    assert code == 0 and "3 hold their watermark" in text, text
    (package,) = files.EXPORTS.iterdir()
    report = files.read_json(package / "proof" / "marks.json", "the report")
    assert report["watermarked"] == report["same_pixels"] == 3, "the pixels that were judged had it already"
    record = files.read_json(package / "data" / "records" / "0.json", "the record")
    assert record["made_from"]["watermark_sha256"] == files.sha256_of_file(Path(weights))
    code, text = run("verify", str(package), f"watermark={weights}")
    assert code == 0 and "proven: of 3 pictures" in text and "3 hold their watermark" in text
    code, text = run("verify", str(package))
    assert code == 0 and "hold their watermark" not in text, "what nobody looked for is not proven"
    assert "not proven: whether the pixels hold a watermark: nobody looked, 3 by proof/marks.json" in text
    code, text = run("marks", str(package), f"watermark={weights}", "attack=true")
    assert code == 0 and "3 hold their watermark" in text, text
    left = [line for line in text.splitlines() if line.startswith("  after ")]
    assert "resizing" in left[1] and left[1].endswith(" 0 hold their watermark")


def test_a_watermark_is_counted_only_where_it_is_read_again(run, marked: list[str], tmp_path: Path) -> None:
    batch = next(files.BATCHES.glob("*/verdicts.jsonl")).parent
    drawn = sorted((batch / "images").glob("*.png"))
    for says, words in (
        ("which nothing here can read again", marked[:-1]),
        ("is not what the pictures were drawn with", [*marked[:-1], f"watermark={tmp_path / 'policy.yaml'}"]),
    ):
        code, text = (
            run("export", f"batch={batch.name}", words[-1])
            if "watermark=" in words[-1]
            else (run("export", f"batch={batch.name}"))
        )
        assert code == 2 and says in text, text
    Image.open(drawn[1]).convert("RGB").rotate(90).save(drawn[1])
    assert run("gate", *marked)[0] == 0
    code, text = run("export", *marked)
    assert code == 2 and f"{drawn[1].name}: the watermark that it was drawn with is not found in its pixels" in text
    assert not list(files.EXPORTS.glob("*"))
    # Another's watermark, though it can be read, is not the picture's own.
    Image.open(drawn[0]).save(drawn[1])
    assert run("gate", *marked)[0] == 0 and run("export", *marked)[0] == 2


def test_pictures_without_a_watermark_are_not_said_to_have_one(run, judged: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "name=bare")
    assert run("gate", *words)[0] == 0
    code, text = run("export", *words, f"watermark={tmp_path / 'weights.safetensors'}")
    assert code == 2 and "they carry none of ours" in text and "stylegate generate watermark=FILE" in text
    assert run("export", *words)[0] == 0
    monkeypatch.setattr(marks, "load_watermark", SpreadSpectrum)
    code, text = run("verify", str(files.EXPORTS / "bare-v1"), f"watermark={tmp_path / 'weights.safetensors'}")
    assert code == 2 and "no picture of" in text and "was drawn with this watermark" in text


def test_what_holds_no_weights_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "pickled.ckpt").write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigError, match="there is no such file"):
        watermark.load_watermark(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"needs a package|does not hold TrustMark's weights"):
        watermark.load_watermark(str(tmp_path / "pickled.ckpt"))


def test_trustmark_itself_puts_in_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own code, of its architecture and with random weights: nothing is fetched, and what is not there is not read.

    Random weights read nothing. The bits, with their correction, are those that trustmark itself reads.
    """
    pytest.importorskip("trustmark", reason="the extra watermark is not installed")
    import torch
    from safetensors.torch import save_file
    from trustmark.unet import SecretDecoder, Unet1  # type: ignore[import-not-found]

    torch.manual_seed(0)
    parts = {"encoder": Unet1(width=4, nmiddle=1, activ="silu"), "decoder": SecretDecoder("resnet18")}
    weights = {f"{part}.{name}": tensor for part, model in parts.items() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    monkeypatch.setattr(sys.modules["urllib.request"], "urlretrieve", lambda *_, **__: pytest.fail("fetched"))
    found = watermark.load_watermark(str(tmp_path / "weights.safetensors"))
    cover, bits = Image.new("RGB", (96, 64), "red"), watermark_bit_string("a" * 64, "b" * 64, 1)
    made = found.embed_bits(cover, bits)
    assert made.size == cover.size and made.tobytes() != cover.tobytes() and found.embed_bits(cover, bits) == made
    assert found.read_bits(made) == ""
    layer = found.trustmark.ecc  # type: ignore[attr-defined]
    assert layer.decode_bitstream(layer.encode_binary([bits]), "binary")[0][:2] == (bits, True)
    del weights["decoder.decoder.fc.weight"]
    save_file(weights, tmp_path / "torn.safetensors")
    with pytest.raises(ConfigError, match="does not hold TrustMark's weights"):
        watermark.load_watermark(str(tmp_path / "torn.safetensors"))
