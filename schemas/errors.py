"""Errors that a user can cause, each with its job's exit code.

A message is one line: what is wrong, where, and what to do.
"""

import re

__all__ = [
    "BundleError",
    "DataContractError",
    "GateRefusal",
    "PartitionBusy",
    "SeerError",
    "SettingsError",
    "TaxonomyError",
    "without_passwords",
]


class SeerError(Exception):
    """Base class: a job reports these errors in one line, without a traceback."""

    exit_code = 1


class SettingsError(SeerError):
    """An invalid argument, setting or address."""

    exit_code = 2


class DataContractError(SeerError):
    """Data that breaks a contract: a missing column, a wrong type, an unknown category."""

    exit_code = 3


class TaxonomyError(DataContractError):
    """A taxonomy that is malformed or not a tree of unique categories."""


class BundleError(DataContractError):
    """A bundle, backbone or checkpoint that is damaged, unsafe, incomplete or of a newer format."""


class GateRefusal(SeerError):
    """A model refused by a quality or licence gate."""

    exit_code = 4


class PartitionBusy(SeerError):
    """Another run holds the partition."""

    exit_code = 5


_USER = re.compile(r"(?<=://)[^/?#\s]*@")


def without_passwords(text: str) -> str:
    """Strip user and password from the addresses in a text (`scheme://user:password@host/…`)."""
    return _USER.sub("", text)
