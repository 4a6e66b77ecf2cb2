"""The commands, run as `python -m jobs.NAME` or through spark-submit, and a function for SQL.

- build_manifest: folder of photos → manifest
- train_head: labelled listings → bundle, registered in MLflow
- evaluate_challenger: bundles on labelled listings → evaluation record and page
- promote_challenger: evaluated challenger → champion, if it passes the gates; rollback
- categorize_listings: manifest partition → categories; the daily job
- check_categories: published categories against their manifest
- find_new_kinds: unfamiliar listings of a day → clusters, to see and to label
- maintain_embeddings: compact and expire an embedding store
- pretrain_backbone: unlabelled photos → backbone (SwAV)
- udf: `categorize(photo)` for notebooks and SQL

What they are made of:

- command: settings, exit codes, Spark session, progress, report, locks
- stages: manifest, embedding, scoring, publishing, on Spark
- pages: the HTML pages and images that jobs log
- pretraining: photo sample and distributed training of pretrain_backbone
"""
