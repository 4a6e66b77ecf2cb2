"""What a person could view is read upright and in the right colours, however it is stored."""

import numpy as np
import pytest

from seer_model.photos import decode_photo
from tests.unit.encoded_photos import FULL, LIMITS
from tests.unit.hostile.odd_photos import ODD_PHOTOS


@pytest.mark.parametrize("kind", ODD_PHOTOS)
def test_odd_photo_is_read_as_a_person_sees_it(kind: str) -> None:
    odd = ODD_PHOTOS[kind]
    image, shown = decode_photo(odd.build(), FULL, LIMITS), odd.shows()
    assert (image.size, image.mode) == (shown.size, "RGB")
    for across, down in ((1, 1), (3, 1), (1, 3), (3, 3)):  # The middle of each corner's quarter.
        middle = across * shown.width // 4, down * shown.height // 4
        found, expected = (np.array(one.getpixel(middle), int) for one in (image, shown))
        assert np.abs(found - expected).max() <= odd.tolerance, f"{middle}: {found}, not {expected}"


def test_the_card_tells_every_way_to_turn_it() -> None:
    """So a kind that is read upside down or in other colours cannot pass."""
    card = ODD_PHOTOS["rgb16.png"].shows()
    corners = [card.getpixel(at) for at in ((4, 4), (92, 4), (4, 60), (92, 60))]
    assert len({*corners}) == 4
    apart = [np.abs(np.subtract(a, b)).max() for a in corners for b in corners if a != b]
    assert min(apart) > 100
