"""Train a head (head, fit), fine-tune a backbone (finetuning), pretrain one (pretraining).

Their threads share cores with other processes (threads).
"""
