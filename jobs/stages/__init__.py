"""The stages that Spark jobs are made of, in the order of the daily job.

- manifest_files: a manifest's folder → its files, each with its columns, checked
- manifest: their rows → photos, normalised
- fingerprint: photos → digest of the run's dataset
- embedding: photos → embeddings, from the store or computed
- embedding_store: the embeddings kept between runs
- scoring: embeddings → one decision a listing
- spool: rows → this process, through files
- publish: staged rows → the partition that readers see

Others have of their own: build_manifest listing_table (a CSV → rows) and photo_folder (a folder →
its photos), training and evaluation labels (photos → those of labelled listings, each in one
split).

Used by several of them: worker (the model on the executors, the device of a task) and aggregates
(counts over a whole frame).
"""
