"""Refuse a manifest whose photos cannot be read, when the fault is not the photos'."""

import logging
from collections.abc import Mapping
from typing import Any

from jobs.command.photo_settings import PhotoSettings
from schemas.errors import GateRefusal, SettingsError
from seer_model.photos.fetch import missing_driver

__all__ = ["check_drivers", "check_unread"]

log = logging.getLogger(__name__)


def check_drivers(data: Mapping[str, Any], settings: PhotoSettings) -> None:
    """Check, before the work, that the drivers of the photos' stores are installed here.

    Args:
        data: From `describe_data`.
        settings: Which schemes are allowed, and the share of photos whose driver may be missing;
            those are rejected later.

    Raises:
        SettingsError: More than that lack a driver; says what to install.
    """
    allowed = settings.photo_limits().access.schemes
    for scheme, count in sorted(data["schemes"].items()):
        install = missing_driver(scheme) if scheme in allowed else None
        if install is None:
            continue
        message = (
            f"{count} of {data['rows']} photos are at {scheme}:// and cannot be read: "
            f"{install}, here and on the executors"
        )
        if count > settings.max_unread_share * data["rows"]:
            raise SettingsError(message)
        log.warning("%s", message)


def check_unread(unread: Mapping[str, int], photos: int, max_share: float) -> None:
    """Check that no fault of the sources (a network, a permission) has cost too many photos.

    Args:
        unread: Photos by reject reason, of those reasons that are `unread`.
        photos: All photos.
        max_share: Share of the photos that may have the same reason.

    Raises:
        GateRefusal: More than that have.
    """
    for reason, count in sorted(unread.items()):
        if count > max_share * photos:
            raise GateRefusal(
                f"{count} of {photos} photos ({count / photos:.0%}) could not be read: {reason}. "
                "Nothing was published; mend the source and run again, or allow it with "
                "--max-unread-share"
            )
