"""An S3 server with a catalog of Iceberg's on this machine: SeaweedFS, from `.venv-lake`.

For `make lake` and the tests. It listens on the loopback interface alone.
"""

import os
import random
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["KEY", "SECRET", "ObjectStore", "object_store"]

ROOT = Path(__file__).parents[1]
JARS = ROOT / ".jars"
_WEED = ROOT / ".venv-lake" / "bin" / "weed"
_START_SECONDS = 90
_PORTS = (
    *("s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "master.port"),
    *("master.port.grpc", "filer.port", "filer.port.grpc", "volume.port", "volume.port.grpc"),
    *("admin.port", "admin.port.grpc"),
)
KEY, SECRET = "lake", "a-secret-of-this-machine"


class ObjectStore(NamedTuple):
    """A running server.

    Attributes:
        s3: Its address for S3.
        catalog: Its address for the catalog.
        process: The server.
    """

    s3: str
    catalog: str
    process: "subprocess.Popen[bytes]"

    @property
    def scratch(self) -> str:
        """A folder for scratch space, as Spark takes it."""
        return "s3a://scratch/runs"

    def spark_settings(self, name: str = "lake") -> dict[str, str]:
        """Spark's settings for the catalog and for `s3a://` addresses.

        Args:
            name: What the catalog is called.
        """
        catalog = {
            "": "org.apache.iceberg.spark.SparkCatalog",
            ".type": "rest",
            ".uri": self.catalog,
            ".warehouse": "s3://lake",
            ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            ".s3.endpoint": self.s3,
            ".s3.path-style-access": "true",
            ".s3.access-key-id": KEY,
            ".s3.secret-access-key": SECRET,
            ".client.region": "us-east-1",
            ".rest.auth.type": "sigv4",
            ".rest.signing-name": "s3",
            ".rest.signing-region": "us-east-1",
            ".rest.access-key-id": KEY,
            ".rest.secret-access-key": SECRET,
        }
        s3a = {
            "endpoint": self.s3,
            "endpoint.region": "us-east-1",
            "path.style.access": "true",
            "access.key": KEY,
            "secret.key": SECRET,
        }
        return {
            "spark.jars": ",".join(str(jar) for jar in sorted(JARS.glob("*.jar"))),
            **{f"spark.sql.catalog.{name}{key}": value for key, value in catalog.items()},
            **{f"spark.hadoop.fs.s3a.{key}": value for key, value in s3a.items()},
        }

    def pyiceberg_settings(self) -> dict[str, str]:
        """PyIceberg's settings for the catalog."""
        return {
            "type": "rest",
            "uri": self.catalog,
            "warehouse": "s3://lake",
            "s3.endpoint": self.s3,
            "s3.access-key-id": KEY,
            "s3.secret-access-key": SECRET,
            "s3.region": "us-east-1",
            "s3.force-virtual-addressing": "false",
            "client.access-key-id": KEY,
            "client.secret-access-key": SECRET,
            "client.region": "us-east-1",
            "rest.sigv4-enabled": "true",
            "rest.signing-name": "s3",
            "rest.signing-region": "us-east-1",
        }


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run a server until the block ends.

    Args:
        folder: Keeps its data and its log; created if missing.

    Raises:
        RuntimeError: It did not start; says the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [str(_WEED), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    command += ["-tableBucket=lake", "-bucket=scratch"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(keys),
            start_new_session=True,
        )
    store = ObjectStore(
        f"http://127.0.0.1:{ports['s3.port']}",
        f"http://127.0.0.1:{ports['s3.port.iceberg']}",
        process,
    )
    try:
        _wait(store, log)
        yield store
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(keys: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "AWS_" not in name} | dict(keys)


def _free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to clients, so that none takes them meanwhile."""
    free: list[int] = []
    while len(free) < count:
        port = random.randrange(20_000, 30_000)  # noqa: S311
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            free.append(port)
    return free


def _wait(store: ObjectStore, log: Path) -> None:
    """Wait until the server says that all of it runs."""
    deadline = time.monotonic() + _START_SECONDS
    while b"Press Ctrl+C" not in log.read_bytes() or not _answers(store.catalog):
        if store.process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"the object store did not start: {end}")
        time.sleep(0.1)


def _answers(catalog: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{catalog}/v1/config", timeout=5):  # noqa: S310
        return True
    return False
