"""A folder of files in, a folder of masks out."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLineEdit, QPushButton, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ptsam._widgets.jobs import Job, Jobs
    from napari_ptsam._widgets.results import Look
    from napari_ptsam._widgets.state import SpecialistEntry
    from napari_ptsam.planes import Planes
    from napari_ptsam.specialist import PlaneDone


class FolderRows(QWidget):
    """Two rows: the folder to segment, and the folder to write to.

    Attributes
    ----------
    changed
        Emitted when one of them changed.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.source_edit = QLineEdit()
        self.source_edit.setPlaceholderText("folder of images")
        self.source_edit.setToolTip("All images in it and in its sub-folders are segmented.")
        self.target_edit = QLineEdit()
        self.target_edit.setPlaceholderText("folder for the masks")
        self.target_edit.setToolTip("Gets a mask of the same name (.tif) for each image.")
        self.source_button = QPushButton("...")
        self.target_button = QPushButton("...")
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        for label, edit, button in (
            ("Images in", self.source_edit, self.source_button),
            ("Masks to", self.target_edit, self.target_button),
        ):
            button.setToolTip("Choose a folder.")
            button.setFixedWidth(32)
            row = QHBoxLayout()
            row.addWidget(edit)
            row.addWidget(button)
            form.addRow(label, row)
            edit.textChanged.connect(self.changed)
        self.source_button.clicked.connect(lambda: self._choose(self.source_edit))
        self.target_button.clicked.connect(lambda: self._choose(self.target_edit))

    @property
    def source(self) -> Path:
        """The folder to segment."""
        return Path(self.source_edit.text().strip()).expanduser()

    @property
    def target(self) -> Path:
        """The folder to write to; need not exist."""
        return Path(self.target_edit.text().strip()).expanduser()

    def reason(self) -> str:
        """What is missing; empty if nothing is."""
        if not self.source_edit.text().strip():
            return "Choose the folder of images first."
        if not self.source.is_dir():
            return f"There is no folder {self.source}."
        if not self.target_edit.text().strip():
            return "Choose the folder for the masks first."
        return ""

    def _choose(self, edit: QLineEdit) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a folder", edit.text())
        if folder:
            edit.setText(folder)


class FolderRun:
    """Segments a folder into files, as the command line does; can be stopped and gone on with.

    Parameters
    ----------
    entry
        The specialist.
    source, target
        Folders to read and to write.
    look
        Its threshold and smallest size are used; files get plain masks.
    channel
        The channel to use of several, None for the one that the specialist learned on.
    rotations
        In how many positions the specialist looks at each image.
    probability
        Whether to write probabilities too.

    Attributes
    ----------
    missing
        How many planes are not written yet, as far as is known.
    summary
        What came of it, in words.
    """

    def __init__(
        self,
        entry: SpecialistEntry,
        source: Path,
        target: Path,
        look: Look,
        channel: int | str | None,
        *,
        rotations: int,
        probability: bool,
    ) -> None:
        self.entry = entry
        self.source = source
        self.target = target
        self.threshold = look.threshold
        self.minimum_size = look.minimum_size
        self.channel = channel
        self.rotations = rotations
        self.probability = probability
        self.missing = 0
        self.summary = ""
        self._planes: Planes | None = None
        self._next = 0
        self._job: Job | None = None

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._job is not None

    def start(self, jobs: Jobs, on_over: Callable[[], None]) -> None:
        """Begin, or go on with the files that are not complete.

        Raises
        ------
        InputError
            If something else runs.
        """

        def over(*_: object) -> None:
            self._job = None
            self._take_stock()
            on_over()

        self._job = jobs.run(
            "Segmenting a folder",
            self._segmented,
            on_yield=lambda _: None,
            on_return=over,
            on_error=over,
            on_stopped=over,
            progress=lambda done: (done.done, done.total),
        )

    def stop(self) -> None:
        """End after the current plane; complete files stay."""
        if self._job is not None:
            self._job.stop()

    def _segmented(self) -> Generator[PlaneDone, None, None]:
        from napari_ptsam.planes import open_planes

        if self._planes is None:
            taught = self.entry.specialist.metadata.channels
            self._planes = open_planes(self.source, channel=self.channel, taught=taught)
        specialist = self.entry.specialist.applied(
            threshold=self.threshold, rotations=self.rotations
        )
        work = specialist.segment(
            self._planes,
            self.target,
            planes=range(self._next, len(self._planes)),
            minimum_size=self.minimum_size,
            probability=self.probability,
        )
        start = self._next
        with closing(work):
            for done in work:
                self._next = start + done.done
                yield done

    def _take_stock(self) -> None:
        """Find out what is complete: a file of which a plane is missing is not kept."""
        if self._planes is None:
            return
        total, complete = len(self._planes), 0
        for part in self._planes.parts:
            if complete + part.count > self._next:
                break
            complete += part.count
        self._next, self.missing = complete, total - complete
        self.summary = f"{complete} of {total} planes are in {self.target}."
