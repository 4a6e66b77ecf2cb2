"""One MLflow database for all tests of the jobs: creating its tables takes ten seconds."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        yield
