"""The jobs: one module a job, run as `python -m jobs.NAME` or through spark-submit."""
