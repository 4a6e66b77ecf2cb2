"""Train a head, fine-tune a backbone (finetuning), pretrain one (pretraining).

    labelled      embedded photos of labelled listings
    head, ridge   logistic regression, balanced by groups (balance) or not; ridge for few labels
    crossfit      folds, where there is no `val`
    candidates    which of these heads, and what each was not fitted on
    unseen        categories held out in turn, for goods never seen
    fit           the bundle: head, calibration, familiarity, figures

Their threads share cores with other processes (threads), and they compute in bfloat16 where the
device can (precision).
"""
