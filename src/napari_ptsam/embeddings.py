"""Image embeddings that were computed before, found again by content."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING

import torch
import xxhash
from torch import Tensor

from napari_ptsam.backbones import Backbone, Embedding
from napari_ptsam.cache import DiskCache, Kept
from napari_ptsam.devices import half_precision

if TYPE_CHECKING:
    from napari_ptsam.methods.base import Method

DEFAULT_LIMIT = 2**30

TRIALS = 8
"""Embeddings that are read from disk before it is judged whether that is worth the time."""

Key = tuple[str, str]
"""Identity of a backbone and, hexadecimal, the digest of what it was shown."""


class Embeddings:
    """Keeps what an encoder gave: in memory while this object lives, on disk for longer.

    An embedding is found by the backbone's identity and the pixels that the encoder sees, so
    that the same view of the same image at the same scale is encoded once, whatever its plane
    is called and whichever mask belongs to it.

    Parameters
    ----------
    limit
        Bytes of main memory to use at most. When it is full, embeddings that no run since
        `new_run` asked for make room; if there are none, new ones are not kept. 0 keeps none.
    disk
        Where to look for what is not in memory, and to leave what is encoded if it `writes`.
    thrifty
        Leave the disk alone once it has turned out that reading takes longer than encoding.

    Attributes
    ----------
    encoded, recalled
        How many embeddings were computed, and how many found.
    """

    def __init__(
        self, limit: int = DEFAULT_LIMIT, disk: DiskCache | None = None, *, thrifty: bool = True
    ) -> None:
        self.limit = limit
        self.disk = disk
        self.nbytes = self.encoded = self.recalled = 0
        self._costs = _Costs() if thrifty else None
        self._lock = RLock()
        self._run = 0
        # The longest unused first.
        self._kept: OrderedDict[Key, tuple[int, Embedding]] = OrderedDict()
        self._names: dict[Key, list[str]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def new_run(self) -> None:
        """Say that from now on what is asked for belongs to another run."""
        self._run += 1
        if self.disk is not None:
            self.disk.new_run()

    def clear(self) -> None:
        """Forget everything in memory."""
        with self._lock:
            self._kept.clear()
            self._names.clear()
            self.nbytes = 0

    def serve(self, backbone: Backbone) -> Recalling:
        """The same backbone, which looks here before it encodes.

        Only where nothing is learned through the encoder, that is without encoder prompts and
        in inference mode. Its embeddings are rounded to 16 bits whether they were kept or not,
        so that no result depends on what was computed before.
        """
        return Recalling(backbone, self)

    def useful(self, identity: str) -> bool:
        """Whether anything of a backbone may be found or kept."""
        return bool(self.limit) or self._disk_for(identity) is not None

    def get(self, key: Key) -> Embedding | None:
        """What is kept under a key."""
        with self._lock:
            if key in self._kept:
                _, known = self._kept[key]
                self._kept[key] = self._run, known
                self._kept.move_to_end(key)
                return known
        found = self._read(key)
        if found is not None:
            self._remember(key, found)
        return found

    def put(self, key: Key, name: str, embedding: Embedding, seconds: float) -> None:
        """Keep an embedding, if there is room.

        Parameters
        ----------
        name
            Of the backbone.
        embedding
            On the CPU, float16.
        seconds
            What computing it took.
        """
        self._remember(key, embedding)
        disk = self._disk_for(key[0])
        if disk is None or not disk.keeps():
            return
        if self._costs is not None:
            self._costs.encoded(seconds)
        kept = Kept([level.numpy() for level in embedding], seconds)
        stored = disk.put(key[0], name, key[1], kept)
        if stored and self._costs is not None and self._costs.trying:
            self._read(key)  # to know from the start what it costs

    def named(self, identity: str, name: str) -> list[Key] | None:
        """Keys of what a backbone gave for something of that name."""
        disk = self._disk_for(identity)
        with self._lock:
            known = self._names.get((identity, name))
        if known is None and disk is not None:
            known = disk.look_up(identity, name)
        return None if known is None else [(identity, key) for key in known]

    def name(self, identity: str, name: str, keys: list[Key]) -> None:
        """Write down the keys of something, so that it need not be made to find them."""
        plain = [key for _, key in keys]
        with self._lock:
            self._names[identity, name] = plain
        disk = self._disk_for(identity)
        if disk is not None:
            disk.note(identity, name, plain)

    @property
    def disk_is_slow(self) -> bool:
        """Whether it has turned out that reading takes longer than encoding."""
        return self._costs is not None and self._costs.too_high

    def _disk_for(self, identity: str) -> DiskCache | None:
        """The disk, if it is worth a look."""
        disk = self.disk
        if disk is None or self.disk_is_slow or not (disk.keeps() or disk.holds(identity)):
            return None
        return disk

    def _read(self, key: Key) -> Embedding | None:
        disk = self._disk_for(key[0])
        started = time.perf_counter()
        kept = None if disk is None else disk.get(*key)
        if kept is None:
            return None
        if self._costs is not None:
            self._costs.read(time.perf_counter() - started, kept.seconds)
        return tuple(torch.from_numpy(level) for level in kept.levels)

    def _remember(self, key: Key, embedding: Embedding) -> None:
        """Keep in memory, if there is room."""
        size = _bytes_of(embedding)
        with self._lock:
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


class _Costs:
    """Seconds for an embedding: reading it against computing it."""

    def __init__(self) -> None:
        # The first one is slow for reasons of its own.
        self._reads, self._reading = -1, 0.0
        self._encodings, self._encoding = 0, 0.0

    def read(self, seconds: float, instead_of: float) -> None:
        """One was read which had taken so long to compute."""
        self._reads += 1
        self._reading += seconds if self._reads else 0.0
        self.encoded(instead_of)

    def encoded(self, seconds: float) -> None:
        """One took so long to compute, now or when it was kept."""
        self._encodings += 1
        self._encoding += seconds

    @property
    def trying(self) -> bool:
        """Whether there were too few to tell."""
        return self._reads < TRIALS

    @property
    def too_high(self) -> bool:
        """Whether reading was the slower of the two, on the whole."""
        if self.trying:
            return False
        return self._reading / self._reads > self._encoding / self._encodings


class Recalling(Backbone):
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
        memory = self._memory
        if not memory.useful(self.identity):
            memory.encoded += len(images)
            return tuple(level.half().float() for level in super().encode(images))
        return self._found_or_encoded(images, [self._key(image) for image in images])

    def encode_named(self, name: Callable[[], str], inputs: Callable[[], Tensor]) -> Embedding:
        """As `encode` of the inputs, which are only made if their embeddings are not found.

        Parameters
        ----------
        name
            Tells all that the inputs are made of; asked for only where it can be of use.
        inputs
            Makes them, Bx3xSxS.
        """
        if not (torch.is_inference_mode_enabled() and self._memory.useful(self.identity)):
            return self.encode(inputs())
        digest = xxhash.xxh3_128_hexdigest(f"{self._where} {self.input_size} {name()}".encode())
        keys = self._memory.named(self.identity, digest)
        found = None if keys is None else self._recalled(keys)
        if found is not None:
            return found
        images = inputs()
        keys = [self._key(image) for image in images]
        embedding = self._found_or_encoded(images, keys)
        self._memory.name(self.identity, digest, keys)
        return embedding

    def _found_or_encoded(self, images: Tensor, keys: list[Key]) -> Embedding:
        return self._recalled(keys) or self._stacked(self._encode_and_keep(images, keys))

    def _recalled(self, keys: list[Key]) -> Embedding | None:
        """A batch of what is kept, None unless all of it is."""
        known = []
        for key in keys:
            embedding = self._memory.get(key)
            if embedding is None:
                return None
            known.append(embedding)
        self._memory.recalled += len(keys)
        return self._stacked(known)

    def _stacked(self, known: list[Embedding]) -> Embedding:
        stacked = (torch.stack(level) for level in zip(*known, strict=True))
        return tuple(level.to(self.device).float() for level in stacked)

    def _encode_and_keep(self, images: Tensor, keys: list[Key]) -> list[Embedding]:
        """All of a batch, as without a memory: on a GPU its results depend on its size."""
        started = time.perf_counter()
        levels = [level.half().cpu() for level in super().encode(images)]
        seconds = (time.perf_counter() - started) / len(keys)
        self._memory.encoded += len(keys)
        known = [tuple(level[i].clone() for level in levels) for i in range(len(keys))]
        for key, embedding in zip(keys, known, strict=True):
            self._memory.put(key, self.name, embedding, seconds)
        return known

    @property
    def _where(self) -> str:
        """What one kind of device computes differs from another's in the last digits."""
        return f"{self.device.type} {half_precision(self.device)}"

    def _key(self, image: Tensor) -> Key:
        digest = xxhash.xxh3_128(f"{self._where} {tuple(image.shape)}".encode())
        digest.update(image.float().cpu().contiguous().numpy().data)
        return self.identity, digest.hexdigest()


def embed(
    method: Method, backbone: Backbone, name: Callable[[], str], inputs: Callable[[], Tensor]
) -> Embedding:
    """What a method's encoder gives, found by name if the backbone is one that recalls.

    Parameters
    ----------
    backbone
        May be of `recalling`.
    name
        Tells all that the inputs are made of: pixels and geometry. It takes a look at all
        pixels, and is asked for only where something may be kept.
    inputs
        Makes them, Bx3xSxS; drawing tiles takes longer than finding their embeddings.
    """
    if method.works_on_embeddings and isinstance(backbone, Recalling):
        return backbone.encode_named(name, inputs)
    return method.encode(backbone, inputs())


def recalling(method: Method, backbone: Backbone, embeddings: Embeddings) -> Backbone:
    """The backbone for a method to look at images through.

    It looks for kept embeddings first; but where the method changes the encoder, which then
    gives embeddings of its own, it is the backbone itself.
    """
    return embeddings.serve(backbone) if method.works_on_embeddings else backbone


def _bytes_of(embedding: Embedding) -> int:
    return sum(level.numel() * level.element_size() for level in embedding)
