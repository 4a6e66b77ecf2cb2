"""List photos that must not come back, by their hashes, for `jobs.screen_listings`.

    python -m jobs.list_known_photos --photos removed --rule counterfeit --action block \
        --output known_photos.parquet
    python -m jobs.list_known_photos --hashes shared.csv --add-to known_photos.parquet \
        --rule exchanged --action review --output known_photos.parquet

The list has hashes alone, and no photo can be made of them. Hashes that others give have no crops:
they find a photo as a whole, mirrored or framed.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from jobs.command.settings import JobSettings, check_arguments, run_job


class ListKnownPhotos(JobSettings):
    """List photos that must not come back, by their hashes."""

    photos: Path | None = Field(None, description="folder of such photos")
    hashes: Path | None = Field(
        None,
        description="CSV of PDQ hashes in hexadecimal, column hash; known_id, rule and action win "
        "over the flags",
    )
    rule: str = Field(min_length=1, max_length=100, description="name of the rule for them")
    action: Literal["review", "block"] = Field(description="what to do with their listings")
    add_to: Path | None = Field(None, description="keep what is in this list, too")
    output: Path = Field(description="write the list to this Parquet file")


if __name__ == "__main__":
    check_arguments(ListKnownPhotos)  # Before the imports below.

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.command import job_run
from jobs.command.progress import watch
from jobs.command.report import write_report
from jobs.stages.csv_table import read_csv
from jobs.stages.photo_folder import find_photos
from schemas.errors import DataContractError, SettingsError
from schemas.known_photos import KNOWN_PHOTOS
from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.loader import PhotoLoader
from seer_model.photos.perceptual_hash import HASH_BYTES
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import load_whole
from seer_model.screener.known_photos import mirrored_hash, read_known_photos, variant_hashes

log = logging.getLogger(__name__)

# The trunks' size, so that a photo is hashed as it is when it comes back.
_SHORT_SIDE = 224
_AHEAD = 64
_TOO_PLAIN = "too_plain"


def make_list(settings: ListKnownPhotos) -> None:
    """Hash photos, read hashes, add them to a list, write it, report."""
    if settings.photos is None and settings.hashes is None:
        raise SettingsError("give --photos, --hashes or both")
    left_out: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    if settings.add_to is not None:
        rows += read_known_photos(settings.add_to).to_pylist()
    before = len({row["known_id"] for row in rows})
    if settings.photos is not None:
        rows += _hash_photos(settings.photos, settings, left_out)
    if settings.hashes is not None:
        rows += _read_hashes(settings.hashes, settings)
    # The last row of a photo and variant counts, so that its action can be changed.
    once = {(row["known_id"], row["rule"], row["variant"]): row for row in rows}
    if not once:
        raise DataContractError(f"no photo to list: {_reasons(left_out)}")
    table = pa.Table.from_pylist(list(once.values()), schema=KNOWN_PHOTOS)
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, settings.output)
    if left_out:
        log.warning("%d photos are not listed: %s", left_out.total(), _reasons(left_out))
    known = len(set(table["known_id"].to_pylist()))
    figures = {
        "photos": known,
        "photos_before": before,
        "hashes": len(table),
        "not_listed": dict(sorted(left_out.items())),
        "output": str(settings.output),
    }
    job_run.writes(settings.output, rows=len(table), columns=KNOWN_PHOTOS)
    write_report(figures, settings.report)


def _hash_photos(
    folder: Path, settings: ListKnownPhotos, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Rows of a folder's photos; counts those that cannot be listed, by reason."""
    names, others = find_photos(folder)
    left_out.update({reason: len(paths) for reason, paths in others.items()})
    limits = PhotoLimits()

    def decode(source: PhotoSource) -> list[tuple[str, bytes]]:
        return list(variant_hashes(load_whole(source, _SHORT_SIDE, limits)))

    sources = (PhotoSource(str((folder / name).absolute()), None) for name in names)
    with closing(PhotoLoader(decode_threads=os.cpu_count() or 1, limits=limits)) as loader:
        hashed = zip(names, loader.load(sources, decode, ahead=_AHEAD), strict=True)
        for name, found in watch(hashed, "hashing photos", "photos", len(names)):
            if isinstance(found, RejectReason) or not found:
                left_out[found.value if isinstance(found, RejectReason) else _TOO_PLAIN] += 1
                continue
            for variant, each in found:
                yield _row(name, settings.rule, settings.action, variant, each)


def _read_hashes(path: Path, settings: ListKnownPhotos) -> Iterator[dict[str, Any]]:
    """Rows of hashes that others give."""
    optional = ("known_id", "rule", "action")
    _, lines = read_csv(path, ("hash",), ("hash", *optional))
    for number, cells in lines:
        text = cells["hash"].strip().lower()
        try:
            whole = bytes.fromhex(text)
        except ValueError:
            whole = b""
        action = cells.get("action") or settings.action
        if len(whole) != HASH_BYTES or action not in ("review", "block"):
            raise DataContractError(
                f"{path}, line {number}: expected a hash of {2 * HASH_BYTES} hexadecimal digits, "
                f"and review or block as its action if it has one, not {text[:70]!r}"
            )
        known_id, rule = cells.get("known_id") or text[:16], cells.get("rule") or settings.rule
        yield _row(known_id, rule, action, "whole", whole)
        yield _row(known_id, rule, action, "whole, mirrored", mirrored_hash(whole))


def _row(known_id: str, rule: str, action: str, variant: str, hashed: bytes) -> dict[str, Any]:
    names = KNOWN_PHOTOS.names
    return dict(zip(names, (known_id, rule, action, variant, hashed), strict=True))


def _reasons(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return run_job(ListKnownPhotos, make_list, argv)


if __name__ == "__main__":
    sys.exit(main())
