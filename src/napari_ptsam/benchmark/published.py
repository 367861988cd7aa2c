"""Published data sets: where they are, whose they are, and how to get them into one layout.

Addresses, file patterns and checksums are those that the public loaders of torch-em use. For the
files of EMPS and LIVECell no checksum is known; what was downloaded is recorded instead.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from napari_ptsam.benchmark.coco import draw_masks
from napari_ptsam.benchmark.record import write_json
from napari_ptsam.errors import InputError
from napari_ptsam.fetching import Checksum, Patience, RemoteFile, fetch_file, file_digest

SOURCE = "source.json"
"""Written last into a data set's folder: where it came from, and that it is complete."""

Report = Callable[[str, int, int | None], None]
"""Called during a download with the file's name, bytes done and bytes in all."""


@dataclass(frozen=True)
class PublishedSet:
    """A data set that anyone may download.

    Attributes
    ----------
    name
        What configuration files call it.
    title, target
        For tables, and what the masks mark.
    files
        To download.
    images, masks
        Patterns of paths inside the archives. Their groups, joined by ``_``, are the name of
        an image, so that images and masks pair up.
    coco
        Whether masks are drawn from the polygons of COCO files instead.
    licence, citation
        Of the data.
    count
        How many images its publication tells of, for estimates; None where that is not known.
    """

    name: str
    title: str
    target: str
    files: tuple[RemoteFile, ...]
    images: str
    masks: str
    licence: str
    citation: str
    coco: bool = False
    count: int | None = None


_STARDIST = "https://github.com/stardist/stardist/releases/download/0.1.0"
_LIVECELL = "https://livecell-dataset.s3.eu-central-1.amazonaws.com/LIVECell_dataset_2021"

_SETS = (
    PublishedSet(
        name="emps",
        title="EMParticles",
        target="particle",
        # An archive that the host makes on demand has no checksum that lasts.
        files=(
            RemoteFile("emps.zip", "https://github.com/by256/emps/archive/refs/heads/main.zip"),
        ),
        images=r"[^/]+/images/([^/]+)\.png",
        masks=r"[^/]+/segmaps/([^/]+)\.png",
        licence="MIT (repository by256/emps); the images come from published papers",
        citation="Yildirim, Cole: Bayesian Particle Instance Segmentation for Electron Microscopy "
        "Image Quantification. J. Chem. Inf. Model. 61 (2021), doi:10.1021/acs.jcim.0c01455",
        count=465,
    ),
    PublishedSet(
        name="livecell",
        title="LIVECell",
        target="cell",
        files=(
            RemoteFile("images.zip", f"{_LIVECELL}/images.zip"),
            *(
                RemoteFile(
                    f"livecell_coco_{part}.json",
                    f"{_LIVECELL}/annotations/LIVECell/livecell_coco_{part}.json",
                )
                for part in ("train", "val", "test")
            ),
        ),
        images=r"(?:.*/)?livecell_(?:train_val|test)_images/(?:[^/]+/)?([^/]+)\.tif",
        masks="",
        coco=True,
        licence="CC BY-NC 4.0",
        citation="Edlund et al.: LIVECell, a large-scale dataset for label-free live cell "
        "segmentation. Nature Methods 18 (2021), doi:10.1038/s41592-021-01249-6",
        count=5239,
    ),
    PublishedSet(
        name="organoid-basic",
        title="OrganoidBasic",
        target="organoid",
        files=(
            RemoteFile(
                "OrganoidBasic_v20211206.zip",
                "https://zenodo.org/records/10278229/files/OrganoidBasic_v20211206.zip",
                Checksum(
                    "sha256", "d067124d734108e46e18f65daaf17c89cb0a40bdacc6f6031815a6839e472798"
                ),
            ),
        ),
        images=r"(?:.*/)?(train|val|eval)/([^/]+)_img\.jpg",
        masks=r"(?:.*/)?(train|val|eval)/([^/]+)_masks_organoid\.png",
        licence="as stated at zenodo.org/records/10278229",
        citation="Lefferts et al.: OrgaSegment, deep-learning based organoid segmentation to "
        "quantify CFTR dependent fluid secretion. Communications Biology 7 (2024), "
        "doi:10.1038/s42003-024-05966-4",
    ),
    PublishedSet(
        name="kvasir-seg",
        title="Kvasir-SEG",
        target="polyp",
        files=(
            RemoteFile(
                "kvasir-seg.zip",
                "https://datasets.simula.no/downloads/kvasir-seg.zip",
                Checksum(
                    "sha256", "03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7"
                ),
            ),
        ),
        images=r"(?:.*/)?images/([^/]+)\.jpg",
        masks=r"(?:.*/)?masks/([^/]+)\.jpg",
        licence="research and education only (datasets.simula.no/kvasir-seg)",
        citation="Jha et al.: Kvasir-SEG, a segmented polyp dataset. MultiMedia Modeling 2020, "
        "doi:10.1007/978-3-030-37734-2_37",
        count=1000,
    ),
    PublishedSet(
        name="dsb2018",
        title="DSB 2018",
        target="nucleus",
        # The fluorescence images, as StarDist publishes them.
        files=(
            RemoteFile(
                "dsb2018.zip",
                f"{_STARDIST}/dsb2018.zip",
                Checksum(
                    "sha256", "e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f"
                ),
            ),
        ),
        images=r"(?:.*/)?(train|test)/images/([^/]+)\.tif",
        masks=r"(?:.*/)?(train|test)/masks/([^/]+)\.tif",
        licence="CC0 (BBBC038)",
        citation="Caicedo et al.: Nucleus segmentation across imaging experiments, the 2018 Data "
        "Science Bowl. Nature Methods 16 (2019), doi:10.1038/s41592-019-0612-7",
        count=497,
    ),
)


