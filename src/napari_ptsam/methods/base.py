"""What every adaptation method of a frozen SAM has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import Backbone, Embedding
from napari_ptsam.errors import InputError, PromptFileError


class Method(nn.Module, ABC):
    """Trainable numbers around a frozen backbone.

    The backbone is not a part of the module: it is shared, frozen, and handed
    to each call, so that `parameters()` holds what is trained and nothing else.
    A method that changes weights computes them for each call, see `overlay`.

    Parameters
    ----------
    settings
        A `settings_type`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """What people call it."""

    settings_type: ClassVar[type[Any]]
    """A frozen dataclass of plain values that checks itself."""

    knows_names: ClassVar[bool] = False
    """Whether it learns several objects at once, told apart by the setting `labels`."""

    starts_from_prompts: ClassVar[bool] = False
    """Whether `start_from` can take decoder prompts that a task encoder made."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings = settings

    @classmethod
    def build(cls, settings: dict[str, Any], backbone: Backbone, seed: int) -> Method:
        """From settings as a prompt file stores them, for a class that takes these three."""
        return cls(cls.settings_type(**settings), backbone, seed)  # type: ignore[call-arg]

    @property
    @abstractmethod
    def works_on_embeddings(self) -> bool:
        """Whether `encode` is the frozen backbone's own, so that its result can be kept."""

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """Of AdamW when training begins; it falls to 0 along a cosine."""

    @property
    def idle(self) -> frozenset[str]:
        """Parameters that are counted and saved, though the output does not depend on them."""
        return frozenset()

    def freeze_idle(self) -> None:
        """Keep weight decay from what is `idle`."""
        for name in self.idle:
            self.get_parameter(name).requires_grad_(False)

    @property
    def settings_dict(self) -> dict[str, Any]:
        """Settings as plain values, from which `build` makes an equal method."""
        return asdict(self.settings)

    def prepare(self) -> None:
        """Get what training needs from elsewhere, before its first step.

        Raises
        ------
        PtsamError
            In words, if it cannot be had.
        """

    @abstractmethod
    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """Embedding of Bx3xSxS inputs."""

    @abstractmethod
    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Mask logits, Bx1xhxw."""

    def decode_named(
        self,
        backbone: Backbone,
        embedding: Embedding,
        names: Sequence[str],  # noqa: ARG002
    ) -> Tensor:
        """Mask logits, Bx1xhxw, of the objects that are named, one for each image.

        Most methods know one object alone, whatever it is called.
        """
        return self.decode(backbone, embedding)

    def of(self, name: str) -> Method:  # noqa: ARG002
        """The same learned numbers with the object of that name as the output."""
        return self

    def start_from(self, prompts: Tensor) -> None:
        """Begin from given decoder prompts, nx256; only where `starts_from_prompts`."""
        raise NotImplementedError(f"{self.name} has no decoder prompts")

    @property
    def raises_logits(self) -> bool:
        """Whether `raise_logits` can be had, on a backbone with a readout."""
        return False

    def raise_logits(self, by: float) -> None:
        """Add to the logits of all pixels; only where `raises_logits`."""
        raise NotImplementedError(f"{self.name} has no constant")

    @property
    def trainable_parameters(self) -> int:
        """How many numbers are trained and saved."""
        return sum(p.numel() for p in self.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """What a prompt file holds, float32 on the CPU: parameters and frozen constants."""
        return {k: v.detach().float().cpu().clone() for k, v in self.state_dict().items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over saved numbers.

        Raises
        ------
        PromptFileError
            If a tensor is missing, unknown or of another shape.
        """
        own = self.state_dict()
        expected = {k: tuple(v.shape) for k, v in own.items()}
        given = {k: tuple(v.shape) for k, v in tensors.items()}
        if expected != given:
            raise PromptFileError(
                f"The prompt file holds {given}, but {self.name} on this backbone has {expected}. "
                "It was made for another backbone or with other settings."
            )
        with torch.no_grad():
            for key, value in tensors.items():
                own[key].copy_(value)


class FrozenEncoder(Method):
    """A method that leaves the image encoder as it is, and learns in the mask decoder alone."""

    @property
    def works_on_embeddings(self) -> bool:
        """True: the encoder is the backbone's own."""
        return True

    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """The frozen encoder's embedding."""
        return backbone.encode(images)


def no_prompts(backbone: Backbone) -> Tensor:
    """Decoder prompts, 0x256: none."""
    return torch.zeros(0, backbone.decoder_width, device=backbone.device)


def check_mask_index(index: int) -> None:
    """Raise `InputError` unless SAM has a mask of this number."""
    if index not in range(4):
        raise InputError(f"SAM has the masks 0, 1, 2 and 3; there is no mask {index}.")
