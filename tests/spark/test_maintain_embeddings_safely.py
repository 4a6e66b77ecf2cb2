"""Upkeep of an embedding store beside other runs, killed at any point, and told nonsense."""

import os
import signal
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs import maintain_embeddings
from jobs.stages.store.folder import FolderStore, hold_folder
from schemas.errors import PartitionBusy, SettingsError
from tests.support.embedding_rows import ONE, TWO, Upkeep, error_line, keys_of, runs_of
from tests.support.processes import fork_script

pytestmark = pytest.mark.spark


# Two runs at once


def test_upkeep_waits_for_no_one_and_lets_no_one_in(
    upkeep: Upkeep, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_folder(store, exclusive=False), hold_folder(store, exclusive=False):
        upkeep(code=5)
    assert f"{store} is held by another run" in error_line(capsys)
    with hold_folder(store, exclusive=True):
        upkeep(code=5)
        with (
            pytest.raises(
                PartitionBusy, match=f"held by upkeep, process {os.getpid()} on "
            ) as caught,
            hold_folder(store, exclusive=False),
        ):
            raise AssertionError
    assert caught.value.exit_code == 5
    with hold_folder(store, exclusive=False):
        pass


def test_a_store_is_made_for_who_adds_to_it_alone(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "store"
    with pytest.raises(SettingsError, match=r"--embeddings .*store: No such file"):
        hold_folder(store, exclusive=True).__enter__()
    with hold_folder(store, exclusive=False):
        assert store.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"--embeddings .*file: "):
        hold_folder(tmp_path / "file", exclusive=False).__enter__()


# Dying

DIES = """
import os, shutil, signal, sys
from pathlib import Path
from jobs import maintain_embeddings

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def rename_and_die(path, target, rename=Path.rename):
    rename(path, target)
    die()

def remove_half_and_die(path, remove=shutil.rmtree, **options):
    for file in sorted(Path(path).rglob("*.parquet")):
        file.unlink()
        die()
    remove(path, **options)

{patch}
sys.exit(maintain_embeddings.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patch", "flags", "runs"),
    [
        # Before this one it only writes to its scratch folder.
        ("Path.rename = die", (), 2),
        ("Path.rename = rename_and_die", (), 3),
        ("shutil.rmtree = remove_half_and_die", (), 3),
        ("shutil.rmtree = remove_half_and_die", ("--drop-backbone", TWO), 2),
    ],
    ids=["written", "renamed", "removing", "dropping"],
)
def test_a_run_that_is_killed_loses_nothing(
    upkeep: Upkeep,
    store: Path,
    spark: SparkSession,
    tracking_uri: str,
    tmp_path: Path,
    patch: str,
    flags: tuple[str, ...],
    runs: int,
) -> None:
    argv = ("--embeddings", store, "--tracking-uri", tracking_uri, *flags)
    done = fork_script(tmp_path, DIES.format(patch=patch), *argv)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(store.glob("_scratch-*"))) == 1
    assert len(runs_of(store, ONE)) == runs
    kept = ["bad 1", "k1", "k2", "k3", "k4"]
    assert sorted(set(keys_of(store, ONE))) == kept
    stored = FolderStore(store, ONE).read(spark)
    assert stored is not None
    assert sorted(r.photo_key for r in stored.collect()) == kept
    assert (store / f"backbone={TWO}").exists() == (not flags)

    assert upkeep()["leftovers_removed"] == 1
    assert keys_of(store, ONE) == kept
    assert len(runs_of(store, ONE)) == 1


# Arguments


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert maintain_embeddings.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for flag in ("--embeddings", "--manifest", "--keep-since", "--drop-backbone", "--report"):
        assert flag in shown


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "--embeddings is required"),
        (["--embeddings", "nowhere"], "--embeddings nowhere: No such file or directory"),
        (["--embeddings", ".", "--manifest", "m"], "give both or neither"),
        (["--embeddings", ".", "--keep-since", "2026-11-25"], "give both or neither"),
        (["--embeddings", ".", "--manifest", "m", "--keep-since", "soon"], "--keep-since: "),
        (["--embeddings", ".", "--drop-backbone", "3"], "--drop-backbone 3: . has no backbone"),
    ],
)
def test_bad_arguments_are_2(
    flags: list[str],
    line: str,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    assert maintain_embeddings.main(flags) == 2
    assert line in error_line(capsys)
