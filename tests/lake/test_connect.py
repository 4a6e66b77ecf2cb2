"""Jobs in a session of Spark Connect. The server's Python workers know none of their code."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from demo.samples import draw_sample_listings
from jobs.command import connect
from schemas.errors import SettingsError
from tests.support.paths import ROOT
from tests.support.spark_python import JARS
from tests.support.standalone_cluster import TIMEOUT_S, clean_environment, daemon, wait_for
from tests.support.tracking_database import new_database

pytestmark = [pytest.mark.lake, pytest.mark.slow]
DS = "2026-11-25"
PHOTOS, CATEGORIES = "table:lake.shop.photos", "table:lake.shop.categories"
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


JOBS = """
import importlib, json, sys
codes = [importlib.import_module(f"jobs.{job}").main(flags) for job, *flags in json.load(sys.stdin)]
print(json.dumps(codes))
"""


class Client(NamedTuple):
    """Starts processes with a session of the server, in a folder that the server has, too."""

    url: str
    folder: Path

    def run(self, *arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run Python."""
        done = subprocess.run(
            [sys.executable, *arguments],
            input=given,
            cwd=self.folder,
            env=clean_environment() | {"SPARK_REMOTE": self.url, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    def jobs(self, *jobs: tuple[str | Path, ...], code: int = 0) -> list[str]:
        """Run jobs in one process; returns the lines of the standard error."""
        tracking = ("--tracking-uri", f"sqlite:///{self.folder}/mlflow.db")
        done = self.run(
            "-c", JOBS, given=json.dumps([[*job, *tracking] for job in jobs], default=str)
        )
        assert json.loads(done.stdout.splitlines()[-1]) == [code] * len(jobs), done.stderr
        return done.stderr.splitlines()

    def report(self, name: str) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return figures


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server with two cores and an Iceberg catalog."""
    folder = tmp_path_factory.mktemp("connect")
    catalog = "spark.sql.catalog.lake"
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",
        "spark.jars": ",".join(str(jar) for jar in JARS if "iceberg-spark" in jar.name),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        f"{catalog}.type": "hadoop",
        f"{catalog}.warehouse": str(folder / "warehouse"),
    }
    conf = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    submit = ("org.apache.spark.deploy.SparkSubmit", "--master", "local[2,4]", *conf)
    log = folder / "log"
    with daemon(log, *submit, "--class", SERVER, "spark-internal") as process:
        port = wait_for(r"Spark Connect server started at: \S+?:(\d+)", process, log)
        new_database(folder)
        yield Client(f"sc://127.0.0.1:{port}", folder)


@pytest.fixture(scope="module")
def bundle(client: Client) -> Path:
    """A model trained there, on a manifest written there."""
    samples = draw_sample_listings(client.folder / "samples", 12)
    photos = ("--images", samples.images.parent, "--listings", samples.listings_csv)
    labels = ("--taxonomy", samples.taxonomy_csv, "--backbone", "timm:regnety_002")
    bundle, scratch = client.folder / "bundle", ("--scratch", client.folder)
    client.jobs(
        ("build_manifest", *photos, "--ds", DS, "--output", PHOTOS, *scratch),
        ("train_head", "--manifest", PHOTOS, *labels, "--output", bundle, *scratch),
    )
    return bundle


def test_listings_are_categorized_and_the_store_kept(client: Client, bundle: Path) -> None:
    manifest, output = ("--manifest", PHOTOS, "--ds", DS), ("--output", CATEGORIES)
    store = ("--embeddings", "table:lake.shop.embeddings")
    job = ("categorize_listings", *manifest, *output, "--model", bundle, *store)
    scratch = ("--scratch", client.folder)
    client.jobs(
        (*job, *scratch, "--report", "first"),
        (*job, *scratch, "--report", "again"),
        ("check_categories", *manifest, *output, "--report", "found"),
        ("maintain_embeddings", *store),
    )
    first, again, found = map(client.report, ("first", "again", "found"))
    assert first["listings"] == 12
    assert first["photos_embedded"] == first["photos"] > 20
    assert again["photos_embedded"] < 10  # Those that could not be read.
    assert (found["listings"], found["run_id"]) == (12, again["run_id"])


def test_listings_are_screened_and_described(client: Client, bundle: Path) -> None:
    store, scratch = ("--embeddings", "table:lake.shop.embeddings"), ("--scratch", client.folder)
    job = ("--manifest", PHOTOS, "--ds", DS, *store, *scratch)
    screening, texts = "table:lake.shop.screening", "table:lake.shop.descriptions"
    client.jobs(
        ("screen_listings", *job, "--output", screening, "--report", "screened"),
        ("describe_listings", *job, "--model", bundle, "--output", texts, "--report", "described"),
    )
    screened, described = client.report("screened"), client.report("described")
    assert screened["listings"] == 12
    assert screened["photos"] == described["photos"] > 20
    assert described["texts"] > 10
    assert not list(client.folder.glob("_scratch-*"))


PROGRAM = """
import json, sys
from pathlib import Path
from jobs.command import progress
from jobs.command.session import default_parallelism, start_session
from jobs.stages.photo_count import show_photos
from jobs.udf import categorize_udf

model, photo = map(Path, sys.argv[1:])
spark = start_session("a notebook")
assert start_session("another") is spark
assert spark.conf.get("spark.sql.caseSensitive") == "true"
assert default_parallelism(spark) == 2
for _ in range(2):  # The second model is the one that is there already.
    categorize = categorize_udf(str(model))
rows = [(photo.read_bytes(),), (b"no photo",), (None,)]
frame = spark.createDataFrame(rows, "photo binary").select(categorize("photo").alias("category"))
progress._LOG_EVERY_SECONDS = -1
seen = []
progress.log.info = lambda line, *values: seen.append(line % values)
with show_photos(spark, "categorizing", 3, None):
    found = frame.select("category.*").collect()
assert any("tasks" in line and "0 of 0" not in line for line in seen), seen
print(json.dumps([row["reject_reason"] for row in found]))
"""


def test_session_progress_and_udf(client: Client, bundle: Path) -> None:
    photo = next(path for path in (client.folder / "samples").rglob("*.jpg"))
    done = client.run("-c", PROGRAM, bundle, photo)
    assert json.loads(done.stdout.splitlines()[-1]) == [None, "not_an_image", "no_photo"]


def test_what_cannot_work_is_refused(client: Client, bundle: Path) -> None:
    job = ("categorize_listings", "--ds", DS, "--output", CATEGORIES, "--model", bundle)
    printed = client.jobs(
        (*job, "--manifest", "/m", "--scratch", "/s"),
        (*job, "--manifest", PHOTOS),
        (*job, "--manifest", PHOTOS, "--scratch", "s3a://b/s"),
        code=2,
    )
    errors = [line.partition(" error: ")[2] for line in printed if " error: " in line]
    assert len(errors) == 3
    assert errors[0].startswith("--manifest /m/ds=2026-11-25: Spark Connect reads no footers")
    assert errors[1].startswith("--scratch is required")
    assert errors[2].startswith("s3a://b/s: this job does not reach it under Spark Connect")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("sc://127.0.0.1:1/;token=secret", "sc://127.0.0.1:1: no Spark Connect server answers"),
        ("sc://127.0.0.1:65536", "sc://127.0.0.1:65536: Port out of range"),
    ],
)
def test_no_server(monkeypatch: pytest.MonkeyPatch, url: str, line: str) -> None:
    monkeypatch.setattr(connect, "_SECONDS_TO_CONNECT", 0.2)
    with pytest.raises(SettingsError, match=line) as refused:
        connect.wait_for_server(url)
    assert "secret" not in str(refused.value)
