"""Pretrain a backbone with SwAV on photos without labels.

The pieces, in the order in which data flows through them:

    photo_references    URIs or encoded photos of a manifest, in shuffled order
    photo_stream        batches of decoded photos, one slice per process
    crops               random crops of every photo, recoloured and blurred
    model               trunk, projection and prototypes: the crops' scores
    loss                balanced assignments, the queue, and swapped prediction
    learner             one step of all of the above, with the optimiser (optim)
    trainer             epochs, checkpoints, resuming

    recipe              the settings
    checkpoint          atomic, verified checkpoints
    monitor, probe      is it collapsing; how good are the features
    processes, sync_batchnorm    several processes that train as one
"""
