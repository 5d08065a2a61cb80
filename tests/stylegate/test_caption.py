"""A captioner of true architecture, tiny and random: it captions what has no caption, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<image>", "a", "cat", "dog", "hat", "red", "blue", "round"]
SPECIAL = 5  # of WORDS, which a caption never has
LAYERS: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


def tokenizer_of_words() -> Any:
    """A tokenizer with a token for each of WORDS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        additional_special_tokens=["<image>"],
    )


def blip(place: Path) -> None:
    """A model with one task: it is shown a picture and asked nothing."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    text: dict[str, Any] = LAYERS | {
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "bos_token_id": 2,
        "sep_token_id": 3,
    }
    text |= {"eos_token_id": 3, "pad_token_id": 0, "max_position_embeddings": 128, "projection_dim": 16}
    vision = LAYERS | {"image_size": 32, "patch_size": 16, "projection_dim": 16}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    for bias in (model.text_decoder.cls.predictions.bias, model.text_decoder.cls.predictions.decoder.bias):
        bias.data[:SPECIAL] = -100  # a caption is words
    model.save_pretrained(place)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer_of_words()).save_pretrained(place)


def llava(place: Path) -> None:
    """A model that is spoken to: its answer comes after the picture and the question."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    vision = CLIPVisionConfig(**LAYERS, image_size=32, patch_size=16)
    text = LlamaConfig(**LAYERS, vocab_size=len(WORDS), max_position_embeddings=256, pad_token_id=0, eos_token_id=3)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    )
    model.generation_config.suppress_tokens = list(range(SPECIAL))
    model.save_pretrained(place)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer_of_words(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(place)


@pytest.fixture(scope="module", params=[blip, llava])
def captioner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as on the hub, with weights of one layer for each part."""
    place = tmp_path_factory.mktemp(request.param.__name__)
    torch.manual_seed(0)
    request.param(place)
    return place


def test_only_pictures_without_a_caption_get_one(run_exactly: Any, folder: Path, captioner: Path) -> None:
    names = sorted(path.name for path in folder.glob("*.png"))
    for name in names[:3]:
        (folder / name).with_suffix(".txt").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, text = run_exactly("caption", f"images={folder}", f"captioner={captioner}")
    assert code == 0 and "3 pictures of 14 without a caption" in text, text
    written = {path.name: path.read_text() for path in folder.iterdir() if path.name not in before}
    assert written.keys() == {f"{name}.txt" for name in names[:3]}
    assert all(set(caption.split()) <= {*WORDS[SPECIAL:]} and caption.strip() for caption in written.values()), written
    assert {name: (folder / name).read_bytes() for name in before} == before
    sheet = folder.parent / f"{folder.name}-captions.png"
    assert Image.open(sheet).height > 14 * 256
    (folder / f"{names[0]}.txt").write_text("mine")
    (folder / f"{names[1]}.txt").unlink()
    code, text = run_exactly("caption", f"images={folder}", f"captioner={captioner}")
    assert code == 0 and "1 picture of 14 without a caption" in text
    assert (folder / f"{names[0]}.txt").read_text() == "mine"
    assert (folder / f"{names[1]}.txt").read_text() == written[f"{names[1]}.txt"], "the same picture, the same words"


def test_what_is_no_captioner_is_one_message(
    run_exactly: Any, folder: Path, captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in folder.glob("*.txt"):
        path.unlink()
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in captioner.iterdir():
        if path.suffix != ".safetensors":
            (pickled / path.name).write_bytes(path.read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    for model in (pickled, tmp_path):
        code, text = run_exactly("caption", f"images={folder}", f"captioner={model}")
        assert code == 2 and f"captioner={model} cannot be loaded" in text and "Traceback" not in text, text
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, text = run_exactly("caption", f"images={folder}", f"captioner={captioner}")
    assert code == 2 and "torn.png: cannot be decoded" in text and not list(folder.glob("*.txt"))
    (folder / "torn.txt").write_text("a cat")
    code, text = run_exactly("caption", f"images={folder}", f"captioner={captioner}")
    assert code == 2 and "torn.png: cannot be decoded" in text and "Traceback" not in text
    assert run_exactly("caption", f"images={folder}")[0] == 2
    code, text = run_exactly("caption", f"images={folder}", "captioner=./nowhere")
    assert code == 2 and "there is no folder ./nowhere" in text and "torn" not in text and "file_name" in text, text
    (tmp_path / "empty").mkdir()
    code, text = run_exactly("caption", f"images={tmp_path / 'empty'}", "captioner=owner/name")
    assert code == 2 and "holds no pictures" in text, text
