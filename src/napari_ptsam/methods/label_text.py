"""Label names to vectors: the frozen text encoder of CLIP, through the package transformers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from napari_ptsam.errors import BackboneError, InputError

CLIP = "openai/clip-vit-base-patch32"
"""Name on the Hugging Face hub of the text encoder that S-SAM uses."""

TEXT_WIDTH = 512
"""Of its embeddings."""

_WITHOUT = "Or learn the labels' embeddings instead, without CLIP: set text_encoder to 'learned'."


def embed_labels(labels: Sequence[str], encoder: str = CLIP) -> Tensor:
    """Text embeddings of bare label names.

    Parameters
    ----------
    labels
        K names, such as ``nuclei``.
    encoder
        Name on the Hugging Face hub, which is downloaded once and kept by transformers, or a
        folder that holds tokenizer and weights.

    Returns
    -------
    Tensor
        Kx512 float32, of unit length.

    Raises
    ------
    InputError
        If transformers is not installed.
    BackboneError
        If the encoder's files cannot be had or are not those of a CLIP of this width.
    """
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise InputError(
            "Label names are turned into prompts by CLIP, for which the package transformers is "
            f"needed: pip install 'napari-ptsam[ssam]'. {_WITHOUT}"
        ) from error
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(encoder)
        model = transformers.CLIPTextModelWithProjection.from_pretrained(encoder).eval()
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"CLIP's text encoder '{encoder}' cannot be had ({str(error)[:300]}). Connect to the "
            "network once, or name a folder that holds its tokenizer and weights as text_encoder. "
            f"{_WITHOUT}"
        ) from error
    tokens = tokenizer(list(labels), padding=True, return_tensors="pt")
    with torch.no_grad():
        embedded: Tensor = model(**tokens).text_embeds.float()
    if embedded.shape != (len(labels), TEXT_WIDTH):
        raise BackboneError(
            f"'{encoder}' gives embeddings of shape {tuple(embedded.shape)} for {len(labels)} "
            f"labels; S-SAM takes a CLIP of width {TEXT_WIDTH}, such as '{CLIP}'."
        )
    return torch.nn.functional.normalize(embedded, dim=-1)
