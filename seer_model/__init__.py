"""The model: photos in, categories out. Knows no Spark; `registry` and `pyfunc` alone know MLflow."""
