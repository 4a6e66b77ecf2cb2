"""The embedding store: every backbone's embeddings, so that no photo is embedded twice.

- base: what all stores share
- folder, table: where the rows are
- opening: `--embeddings` → the store
"""