def find_published(name: str) -> PublishedSet:
    """A data set by name.

    Raises
    ------
    InputError
        If there is none.
    """
    known = {s.name: s for s in _SETS}
    if name not in known:
        raise InputError(
            f"There is no published data set '{name}'; known are {', '.join(known)}. Images of "
            "your own are given by 'folder'."
        )
    return known[name]


def fetch_published(
    data: PublishedSet,
    home: Path,
    report: Report | None = None,
    patience: Patience | None = None,
) -> Path:
    """Have a data set as ``images`` and ``masks`` in a folder; download it if it is not there.

    Parameters
    ----------
    data
        Which.
    home
        Its folder. Downloads that broke off go on from there, and are removed once unpacked.
    report
        Called after each piece of a download.
    patience
        Timeouts and attempts.

    Raises
    ------
    DownloadError
        If a file cannot be had, or is another one than it must be.
    InputError
        If an archive holds something else than is known of it.
    """
    if (home / SOURCE).is_file():
        return home
    fetched = []
    for file in data.files:
        target = home / "downloads" / file.name

        def progress(done: int, total: int | None, name: str = file.name) -> None:
            if report is not None:
                report(name, done, total)

        fetched.append(fetch_file(file, target, progress, patience))
    origin = _origin(data, fetched)
    for part in ("images", "masks"):
        shutil.rmtree(home / part, ignore_errors=True)
    _unpack(data, fetched, home)
    write_json(home / SOURCE, origin)
    shutil.rmtree(home / "downloads")
    return home


def _origin(data: PublishedSet, fetched: list[Path]) -> dict[str, Any]:
    return {
        "name": data.name,
        "files": [
            {"url": file.url, "sha256": file_digest(path, "sha256")}
            for file, path in zip(data.files, fetched, strict=True)
        ],
        "licence": data.licence,
        "citation": data.citation,
    }


def _unpack(data: PublishedSet, fetched: list[Path], home: Path) -> None:
    """Write images and masks under the same names, and check that they pair up."""
    archives = [path for path in fetched if path.suffix == ".zip"]
    images = {key for path in archives for key in _extract(path, data.images, home / "images")}
    if data.coco:
        tables = [path for path in fetched if path.suffix == ".json"]
        masks = draw_masks(tables, images, home / "masks")
    else:
        masks = {key for path in archives for key in _extract(path, data.masks, home / "masks")}
    lonely = images ^ masks
    if not images or lonely:
        raise InputError(
            f"The archive of '{data.name}' is not as it was known: {len(images)} images, "
            f"{len(masks)} masks, without a partner {', '.join(sorted(lonely)[:5]) or 'none'}. "
            f"It is in {home / 'downloads'}; put images and masks of the same names into "
            "folders of your own, and give these as 'images' and 'masks'."
        )


def _extract(archive: Path, pattern: str, folder: Path) -> Iterator[str]:
    """Unpack the members that fit a pattern; yields their new names without suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = re.compile(pattern)
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                found = wanted.fullmatch(member.filename)
                if found is None or "__MACOSX" in member.filename:
                    continue
                key = "_".join(found.groups())
                suffix = PurePosixPath(member.filename).suffix.lower()
                with (
                    opened.open(member) as packed,
                    (folder / f"{key}{suffix}").open("wb") as output,
                ):
                    shutil.copyfileobj(packed, output)
                yield key
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive} is no zip file: {error}. Remove it and try again.") from error
