"""Start Label Studio on this machine with the demo's review queue.

What reviewers need is in `review-home`: Label Studio's data and the log-in, which is made up the
first time. `REVIEW_PORT` sets another port than 8081. `make review` runs this; it needs `.venv` and
`.venv-review`. Nothing is sent elsewhere: Label Studio's statistics and error reports are off.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from scripts.child_processes import ROOT, end, end_on_signals, is_alive, is_open, run

HOME = ROOT / "review-home"
DEMO = ROOT / (os.environ.get("DEMO_OUTPUT") or "demo-output")
MANIFEST = DEMO / "unlabelled"
LABEL_STUDIO = ROOT / ".venv-review" / "bin" / "label-studio"
# For this machine alone.
START = [LABEL_STUDIO, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port"]
PYTHON = ROOT / ".venv" / "bin" / "python"
BUDGET = 50
SECONDS_TO_START = 180


def main() -> None:
    """Prepare the queue, start the server, send the queue to it, and say where to decide."""
    port = os.environ.get("REVIEW_PORT") or "8081"
    end_on_signals()
    if not port.isdigit():
        sys.exit(f"REVIEW_PORT is {port!r}: give the number of a free port")
    if is_open(int(port)):
        sys.exit(f"port {port} is in use: choose another with REVIEW_PORT=…")
    HOME.mkdir(exist_ok=True)
    login = read_login()
    url = f"http://127.0.0.1:{port}"
    day = prepare_queue()
    print("Starting Label Studio", flush=True)
    with (HOME / "label-studio.log").open("wb") as log:
        server = psutil.Popen(
            [*START, port],
            env={**os.environ, **settings(login, HOME / "label-studio")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await_start(server, int(port))
        os.environ["LABEL_STUDIO_API_KEY"] = login["token"]
        page = send_queue(url, day)
        print(
            f"\nDecide at {page}\nLog in as {login['user']} with {login['password']}\n"
            "Keys 1 to 0 choose an answer, Ctrl+Enter submits it.\n\n"
            "Then, while this runs, import what was decided:\n"
            f"  export LABEL_STUDIO_API_KEY={login['token']}\n"
            f"  .venv/bin/python -m jobs.import_reviews --label-studio {url} \\\n"
            f"      --taxonomy {here(DEMO)}/samples/taxonomy.csv --labels {here(DEMO)}/labels\n\n"
            "Ctrl-C ends it; what was decided stays in review-home.\n",
            flush=True,
        )
        server.wait()
        sys.exit(f"Label Studio ended by itself; see {here(HOME)}/label-studio.log")
    except KeyboardInterrupt:
        print("\nEnding Label Studio", flush=True)
    finally:
        end([server])


def read_login() -> dict[str, str]:
    """The log-in, made up the first time; only this user of the machine may read it."""
    file = HOME / "login.json"
    if not file.exists():
        login = {
            "user": "reviewer@demo.example",
            "password": secrets.token_urlsafe(9),
            "token": secrets.token_hex(20),
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(login), encoding="utf-8")
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return known


def settings(login: dict[str, str], data: Path) -> dict[str, str]:
    """Label Studio's environment variables, for a server with its data in a folder."""
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": login["user"],
        "LABEL_STUDIO_PASSWORD": login["password"],
        "LABEL_STUDIO_USER_TOKEN": login["token"],
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # The demo's photos: of the root only the folders that a project names are served.
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": "/",
        "COLLECT_ANALYTICS": "false",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
    }


def prepare_queue() -> str:
    """Run the demo and select from its listings, unless that was done; returns the day."""
    if not days("categories"):
        run(PYTHON, "-m", "demo", "--output", DEMO)
    day = days("categories")[-1]
    if day not in days("reviews"):
        # The demo's manifest has labels, and who is labelled is not asked about.
        samples = DEMO / "samples"
        listings = (samples / "listings.csv").read_text(encoding="utf-8")
        unlabelled = samples / "unlabelled.csv"
        unlabelled.write_text(re.sub(r"[^,]*,new$", ",new", listings, flags=re.M), encoding="utf-8")
        job(
            "build_manifest",
            *("--images", samples, "--listings", unlabelled, "--split", "new"),
            *("--ds", day, "--output", MANIFEST),
        )
        job(
            "select_reviews",
            *("--categories", DEMO / "categories", "--ds", day, "--manifest", MANIFEST),
            *("--embeddings", DEMO / "embeddings", "--labels", DEMO / "labels"),
            *("--budget", BUDGET, "--output", DEMO / "reviews"),
        )
    return day


def days(folder: str) -> list[str]:
    """The days of one of the demo's tables, in order."""
    return sorted(path.name.removeprefix("ds=") for path in (DEMO / folder).glob("ds=*"))


def job(name: str, *arguments: object) -> None:
    """Run a job, with its own messages."""
    tracking = ("--tracking-uri", f"sqlite:///{DEMO / 'mlflow.db'}")
    run(PYTHON, "-m", f"jobs.{name}", *arguments, *tracking)


def send_queue(url: str, day: str) -> str:
    """Send the day's queue to the server; returns the page on which to decide."""
    report = HOME / "export_reviews.json"
    job(
        "export_reviews",
        *("--reviews", DEMO / "reviews", "--ds", day, "--manifest", MANIFEST),
        *("--taxonomy", DEMO / "samples" / "taxonomy.csv", "--output", HOME / "queue"),
        *("--photo-folder", DEMO / "samples", "--label-studio", url, "--report", report),
    )
    return str(json.loads(report.read_text(encoding="utf-8"))["page"])


def await_start(server: psutil.Popen, port: int) -> None:
    """Wait until the server listens; it makes its database the first time, half a minute."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not is_open(port):
        if not is_alive(server) or time.monotonic() > deadline:
            sys.exit("Label Studio did not start; see label-studio.log in review-home")
        time.sleep(0.2)


def here(path: Path) -> str:
    """A path as seen from the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
