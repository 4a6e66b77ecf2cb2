"""Shared by the DAGs: settings, and the operator that submits a job."""
