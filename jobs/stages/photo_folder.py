"""Find the photos of a folder; every other file is left out for a reason."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import SettingsError
from seer_model.photos.hardened_pillow import photo_format

__all__ = ["find_photos", "printable"]

_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".mpo"}
)
# Made by macOS in zips, and by Synology's servers for thumbnails.
_NOBODYS_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_HEADER_BYTES = 256


def find_photos(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Find the photos in a folder and the folders below it.

    A photo is a file with the suffix of an accepted format or, whatever its suffix, with the first
    bytes of one.

    Returns:
        The photos' paths relative to the folder, sorted; and the paths that were left out, fit for
        printing, by reason: `hidden` (its name, or that of a folder above it, begins with a dot or
        belongs to a program), `not_a_photo`, `not_a_file`, `not_readable`, `not_utf8` (its name),
        `linked_folder`.

    Raises:
        SettingsError: A folder cannot be read.
    """
    photos: list[Path] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for path in _files(folder):
        relative = path.relative_to(folder)
        reason = _why_not(path, relative)
        if reason is None:
            photos.append(relative)
        else:
            left_out[reason].append(printable(relative))
    return (
        [photo.as_posix() for photo in sorted(photos)],
        {reason: sorted(paths) for reason, paths in sorted(left_out.items())},
    )


def printable(path: Path) -> str:
    """The path with replacement characters for what is not UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def _files(folder: Path) -> Iterator[Path]:
    """Every file, and every link to a folder, since links are not followed."""

    def refuse(error: OSError) -> None:
        raise SettingsError(f"--images {error.filename}: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        yield from (here / name for name in files)
        yield from (here / name for name in folders if (here / name).is_symlink())


def _why_not(path: Path, relative: Path) -> str | None:
    if printable(relative) != str(relative):
        return "not_utf8"
    if any(part.startswith(".") or part in _NOBODYS_FOLDERS for part in relative.parts):
        return "hidden"
    if path.is_dir():
        return "linked_folder"
    if not path.is_file():
        return "not_a_file"
    return None if path.suffix.lower() in _SUFFIXES else _why_no_photo(path)


def _why_no_photo(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return None if photo_format(file.read(_HEADER_BYTES)) else "not_a_photo"
    except OSError:
        return "not_readable"
