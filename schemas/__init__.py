"""Data contracts: manifest, categories, embeddings, taxonomy, reject reasons, errors.

Needs pyarrow only, so that any reader of the data can import it.
"""
