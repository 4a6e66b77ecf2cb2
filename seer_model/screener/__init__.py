"""Whether a listing may be shown: known photos, text in photos, and the rules for both.

Knows no Spark. Photos and their embeddings come in, findings go out.
"""
