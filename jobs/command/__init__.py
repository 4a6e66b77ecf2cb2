"""What all commands share.

- settings, photo_settings: flags, environment variables, exit codes
- session: the Spark session, and how to read Parquet with it
- spark_errors: Spark's failures in one line
- progress: progress bars
- report: the figures at the end of a job
- locks: lock files
"""
