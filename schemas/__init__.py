"""What the data looks like: manifest, categories, embeddings, taxonomy, errors.

Needs pyarrow only, so that any reader of the data can import it.
"""
