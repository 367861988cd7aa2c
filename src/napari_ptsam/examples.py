"""Annotated images: pairs of an image and its mask."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.labels import read_labels
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import Planes

_MASK_ENDING = re.compile(
    r"[_-](?:cp_masks?|masks?|labels?|seg)(?=/\d{4,}$|$)", flags=re.IGNORECASE
)
_RULE = (
    "A mask has the name of its image, in the same sub-folder; its format may differ, and the "
    "name may end in _mask, _masks, _cp_masks, _label, _labels or _seg"
)


@dataclass(frozen=True)
class Example:
    """One annotated image.

    Attributes
    ----------
    key
        Name of the image.
    image
        HxWx3 float32, 0..255, normalised.
    mask
        HxW, True on the object.
    valid
        HxW, False on pixels to ignore.
    instances
        HxW int32 object ids, 0 on background, if the labels had several; else None.
    name
        Of the object, where several kinds are learned at once.
    """

    key: str
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    instances: NDArray[np.int32] | None
    name: str = ""

    @cached_property
    def image_digest(self) -> str:
        """12 hexadecimal digits that tell this image, as normalised, from others."""
        digest = hashlib.sha256(f"{self.image.shape}".encode())
        digest.update(np.ascontiguousarray(self.image).data)
        return digest.hexdigest()[:12]


def load_examples(
    images: Planes,
    masks: Planes,
    *,
    planes: Sequence[int] | None = None,
    limit: int | None = None,
    label: int | None = None,
    ignore_label: int | None = None,
    normalization: Normalization,
) -> tuple[list[Example], Normalization]:
    """Read the annotated images.

    Two folders are paired by name, and images without a mask are left out. Otherwise plane
    and mask of the same number belong together; if there are just as many masks as `planes`,
    the masks belong to these in order. In a stack of labels only planes with any paint are
    annotated, and those listed in `planes`; a mask file of its own always is an annotation,
    also if it is empty.

    Parameters
    ----------
    images, masks
        Where to read from.
    planes
        Numbers of the annotated images; by default all that are annotated.
    limit
        Use only the first so many.
    label
        The label that is the object; by default all above 0.
    ignore_label
        The label of pixels that training shall ignore.
    normalization
        How to normalise; per stack, it is measured on `images` first.

    Returns
    -------
    The examples in the order of the images, and the normalisation that was used.

    Raises
    ------
    InputError
        If images and masks do not fit together, or there is nothing to learn from.
    """
    _check_options(limit, label, ignore_label)
    pairs = _annotated_pairs(images, masks, planes)
    chosen = list(itertools.islice(pairs, limit))
    if not chosen:
        raise InputError(
            f"None of the {len(masks)} planes of {masks.name} is annotated. Paint the object on "
            "some of them, or list planes in which there truly is no object with the option "
            "'planes'."
        )
    fitted = normalization.fitted(images, range(len(images)))
    examples = []
    for image, mask in chosen:
        examples.append(_read_example(images, image, masks, mask, label, ignore_label, fitted))
    _refuse_no_object(examples, masks, [mask for _, mask in chosen], label)
    return examples, fitted


def load_named_examples(
    images: Planes,
    masks: Planes,
    labels: Mapping[str, int | None],
    *,
    normalization: Normalization,
    **options: Any,
) -> tuple[list[Example], Normalization]:
    """Read the annotated images once for each kind of object.

    Parameters
    ----------
    labels
        Label in the masks by the object's name.
    **options
        See `load_examples`, of which this is a series.

    Raises
    ------
    InputError
        As `load_examples`, and if there is no kind or two have one label.
    """
    if not labels or len(set(labels.values())) < len(labels):
        raise InputError(
            f"The objects to learn are given as different labels by name, not {dict(labels)}; "
            "for instance nuclei 1, cytoplasm 2."
        )
    found: list[Example] = []
    for name, label in labels.items():
        examples, normalization = load_examples(
            images, masks, label=label, normalization=normalization, **options
        )
        found += [replace(e, name=name) for e in examples]
    return found, normalization


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over the content of all examples, for the record of a training."""
    digest = hashlib.sha256()
    for example in examples:
        named = f"{example.name}\n" if example.name else ""
        digest.update(f"{example.key}\n{named}{example.mask.shape}\n".encode())
        for array in (example.image, example.mask, example.valid, example.instances):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_options(limit: int | None, label: int | None, ignore_label: int | None) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"A limit of {limit} images leaves none. Give 1 or more.")
    if label is not None and label == ignore_label:
        raise InputError(f"The label {label} cannot be both the object and ignored.")


