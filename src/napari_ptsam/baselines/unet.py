"""A small U-Net, trained from scratch with the augmentation and loss of a specialist.

Source of the architecture: Ronneberger et al., arXiv 1505.04597; with padding, GroupNorm and
fewer channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_ptsam.baselines import Predictor, check_pairs
from napari_ptsam.devices import choose_device, computing
from napari_ptsam.errors import InputError
from napari_ptsam.tiling import Offset, Scaling, blend, tile_offsets
from napari_ptsam.training.augment import Augmentation, random_view
from napari_ptsam.training.losses import ptsam_loss
from napari_ptsam.views import Marked, View, plain_view, prefilter, scaled_size


@dataclass(frozen=True)
class UNetBaseline:
    """How the U-Net is made and trained.

    Attributes
    ----------
    widths
        Channels at each resolution, the finest first.
    steps, batch_size, learning_rate
        Of AdamW; the rate falls to 0 along a cosine.
    size
        Side of a view in pixels; a multiple of 2 for each width but the first.
    scaling
        Working scale, such as a specialist's; by default whole images are fitted to `size`.
    augmentation
        As for a specialist.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    steps: int = 1000
    batch_size: int = 2
    learning_rate: float = 1e-3
    size: int = 256
    scaling: Scaling = field(default_factory=lambda: Scaling(None))
    augmentation: Augmentation = field(default_factory=Augmentation.paper)
    device: str = "auto"

    def __post_init__(self) -> None:
        step = 2 ** (len(self.widths) - 1)
        if not self.widths or self.size % step or any(width % 8 for width in self.widths):
            raise InputError(
                f"A U-Net takes views whose side is a multiple of {step} and widths that are "
                f"multiples of 8, not {self.size} and {self.widths}."
            )

    @property
    def name(self) -> str:
        """Short name for tables."""
        return "unet"

    @property
    def missing(self) -> None:
        """Nothing."""

    def fit(
        self,
        images: Sequence[NDArray[np.float32]],
        masks: Sequence[NDArray[np.bool_]],
        seed: int,
    ) -> Predictor:
        """Train on random views; see `Baseline`.

        Raises
        ------
        InputError
            If there are no images, or not as many masks.
        OutOfMemoryError
            If the device's memory is full.
        """
        check_pairs("The U-Net", images, masks)
        device = choose_device(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = UNet(self.widths).to(device)
        optimiser = torch.optim.AdamW(network.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        examples = [
            Marked(prefilter(image, self._scale(image)), mask, np.ones_like(mask))
            for image, mask in zip(images, masks, strict=True)
        ]
        for step in range(self.steps):
            views = self._views(examples, np.random.default_rng([seed, step]))
            mask, valid = (
                torch.from_numpy(np.stack(marks))[:, None].to(device)
                for marks in ([v.mask for v in views], [v.valid for v in views])
            )
            with computing(device):
                loss = ptsam_loss(network(_tensors(views, device)), mask.float(), valid)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            schedule.step()
        return _Fitted(network.eval(), self)

    def _scale(self, image: NDArray[np.float32]) -> float:
        return self.scaling.scale_for(image.shape, self.size)

    def _views(self, examples: Sequence[Marked], rng: np.random.Generator) -> list[View]:
        wanted = self.batch_size
        drawn = rng.choice(len(examples), wanted, replace=wanted > len(examples))
        chosen = [examples[i] for i in drawn]
        scales = [self._scale(example.image) for example in chosen]
        return [
            random_view(example, self.size, scale, self.augmentation, rng)
            for example, scale in zip(chosen, scales, strict=True)
        ]


@dataclass(frozen=True)
class _Fitted:
    """A trained network that segments planes of any size, tile by tile."""

    network: UNet
    made: UNetBaseline

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def nbytes(self) -> int:
        """Of the network's weights."""
        return sum(p.numel() * p.element_size() for p in self.network.parameters())

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        size, scale = self.made.size, self.made._scale(image)
        scaled = scaled_size(image.shape, scale)
        plane = Marked.blank(prefilter(image, scale))
        device = next(self.network.parameters()).device

        def tiles() -> Iterator[tuple[Tensor, Offset]]:
            for offset in tile_offsets(scaled, size):
                view = plain_view(plane, size, scale, offset)
                yield self.network(_tensors([view], device))[0, 0], offset

        height, width = image.shape[:2]
        with torch.inference_mode(), computing(device):
            return blend(tiles(), scaled, (height, width))


class UNet(nn.Module):
    """Bx3xSxS of about -1..1 to logits, Bx1xSxS.

    Parameters
    ----------
    widths
        Channels at each resolution, the finest first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = [3, *widths[:-1]]
        self.down = nn.ModuleList(_double(i, o) for i, o in zip(inputs, widths, strict=True))
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, stride=2) for i, o in pairs)
        self.merge = nn.ModuleList(_double(2 * i, i) for i, _ in pairs)
        self.out = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Bx3xSxS to Bx1xSxS."""
        levels: list[Tensor] = []
        for block in self.down:
            x = block(nn.functional.max_pool2d(x, 2) if levels else x)
            levels.append(x)
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat([levels[level], self.up[level](x)], 1))
        logits: Tensor = self.out(x)
        return logits


def _double(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    parts: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        parts += [
            nn.Conv2d(channels, channels_out, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*parts)


def _tensors(views: Sequence[View], device: torch.device) -> Tensor:
    """Images of views as inputs, Bx3xSxS; padding is grey, as the mean is."""
    images = torch.stack([torch.from_numpy(v.image).permute(2, 0, 1) for v in views])
    for image, view in zip(images, views, strict=True):
        rows, columns = view.content
        image[:, rows:] = 127.5
        image[:, :, columns:] = 127.5
    return ((images - 127.5) / 127.5).to(device)
