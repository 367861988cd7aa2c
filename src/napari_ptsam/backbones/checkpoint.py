"""Checkpoint files to networks: read safely, recognise, build, identify.

What a file holds is found from its bytes and its tensors' shapes, never from
its name, so that a wrongly named file still loads right or is refused.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from napari_ptsam.backbones._sam import Sam
from napari_ptsam.backbones.architecture import (
    PIXEL_MEAN,
    PIXEL_STD,
    architecture_of,
    brief,
    build_sam,
)
from napari_ptsam.errors import BackboneError

# Training scripts wrap the network's tensors in one of these.
NESTED_KEYS = ("model_state", "model_state_dict", "state_dict", "model")

# In every SAM. What comes before it is a wrapper's prefix ("module.", "sam.").
LANDMARK = "image_encoder.pos_embed"


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a SAM's tensors from a .pth, .pt or .safetensors file.

    Nothing that is stored in the file is executed. Nested dictionaries of
    training scripts and prefixes of wrappers are taken off.

    Parameters
    ----------
    path
        The file; its kind is found from its first bytes.

    Returns
    -------
    dict
        Tensor name, as in `segment_anything`, to tensor on the CPU.

    Raises
    ------
    BackboneError
        If there is no such file, or it is damaged, no checkpoint, or holds
        objects that only running its code could restore.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise BackboneError(f"There is no checkpoint file {path}. Check the path.") from None
    except IsADirectoryError:
        raise BackboneError(f"{path} is a folder. Give the checkpoint file inside it.") from None
    except OSError as error:
        raise BackboneError(f"The checkpoint {path} cannot be opened: {error.strerror}.") from error
    if head[8:9] == b"{":
        content: object = _read_safetensors(path)
    elif head.startswith((b"PK", b"\x80")):
        # Only archives can be mapped into memory, and only by a path, whose suffix torch obeys.
        content = _read_torch(
            path, mapped=head.startswith(b"PK") and path.suffix.lower() != ".safetensors"
        )
    else:
        raise BackboneError(f"{path} is no checkpoint: {_what_instead(head)}.")
    return _without_prefix(_tensors_of(content, path))


def _what_instead(head: bytes) -> str:
    if not head:
        return "it is empty; download or copy it again"
    if head.lstrip().startswith(b"<"):
        return "it holds a web page, as saved when a download needs a log-in; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to the real file; run `git lfs pull`"
    return (
        f"its first bytes are {head[:8]!r}; files written by torch.save (.pth, .pt) or "
        "safetensors (.safetensors) are understood"
    )


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BackboneError(
            f"{path} is a damaged safetensors file ({error}). Download or copy it again."
        ) from error


def _read_torch(path: Path, mapped: bool) -> object:
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # torch's guesses about what a bad file may be
            source = path if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"{path} holds something else than tensors, or is damaged. Restoring it would mean to "
            "run code that is stored in the file, so it was refused and nothing was run. If you "
            "trust its source, save the weights alone there with "
            "torch.save(model.state_dict(), ...), and use that file."
        ) from error
    except Exception as error:  # a cut-off file can make the reader fail anywhere
        reason = str(error).split("\n")[0] or type(error).__name__
        raise BackboneError(
            f"{path} is damaged, cut off, or no PyTorch checkpoint ({reason}). "
            "Download or copy it again."
        ) from error


def _tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, taken out of a training script's dictionary."""
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise BackboneError(
            f"{path} holds a {type(content).__name__}, where a dictionary of named tensors is "
            "needed, as torch.save(model.state_dict(), ...) writes it."
        )
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as in `segment_anything`, whatever wrapped the network when it was saved."""
    found = next((name for name in state if name.endswith(LANDMARK)), LANDMARK)
    prefix = found.removesuffix(LANDMARK)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def build_sam_from_state(state: Mapping[str, Tensor]) -> Sam:
    """Build the SAM that the tensors belong to, in float32 on the CPU.

    Parameters
    ----------
    state
        From `load_state`. The tensors are copied.

    Raises
    ------
    BackboneError
        If tensors are missing, unknown, or of another shape.
    """
    state = _without_prefix(state)
    with torch.device("meta"):  # no time and memory for random weights
        sam = build_sam(architecture_of(state))
    _check_fit(state, sam.state_dict())
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    sam.load_state_dict(copies, assign=True)
    for name, values in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD)):
        sam.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
    return sam


def _check_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    found = "; ".join(f"{kind}: {brief(names)}" for kind, names in problems.items() if names)
    if found:
        raise BackboneError(
            f"The checkpoint's tensors do not make a whole SAM. {found}. Use the checkpoint of a "
            "complete SAM (image encoder, prompt encoder, mask decoder) and of nothing else."
        )


def state_identity(state: Mapping[str, Tensor]) -> str:
    """Identity of a backbone: SHA-256 over its tensors' names, shapes and values.

    Values count as float32, so that the same weights have one identity in any
    file format and number type that holds them exactly.

    Parameters
    ----------
    state
        From `load_state` or `Module.state_dict`, with or without a prefix.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    state = _without_prefix(state)
    for name in sorted(state):
        values = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()
