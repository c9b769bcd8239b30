"""Going on from shipped face weights, whose normalisation was folded away."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sglat.networks.embedded_blocks import ConvUnit


def fill_folded(
    network: nn.Module, tensors: Mapping[str, Tensor], run: Callable[[], object]
) -> None:
    """Fill a network that has normalisation with folded weights, so that its output is theirs.

    Each filter is scaled to give features of unit deviation on the pictures that `run` shows the
    network; the normalisation that follows undoes the scale, so that training goes on as if it had
    never been folded.

    Args:
        network: to be filled; its units have normalisation or not.
        tensors: exported weights of the same network without normalisation, in any precision.
        run: puts a batch of training pictures through the network.

    Raises:
        RuntimeError: the weights do not fit the network.
    """
    units = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, ConvUnit) and module.norm is not None
    }
    biases = {name: tensors[f"{name}.conv.bias"].float() for name in units}
    own = network.state_dict()
    state = {key: value.float() for key, value in tensors.items() if key in own}
    state |= {key: value for key, value in own.items() if ".norm." in key}
    network.load_state_dict(state)
    hooks = [
        unit.norm.register_forward_pre_hook(_measuring(biases[name]))
        for name, unit in units.items()
        if unit.norm is not None
    ]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        if units:
            run()
        for unit in units.values():
            _scale_to_unit(unit)
    for hook in hooks:
        hook.remove()
    network.train(was_training)


def _measuring(bias: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Return a hook that sets a normalisation to add `bias` and to keep its input's statistics."""

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        values = inputs[0].float()
        norm.running_mean.copy_(values.mean((0, 2, 3)))
        norm.running_var.copy_(values.var((0, 2, 3), unbiased=False))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean + bias.to(values.device))

    return measure


def _scale_to_unit(unit: ConvUnit) -> None:
    """Scale a filter to features of unit deviation and let its normalisation undo that."""
    norm = unit.norm
    assert norm is not None and norm.running_mean is not None and norm.running_var is not None
    deviation = (norm.running_var + norm.eps).sqrt()
    unit.conv.weight.div_(deviation[:, None, None, None])
    norm.running_mean.div_(deviation)
    norm.running_var.div_(deviation.square())
    norm.weight.copy_(deviation * (norm.running_var + norm.eps).sqrt())
