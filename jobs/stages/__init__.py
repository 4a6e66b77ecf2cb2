"""The stages that Spark jobs are made of, in the order of the daily job.

- manifest_files: a manifest's folder → its files, each with its columns, checked
- manifest: their rows → photos, normalised
- fingerprint: photos → digest of the run's dataset
- embedding: photos → embeddings, from the store or computed
- embedding_store: the embeddings kept between runs
- scoring: embeddings → one decision a listing
- publish: staged rows → the partition that readers see

And of other jobs:

- listing_table, photo_folder: what build_manifest reads → its rows
- labels: photos → those of labelled listings, each in one split
- spool: rows → the driver, through files

Used by several of them: worker (the model on the executors, the device of a task) and aggregates
(counts over a whole frame).
"""
