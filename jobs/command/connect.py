"""What a session of Spark Connect needs besides Spark: a server that answers, and the jobs' code.

Its Python workers run on the server's machines. They unpickle functions by the names of their
modules, and so need these modules.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path

from pyspark.sql import SparkSession

from schemas.errors import SettingsError
from seer_model.processes import scratch_folder

__all__ = ["ship_code", "wait_for_server"]

_SECONDS_TO_CONNECT = 30
_PACKAGES = ("jobs", "schemas", "seer_model")


def wait_for_server(url: str) -> None:
    """Wait half a minute for a server to answer, since Spark's client would wait ten.

    Args:
        url: `sc://host:port/;token=…`, as in `SPARK_REMOTE`. Platforms have addresses of other
            forms, which only their own client understands; those are not tried.

    Raises:
        SettingsError: None answers, the address is wrong, or the client's packages are missing.
    """
    if not url.startswith("sc://"):
        return
    shown = url.partition("/;")[0]  # What follows may be a token.
    try:
        import grpc  # noqa: PLC0415 - of an optional extra
        from pyspark.sql.connect.client import DefaultChannelBuilder  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            f"SPARK_REMOTE {shown}: Spark Connect needs more packages here ({error}); "
            "install seer-categories[connect]"
        ) from error
    try:
        with DefaultChannelBuilder(url).toChannel() as channel:
            grpc.channel_ready_future(channel).result(timeout=_SECONDS_TO_CONNECT)
    except grpc.FutureTimeoutError as error:
        raise SettingsError(
            f"SPARK_REMOTE {shown}: no Spark Connect server answers there; start one, or correct "
            "the address"
        ) from error
    except ValueError as error:  # Spark's own exception of a wrong address is one, too.
        raise SettingsError(f"SPARK_REMOTE {shown}: {error}") from error


def ship_code(spark: SparkSession) -> None:
    """Make the jobs' modules importable in the server's Python workers, of this session only."""
    spark.addArtifacts(str(_packed_code()), pyfile=True)


@lru_cache(maxsize=1)
def _packed_code() -> Path:
    """A zip of the modules, made once a process: a session takes a changed one for an error."""
    packed = Path(tempfile.mkdtemp(dir=scratch_folder())) / "seer-categories.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in _PACKAGES:
            for name, source in _modules(files(package), package):
                archive.writestr(name, source)
    return packed


def _modules(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _modules(entry, path)
        elif entry.name.endswith(".py"):
            yield path, entry.read_bytes()
