"""The model: photos in, categories out. Knows no Spark."""
