"""Publishing a partition of a day: readers see the rows of one run, whole.

- base: what a job does with an output
- folder, table: where the rows go
- opening: `--output` → the output
"""
