"""Reviewing in a real Label Studio, in a real browser: sent, decided by keyboard, imported."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs import export_reviews, import_reviews
from jobs.label_studio.server import API_KEY, LabelStudio
from schemas.reviews import REVIEWS
from tests.support.embedding_rows import error_line
from tests.support.label_studio import Server, label_studio
from tests.support.manifest_rows import DS, DrawPhoto, WriteManifest, row
from tests.support.paths import ROOT
from tests.support.photo_server import photo_server
from tests.support.reviewer import CHROMIUM, reviewer

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
]

COLOURS = ["warm/red", "warm/yellow", "cold/blue", "cold/green"]
TREE = "category_id,category_path\nwarm,Warm\ncold,Cold\n" + "".join(
    f"{colour},{colour.title().replace('/', ' > ')}\n" for colour in COLOURS
)
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with label_studio(tmp_path_factory.mktemp("label-studio")) as server:
        yield server


@pytest.fixture(scope="module")
def web_photo(draw_photo: DrawPhoto) -> Iterator[str]:
    with photo_server({"a.jpg": draw_photo(COLOURS[0])}, {}) as (address, _):
        yield f"{address}/a.jpg"


@pytest.fixture(scope="module")
def work(
    draw_photo: DrawPhoto,
    write_manifest: WriteManifest,
    web_photo: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A queue of thirteen listings: two photos each in a folder, but one is in the manifest, one on
    a web server, and some are where nothing can show them.
    """
    work = tmp_path_factory.mktemp("work")
    (work / "tree.csv").write_text(TREE, encoding="utf-8")
    (work / "photos").mkdir()
    rows = []
    for n in range(13):
        for index in range(2):
            photo = work / "photos" / f"{n} {index}%.jpg"
            photo.write_bytes(draw_photo(COLOURS[n % 4], 2 * n + index))
            rows.append(row(name(n), index, image_uri=str(photo)))
    rows[0] |= {"image_uri": None, "image_bytes": (work / "photos" / "0 0%.jpg").read_bytes()}
    rows[1] |= {"image_uri": (work / "photos" / "0 1%.jpg").as_uri()}
    rows[5] |= {"image_uri": web_photo}
    rows[-4] |= {"image_uri": "s3://bucket/a.jpg"}
    rows[-3] |= {"image_uri": "hdfs://cluster/b.jpg"}
    rows[-2] |= {"image_uri": "/etc/passwd"}
    rows[-1] |= {"image_uri": None}
    write_manifest(work / "manifest", rows)
    queue = [
        {
            "listing_id": name(n),
            "task": "category",
            "place": n + 1,
            "selection": "random" if n % 3 else "instructive",
            "explanation": "why",
            "decision": "needs_review",
            "candidates": [
                {"category_id": colour, "score": 0.4 - i / 10} for i, colour in enumerate(COLOURS)
            ],
            "model_name": "model",
            "model_version": "1",
            "taxonomy_version": "1",
            "run_id": "r",
        }
        for n in range(13)
    ]
    folder = work / "reviews" / f"ds={DS}"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(queue, REVIEWS), folder / "reviews.parquet")
    return work


def name(n: int) -> str:
    return "<b>bold</b> & 'quoted'" if n == 1 else f"listing {n}"


