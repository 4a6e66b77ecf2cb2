"""What the data looks like: manifests, categories, embeddings, taxonomies and the errors about them.

Needs pyarrow only, so that any reader of the data can import it.
"""
