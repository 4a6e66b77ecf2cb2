"""Tables of Spark's catalogs, in formats with atomic commits.

- lake_table: what the jobs do with a table, whatever its format
- iceberg, delta: what differs between the formats
- opening: a name → its table, created or given new columns where needed
"""
