"""Train a head (head, fit), fine-tune a backbone (finetuning), pretrain one (pretraining)."""
