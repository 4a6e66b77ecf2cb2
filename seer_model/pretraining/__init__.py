"""SwAV self-supervised pretraining of a backbone on unlabelled photos."""
