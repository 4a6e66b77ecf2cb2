"""Reject reasons: the closed set of reasons why a photo or a listing could not be used."""

from enum import StrEnum

__all__ = ["RejectReason", "listing_reason"]


class RejectReason(StrEnum):
    """Why a photo could not be used. A `permanent` reason may be stored, the others are retried."""

    NO_PHOTO = "no_photo"
    """Neither `image_uri` nor `image_bytes` is set: a listing without a photo."""
    AMBIGUOUS_SOURCE = "ambiguous_source"
    """Both `image_uri` and `image_bytes` are set."""
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    """There is no reader for the scheme of `image_uri`."""
    NOT_ALLOWED = "not_allowed"
    """The settings forbid reading from the host or folder of `image_uri`."""
    NOT_FOUND = "not_found"
    """`image_uri` does not exist or is not a regular file."""
    READ_FAILED = "read_failed"
    """`image_uri` exists but reading it failed (permission, network, time-out)."""
    KEY_MISMATCH = "key_mismatch"
    """The bytes do not have the SHA-256 that `image_key` states."""
    TOO_LARGE = "too_large"
    """More bytes or pixels than the limits allow; checked before decoding."""
    EMPTY_FILE = "empty_file"
    """Zero bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """The bytes are not of a supported image format."""
    TRUNCATED = "truncated"
    """The image ends too early."""
    UNREADABLE = "unreadable"
    """The image has a supported format but cannot be decoded."""

    @property
    def permanent(self) -> bool:
        """Whether the same bytes will be rejected under any limits, by any version.

        This says nothing about an address, which may have other bytes tomorrow.
        """
        return self in _PERMANENT

    @property
    def unread(self) -> bool:
        """Whether the photo's bytes were not obtained: the fault of its source, not its own."""
        return self in _UNREAD


_PERMANENT = frozenset(
    {
        RejectReason.EMPTY_FILE,
        RejectReason.TRUNCATED,
        RejectReason.UNREADABLE,
    }
)

_UNREAD = frozenset(
    {
        RejectReason.UNSUPPORTED_SCHEME,
        RejectReason.NOT_ALLOWED,
        RejectReason.NOT_FOUND,
        RejectReason.READ_FAILED,
        RejectReason.KEY_MISMATCH,
    }
)


def listing_reason(photo_reasons: list[str]) -> str:
    """The most frequent reason of a rejected listing's photos; on a tie, the one that comes first.

    Raises:
        ValueError: `photo_reasons` is empty.
    """
    return max(photo_reasons, key=photo_reasons.count)