def _annotated_pairs(
    images: Planes, masks: Planes, planes: Sequence[int] | None
) -> Iterator[tuple[int, int]]:
    if planes is not None:
        for index in planes:
            images.check(index)
        planes = sorted(set(planes))
    if images.kind == "folder" and masks.kind == "folder":
        partner = _pair_by_name(images, masks)
        if planes is not None:
            _refuse_unpaired(images, masks, [index for index in planes if index not in partner])
    elif len(images) == len(masks):
        partner = {index: index for index in range(len(images))}
    elif planes is not None and len(masks) == len(planes):
        partner = dict(zip(planes, range(len(masks)), strict=True))
    else:
        raise InputError(
            f"{images.name} has {len(images)} planes but {masks.name} has {len(masks)}, so it is "
            "unclear which belong together. Give masks for all planes (empty where you did not "
            "annotate), or list as many planes as there are masks with the option 'planes'."
        )
    if planes is not None:
        yield from ((index, partner[index]) for index in planes)
        return
    for image, mask in sorted(partner.items()):
        if _is_annotated(masks, mask):
            yield image, mask


def find_image(mask: str, numbers: Mapping[str, int]) -> int | None:
    """Number of the image that a mask belongs to by its name, None if there is none.

    Parameters
    ----------
    mask
        Key of the mask: that of its image, or with an ending such as ``_mask``.
    numbers
        Number of each image by its key.
    """
    return numbers.get(mask, numbers.get(_MASK_ENDING.sub("", mask)))


def _pair_by_name(images: Planes, masks: Planes) -> dict[int, int]:
    numbers = {key: index for index, key in enumerate(images.keys)}
    partner: dict[int, int] = {}
    strangers = []
    for mask, key in enumerate(masks.keys):
        image = find_image(key, numbers)
        if image is None:
            strangers.append(key)
        elif image in partner:
            raise InputError(
                f"{masks.describe(partner[image])} and {masks.describe(mask)} both are masks of "
                f"{images.describe(image)}. Keep one of them."
            )
        else:
            partner[image] = mask
    if strangers:
        lonely = [key for index, key in enumerate(images.keys) if index not in partner]
        raise InputError(
            f"{len(strangers)} of the {len(masks)} masks in {masks.name} have no image in "
            f"{images.name}: {_listed(strangers)}. Images without a mask: {_listed(lonely)}. "
            f"{_RULE}."
        )
    return partner


def _refuse_unpaired(images: Planes, masks: Planes, unpaired: list[int]) -> None:
    if unpaired:
        raise InputError(
            f"The planes {_listed([str(index) for index in unpaired])} of {images.name} "
            f"({_listed([images.keys[index] for index in unpaired])}) were asked for, but have "
            f"no mask in {masks.name}. {_RULE}."
        )


def _listed(names: Sequence[str]) -> str:
    return (", ".join(names[:8]) or "none") + (" ..." if len(names) > 8 else "")


def _is_annotated(masks: Planes, index: int) -> bool:
    return not masks.in_stack(index) or bool(np.any(read_labels(masks, index)))


def _read_example(
    images: Planes,
    image: int,
    masks: Planes,
    mask: int,
    label: int | None,
    ignore_label: int | None,
    normalization: Normalization,
) -> Example:
    numbered = label is not None or ignore_label is not None
    labels = read_labels(masks, mask, numbered=numbered)
    pixels = images.read(image)
    if pixels.shape[:2] != labels.shape:
        raise InputError(
            f"{images.describe(image)} has {_size(pixels.shape)} but its mask "
            f"{masks.describe(mask)} has {_size(labels.shape)}. Save the mask at the size of "
            "the image, without resampling."
        )
    valid = np.ones(labels.shape, np.bool_) if ignore_label is None else labels != ignore_label
    if not valid.any():
        raise InputError(
            f"The mask {masks.describe(mask)} tells to ignore every pixel. Leave it out, or "
            "annotate some of it."
        )
    found = ((labels > 0) if label is None else (labels == label)) & valid
    return Example(
        images.keys[image],
        normalization.apply(pixels),
        found,
        valid,
        _instances(labels, found) if label is None else None,
    )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} pixels (rows x columns)"


def _instances(labels: NDArray[np.int64], found: NDArray[np.bool_]) -> NDArray[np.int32] | None:
    ids = np.unique(labels[found])
    if len(ids) < 2:
        return None
    # Ids may be too large for int32, but there cannot be that many of them.
    numbers = np.searchsorted(ids, labels) + 1
    return np.where(found, numbers, 0).astype(np.int32)


def _refuse_no_object(
    examples: Sequence[Example], masks: Planes, indices: Sequence[int], label: int | None
) -> None:
    if any(example.mask.any() for example in examples):
        return
    if label is None:
        raise InputError(
            f"There is no object in any of the {len(examples)} masks from {masks.name}. Paint "
            "it in at least one (values above 0)."
        )
    seen: set[int] = set()
    for index in indices:
        seen.update(np.unique(read_labels(masks, index, numbered=True)).tolist())
    raise InputError(
        f"The label {label} does not occur in any of the {len(examples)} masks from "
        f"{masks.name}. They hold {_listed([str(value) for value in sorted(seen)])}."
    )
