"""Clicks to masks: plain SAM, or what learned from clicks on one kind of object."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.backbone import resize_logits
from napari_ptsam.cache import DiskCache
from napari_ptsam.clicking.answers import ClickAnswer, is_cut, on_plane, pointed_at
from napari_ptsam.clicking.plane import EmbeddedPlane
from napari_ptsam.clicking.prompt import Box, ClickPrompt, well_inside
from napari_ptsam.clicking.tokens import answer_points, points_in_view
from napari_ptsam.devices import choose_device, computing, one_core
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.methods import build_click_method
from napari_ptsam.methods.plm import Plm
from napari_ptsam.metrics import iou
from napari_ptsam.normalize import Normalization
from napari_ptsam.predict import tile_logits
from napari_ptsam.promptfile import PromptFile, PromptMetadata, read_prompt_file, write_prompt_file
from napari_ptsam.specialist import backbone_of
from napari_ptsam.tiling import Offset, Scaling, blend
from napari_ptsam.views import window_of

ENCODED_AHEAD = 17
"""Of a plane with no more views than that, all are encoded before the first click."""

LEAST_OVERLAP = 0.25
"""A followed object whose masks in two planes have less IoU than that is another one."""


class Clicker:
    """Answers clicks and boxes with masks.

    Make one with `plain` or `load`, or train one with `train_clicks`.

    Attributes
    ----------
    method
        What was learned; None for plain SAM.
    path
        The prompt file that it was read from or last saved to, if there is one.
    embeddings
        Where to find what was encoded before: in memory, and on disk, where nothing is left.
    """

    def __init__(self, method: Plm | None, backbone: Backbone, metadata: PromptMetadata) -> None:
        self.method = None if method is None else method.to(backbone.device).eval()
        self.backbone = backbone
        self.metadata = metadata
        self.normalization = Normalization.from_dict(metadata.normalization)
        self.scaling = Scaling.from_dict(metadata.working_scale)
        self.path: Path | None = None
        self.embeddings = Embeddings(disk=DiskCache())

    @classmethod
    def plain(
        cls,
        backbone: str | Path | Backbone = "embedded",
        *,
        normalization: Normalization | None = None,
        scaling: Scaling | None = None,
        device: str = "auto",
    ) -> Clicker:
        """SAM as it is, for any object.

        Parameters
        ----------
        backbone
            Name from `list_backbones`, checkpoint file, or a loaded one.
        normalization
            How brightness is measured; by default on each plane. One per stack must be fitted.
        scaling
            Model pixels per image pixel; by default whole planes are fitted in.
        """
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(backbone, device=choose_device(device))
        metadata = PromptMetadata(
            backbone_name=backbone.name,
            backbone_identity=backbone.identity,
            backbone_architecture=backbone.architecture,
            method="",
            normalization=(normalization or Normalization()).to_dict(),
            working_scale=(scaling or Scaling(None)).to_dict(),
        )
        return cls(None, backbone, metadata)

    @property
    def is_specialist(self) -> bool:
        """Whether it learned what a click means for one kind of object."""
        return self.method is not None

    @property
    def title(self) -> str:
        """What people call it."""
        if self.is_specialist:
            return f"Click specialist: {self.metadata.class_name}"
        return f"Plain SAM ({self.backbone.name})"

    def embed(self, plane: NDArray[Any]) -> EmbeddedPlane:
        """Encode a plane, so that clicks on it are answered without the encoder.

        Of very large planes only the view of the whole is encoded now, and each part of the
        plane when it is first clicked; see `EmbeddedPlane.is_ready`.

        Parameters
        ----------
        plane
            HxW or HxWxC of any real dtype.

        Raises
        ------
        InputError
            If the plane is no image.
        """
        pixels = np.asarray(plane)
        if pixels.ndim not in (2, 3) or 0 in pixels.shape:
            raise InputError(
                f"An array of shape {pixels.shape} is no plane to click on; give one plane, rows "
                "x columns, with colours last if there are any."
            )
        image = self.normalization.apply(pixels)
        self.embeddings.new_run()
        embedded = EmbeddedPlane.of(image, self.scaling, self.backbone.input_size)
        last = len(embedded.views) - 1
        served = self.embeddings.serve(self.backbone)
        for number in range(last + 1) if last < ENCODED_AHEAD else [last]:
            embedded.embedding(number, served)
        return embedded

    def answer(self, embedded: EmbeddedPlane, prompt: ClickPrompt) -> ClickAnswer:
        """The mask of what is pointed at.

        Needs no encoder where `EmbeddedPlane.is_ready` says so. An object that a view cuts off
        is asked for again in the view of the whole plane.

        Raises
        ------
        InputError
            If the prompt points outside of the plane, or the plane was embedded for a backbone
            of another size.
        """
        started = time.perf_counter()
        if embedded.size != self.backbone.input_size:
            raise InputError(
                f"The plane was encoded for a model input of {embedded.size} pixels, and "
                f"'{self.backbone.name}' has {self.backbone.input_size}. Encode it anew."
            )
        prompt = prompt.checked_for(embedded.shape)
        number, whole = embedded.best_view(prompt), len(embedded.views) - 1
        # A single decoding is short, and beside others a click must not wait for all cores.
        cores = one_core() if self.backbone.is_embedded else nullcontext()
        with torch.inference_mode(), computing(self.backbone.device), cores:
            logits, score = self._in_view(embedded, number, prompt)
            if number != whole and is_cut(logits > 0, embedded.views[number]):
                number = whole
                logits, score = self._in_view(embedded, number, prompt)
        probability, region = on_plane(logits, embedded.views[number], embedded.shape)
        mask = np.zeros(embedded.shape, bool)
        mask[region] = pointed_at(probability[region] >= self.metadata.threshold, prompt, region)
        seconds = time.perf_counter() - started
        return ClickAnswer(mask, probability, score, seconds, region)

    def follow(self, embedded: EmbeddedPlane, mask: NDArray[np.bool_]) -> ClickAnswer | None:
        """The same object in a neighbouring plane: its box, and a click well inside of it.

        Parameters
        ----------
        embedded
            The neighbouring plane.
        mask
            HxW, the object in this plane.

        Returns
        -------
        ClickAnswer or None
            None where nothing of it is left: the mask is empty, or what was found is another
            object (less than a quarter of both masks is shared).
        """
        mask = np.asarray(mask, bool)
        if mask.shape != embedded.shape:
            raise InputError(
                f"The mask has the shape {mask.shape} and the plane to go on to {embedded.shape}; "
                "only planes of one stack can be followed."
            )
        if not mask.any():
            return None
        answer = self.answer(embedded, ClickPrompt((well_inside(mask),), Box.around(mask)))
        return answer if iou(answer.mask, mask) >= LEAST_OVERLAP else None

    def everything(self, embedded: EmbeddedPlane) -> NDArray[np.float32]:
        """Probability of any object of the kind, HxW float32: the automatic mode.

        Raises
        ------
        InputError
            If it is plain SAM, or was trained without this mode.
        """
        if self.method is None or self.method.tokens is None:
            raise InputError(
                f"{self.title} answers clicks alone. Train a click specialist with the automatic "
                "mode (tokens=8), or a prompt-free specialist, to segment all objects at once."
            )
        prepared = embedded.views[0].prepared
        served, method = self.embeddings.serve(self.backbone), self.method

        def tiles() -> Iterator[tuple[Tensor, Offset]]:
            for number, offset in enumerate(prepared.offsets):
                embedding = embedded.embedding(number, served)
                yield from tile_logits(method, self.backbone, embedding, [offset])

        with torch.inference_mode(), computing(self.backbone.device):
            return blend(tiles(), prepared.scaled, embedded.shape)

    def _in_view(
        self, embedded: EmbeddedPlane, number: int, prompt: ClickPrompt
    ) -> tuple[Tensor, float]:
        """Logits of what of a view the plane fills, model pixels, and the score."""
        seen = embedded.views[number]
        embedding = embedded.embedding(number, self.embeddings.serve(self.backbone))
        points, kinds = points_in_view(prompt, seen)
        logits, quality, _ = answer_points(self.backbone, self.method, embedding, points, kinds)
        rows, columns = window_of(seen.prepared.scaled, embedded.size, seen.offset)
        logits = resize_logits(logits.float(), embedded.size)[0, 0, :rows, :columns]
        return logits, float(quality[0].clamp(0, 1))

    def save(self, path: str | Path) -> Path:
        """Write the prompt file of a click specialist; returns its path, suffix completed.

        Raises
        ------
        InputError
            If it is plain SAM, which has learned nothing.
        """
        if self.method is None:
            raise InputError("Plain SAM has learned nothing to save. Train a click specialist.")
        tensors = {k: v.numpy() for k, v in self.method.tensors().items()}
        self.path = write_prompt_file(path, PromptFile(tensors, self.metadata))
        return self.path

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backbone: str | Path | Backbone | None = None,
        device: str = "auto",
    ) -> Clicker:
        """Read the prompt file of a click specialist and put it on its backbone.

        Parameters
        ----------
        backbone
            The backbone if it is not one that is known by name.

        Raises
        ------
        PromptFileError
            If the file is damaged, of a prompt-free specialist, or of another backbone.
        BackboneError
            If the backbone cannot be had.
        """
        file = read_prompt_file(path)
        metadata = file.metadata
        if metadata.method != Plm.name:
            raise PromptFileError(
                f"{Path(path).name} holds a specialist that segments everything of its kind "
                f"(method '{metadata.method}') and takes no clicks. Segment with it, or train a "
                "click specialist with 'napari-ptsam train-clicks'."
            )
        found = backbone_of(metadata, path, backbone, device)
        method = build_click_method(metadata.method, metadata.method_settings, found)
        method.load_tensors({k: torch.from_numpy(v) for k, v in file.tensors.items()})
        clicker = cls(method, found, metadata)
        clicker.path = Path(path)
        return clicker
