"""The third step: let the specialist segment, look at the result, adjust and measure it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_ptsam._widgets.adjust import AdjustBox
from napari_ptsam._widgets.commandbox import CommandBox
from napari_ptsam._widgets.controls import words
from napari_ptsam._widgets.embedding import EmbedBox
from napari_ptsam._widgets.folders import FolderRun
from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.layerresult import LayerResult, from_plane
from napari_ptsam._widgets.layers import plane_index
from napari_ptsam._widgets.segmenting import Segmenter
from napari_ptsam._widgets.segmentinput import FOLDER, LAYER, SegmentInput
from napari_ptsam.errors import InputError, PtsamError
from napari_ptsam.promptfile import ROTATIONS

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState


class SegmentSection(QWidget):
    """Segment a plane, layers or a folder; then threshold, objects, table, command line.

    Parameters
    ----------
    state
        What the sections share.
    """

    def __init__(self, state: PluginState) -> None:
        super().__init__()
        self._state = state
        self._folder_run: FolderRun | None = None
        self.segmenter = Segmenter(state)
        self._make_controls()
        self._lay_out()
        self._connect()
        self._on_specialist()

    def _make_controls(self) -> None:
        self.using = words()
        self.input = SegmentInput(self._state)
        self.what, self.image = self.input.what, self.input.image
        self.channels, self.channel = self.input.channels, self.input.channel
        self.folders = self.input.folders
        self.embed = EmbedBox(self._state)
        self.probability = QCheckBox("Also give the probability")
        self.probability.setToolTip(
            "A second result: how sure the specialist is of each pixel, from 0 to 1."
        )
        self.careful = QCheckBox("Look from four sides")
        self.careful.setToolTip(
            "Look at each plane in four positions, a quarter turn apart, and take the mean. Takes "
            "four times as long, and is often a little more accurate on fine structures."
        )
        self.segment_button = QPushButton("Segment")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("End after the current plane. What is done stays.")
        self.resume_button = QPushButton("Resume")
        self.resume_button.setToolTip("Go on with the planes that are missing.")
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.note = words()
        self.adjust = AdjustBox(self._state, self.segmenter)
        self.command = CommandBox(self._state, self._made)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        for button in (self.segment_button, self.stop_button, self.resume_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.using)
        layout.addWidget(self.input)
        layout.addWidget(self.embed)
        layout.addWidget(self.careful)
        layout.addWidget(self.probability)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.note)
        layout.addWidget(self.adjust)
        layout.addWidget(self.command)

    def _connect(self) -> None:
        state, viewer = self._state, self._state.viewer
        self.input.changed.connect(self.refresh)
        self.careful.toggled.connect(self.refresh)
        self.embed.changed.connect(self.refresh)
        self.segment_button.clicked.connect(self.segment)
        self.stop_button.clicked.connect(self.stop)
        self.resume_button.clicked.connect(self.resume)
        self._signals: list[tuple[Any, Any]] = [
            (state.current_changed, self._on_specialist),
            (state.specialists_changed, self.refresh),
            (self.segmenter.changed, self.refresh),
            (viewer.dims.events.ndisplay, self.refresh),
        ]
        for signal, slot in self._signals:
            signal.connect(slot)
        state.jobs.started.connect(self._on_started)
        state.jobs.finished.connect(self.refresh)
        state.jobs.progressed.connect(self._on_progress)
        state.closing.connect(self._let_go)

    def _let_go(self) -> None:
        """Listen to the viewer no longer, and keep no results."""
        for signal, slot in self._signals:
            signal.disconnect(slot)
        self.input.release()
        self.segmenter.close()

    # What is to be done

    def segment(self) -> None:
        """Segment what is chosen."""
        try:
            if self.input.kind == FOLDER:
                self._segment_folder()
            else:
                self._segment_layers()
        except PtsamError as error:
            show(error)
        self.refresh()

    def _segment_layers(self) -> None:
        look = self.adjust.look()
        targets = []
        for image, channel, indices in self.input.layers():
            target = self.segmenter.result_for(
                image,
                channel,
                look=look,
                rotations=self._rotations(),
                probability=self.probability.isChecked(),
            )
            wanted = range(len(target.planes)) if indices is None else indices
            shown = plane_index(self._state.viewer, target.labels)
            targets.append((target, from_plane(wanted, shown)))
        if not targets:
            raise InputError(self.reason())
        self.segmenter.run(targets)
        self._folder_run = None
        self.adjust.show_target(targets[-1][0])

    def _segment_folder(self) -> None:
        entry = self._state.current
        if entry is None:
            return
        self._folder_run = FolderRun(
            entry,
            self.folders.source,
            self.folders.target,
            self.adjust.look(),
            self.input.folder_channel,
            rotations=self._rotations(),
            probability=self.probability.isChecked(),
        )
        self._run_folder()

    def _run_folder(self) -> None:
        if self._folder_run is not None:
            self._folder_run.start(self._state.jobs, self.refresh)

    def stop(self) -> None:
        """End the run after its current plane."""
        self.segmenter.stop()
        self.embed.stop()
        if self._folder_run is not None:
            self._folder_run.stop()
        self.refresh()

    def resume(self) -> None:
        """Segment the planes that a stopped run did not come to."""
        try:
            if self._folder_run is not None:
                self._run_folder()
            else:
                targets = [(t, t.missing()) for t in self._unfinished()]
                shown = [plane_index(self._state.viewer, t.labels) for t, _ in targets]
                self.segmenter.run(
                    [(t, from_plane(m, s)) for (t, m), s in zip(targets, shown, strict=True)]
                )
        except PtsamError as error:
            show(error)
        self.refresh()

    def _unfinished(self) -> list[LayerResult]:
        """Results of the last run with planes missing, all of one specialist."""
        found = [t for t in self.segmenter.results if t.missing() and t.intact]
        return [t for t in found if t.entry is found[-1].entry]

    def _made(self) -> FolderRun | LayerResult | None:
        """What the command line is asked for."""
        return self._folder_run if self._folder_run is not None else self.adjust.target

    def _rotations(self) -> int:
        """In how many positions to look; a file may say two, which no control here does."""
        entry = self._state.current
        own = 1 if entry is None else entry.specialist.rotations
        if not self.careful.isChecked():
            return 1
        return own if own > 1 else max(ROTATIONS)

    # What is shown

    def _on_specialist(self, *_: object) -> None:
        entry = self._state.current
        if entry is not None:
            self.adjust.set_default_threshold(entry.specialist.threshold)
            self.careful.setChecked(entry.specialist.rotations > 1)
        self.refresh()

    def _on_started(self, *_: object) -> None:
        # Else it shows the end of the last run until a plane is done.
        self.bar.reset()
        self.refresh()

    def _on_progress(self, done: int, total: int) -> None:
        if self._busy():
            self.bar.setMaximum(total)
            self.bar.setValue(done)
            self.bar.setFormat(f"{done} of {total} planes")

    def _busy(self) -> bool:
        running = self.segmenter.running is not None or self.embed.job is not None
        return running or (self._folder_run is not None and self._folder_run.running)

    def reason(self) -> str:
        """Why nothing can be segmented now; empty if it can."""
        if self._state.current is None:
            return "Train a specialist first, or load one below."
        if self._state.jobs.running is not None:
            return f"'{self._state.jobs.running}' is running. Wait until it is done, or stop it."
        return self.input.reason()

    def refresh(self, *_: object) -> None:
        """Show what can be done now, and what not and why."""
        entry, busy = self._state.current, self._busy()
        self.using.setText("" if entry is None else f"With the specialist <b>{entry.name}</b>")
        self.using.setVisible(entry is not None)
        self.input.refresh()
        reason = self.reason()
        self.segment_button.setEnabled(not reason)
        self.stop_button.setVisible(busy)
        self.bar.setVisible(busy)
        self._show_resume(busy)
        self.embed.setVisible(self.input.kind == LAYER)
        self.embed.refresh(
            self.input.layer, self.input.layer_channel, self._rotations(), possible=not reason
        )
        self._say("" if busy else reason)
        self.adjust.refresh()
        self.command.setEnabled(self._made() is not None)

    def _show_resume(self, busy: bool) -> None:
        if self._folder_run is not None:
            missing = self._folder_run.missing
        else:
            missing = sum(len(t.missing()) for t in self._unfinished())
        self.resume_button.setVisible(missing > 0 and not busy)
        self.resume_button.setEnabled(self._state.jobs.running is None)
        self.resume_button.setText(f"Resume ({missing} left)")

    def _say(self, text: str) -> None:
        if not text and self._folder_run is not None and not self._busy():
            text = self._folder_run.summary
        self.note.setText(text)
        self.note.setVisible(bool(text))
