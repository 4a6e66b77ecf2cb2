"""Start Airflow on this machine with the project's DAGs and sample listings to run them on.

Everything is written to `airflow-home`: Airflow's database and logs, and under `demo` the listings,
the models and what the runs publish. `AIRFLOW_PORT` sets another port than 8080. `make airflow`
runs this; it needs `.venv` and `.venv-airflow`.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime

import psutil

from scripts.child_processes import ROOT, end, end_on_signals, is_open, run
from scripts.local_postgres import local_postgres

HOME = ROOT / "airflow-home"
DEMO = HOME / "demo"
AIRFLOW = ROOT / ".venv-airflow" / "bin"
PROJECT = ROOT / ".venv" / "bin"
# What `airflow standalone` runs, but for its log servers: those listen on all interfaces, for other
# machines, and no setting binds them to one. Here logs are read from disk.
PARTS = {
    "api-server": [],
    "scheduler": ["--skip-serve-logs"],
    "dag-processor": [],
    "triggerer": ["--skip-serve-logs"],
}
SPARK_DEFAULTS = """\
spark.driver.memory 4g
spark.driver.host 127.0.0.1
spark.driver.bindAddress 127.0.0.1
spark.log.level WARN
spark.sql.shuffle.partitions 8
spark.ui.enabled false
"""


def settings(port: str, database: str) -> dict[str, str]:
    """Return the environment variables of Airflow, of Spark and of the DAGs."""
    url = f"http://127.0.0.1:{port}"
    airflow = {
        "API__BASE_URL": url,
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": "4",
        # No log-in: whoever reaches this machine's loopback interface is admin.
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "DATABASE__SQL_ALCHEMY_CONN": database,
    }
    dags = {
        "PY_FILES": HOME / "seer-categories.zip",
        "REPORTS": DEMO / "reports",
        "MANIFEST": DEMO / "manifest",
        "OUTPUT": DEMO / "categories",
        "EMBEDDINGS": DEMO / "embeddings",
        "SCREENING": DEMO / "screening",
        "KNOWN_PHOTOS": DEMO / "known_photos.parquet",
        "DESCRIPTIONS": DEMO / "descriptions",
        "LABELS": DEMO / "labels",
        "LABELLED": DEMO / "labelled",
        "TAXONOMY": DEMO / "samples" / "taxonomy.csv",
        "TRACKING_URI": f"sqlite:///{DEMO / 'mlflow.db'}",
    }
    return {
        "AIRFLOW_HOME": str(HOME),
        "PATH": os.pathsep.join([str(AIRFLOW), str(PROJECT), os.environ["PATH"]]),
        # The jobs run in an environment of their own.
        "PYSPARK_PYTHON": str(PROJECT / "python"),
        "SPARK_CONF_DIR": str(HOME / "spark-conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        # As in the demo, which trains the champion.
        "SEER_TARGET_PRECISION": "0.8",
        **{f"AIRFLOW__{name}": value for name, value in airflow.items()},
        **{f"SEER_AIRFLOW_{name}": str(value) for name, value in dags.items()},
    }


def prepare_demo() -> None:
    """Run the demo once; build a manifest partition for today every time."""
    samples, ready = DEMO / "samples", DEMO / ".ready"
    today = datetime.now(UTC).date().isoformat()
    build = [PROJECT / "python", "-m", "jobs.build_manifest", "--images", samples, "--ds", today]
    if not ready.exists():
        run(PROJECT / "python", "-m", "demo", "--output", DEMO)
        # The listings that the demo categorizes have labels too: a refresh is evaluated on them.
        listings = samples / "listings.csv"
        labelled = samples / "labelled.csv"
        text = listings.read_text(encoding="utf-8").replace(",new\n", ",test\n")
        labelled.write_text(text, encoding="utf-8")
        run(*build, "--listings", labelled, "--output", DEMO / "labelled")
        ready.touch()
    run(
        *build,
        "--listings",
        samples / "listings.csv",
        "--split",
        "new",
        "--output",
        DEMO / "manifest",
    )


def prepare_airflow() -> None:
    """Migrate the database, and add the connection to Spark unless it exists."""
    conf = HOME / "spark-conf" / "spark-defaults.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.write_text(SPARK_DEFAULTS, encoding="utf-8")
    script = ROOT / "scripts" / "package_zip.py"
    run(PROJECT / "python", script, "--root", ROOT, "--output", HOME / "seer-categories.zip")
    airflow("db", "migrate")
    if airflow("connections", "get", "spark_default", check=False).returncode:
        master = ["--conn-type", "spark", "--conn-host", "local[*]"]
        airflow("connections", "add", "spark_default", *master)


def airflow(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run one of Airflow's commands, without its output."""
    return subprocess.run([AIRFLOW / "airflow", *arguments], check=check, capture_output=True)


def main() -> None:
    """Prepare, say where Airflow comes up, and serve."""
    port = os.environ.get("AIRFLOW_PORT") or "8080"
    end_on_signals()
    if not port.isdigit():
        sys.exit(f"AIRFLOW_PORT is {port!r}: give the number of a free port")
    if is_open(int(port)):
        sys.exit(f"port {port} is in use: choose another with AIRFLOW_PORT=…")
    HOME.mkdir(exist_ok=True)
    prepare_demo()
    print("Preparing Airflow in airflow-home", flush=True)
    with local_postgres(HOME / "postgres") as database:
        os.environ.update(settings(port, database))
        prepare_airflow()
        print(
            f"\nAirflow comes up at http://127.0.0.1:{port} for this machine alone, without a "
            "log-in.\nOpen categorize_daily and press Trigger. Ctrl-C ends it.\n"
            f"What it prints is in {HOME.name}/*.log.\n",
            flush=True,
        )
        serve(int(port))


def serve(port: int) -> None:
    """Run Airflow until Ctrl-C or SIGTERM, or until one of its parts exits."""
    parts: dict[str, psutil.Popen] = {}
    try:
        for name, options in PARTS.items():
            with (HOME / f"{name}.log").open("wb") as log:
                parts[name] = psutil.Popen(
                    [AIRFLOW / "airflow", name, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        up = False
        while not (ended := [name for name, part in parts.items() if part.poll() is not None]):
            if not up and (up := is_open(port)):
                print("Airflow is up", flush=True)
            time.sleep(0.5)
        sys.exit(f"Airflow's {ended[0]} ended by itself; see {HOME / ended[0]}.log")
    except KeyboardInterrupt:
        print("\nEnding Airflow", flush=True)
    finally:
        end(parts.values())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
