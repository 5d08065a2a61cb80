"""Would an encoder that has learned real styles read unseen hands better? Trains one; tests.bench.real judges with it.

    python -m tests.bench.hands iconify-json-2.2.535.tgz .cache/hands      half an hour on a core
    python -m tests.bench.real FOLDER encoder=miniature+./.cache/hands

The archive is that of train/miniature/foreign.py. The shipped encoder's image tower goes on to learn which of the 16
icon sets, or of 300 of the miniature's own styles, a picture is from: supervised contrast (arXiv 2004.11362) of its
embeddings, and of mean and deviation of its patches, which the readers of brands see. Half of the icons of a batch have
names that other sets have too: the same subject in several hands. Each picture is moved by up to 4 pixels, mirrored,
tinted, made uneven, and laid on another ground in two of five cases.
"""

import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from stylegate import files, progress
from train.miniature import world
from train.miniature.drawing import render_collectible
from train.miniature.fit import bf16_autocast, learning_rate_factor
from train.miniature.foreign import ICONS, rendered_icon_set
from train.miniature.styles import NAMED, unnamed_style

STEPS, RATE, HEAD_RATE = 1200, 4e-4, 1e-3
ICON_SETS, OWN_STYLES, EACH = 8, 4, 8  # of a batch: sets, styles of the miniature, pictures of each
MOST_ICONS, STYLES, OF_A_STYLE = 800, 300, 24  # that are drawn
TEMPERATURE, MOVED, WIDTH = 0.1, 4, 160  # WIDTH: channels of a token of the miniature's image tower
TINT, UNEVEN = 5.0, 4.0  # levels of 255, standard deviations
SHIPPED = files.MODELS / "miniature" / "clip"


class Drawn(NamedTuple):
    """The pictures of one set or style: RGBA [n, 64, 64, 4], and the name of what each shows."""

    pixels: NDArray[np.uint8]
    names: list[str]


def drawn_icons(archive: Path) -> list[Drawn]:
    """The icons of the sets that may be learned from."""
    sets = []
    with tarfile.open(archive) as opened:
        for name in ICONS:
            content = opened.extractfile(f"package/json/{name}.json")
            assert content is not None
            found = [pair for pair, _ in zip(rendered_icon_set(json.load(content)), range(MOST_ICONS), strict=False)]
            sets.append(Drawn(np.stack([np.asarray(picture) for _, picture in found]), [name for name, _ in found]))
    return sets


def drawn_styles() -> list[Drawn]:
    """Collectibles in the miniature's own styles."""
    sets = []
    for number in range(STYLES):
        style = NAMED[number] if number < len(NAMED) else unnamed_style(number)
        traits = (world.random_traits(np.random.default_rng([number, i])) for i in range(OF_A_STYLE))
        pictures = [np.asarray(render_collectible(some, style, i).convert("RGBA")) for i, some in enumerate(traits)]
        sets.append(Drawn(np.stack(pictures), [str(i) for i in range(OF_A_STYLE)]))
    return sets


def varied(rgba: NDArray[np.uint8], r: np.random.Generator) -> NDArray[np.uint8]:
    """[64, 64, 3] the picture as this training shows it."""
    ground = np.full(3, 255) if r.random() < 0.6 else r.integers(0, 256, 3)
    opaque = rgba[..., 3:] / 255
    x, y = r.integers(0, 2 * MOVED + 1, 2)
    laid = np.pad(rgba[..., :3] * opaque + ground * (1 - opaque), ((MOVED, MOVED), (MOVED, MOVED), (0, 0)), mode="edge")
    laid = laid[y : y + 64, x : x + 64, :][:, :: 1 if r.random() < 0.5 else -1]
    if r.random() < 0.4:
        rough = np.kron(r.standard_normal((16, 16)), np.ones((4, 4)))[..., None]
        laid = laid + TINT * r.standard_normal(3) + UNEVEN * rough
    return laid.clip(0, 255).astype(np.uint8)


def contrastive_batch(icons: list[Drawn], styles: list[Drawn], r: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [n, 3, 64, 64] in [-1, 1], and which set of the batch each is of [n]."""
    chosen = [icons[i] for i in r.choice(len(icons), ICON_SETS, replace=False)]
    known = [set(one.names) for one in chosen]
    shared = sorted({name for i, one in enumerate(known) for other in known[:i] for name in one & other})
    shared = [shared[i] for i in r.permutation(len(shared))]
    chosen += [styles[i] for i in r.choice(len(styles), OWN_STYLES, replace=False)]
    pictures = []
    for one in chosen:
        places = {name: i for i, name in enumerate(one.names)}
        same = [places[name] for name in shared if name in places][: EACH // 2]
        rest = r.choice(len(one.names), EACH - len(same), replace=False).tolist()
        pictures += [varied(one.pixels[i], r) for i in [*same, *rest]]
    shown = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return shown, torch.arange(len(chosen)).repeat_interleave(EACH)


def supervised_contrast(rows: Tensor, of: Tensor) -> Tensor:
    """The loss of rows [n, k]: each should be nearer to those of its own set than to all others (eq. 2)."""
    unit = functional.normalize(rows.float(), dim=1)
    itself = torch.eye(len(rows), dtype=torch.bool)
    likeness = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -1e4)
    same = (of[:, None] == of[None]) & ~itself
    chance = likeness - likeness.logsumexp(1, keepdim=True)
    return -((chance * same).sum(1) / same.sum(1)).mean()


def shipped_clip() -> Any:
    model = json.loads((SHIPPED / "open_clip_config.json").read_text())["model_cfg"]
    text, vision = open_clip.CLIPTextCfg(**model["text_cfg"]), open_clip.CLIPVisionCfg(**model["vision_cfg"])
    clip = open_clip.CLIP(model["embed_dim"], vision, text)
    clip.load_state_dict({k: v.float() for k, v in load_file(SHIPPED / "open_clip_model.safetensors").items()})
    return clip


def train(clip: Any, icons: list[Drawn], styles: list[Drawn]) -> None:
    """Train the image tower in place."""
    tower = clip.visual
    head = nn.Sequential(nn.Linear(4 * WIDTH, 256), nn.GELU(), nn.Linear(256, 128))  # not kept
    groups = [{"params": list(tower.parameters()), "lr": RATE}, {"params": list(head.parameters()), "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    with progress.progress_bar("hands", STEPS) as tick, sdpa_kernel(SDPBackend.MATH):
        for step in range(STEPS):
            for group, rate in zip(optimizer.param_groups, (RATE, HEAD_RATE), strict=True):
                group["lr"] = rate * learning_rate_factor(step, STEPS)
            shown, of = contrastive_batch(icons, styles, np.random.default_rng([step, 77]))
            with bf16_autocast(torch.device("cpu")):
                made = tower.forward_intermediates(shown, indices=[-3, -2])
                tokens = [one.flatten(2).float() for one in made["image_intermediates"]]
                statistics = torch.cat([part for one in tokens for part in (one.mean(2), one.std(2))], 1)
                loss = supervised_contrast(made["image_features"], of) + supervised_contrast(head(statistics), of)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tick(1, f"loss {float(loss):.3f}")


def main() -> int:
    archive, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.manual_seed(1)
    clip = shipped_clip()
    train(clip, drawn_icons(archive), drawn_styles())
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half().contiguous() for name, value in clip.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    for name in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, folder / name)
    print(f"python -m tests.bench.real FOLDER encoder=miniature+{folder.resolve()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
