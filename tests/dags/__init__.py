"""A package, so that its fixtures (an Airflow) end with its last test, not with the session."""
