"""Weights whose singular values are trained, as S-SAM does it.

Source: Paranjape et al., arXiv 2408.06447.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_ptsam.backbones.overlay import by_name

Decomposition = tuple[Tensor, Tensor, Tensor]


class Spectra(nn.Module):
    """Weights U diag(ReLU(A * S + B)) V^T with trained A and B, at first 1 and 0.

    Parameters
    ----------
    network
        Whose weights are meant; convolutions count as matrices c_out x (c_in * h * w).
    names
        Of the weights.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.scale, self.shift = nn.ParameterDict(), nn.ParameterDict()
        for name in names:
            count = min(network.get_parameter(name).flatten(1).shape)
            self.scale[name.replace(".", "/")] = nn.Parameter(torch.ones(count))
            self.shift[name.replace(".", "/")] = nn.Parameter(torch.zeros(count))
        # In a tuple, lest the network becomes a part of this module.
        self._decomposed: tuple[nn.Module, dict[str, Decomposition]] | None = None

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The changed weights by name; at the start bit for bit the network's own."""
        scale, shift = by_name(self.scale), by_name(self.shift)
        if self._decomposed is None or self._decomposed[0] is not network:
            parts = {name: _decompose(network.get_parameter(name)) for name in scale}
            self._decomposed = (network, parts)
        changed = {}
        for name, decomposition in self._decomposed[1].items():
            weight = network.get_parameter(name)
            left, values, right = (part.to(weight.device) for part in decomposition)
            # As a difference: what the decomposition rounds off stays in the weight.
            change = torch.relu(scale[name] * values + shift[name]) - values
            changed[name] = weight + ((left * change) @ right).view_as(weight)
        return changed


def _decompose(weight: Tensor) -> Decomposition:
    """U, S and V^T of a weight as a matrix; on the CPU, so that each device has the same."""
    # The first call may be a prediction, whose tensors training could not use.
    with torch.inference_mode(mode=False), torch.no_grad():
        left, values, right = torch.linalg.svd(weight.flatten(1).cpu(), full_matrices=False)
        return left.to(weight.device), values.to(weight.device), right.to(weight.device)
