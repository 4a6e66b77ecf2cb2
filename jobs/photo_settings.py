"""Settings of the jobs that read photos: how large, how slow, and from where."""

from pathlib import Path

from pydantic import Field

from jobs.settings import JobSettings
from seer_model.photo_access import SCHEMES, PhotoAccess
from seer_model.photos import PhotoLimits

__all__ = ["PhotoSettings"]

_DEFAULTS = PhotoLimits()


class PhotoSettings(JobSettings):
    """Flags about photos; a photo beyond them is rejected with a reason."""

    photo_roots: list[Path] = Field(
        [Path("/")], description="folders in which local photos must lie (repeatable)"
    )
    photo_schemes: list[str] = Field(
        list(SCHEMES), description="schemes that addresses of photos may have (repeatable)"
    )
    photo_hosts: list[str] = Field(
        ["*"],
        description="web servers and buckets that may be read, as *.shop.example (repeatable)",
    )
    private_photo_hosts: bool = Field(
        False, description="read web servers at addresses that are not public, too"
    )
    max_photo_bytes: int = Field(_DEFAULTS.max_bytes, gt=0, description="of a file, at most")
    max_photo_pixels: int = Field(_DEFAULTS.max_pixels, gt=0, description="width times height")
    max_photo_passes: int = Field(
        _DEFAULTS.max_passes,
        gt=0,
        description="over max_photo_pixels, at most: what bounds the time of decoding",
    )
    max_photo_seconds: float = Field(
        _DEFAULTS.max_seconds, gt=0, description="to read a remote photo, all tries together"
    )

    def photo_limits(self) -> PhotoLimits:
        """As what reads photos takes them."""
        return PhotoLimits(
            max_bytes=self.max_photo_bytes,
            max_pixels=self.max_photo_pixels,
            max_passes=self.max_photo_passes,
            max_seconds=self.max_photo_seconds,
            access=PhotoAccess(
                roots=tuple(str(root) for root in self.photo_roots),
                schemes=tuple(scheme.lower() for scheme in self.photo_schemes),
                hosts=tuple(host.lower() for host in self.photo_hosts),
                private_hosts=self.private_photo_hosts,
            ),
        )
