"""Settings of the jobs that read photos."""

from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.command.settings import JobSettings
from seer_model.photos.limits import PhotoAccess, PhotoLimits

__all__ = ["SCRATCH", "PhotoSettings"]

_LIMITS = PhotoLimits()
_ACCESS = _LIMITS.access


SCRATCH: Any = Field(
    None,
    description="folder for what is needed during a run, reached by all machines, such as "
    "s3a://bucket/scratch; keeps the embeddings of a killed run (default: in the folder that "
    "--output or --embeddings names)",
)
"""Describes the setting `scratch: str | None`."""


class PhotoSettings(JobSettings):
    """Which photos may be read; the others are rejected with a reason. See `PhotoLimits`."""

    photo_roots: list[Path] = Field(
        [Path(root) for root in _ACCESS.roots],
        description="folder in which local photos must lie (repeatable)",
    )
    photo_schemes: list[str] = Field(
        list(_ACCESS.schemes), description="scheme that photo URIs may have (repeatable)"
    )
    photo_hosts: list[str] = Field(
        list(_ACCESS.hosts),
        description="web server or bucket that may be read, such as *.shop.example (repeatable)",
    )
    private_photo_hosts: bool = Field(
        _ACCESS.private_hosts, description="also read web servers at non-public IP addresses"
    )
    max_photo_bytes: int = Field(_LIMITS.max_bytes, gt=0, description="largest photo file")
    max_photo_pixels: int = Field(
        _LIMITS.max_pixels, gt=0, description="largest photo, width times height"
    )
    max_photo_passes: int = Field(
        _LIMITS.max_passes,
        gt=0,
        description="most decoding passes over max_photo_pixels; bounds the decoding time",
    )
    max_photo_seconds: float = Field(
        _LIMITS.max_seconds, gt=0, description="time to read a remote photo, retries included"
    )
    max_unread_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of photos that may be unread for the same reason; above, "
        "categorize_listings publishes nothing and ends with 4",
    )

    def photo_limits(self) -> PhotoLimits:
        """The limits that these flags set."""
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
