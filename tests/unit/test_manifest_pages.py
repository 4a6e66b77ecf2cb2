"""Photos in a manifest can be read one after another: no reader needs to hold hundreds of them."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.build_manifest import main

PHOTO_BYTES = 100_000


def test_a_page_has_few_photos(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(200):
        # What is no photo is embedded too: that is for the jobs that decode to say.
        noise = random.Random(number).randbytes(PHOTO_BYTES)
        (images / f"{number:03}.jpg").write_bytes(noise)
    options = {"images": images, "output": tmp_path / "manifest", "ds": "2026-11-25"}
    argv = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    argv += ["--embed-bytes", "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    assert main(argv) == 0
    (file,) = (tmp_path / "manifest" / "ds=2026-11-25").iterdir()
    pool = pa.default_memory_pool()
    held = pool.bytes_allocated()
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**16) as manifest:
        batches = manifest.iter_batches(batch_size=1)
        rows = next(batches)
        assert len(rows["image_bytes"][0].as_py()) == PHOTO_BYTES
        assert pool.bytes_allocated() - held < 32 * PHOTO_BYTES
