"""Tracking: the only wing that imports MLflow.

runs             a job's run: parameters, data, model, figures, files; logging is best effort
database         MLflow's SQLite database, created once and whole
registry         models found by URI; tags and aliases of versions
registration     bundles and backbones registered as MLflow models
promotion        the promotion lock, and the evaluation that a version is tagged with
card             model cards in Markdown
pyfunc           a bundle as an MLflow model (logged as a file: "models from code")
pyfunc_backbone  a backbone as an MLflow model
photo_table      the photos of a data frame, for both
code_version     version and commit of the code, as tags
"""