@pytest.fixture
def send(spark: SparkSession, work: Path, tracking_uri: str) -> Run:
    """Runs the export in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: object, code: int = 0) -> dict[str, Any]:
        argv = ["--reviews", work / "reviews", "--ds", DS, "--manifest", work / "manifest"]
        argv += ["--taxonomy", work / "tree.csv", "--output", work / "queue", *flags]
        argv += ["--tracking-uri", tracking_uri, "--report", work / "report.json"]
        assert export_reviews.main([str(part) for part in argv]) == code
        return json.loads((work / "report.json").read_text(encoding="utf-8")) if not code else {}

    return run


@pytest.fixture
def fetch(spark: SparkSession, work: Path, tracking_uri: str) -> Run:
    """Runs the import in this process and gives its report; `code` is the exit code expected."""

    def run(*flags: object, code: int = 0) -> dict[str, Any]:
        argv = ["--taxonomy", work / "tree.csv", "--labels", work / "labels", *flags]
        argv += ["--tracking-uri", tracking_uri, "--report", work / "report.json"]
        assert import_reviews.main([str(part) for part in argv]) == code
        return json.loads((work / "report.json").read_text(encoding="utf-8")) if not code else {}

    return run


def labels(work: Path) -> dict[str, dict[str, Any]]:
    """The newest decision of each listing."""
    files = [str(file) for file in (work / "labels").glob("*.parquet")]
    rows = sorted(ds.dataset(files).to_table().to_pylist(), key=lambda row: row["decided_at"])
    return {row["listing_id"]: row for row in rows}


DECIDED = {
    0: ("category", "warm/red"),
    1: ("category", "warm/yellow"),
    2: ("category", "cold/blue"),
    3: ("category", "cold"),
    4: ("unsure", None),
    5: ("not_in_taxonomy", None),
    6: ("bad_photo", None),
    7: ("violation", None),
    8: ("category", "cold/green"),
    9: ("category", "cold/green"),
}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_ten_listings_decided_by_keyboard(
    server: Server,
    work: Path,
    web_photo: str,
    send: Run,
    fetch: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(API_KEY, server.token)
    flags = ("--label-studio", server.url, "--photo-folder", work / "photos")
    sent = send(*flags)
    assert (sent["listings"], sent["tasks"], sent["sent"]) == (13, 12, 12)
    assert sent["photos_not_shown"] == {
        "scheme hdfs": 1,
        "not in --photo-folder": 1,
        "no_photo": 1,
    }
    assert "1 of 13 listings have no photo to show" in caplog.text
    assert send(*flags)["sent"] == 0

    with reviewer(sent["page"], server.user, server.password) as person:
        for n, keys in enumerate(["1", "2", "3", "6", "7", "8", "9", "0", "14", "4"]):
            person.see(name(n))
            assert person.photos() == 2
            for key in keys:
                person.press(key)
            if keys == "6":
                person.search("Cold")
            person.submit()
        person.see(name(10))
        assert person.texts()[0] == "Red 0.40\nWarm[1]"
        assert set(person.elsewhere) == {web_photo}

    read = ("--label-studio", server.url)
    figures = fetch(*read)
    assert (figures["decisions"], figures["added"], figures["unanswered"]) == (10, 10, 0)
    found = labels(work)
    assert {n: (found[name(n)]["decision"], found[name(n)]["category_id"]) for n in DECIDED} == (
        DECIDED
    )
    assert {row["reviewer"] for row in found.values()} == {"ada@shop.example"}
    assert {row["source"] for row in found.values()} == {"review"}
    assert [found[name(n)]["selection"] for n in (0, 1)] == ["instructive", "random"]
    assert fetch(*read)["added"] == 0

    # Of a corrected answer the newer one counts; an export to a file brings the same decisions.
    studio = LabelStudio.connect(server.url)
    project = studio.project("Listing categories")
    assert project is not None
    (annotation,) = project.tasks(all_of_them=False)[4]["annotations"]
    result = annotation["result"]
    result[0]["value"]["choices"] = ["category:warm/yellow"]
    studio.request("PATCH", f"/api/annotations/{annotation['id']}", json={"result": result})
    assert fetch(*read)["added"] == 1
    assert labels(work)[name(4)]["category_id"] == "warm/yellow"
    export = work / "export.json"
    export.write_text(json.dumps(project.tasks(all_of_them=False)), encoding="utf-8")
    again = fetch("--decisions", export, "--labels", work / "from a file")
    assert (again["decisions"], again["added"]) == (10, 10)


def test_the_files_are_what_label_studio_imports(
    server: Server, work: Path, send: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a server: its own import takes the two files."""
    monkeypatch.setenv(API_KEY, server.token)
    report = send("--photo-folder", work / "photos")
    assert "sent" not in report
    studio = LabelStudio.connect(server.url)
    layout = (work / "queue" / "label-config.xml").read_text(encoding="utf-8")
    by_hand = studio.request(
        "POST", "/api/projects", json={"title": "by hand", "label_config": layout}
    )
    tasks = json.loads((work / "queue" / "tasks.json").read_text(encoding="utf-8"))
    done = studio.request("POST", f"/api/projects/{by_hand['id']}/import", json=tasks)
    assert done["task_count"] == 12


def test_what_it_says_when_it_cannot(
    server: Server,
    send: Run,
    fetch: Run,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(API_KEY, raising=False)
    send("--label-studio", server.url, code=2)
    assert f"set {API_KEY} to a user's access token" in error_line(capsys)
    monkeypatch.setenv(API_KEY, "0" * 40)
    fetch("--label-studio", server.url, code=2)
    assert "401 Unauthorized" in error_line(capsys)
    monkeypatch.setenv(API_KEY, server.token)
    fetch("--label-studio", server.url, "--project", "Nobody's", code=3)
    assert 'no project "Nobody\'s"' in error_line(capsys)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    send("--label-studio", f"http://127.0.0.1:{port}", code=2)
    assert "Connection" in error_line(capsys)
    fetch(code=2)
    assert "give one of --decisions and --label-studio" in error_line(capsys)
    fetch("--label-studio", server.url, "--reviewer", "ada", code=2)
    assert "Label Studio knows both" in error_line(capsys)
    send("--ds", "2026-11-24", code=3)
    assert "no such queue; run jobs.select_reviews" in error_line(capsys)
    send("--document-root", work / "photos", code=2)
    assert "is not below" in error_line(capsys)


def test_an_access_token_that_is_exchanged(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio's newer tokens: they are asked for a short one."""
    monkeypatch.setenv(API_KEY, server.token)
    token = LabelStudio.connect(server.url).request("POST", "/api/token/")["token"]
    monkeypatch.setenv(API_KEY, token)
    assert "ada@shop.example" in LabelStudio.connect(server.url).reviewers().values()


def test_make_review_says_what_is_wrong_with_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for value, expected in (
            ("http", "REVIEW_PORT is 'http': give the number of a free port"),
            (str(port), f"port {port} is in use: choose another with REVIEW_PORT=…"),
        ):
            done = subprocess.run(
                [ROOT / ".venv" / "bin" / "python", "-m", "scripts.review_standalone"],
                cwd=ROOT,
                env={"PATH": "/usr/bin:/bin", "REVIEW_PORT": value},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr.strip()) == (1, expected)
