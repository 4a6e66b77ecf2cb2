"""Backbones: from photos to embeddings.

backbone        trunk + preprocessing + licence + digest, and the folder it is stored in
trunk           the network: a RegNetY of timm without its classifier
preprocessing   size and normalisation of the input
sources         `timm:`, `vissl:` and `zoo:` addresses
vissl           published SEER checkpoints
zoo             backbones shipped in the package
runtimes        OpenVINO and PyTorch, which execute a backbone
embedder        photos in, embeddings out, pipelined
"""
