"""What can be said of Spark Connect without a server: `tests/lake/test_connect.py` has one."""

import sys
import zipfile

import pytest

from jobs.command import connect
from schemas.errors import SettingsError
from tests.support.paths import ROOT


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(SettingsError, match=r"grpc.*; install seer-categories\[connect\]"):
        connect.wait_for_server("sc://127.0.0.1:1")


def test_addresses_of_platforms_are_left_to_them() -> None:
    connect.wait_for_server("unix:///platform/connect.sock")


def test_every_module_is_sent_and_nothing_else() -> None:
    packages = ("jobs", "schemas", "seer_model")
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    }
    with zipfile.ZipFile(connect._packed_code()) as packed:
        assert set(packed.namelist()) == modules
        assert all(packed.read(name) == (ROOT / name).read_bytes() for name in modules)
