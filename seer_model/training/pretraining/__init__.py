"""Pretrain a backbone on photos without labels, with SwAV or by distillation.

The pieces, in the order in which data flows through them:

    photo_references    URIs or encoded photos of a manifest, in shuffled order
    photo_stream        batches of decoded photos, one slice per process
    crops               random crops of every photo, recoloured and blurred (draws)
    degradations        what sellers' photos suffer from, for a share of the crops
    learner             one step: crops, loss, optimiser (optim)
      swav              loss: crops predict one another's assignments to prototypes
        model           trunk, projection and prototypes: the crops' scores
        loss            balanced assignments, the queue, and swapped prediction
      distillation      loss: crops predict what a larger network says of them
    trainer             epochs, checkpoints, resuming

    recipe              the settings
    checkpoint          atomic, verified checkpoints
    monitor, probe      is it collapsing; how good are the features
    processes, sync_batchnorm    several processes that train as one
"""
