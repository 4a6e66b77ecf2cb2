"""Start Airflow on this machine with the project's DAGs, and with sample listings to run them on.

All that it writes lies in `airflow-home`: its database and logs, and under `demo` the listings, the
models and what the runs publish. `AIRFLOW_PORT` is another port than 8080. `make airflow` runs it;
it needs `.venv` and `.venv-airflow`.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from scripts.local_postgres import local_postgres

ROOT = Path(__file__).parents[1]
HOME = ROOT / "airflow-home"
DEMO = HOME / "demo"
AIRFLOW = ROOT / ".venv-airflow" / "bin"
PROJECT = ROOT / ".venv" / "bin"
SPARK_DEFAULTS = """\
spark.driver.memory 4g
spark.driver.host 127.0.0.1
spark.driver.bindAddress 127.0.0.1
spark.log.level WARN
spark.sql.shuffle.partitions 8
spark.ui.enabled false
"""


def settings(port: str, database: str) -> dict[str, str]:
    """Variables of Airflow, of Spark and of the DAGs."""
    url = f"http://127.0.0.1:{port}"
    airflow = {
        "API__BASE_URL": url,
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": "4",
        # No log-in: who can reach this machine's loopback is admin.
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "DATABASE__SQL_ALCHEMY_CONN": database,
        # Logs are read from the disk; these servers are for other machines'. 0 is any free port.
        "LOGGING__WORKER_LOG_SERVER_PORT": "0",
        "LOGGING__TRIGGER_LOG_SERVER_PORT": "0",
    }
    dags = {
        "PY_FILES": HOME / "seer-categories.zip",
        "REPORTS": DEMO / "reports",
        "MANIFEST": DEMO / "manifest",
        "OUTPUT": DEMO / "categories",
        "EMBEDDINGS": DEMO / "embeddings",
        "LABELLED": DEMO / "labelled",
        "TAXONOMY": DEMO / "samples" / "taxonomy.csv",
        "TRACKING_URI": f"sqlite:///{DEMO / 'mlflow.db'}",
    }
    return {
        "AIRFLOW_HOME": str(HOME),
        "PATH": os.pathsep.join([str(AIRFLOW), str(PROJECT), os.environ["PATH"]]),
        # The interpreter of the jobs, which Airflow's environment knows nothing of.
        "PYSPARK_PYTHON": str(PROJECT / "python"),
        "SPARK_CONF_DIR": str(HOME / "spark-conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        # What the demo's champion was trained with.
        "SEER_TARGET_PRECISION": "0.8",
        **{f"AIRFLOW__{name}": value for name, value in airflow.items()},
        **{f"SEER_AIRFLOW_{name}": str(value) for name, value in dags.items()},
    }


def run(*command: object) -> None:
    """Run a command of the project, from the checkout; ends this one if it fails."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def prepare_demo() -> None:
    """Draw listings, train and promote a model once; have a partition for today every time."""
    samples, ready = DEMO / "samples", DEMO / ".ready"
    today = datetime.now(UTC).date().isoformat()
    build = [PROJECT / "python", "-m", "jobs.build_manifest", "--images", samples, "--ds", today]
    if not ready.exists():
        run(PROJECT / "python", "-m", "jobs.demo", "--output", DEMO)
        # The listings that the demo categorizes have labels too: what a refresh is evaluated on.
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
    """Make the database, and the connection unless there is one of its name."""
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
    """Run one of Airflow's commands, unheard."""
    return subprocess.run([AIRFLOW / "airflow", *arguments], check=check, capture_output=True)


def main() -> None:
    """Prepare, say where, and serve."""
    port = os.environ.get("AIRFLOW_PORT") or "8080"
    if not port.isdigit():
        sys.exit(f"AIRFLOW_PORT is {port!r}: give the number of a free port")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", int(port))) == 0:
            sys.exit(f"port {port} is in use: choose another with AIRFLOW_PORT=…")
    HOME.mkdir(exist_ok=True)
    prepare_demo()
    print("Preparing Airflow in airflow-home", flush=True)
    with local_postgres(HOME / "postgres") as database:
        os.environ.update(settings(port, database))
        prepare_airflow()
        print(
            f"\nAirflow comes up at http://127.0.0.1:{port} for this machine alone, without a "
            "log-in.\nOpen categorize_daily and press Trigger. Ctrl-C ends it.\n",
            flush=True,
        )
        serve()


def serve() -> None:
    """Run `airflow standalone` until Ctrl-C, or until it ends of itself."""
    standalone = subprocess.Popen([AIRFLOW / "airflow", "standalone"], start_new_session=True)
    try:
        sys.exit(standalone.wait())
    except KeyboardInterrupt:
        # The tasks end their jobs then. Airflow may wait for itself for ever.
        os.killpg(standalone.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            standalone.wait(20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(standalone.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
