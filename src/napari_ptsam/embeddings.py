"""Image embeddings that were computed before, found again by content."""

from __future__ import annotations

from collections import OrderedDict

import torch
import xxhash
from torch import Tensor

from napari_ptsam.backbones import Backbone, Embedding
from napari_ptsam.methods.base import Method

DEFAULT_LIMIT = 2**30


class Embeddings:
    """Keeps what an encoder gave, for as long as this object lives.

    An embedding is found by the backbone's identity and the pixels that the encoder sees, so
    that the same view of the same image at the same scale is encoded once, whatever its plane
    is called and whichever mask belongs to it.

    Parameters
    ----------
    limit
        Bytes of main memory to use at most. When it is full, embeddings that no run since
        `new_run` asked for make room; if there are none, new ones are not kept.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.nbytes = 0
        self._run = 0
        # The longest unused first.
        self._kept: OrderedDict[bytes, tuple[int, Embedding]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def new_run(self) -> None:
        """Say that from now on what is asked for belongs to another run."""
        self._run += 1

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.nbytes = 0

    def serve(self, backbone: Backbone) -> Backbone:
        """The same backbone, which looks here before it encodes.

        Only where nothing is learned through the encoder, that is without encoder prompts and
        in inference mode. Its embeddings are rounded to 16 bits whether they were kept or not,
        so that no result depends on what was computed before.
        """
        return _Remembering(backbone, self)

    def get(self, key: bytes) -> Embedding | None:
        """What is kept under a key."""
        if key not in self._kept:
            return None
        _, embedding = self._kept[key]
        self._kept[key] = self._run, embedding
        self._kept.move_to_end(key)
        return embedding

    def put(self, key: bytes, embedding: Embedding) -> None:
        """Keep an embedding, if there is room."""
        size = _bytes_of(embedding)
        while self.nbytes + size > self.limit and self._kept:
            oldest = next(iter(self._kept))
            run, given_up = self._kept[oldest]
            if run == self._run:
                break
            del self._kept[oldest]
            self.nbytes -= _bytes_of(given_up)
        if self.nbytes + size <= self.limit and key not in self._kept:
            self._kept[key] = self._run, embedding
            self.nbytes += size


class _Remembering(Backbone):
    """A backbone that encodes only what it has not seen."""

    def __init__(self, backbone: Backbone, memory: Embeddings) -> None:
        # Without the base's, which freezes a network that is frozen: one is made for each plane.
        self.sam, self.name = backbone.sam, backbone.name
        self.identity, self.architecture = backbone.identity, backbone.architecture
        self._memory = memory

    def encode(self, images: Tensor, prompts: Tensor | None = None) -> Embedding:
        """Embedding of Bx3xSxS inputs from `normalise_input`, see `Backbone.encode`."""
        if prompts is not None or not torch.is_inference_mode_enabled():
            return super().encode(images, prompts)
        if not self._memory.limit:
            return tuple(level.half().float() for level in super().encode(images))
        keys = [self._key(image) for image in images]
        found = [self._memory.get(key) for key in keys]
        known = [embedding for embedding in found if embedding is not None]
        if len(known) < len(keys):
            # All of them, as without a memory: results of a batch depend on its size.
            levels = [level.half() for level in super().encode(images)]
            known = [
                tuple(level[i].to("cpu", copy=True) for level in levels) for i in range(len(keys))
            ]
            for key, embedding in zip(keys, known, strict=True):
                self._memory.put(key, embedding)
        stacked = (torch.stack(level) for level in zip(*known, strict=True))
        return tuple(level.to(self.device).float() for level in stacked)

    def _key(self, image: Tensor) -> bytes:
        digest = xxhash.xxh3_128(
            f"{self.identity} {self.device.type} {tuple(image.shape)}".encode()
        )
        digest.update(image.float().cpu().contiguous().numpy().data)
        return digest.digest()


def recalling(method: Method, backbone: Backbone, embeddings: Embeddings) -> Backbone:
    """The backbone for a method to look at images through.

    It looks for kept embeddings first; but where the method changes the encoder, which then
    gives embeddings of its own, it is the backbone itself.
    """
    return embeddings.serve(backbone) if method.works_on_embeddings else backbone


def _bytes_of(embedding: Embedding) -> int:
    return sum(level.numel() * level.element_size() for level in embedding)
