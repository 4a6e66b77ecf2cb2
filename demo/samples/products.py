"""The sixteen kinds of product that the sample listings show."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from demo.samples import household, wearables
from demo.samples.appearance import Appearance
from demo.samples.pen import Pen

__all__ = ["KINDS", "NEW_KIND", "Kind", "draw_product"]


@dataclass(frozen=True)
class Kind:
    """A kind of product.

    Attributes:
        category_path: Its names in the sample taxonomy, from the root to the leaf.
        draw: Paints one such product.
        stands: Whether it is photographed standing or lying; None if both occur.
    """

    category_path: tuple[str, ...]
    draw: Callable[[Pen, Appearance], None]
    stands: bool | None = None


KINDS = (
    Kind(("Clothing", "Garments", "T-shirt"), wearables.t_shirt, stands=False),
    Kind(("Home", "Kitchen", "Mug"), household.mug),
    Kind(("Clothing", "Shoes", "Sneaker"), wearables.sneaker),
    Kind(("Home", "Furniture", "Chair"), household.chair, stands=True),
    Kind(("Electronics", "Audio", "Headphones"), household.headphones),
    Kind(("Leisure", "Music", "Guitar"), household.guitar),
    Kind(("Clothing", "Accessories", "Handbag"), wearables.handbag),
    Kind(("Home", "Lighting", "Table lamp"), household.lamp, stands=True),
    Kind(("Clothing", "Garments", "Trousers"), wearables.trousers, stands=False),
    Kind(("Leisure", "Reading", "Book"), household.book),
    Kind(("Clothing", "Shoes", "Boot"), wearables.boot),
    Kind(("Home", "Furniture", "Table"), household.table, stands=True),
    Kind(("Electronics", "Phones", "Smartphone"), household.phone),
    Kind(("Clothing", "Garments", "Dress"), wearables.dress, stands=False),
    Kind(("Home", "Kitchen", "Bottle"), household.bottle),
    Kind(("Clothing", "Accessories", "Hat"), wearables.hat),
)
"""All kinds. Small samples show only the first ones, which differ the most."""


NEW_KIND = Kind(("Home", "Garden", "House plant"), household.plant, stands=True)
"""A kind that comes up after the training, as new kinds of goods do."""


def draw_product(kind: Kind, seed: int, side: int) -> Image.Image:
    """Draw one product.

    Args:
        kind: What to draw.
        seed: Which one; a seed is the same product at every size.
        side: Width and height in pixels.

    Returns:
        An RGBA picture on a transparent ground.
    """
    pen = Pen(side)
    kind.draw(pen, Appearance.of(seed))
    return pen.finish()
