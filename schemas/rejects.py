"""The closed set of reasons why a photo, or a whole listing, could not be used."""

from enum import StrEnum

__all__ = ["RejectReason", "listing_reason"]


class RejectReason(StrEnum):
    """Why a photo could not be used; `permanent` ones may be remembered, the others are retried."""

    NO_PHOTO = "no_photo"
    """The row has neither `image_uri` nor `image_bytes`: a listing without a photo."""
    AMBIGUOUS_SOURCE = "ambiguous_source"
    """The row has both `image_uri` and `image_bytes`."""
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    """No reader for the scheme of `image_uri`."""
    NOT_ALLOWED = "not_allowed"
    """The settings do not allow to read from the place that `image_uri` names."""
    NOT_FOUND = "not_found"
    """Nothing at `image_uri`, or not a regular file."""
    READ_FAILED = "read_failed"
    """`image_uri` exists but could not be read (permission, network, time-out)."""
    TOO_LARGE = "too_large"
    """More bytes or pixels than the limits allow; decided before decoding."""
    EMPTY_FILE = "empty_file"
    """Zero bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """The bytes are of no supported image format."""
    TRUNCATED = "truncated"
    """An image that ends too early."""
    UNREADABLE = "unreadable"
    """An image of a supported format whose content cannot be decoded."""

    @property
    def permanent(self) -> bool:
        """Whether reading the same bytes again must end the same way."""
        return self in _PERMANENT


_PERMANENT = frozenset(
    {
        RejectReason.TOO_LARGE,
        RejectReason.EMPTY_FILE,
        RejectReason.NOT_AN_IMAGE,
        RejectReason.TRUNCATED,
        RejectReason.UNREADABLE,
    }
)


def listing_reason(photo_reasons: list[str]) -> str:
    """The reason of a listing none of whose photos could be used: the most frequent, first on ties.

    Raises:
        ValueError: `photo_reasons` is empty.
    """
    return max(photo_reasons, key=photo_reasons.count)
