"""Small trunks whose tensors all differ, and what they make of a random photo."""

import torch

from seer_model.backbone import Backbone, build_trunk

State = dict[str, torch.Tensor]


def features(backbone: Backbone, size: int = 32) -> torch.Tensor:
    return run(backbone.build(), size)


def run(trunk: torch.nn.Module, size: int = 32) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = trunk.eval()(
            torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        )
    assert output.std() > 0
    return output


def some_trunk(architecture: str = "regnety_002") -> State:
    """A trunk's state with statistics, affine parameters and counters that differ."""
    torch.manual_seed(1)
    state: State = build_trunk(architecture).state_dict()
    for name, tensor in state.items():
        if name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bn.bias", "running_mean", "fc1.bias", "fc2.bias")):
            tensor.uniform_(-0.1, 0.1)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(244_000)
    return state
