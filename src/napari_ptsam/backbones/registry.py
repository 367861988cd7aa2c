"""The frozen SAMs that are known by name: where they are and how to check them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from napari_ptsam.errors import BackboneError
from napari_ptsam.fetching import Checksum

META = "https://dl.fbaipublicfiles.com/segment_anything"
BIOIMAGE_IO = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io"

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class BackboneSpec:
    """One frozen SAM of the registry.

    Attributes
    ----------
    name
        What users type and prompt files store.
    title
        One line for a list.
    description
        What it is good for, in a microscopist's words.
    architecture
        ``vit_b``, ``vit_l``, ``vit_h`` or ``embedded``.
    licence
        Of the weights.
    file_name
        In the cache folder; for the embedded SAM, beside this module.
    url
        Where the weights are; None where they ship inside this package.
    checksum
        Of the file; None where it ships inside this package.
    size_bytes
        Of the file, where it is known.
    """

    name: str
    title: str
    description: str
    architecture: str
    licence: str
    file_name: str
    url: str | None = None
    checksum: Checksum | None = None
    size_bytes: int | None = None

    @property
    def packaged_file(self) -> Path | None:
        """The weights inside this package, or None when they are to be downloaded."""
        return Path(__file__).parent / "weights" / self.file_name if self.url is None else None


_SAM_LICENCE = "Apache-2.0"
_MICRO_SAM_LICENCE = "CC-BY-4.0"

_SPECS = (
    BackboneSpec(
        name="embedded",
        title="Small SAM that comes with this package",
        description=(
            "Works offline and on a laptop, in seconds. Trained by this project on drawn "
            "microscopy alone. Start here; larger ones segment difficult images better."
        ),
        architecture="embedded",
        licence="BSD-3-Clause",
        file_name="embedded-v6.safetensors",
    ),
    BackboneSpec(
        name="vit_b",
        title="SAM base, for any kind of image",
        description=(
            "Meta AI's Segment Anything, trained on 11 million photographs. The backbone of the "
            "PTSAM paper. A graphics card helps; a laptop needs some seconds an image."
        ),
        architecture="vit_b",
        licence=_SAM_LICENCE,
        file_name="sam_vit_b_01ec64.pth",
        url=f"{META}/sam_vit_b_01ec64.pth",
        checksum=Checksum(
            "sha256", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
        ),
        size_bytes=375_042_383,
    ),
    BackboneSpec(
        name="vit_l",
        title="SAM large, for any kind of image",
        description="As vit_b, three times as large and slower. Use it with a graphics card.",
        architecture="vit_l",
        licence=_SAM_LICENCE,
        file_name="sam_vit_l_0b3195.pth",
        url=f"{META}/sam_vit_l_0b3195.pth",
        checksum=Checksum("md5", "0b3195507c641ddb6910d2bb5adee89c"),
    ),
    BackboneSpec(
        name="vit_h",
        title="SAM huge, for any kind of image",
        description="As vit_b, seven times as large. Needs a graphics card with much memory.",
        architecture="vit_h",
        licence=_SAM_LICENCE,
        file_name="sam_vit_h_4b8939.pth",
        url=f"{META}/sam_vit_h_4b8939.pth",
        checksum=Checksum("md5", "4b8939a88964f0f4ff5f5b2642c598a6"),
    ),
    BackboneSpec(
        name="vit_b_lm",
        title="micro-sam base, for cells and nuclei in light microscopy",
        description=(
            "SAM base trained further by the micro-sam project on fluorescence, phase contrast "
            "and brightfield images."
        ),
        architecture="vit_b",
        licence=_MICRO_SAM_LICENCE,
        file_name="micro_sam_vit_b_lm_1.2.pt",
        url=f"{BIOIMAGE_IO}/diplomatic-bug/1.2/files/vit_b.pt",
        checksum=Checksum("xxh128", "fe9252a29f3f4ea53c15a06de471e186"),
    ),
    BackboneSpec(
        name="vit_b_em_organelles",
        title="micro-sam base, for organelles in electron microscopy",
        description=(
            "SAM base trained further by the micro-sam project on mitochondria and nuclei in "
            "electron micrographs."
        ),
        architecture="vit_b",
        licence=_MICRO_SAM_LICENCE,
        file_name="micro_sam_vit_b_em_organelles_1.2.pt",
        url=f"{BIOIMAGE_IO}/noisy-ox/1.2/files/vit_b.pt",
        checksum=Checksum("xxh128", "f3bf2ed83d691456bae2c3f9a05fb438"),
    ),
    BackboneSpec(
        name="vit_l_lm",
        title="micro-sam large, for cells and nuclei in light microscopy",
        description="As vit_b_lm, three times as large and slower. Use it with a graphics card.",
        architecture="vit_l",
        licence=_MICRO_SAM_LICENCE,
        file_name="micro_sam_vit_l_lm_1.2.pt",
        url=f"{BIOIMAGE_IO}/idealistic-rat/1.2/files/vit_l.pt",
        checksum=Checksum("xxh128", "017f20677997d628426dec80a8018f9d"),
    ),
)


def list_backbones() -> tuple[BackboneSpec, ...]:
    """All named backbones, the one that needs no download first."""
    return _SPECS


def find(name_or_path: str | Path) -> BackboneSpec | Path:
    """Look up a backbone by registry name, or take a checkpoint file's path.

    A registry name wins over a file of the same name in the current folder;
    write ``./vit_b`` for the file.

    Returns
    -------
    BackboneSpec or Path
        The registry's entry, or the path of a local checkpoint (which need
        not exist: loading it says what is wrong).

    Raises
    ------
    BackboneError
        If it is neither; the text offers the nearest names.
    """
    text = str(name_or_path)
    names = {spec.name: spec for spec in _SPECS}
    if isinstance(name_or_path, str) and text in names:
        return names[text]
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, Path) or _looks_like_path(text) or path.is_file():
        return path
    near = get_close_matches(text.lower().replace("-", "_"), names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise BackboneError(
        f"There is no backbone called '{text}'.{hint} Known names: {', '.join(names)}. "
        "A checkpoint file is given by its path (.pth, .pt or .safetensors)."
    )


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.lower().endswith(CHECKPOINT_SUFFIXES)
