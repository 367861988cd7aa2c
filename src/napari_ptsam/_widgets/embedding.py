"""Encode a layer's planes ahead, so that every later segmentation of it is quick."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.layers import axes_of, data_shape, planes_of
from napari_ptsam._widgets.words import planes as in_planes
from napari_ptsam._widgets.words import size as in_bytes
from napari_ptsam.errors import InputError, PtsamError

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_ptsam._widgets.jobs import Job
    from napari_ptsam._widgets.state import PluginState, SpecialistEntry
    from napari_ptsam.ahead import PlaneEmbedded
    from napari_ptsam.cache import DiskCache
    from napari_ptsam.planes import Planes
    from napari_ptsam.specialist import Specialist

EMBEDDING = "Embedding"

_TIP = (
    "Computes once what the model sees in each plane and keeps it on disk, so that every later "
    "segmentation of this layer is quick."
)


class EmbedBox(QWidget):
    """A button that encodes a layer and keeps what comes of it, and what it costs.

    Parameters
    ----------
    state
        What the sections share.

    Attributes
    ----------
    changed
        Emitted when a run began or is over.
    job
        The run, None while there is none.
    """

    changed = Signal()

    def __init__(self, state: PluginState) -> None:
        super().__init__()
        self.job: Job | None = None
        self._state = state
        self._image: Image | None = None
        self._channel: int | str | None = None
        self._rotations = 1
        self._estimated: tuple[object, int] = (None, 0)
        self._told: tuple[object, str] = (None, "")
        self.button = QPushButton("Embed this stack now")
        self.button.setToolTip(_TIP)
        self.button.clicked.connect(self.embed)
        self.note = QLabel()
        self.note.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.note)

    def refresh(
        self, image: Image | None, channel: int | str | None, rotations: int, *, possible: bool
    ) -> None:
        """Show what it would cost for a layer, and why it is not possible if it is not.

        Parameters
        ----------
        image, channel
            What would be encoded.
        rotations
            In how many positions it will be looked at.
        possible
            False if there is a reason against any work, which is told elsewhere.
        """
        self._image, self._channel, self._rotations = image, channel, rotations
        reason = self._reason()
        self.button.setEnabled(possible and not reason)
        text = reason
        if not reason and self.job is None and image is not None:
            told, summary = self._told
            text = summary if told == self._subject() else self._cost(image)
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def embed(self) -> None:
        """Encode the layer in the background; goes on from where an earlier run was stopped."""
        entry, image = self._state.current, self._image
        if entry is None or image is None:
            return
        try:
            specialist = entry.specialist.applied(rotations=self._rotations)
            run = EmbedRun(specialist, planes_of(image, self._channel))
            subject = self._subject()

            def over(*_: object) -> None:
                self.job = None
                self._state.jobs.aside(run.summary, lambda text: self._tell(subject, text))
                self.changed.emit()

            self.job = self._state.jobs.run(
                EMBEDDING,
                run.steps,
                on_yield=lambda _: None,
                on_return=over,
                on_error=over,
                on_stopped=over,
                progress=lambda plane: (plane.done, plane.total),
            )
        except PtsamError as error:
            show(error)
        self.changed.emit()

    def stop(self) -> None:
        """End after the current plane; what is done stays."""
        if self.job is not None:
            self.job.stop()

    def _tell(self, subject: object, text: str) -> None:
        self._told = subject, text
        self.changed.emit()

    def _subject(self) -> tuple[SpecialistEntry | None, object, object, int]:
        """What is encoded: the same again makes nothing new."""
        image = self._image
        shape = None if image is None else (data_shape(image), axes_of(image), self._channel)
        return self._state.current, image, shape, self._rotations

    def _reason(self) -> str:
        """Why nothing can be kept with this specialist; empty if it can, or there is none."""
        entry = self._state.current
        if entry is None or entry.specialist.method.works_on_embeddings:
            return ""
        return (
            f"Nothing to embed: this specialist ({entry.specialist.method.title}) changes what "
            "the model sees."
        )

    def _cost(self, image: Image) -> str:
        from napari_ptsam.ahead import disk_space

        entry = self._state.current
        if entry is None:
            return ""
        specialist = entry.specialist
        subject = self._subject()
        if self._estimated[0] != subject:
            try:
                planes = planes_of(image, self._channel)
                nbytes = disk_space(
                    specialist.backbone, planes, specialist.scaling, self._rotations
                )
            except PtsamError as error:
                return str(error)
            self._estimated = subject, nbytes
        return (
            "You can do without: it makes later runs on this layer quick, and takes up to "
            f"{in_bytes(self._estimated[1])} of disk."
        )


class EmbedRun:
    """Encodes planes, and says at the end what that took.

    Parameters
    ----------
    specialist
        Says at which scale to look, and in how many positions.
    planes
        Read one at a time.
    """

    def __init__(self, specialist: Specialist, planes: Planes) -> None:
        self._specialist = specialist
        self._planes = planes
        self._disk: DiskCache | None = None
        self._before = 0
        self._last: PlaneEmbedded | None = None
        self._why = ""

    def steps(self) -> Generator[PlaneEmbedded, None, None]:
        """Encode plane by plane, as long as there is room; called in another thread.

        Raises
        ------
        InputError
            If the cache may take nothing.
        """
        from napari_ptsam.cache import DiskCache, size_text

        disk = self._disk = DiskCache(writes=True)
        if disk.limit() == 0:
            raise InputError(
                "Nothing can be kept: the limit of the cache of embeddings is 0. Set "
                "NAPARI_PTSAM_CACHE_LIMIT to a size such as '20 GB', or make room on the disk."
            )
        self._before = disk.in_use()
        with closing(self._specialist.embed(self._planes, cache=disk)) as work:
            for plane in work:
                self._last = plane
                yield plane
                if not disk.keeps():
                    # What is encoded from here on would be lost.
                    self._why = f"no more room in the cache ({size_text(disk.limit())})"
                    return
        if self._last is not None and self._last.done < self._last.total:
            self._why = "here the model is quicker than the disk, so segment without"

    def summary(self) -> str:
        """What was done and what it takes; looks at the disk, so in another thread, too."""
        from napari_ptsam.cache import size_text

        last, disk = self._last, self._disk
        if last is None or disk is None:
            return "Nothing was embedded."
        now = disk.in_use()
        done = f"{last.done} of {in_planes(last.total)} embedded"
        done = f"{done}: {self._why}" if self._why else done
        more = size_text(max(now - self._before, 0))
        return f"{done}. {more} of disk used, {size_text(now)} with all that was kept before."
