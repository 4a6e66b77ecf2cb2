"""Evaluation: how good a model is, whether another one is better, whether the data drifted.

outcomes    scored listings compared with their labels, per listing
metrics     quality figures over outcomes (precision, coverage, calibration error ...)
comparison  challenger minus champion with 95 % intervals; results by slice and category
record      everything above as one JSON-serializable record
gates       what a record must show before a promotion; settings in gates.toml
drift       how far one day's categories and scores are from another's
"""
