"""Photos in a bucket, shown to a reviewer by Label Studio."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from demo.samples.products import KINDS
from demo.samples.scenes import draw_scene
from jobs.label_studio.screen import as_task
from jobs.label_studio.server import API_KEY, LabelStudio
from schemas.taxonomy import Category, Taxonomy
from scripts.object_store import KEY, SECRET, object_store
from tests.support.edited_photos import as_jpeg
from tests.support.label_studio import label_studio
from tests.support.paths import ROOT
from tests.support.reviewer import CHROMIUM, reviewer

pytestmark = [
    pytest.mark.lake,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]

TREE = Taxonomy([Category("c", ("Clothes",), None)])
UPLOAD = """
import sys
from pyarrow.fs import S3FileSystem
address, key, secret, file = sys.argv[1:]
store = S3FileSystem(access_key=key, secret_key=secret, endpoint_override=address, scheme="http",
                     region="us-east-1")
with store.open_output_stream("scratch/a day/1.jpg") as target:
    target.write(open(file, "rb").read())
"""


def test_photos_of_a_bucket_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(as_jpeg(draw_scene(KINDS[0], 0, np.random.default_rng(0))))
    row = {"listing_id": "in a bucket", "task": "category", "selection": None, "candidates": []}
    data = tmp_path / "label-studio"
    data.mkdir()
    with (
        object_store(tmp_path / "s3") as store,
        # It refuses addresses of its own machine otherwise.
        label_studio(data, SSRF_PROTECTION_ENABLED="false") as server,
    ):
        subprocess.run(
            [ROOT / ".venv-lake" / "bin" / "python", "-c", UPLOAD, store.s3, KEY, SECRET, photo],
            check=True,
        )
        monkeypatch.setenv(API_KEY, server.token)
        studio = LabelStudio.connect(server.url)
        project = studio.create_project("buckets", overlap=1)
        project.show(TREE)
        bucket = {"bucket": "scratch", "s3_endpoint": store.s3, "presign": False}
        secrets = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
        of_project = {"project": project.id, "use_blob_urls": True, "region_name": "us-east-1"}
        studio.request("POST", "/api/storages/s3", json={**bucket, **secrets, **of_project})
        project.add_tasks([as_task(row, ["s3://scratch/a day/1.jpg"], TREE)])
        with reviewer(project.page, server.user, server.password) as person:
            person.see("in a bucket")
            assert person.photos() == 1
