"""A network with some tensors exchanged, and the network itself untouched.

Instead of putting other tensors into a shared network and taking them out again, a call runs on
a shallow copy: modules on the way to an exchanged tensor are copied, everything else is shared.
So there is nothing to detach, an exception leaves nothing behind, and two users can share one
loaded network, also from two threads at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from torch import Tensor, nn


def overlay(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A shallow copy of a module in which some parameters are other tensors.

    Raises
    ------
    KeyError
        If the module has no parameter of that name.
    """
    twin = module.__new__(type(module))
    twin.__dict__ = module.__dict__.copy()
    twin._parameters = module._parameters.copy()
    twin._modules = module._modules.copy()
    below: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = tensor
        elif head in twin._parameters:
            twin._parameters[head] = cast(nn.Parameter, tensor)
        else:
            raise KeyError(f"{type(module).__name__} has no parameter '{name}'")
    for head, inner in below.items():
        twin._modules[head] = overlay(module.get_submodule(head), inner)
    return twin


def own_copies(module: nn.Module, names: Iterable[str]) -> nn.ParameterDict:
    """Trainable copies of some parameters of a module, to be read by `by_name`."""
    # A parameter's own name may have no dot.
    return nn.ParameterDict(
        {
            name.replace(".", "/"): nn.Parameter(module.get_parameter(name).detach().clone())
            for name in names
        }
    )


def by_name(copies: nn.ParameterDict) -> dict[str, Tensor]:
    """The parameters under their names in the network."""
    return {name.replace("/", "."): tensor for name, tensor in copies.items()}
