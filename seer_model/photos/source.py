"""Where a photo is."""

from typing import NamedTuple

__all__ = ["PhotoSource"]


class PhotoSource(NamedTuple):
    """A photo of a manifest: by address or by content, exactly one of the two.

    Attributes:
        uri: A path or URI, see `fetch.read_photo`.
        data: The encoded photo.
        key: SHA-256 (hexadecimal) that its bytes must have, if it is known.
    """

    uri: str | None
    data: bytes | None
    key: str | None = None
