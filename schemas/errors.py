"""The errors a person can cause, each with the exit code its job ends with.

A message is one line that says what is wrong, where, and what to do.
"""

__all__ = [
    "BundleError",
    "DataContractError",
    "GateRefusal",
    "PartitionBusy",
    "SeerError",
    "SettingsError",
    "TaxonomyError",
]


class SeerError(Exception):
    """Base of every error that a job reports in one line, without a traceback."""

    exit_code = 1


class SettingsError(SeerError):
    """An argument, setting or address that cannot be used."""

    exit_code = 2


class DataContractError(SeerError):
    """Data that breaks a contract: a missing column, a wrong type, an unknown category."""

    exit_code = 3


class TaxonomyError(DataContractError):
    """A taxonomy file that is not a tree of uniquely named categories."""


class BundleError(DataContractError):
    """A model bundle that is damaged, unsafe, incomplete or of a newer format."""


class GateRefusal(SeerError):
    """A model that a quality or licence gate refuses."""

    exit_code = 4


class PartitionBusy(SeerError):
    """Another run holds the partition."""

    exit_code = 5
