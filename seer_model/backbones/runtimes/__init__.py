"""Runtimes, which execute backbones: OpenVINO on CPUs, PyTorch on GPUs."""
