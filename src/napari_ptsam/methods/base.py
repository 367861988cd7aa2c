"""What every adaptation method of a frozen SAM has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import Backbone, Embedding
from napari_ptsam.errors import PromptFileError


class Method(nn.Module, ABC):
    """Trainable numbers around a frozen backbone.

    The backbone is not a part of the module: it is shared, frozen, and handed
    to each call, so that `parameters()` holds what is trained and nothing else.
    """

    name: ClassVar[str]
    starts_from_prompts: ClassVar[bool] = False
    """Whether `start_from` can take decoder prompts that a task encoder made."""

    @classmethod
    @abstractmethod
    def build(cls, settings: dict[str, Any], backbone: Backbone, seed: int) -> Method:
        """From settings as a prompt file stores them."""

    @property
    @abstractmethod
    def works_on_embeddings(self) -> bool:
        """Whether `encode` is the frozen backbone's own, so that its result can be kept."""

    @property
    @abstractmethod
    def settings_dict(self) -> dict[str, Any]:
        """Settings as plain values, from which `build` makes an equal method."""

    @abstractmethod
    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """Embedding of Bx3xSxS inputs."""

    @abstractmethod
    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Mask logits, Bx1xhxw."""

    def start_from(self, prompts: Tensor) -> None:
        """Begin from given decoder prompts, nx256; only where `starts_from_prompts`."""
        raise NotImplementedError(f"{self.name} has no decoder prompts")

    @property
    def trainable_parameters(self) -> int:
        """How many numbers are trained and saved."""
        return sum(p.numel() for p in self.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """What a prompt file holds, float32 on the CPU."""
        return {k: v.detach().float().cpu().clone() for k, v in self.named_parameters()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over saved numbers.

        Raises
        ------
        PromptFileError
            If a tensor is missing, unknown or of another shape.
        """
        own = dict(self.named_parameters())
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
