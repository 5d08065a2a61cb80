"""The planted defects of defects.yaml, applied to one picture. Strengths are fixed there; nobody tunes them here."""

import io

import numpy as np
from PIL import Image, ImageFilter


def blur(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(image.width / 32))


def noise(image: Image.Image, random: np.random.Generator) -> Image.Image:
    values = np.asarray(image, dtype=np.float64) + random.normal(0, 24, (image.height, image.width, 3))
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def occlusion(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A rectangle of 20 % of the area whose centre lies in the middle half of the picture, where the figure is."""
    side, area = image.width, 0.2
    ratio = float(np.exp(random.uniform(-0.5, 0.5)))
    width, height = round(side * (area * ratio) ** 0.5), round(side * (area / ratio) ** 0.5)
    x, y = (int(random.integers(side // 4, 3 * side // 4 + 1)) - length // 2 for length in (width, height))
    x, y = min(max(x, 0), side - width), min(max(y, 0), side - height)
    out = image.copy()
    out.paste(colour(random), (x, y, x + width, y + height))
    return out


def blank(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return Image.new("RGB", image.size, colour(random))


def half_drawn(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Without a renderer the background is the median colour of the border."""
    pixels = np.asarray(image).copy()
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    pixels[image.height // 2 :] = np.median(border, axis=0).astype(np.uint8)
    return Image.fromarray(pixels)


def near_duplicate(image: Image.Image, random: np.random.Generator) -> Image.Image:
    shifted = np.roll(np.asarray(image), 1, axis=int(random.integers(0, 2)))
    buffer = io.BytesIO()
    Image.fromarray(shifted).save(buffer, "JPEG", quality=60)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def copied_training(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """`image` is a training picture."""
    return Image.fromarray((np.asarray(image, dtype=np.float64) * 1.03).clip(0, 255).round().astype(np.uint8))


def colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in random.integers(0, 256, 3))
    return red, green, blue


DEFECTS = {
    f.__name__: f for f in (blur, noise, occlusion, blank, half_drawn, near_duplicate, copied_training)
}  # style_mix at 1.0 is another picture: the flat render of the same traits
