"""The categorizer: from embeddings to categories.

head            class logits from an embedding
hierarchy       scores of whole branches of the taxonomy, level by level
calibration     temperature and thresholds
scoring         embeddings of listings to decisions, the one scoring path
bundle          backbone + head + taxonomy + calibration, and the folder it is stored in
categorizer     photos to categories in one process
"""
