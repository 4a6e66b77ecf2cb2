"""Locks: alone or shared, and the refused learn who holds them."""

import os
from pathlib import Path

import pytest

from jobs.command.locks import take_lock
from schemas.errors import PartitionBusy


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    for holder in ("one", "two"):
        with take_lock(tmp_path / "lock", "the store", holder):
            for other in ("three", None):
                with pytest.raises(PartitionBusy) as caught:
                    take_lock(tmp_path / "lock", "the store", other)
                message = str(caught.value)
                assert message.startswith(f"the store is held by {holder}, process {os.getpid()} ")
                assert message.endswith("; wait for it to end and run again")


def test_sharers_keep_out_who_wants_it_alone(tmp_path: Path) -> None:
    take_lock(tmp_path / "lock", "the store", "someone long gone").close()
    with take_lock(tmp_path / "lock", "the store", None) as one:
        with take_lock(tmp_path / "lock", "the store", None):
            one.close()
            with pytest.raises(PartitionBusy, match="the store is held by another run; "):
                take_lock(tmp_path / "lock", "the store", "me")
        take_lock(tmp_path / "lock", "the store", "me").close()
