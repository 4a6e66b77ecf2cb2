"""Home photos of a product: how it is placed, lit and photographed."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo.samples.backdrops import add_clutter, lying_backdrop, room
from demo.samples.products import Kind, draw_product

__all__ = ["draw_scene"]

_SIZES = ((360, 480), (480, 360), (360, 480), (480, 360), (600, 450), (384, 384))
_SHADOW = (20, 18, 24)


def draw_scene(kind: Kind, seed: int, rng: np.random.Generator) -> Image.Image:
    """Draw one photo of a product, as its owner might take it.

    Args:
        kind: What to show.
        seed: Which one, see `draw_product`.
        rng: The random generator, for all that differs between two photos of one product.

    Returns:
        An RGB picture, upright.
    """
    size = _SIZES[int(rng.integers(len(_SIZES)))]
    stands = rng.random() < 0.45 if kind.stands is None else kind.stands
    reach = 0.95 if rng.random() < 0.85 else 1.25
    side = round(min(size) * rng.uniform(0.65, reach))
    product = _view(draw_product(kind, seed, side), stands, rng)
    scene = _stand(product, size, rng) if stands else _lie(product, size, rng)
    return _photograph(scene, rng)


def _view(product: Image.Image, stands: bool, rng: np.random.Generator) -> Image.Image:
    """Turn and mirror the product, put it in perspective, and crop to what shows."""
    if stands:
        degrees = rng.normal(0, 2)
    elif rng.random() < 0.8:
        degrees = rng.normal(0, 14)
    else:
        degrees = rng.uniform(-180, 180)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    mirror, squeeze = float(rng.choice([-1, 1])), rng.uniform(1.0, 1.2)
    tilt = rng.normal(0, 0.1, 2) / product.width
    turn = np.array(
        [[mirror * cos, mirror * sin, 0], [-squeeze * sin, squeeze * cos, 0], [*tilt, 1]]
    )
    frame = round(product.width * 1.4)
    to_product = _shift(product.width / 2) @ turn @ _shift(-frame / 2)
    seen = product.transform(
        (frame, frame),
        Image.Transform.PERSPECTIVE,
        (to_product / to_product[2, 2]).ravel()[:8].tolist(),
        Image.Resampling.BILINEAR,
    )
    return seen.crop(seen.getbbox())


def _shift(distance: float) -> NDArray[np.float64]:
    return np.array([[1, 0, distance], [0, 1, distance], [0, 0, 1]])


def _stand(product: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    scene, horizon = room(size, rng)
    add_clutter(scene, horizon, rng)
    x = round((size[0] - product.width) / 2 + rng.normal(0, 0.08) * size[0])
    foot = round(rng.uniform(horizon + 0.25 * (size[1] - horizon), size[1] * 1.02))
    flat = product.getchannel("A").resize((product.width, max(8, product.height // 7)))
    drift = round(rng.normal(0, 0.06) * size[0])
    _cast(scene, flat, (x + drift, foot - round(flat.height * 0.8)), 0.55, 7)
    scene.paste(product, (x, foot - product.height), product)
    return scene


def _lie(product: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    scene = lying_backdrop(size, rng)
    add_clutter(scene, -scene.height, rng)
    x, y = (
        round((whole - part) / 2 + rng.normal(0, 0.06) * whole)
        for whole, part in zip(size, product.size, strict=True)
    )
    height = rng.uniform(4, 16)
    drift = (x + round(height * rng.choice([-0.8, 0.8])), y + round(height))
    _cast(scene, product.getchannel("A"), drift, rng.uniform(0.35, 0.65), height / 2)
    scene.paste(product, (x, y), product)
    return scene


def _cast(
    scene: Image.Image, shape: Image.Image, place: tuple[int, int], share: float, blur: float
) -> None:
    """Darken `scene` by a shadow of the given shape."""
    margin = round(blur * 2)
    mask = Image.new("L", (shape.width + 2 * margin, shape.height + 2 * margin))
    mask.paste(shape.point([round(level * share) for level in range(256)]), (margin, margin))
    soft = mask.filter(ImageFilter.GaussianBlur(blur))
    scene.paste(_SHADOW, (place[0] - margin, place[1] - margin), soft)


def _photograph(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add a phone camera's blur, light, colour cast and noise; sometimes too much of one."""
    fault = str(
        rng.choice(
            ["none", "shaken", "defocused", "dark", "overexposed", "tinted"],
            p=[0.6, 0.07, 0.09, 0.1, 0.07, 0.07],
        )
    )
    if fault == "shaken":
        scene = _shaken(scene, rng)
    elif fault == "defocused":
        scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 3.5)))
    exposure = {"dark": rng.uniform(0.22, 0.45), "overexposed": rng.uniform(1.5, 2.0)}.get(
        fault, rng.uniform(0.8, 1.15)
    )
    warmth = rng.normal(0, 0.04) if fault != "tinted" else float(rng.choice([-0.3, 0.25]))
    gains = exposure * np.array([1 + warmth, 1 + rng.normal(0, 0.02), 1 - warmth])
    sigma = rng.uniform(1.5, 6) + (8 if fault == "dark" else 0)
    pixels = np.asarray(scene, np.float32) * gains.astype(np.float32)
    height, width = pixels.shape[:2]
    across = np.linspace(-1, 1, width, dtype=np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1 + np.float32(rng.normal(0, 0.1)) * across + np.float32(rng.normal(0, 0.1)) * down
    light -= np.float32(rng.uniform(0, 0.15)) * (across**2 + down**2)
    pixels *= light[..., None]
    grain = rng.standard_normal((height, width), dtype=np.float32)
    pixels += np.float32(sigma) * grain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _shaken(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Average the scene along a short straight movement of the camera."""
    steps = int(rng.integers(6, 14))
    angle = rng.uniform(0, np.pi)
    pixels = np.asarray(scene, np.uint16)
    total = np.zeros_like(pixels)
    for step in range(steps):
        shift = round(step * np.sin(angle)), round(step * np.cos(angle))
        total += np.roll(pixels, shift, axis=(0, 1))
    return Image.fromarray((total // steps).astype(np.uint8))
