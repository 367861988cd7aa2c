"""The fourth step: one list of specialists, their files, and how they compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ptsam._widgets.shelf import KEPT
from napari_ptsam.promptfile import PromptFile, read_prompt_file, write_prompt_file

if TYPE_CHECKING:
    from napari_ptsam._widgets.specialists import SpecialistsSection
    from napari_ptsam._widgets.state import PluginState
    from napari_ptsam.backbones import Backbone
    from napari_ptsam.specialist import Specialist

RECORD = {
    "images": 16,
    "held_out": ["0003", "0007"],
    "held_out_dice": 0.912,
    "steps": 400,
    "seconds": 61.0,
    "seed": 0,
    "date": "2026-11-21",
    "packages": {"torch": "2.13.0"},
    "command": "napari-ptsam train <b>",
    "plan": {"preset": "quick"},
    "data_hash": "0123456789abcdef0123",
}


@pytest.fixture
def make(tiny_backbone_loaded: Backbone) -> Any:
    from napari_ptsam.methods import build_method
    from napari_ptsam.normalize import Normalization
    from napari_ptsam.promptfile import PromptMetadata
    from napari_ptsam.specialist import Specialist

    def made(seed: int = 0, **values: Any) -> Specialist:
        method = build_method("ptsam", {}, tiny_backbone_loaded, seed)
        metadata = PromptMetadata(
            backbone_name=tiny_backbone_loaded.name,
            backbone_identity=tiny_backbone_loaded.identity,
            backbone_architecture=tiny_backbone_loaded.architecture,
            method=method.name,
            method_settings=method.settings_dict,
            normalization=Normalization().to_dict(),
            working_scale={"mode": "fit"},
            class_name="disc",
            training=RECORD,
        )
        return Specialist(method, tiny_backbone_loaded, replace(metadata, **values))

    return made


@pytest.fixture
def section(state: PluginState, qtbot: Any) -> SpecialistsSection:
    from napari_ptsam._widgets.specialists import SpecialistsSection

    made = SpecialistsSection(state)
    qtbot.addWidget(made)
    return made


def row(section: SpecialistsSection, number: int) -> list[str]:
    return [section.table.item(number, c).text() for c in range(section.table.columnCount())]


def idle(section: SpecialistsSection, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: section._state.jobs.running is None, timeout=60_000)


def test_the_list_shows_what_each_specialist_is(
    section: SpecialistsSection, make: Any, tmp_path: Path
) -> None:
    assert "No specialist yet" in section.note.text()
    assert not section.export_button.isEnabled()
    section._state.add_specialist(make(), "mine")
    section._state.add_specialist(make(1, training={}), "theirs", tmp_path / "t.ptsam.safetensors")
    assert row(section, 0) == ["mine", "0.91", "disc", "tiny", "2026-11-21", "no"]
    assert row(section, 1) == ["theirs", "", "disc", "tiny", "", "yes"]
    assert [entry.name for entry in section.selected()] == ["theirs"]
    assert section.note.text() == ""


def test_a_selected_specialist_is_the_one_in_use(section: SpecialistsSection, make: Any) -> None:
    first = section._state.add_specialist(make(), "a")
    second = section._state.add_specialist(make(1), "b")
    section.table.selectRow(0)
    assert section._state.current is first
    section._state.current = second
    assert section.selected() == [second]
    assert section.table.item(1, 0).font().bold()
    assert not section.table.item(0, 0).font().bold()


def test_a_specialist_is_renamed_in_place(section: SpecialistsSection, make: Any) -> None:
    entry = section._state.add_specialist(make(), "a")
    told: list[int] = []
    section._state.specialists_changed.connect(lambda: told.append(1))
    section.table.item(0, 0).setText("  my   nuclei ")
    assert entry.name == row(section, 0)[0] == "my nuclei"
    assert told
    section.table.item(0, 0).setText("   ")
    assert entry.name == row(section, 0)[0] == "my nuclei"


def test_the_record_is_told_in_words(section: SpecialistsSection, make: Any) -> None:
    section._state.add_specialist(make(), "a")
    text = section.details.toPlainText()
    for wanted in ("Dice of 0.91", "16", "0003, 0007", "2,048", "torch 2.13.0", "train <b>"):
        assert wanted in text
    section._state.add_specialist(make(1, training={}), "b")
    assert "nobody knows how good" in section.details.toPlainText()
    section._state.add_specialist(make(2, training={**RECORD, "steps": 0}), "c")
    assert "best as it began" in section.details.toPlainText()


def test_an_exported_specialist_loads_again_on_the_backbone_in_memory(
    section: SpecialistsSection, make: Any, discs: Any, tmp_path: Path, qtbot: Any
) -> None:
    entry = section._state.add_specialist(make(), "a")
    section.export(tmp_path / "sent")
    qtbot.waitUntil(lambda: entry.saved)
    assert entry.path == tmp_path / "sent.ptsam.safetensors"
    assert row(section, 0)[-1] == "yes"
    # "tiny" is known by no name, but it is in memory.
    section.load([entry.path])
    idle(section, qtbot)
    qtbot.waitUntil(lambda: len(section._state.specialists) == 2)
    again = section._state.current
    assert again is not None
    assert (again.name, again.saved) == ("sent", True)
    assert again.specialist.backbone is entry.specialist.backbone
    np.testing.assert_array_equal(
        again.specialist.predict(discs[0]).probability,
        entry.specialist.predict(discs[0]).probability,
    )


def test_a_backbone_known_by_no_name_is_asked_for(
    section: SpecialistsSection,
    make: Any,
    tmp_path: Path,
    tiny_backbone: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qtpy.QtWidgets import QFileDialog

    path = make().save(tmp_path / "sent")
    section.load([path])
    idle(section, qtbot)
    qtbot.waitUntil(lambda: section.locate_button.isVisibleTo(section))
    assert "learned on the backbone 'tiny'" in section.note.text()
    answer = (str(tiny_backbone), "")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: answer)
    section.locate_button.click()
    idle(section, qtbot)
    qtbot.waitUntil(lambda: len(section._state.specialists) == 1)
    assert not section.locate_button.isVisibleTo(section)
    assert section.note.text() == ""


def damaged(path: Path, file: PromptFile) -> Path:
    path.write_bytes(b"\x10" + write_prompt_file(path, file).read_bytes()[1:])
    return path


def newer(path: Path, file: PromptFile) -> Path:
    write_prompt_file(path, file)
    old, new = b'"format_version":"1"', b'"format_version":"9"'
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def of_another_backbone(path: Path, file: PromptFile) -> Path:
    metadata = replace(file.metadata, backbone_identity="f" * 64)
    return write_prompt_file(path, PromptFile(file.tensors, metadata))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damaged, "not a napari-ptsam prompt file"),
        (newer, "update napari-ptsam"),
        (of_another_backbone, "train again on 'tiny'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_words(
    section: SpecialistsSection,
    make: Any,
    tmp_path: Path,
    tiny_backbone: Path,
    qtbot: Any,
    spoil: Any,
    words: str,
) -> None:
    file = read_prompt_file(make().save(tmp_path / "good"))
    path = spoil(tmp_path / "bad.ptsam.safetensors", file)
    section.load([path], tiny_backbone)
    idle(section, qtbot)
    qtbot.waitUntil(lambda: words in section.note.text())
    assert section._state.specialists == []
    assert section.load_button.isEnabled()


def test_a_disk_that_takes_no_file_loses_nothing(
    section: SpecialistsSection, make: Any, tmp_path: Path, qtbot: Any, monkeypatch: Any
) -> None:
    entry = section._state.add_specialist(make(), "a")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    section.export(tmp_path / "x")
    qtbot.waitUntil(lambda: "No space left" in section.note.text())
    monkeypatch.undo()
    section.export(tmp_path / "missing folder" / "x")
    qtbot.waitUntil(lambda: "cannot be written" in section.note.text())
    assert (entry.saved, entry.path) == (False, None)
    assert list(tmp_path.glob("*x*")) == []
    section.export(tmp_path / "x")
    qtbot.waitUntil(lambda: entry.saved)


def test_an_unsaved_specialist_is_removed_only_after_a_question(
    section: SpecialistsSection, make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from qtpy.QtWidgets import QMessageBox

    section._state.add_specialist(make(), "kept", tmp_path / "kept.ptsam.safetensors")
    section._state.add_specialist(make(1), "unsaved")
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    asked: list[str] = []

    def ask(_: Any, title: str, text: str) -> Any:
        asked.append(text)
        return answers.pop(0)

    monkeypatch.setattr(QMessageBox, "question", ask)
    section.remove_button.click()
    assert len(section._state.specialists) == 2
    section.remove_button.click()
    assert [e.name for e in section._state.specialists] == ["kept"]
    assert all("unsaved" in text for text in asked)
    section.remove_button.click()
    assert section._state.specialists == []
    assert len(asked) == 2
    assert section._state.current is None


def test_specialists_are_compared_side_by_side_on_the_plane_in_view(
    section: SpecialistsSection, make: Any, discs: Any, qtbot: Any
) -> None:
    viewer = section._state.viewer
    image = viewer.add_image(discs, name="cells", scale=(1, 0.5, 0.5), translate=(0, 3, 4))
    viewer.dims.set_point(0, 4)
    made = [make(0), make(1)]
    for specialist, name in zip(made, "ab", strict=True):
        specialist.threshold = float(np.median(specialist.predict(discs[4]).probability))
        section._state.add_specialist(specialist, name)
    section.table.selectAll()
    assert len(section.selected()) == 2
    section.compare()
    idle(section, qtbot)
    qtbot.waitUntil(lambda: "Dice" in section.note.text())
    for place, (name, specialist) in enumerate(zip("ab", made, strict=True), start=1):
        labels = viewer.layers[f"plane 4: {name}"]
        np.testing.assert_array_equal(labels.data > 0, specialist.predict(discs[4]).mask)
        np.testing.assert_array_equal(viewer.layers[f"plane 4: {name} (image)"].data, discs[4])
        assert labels.translate[0] == image.translate[1]
        assert labels.translate[1] >= image.translate[2] + place * 64 * 0.5
    count = len(viewer.layers)
    section.compare()
    idle(section, qtbot)
    qtbot.waitUntil(lambda: len(viewer.layers) == count)


def test_comparing_without_a_plane_says_what_is_missing(
    section: SpecialistsSection, make: Any
) -> None:
    section._state.add_specialist(make(), "a")
    section.compare()
    assert "Show a plane of an image first" in section.note.text()


# Those of another time.


def put_aside(state: PluginState, specialist: Specialist) -> Path:
    path = state.shelf.put(specialist)
    assert path is not None
    return path


def test_a_specialist_of_another_time_is_offered_and_brought_back_unexported(
    section: SpecialistsSection, state: PluginState, make: Any, qtbot: Any
) -> None:
    state.add_specialist(make(), "its backbone")
    older, newer = put_aside(state, make(1)), put_aside(state, make(2, class_name="nucleus"))
    section.show()
    earlier = section.earlier
    qtbot.waitUntil(lambda: earlier.choice.count() == 2, timeout=10_000)
    assert not earlier.isHidden()
    assert earlier.choice.currentText().startswith("nucleus, ")
    assert earlier.choice.currentText().endswith(", Dice 0.91")
    earlier.restore.click()
    qtbot.waitUntil(lambda: len(state.specialists) == 2, timeout=30_000)
    idle(section, qtbot)
    entry = state.current
    assert entry is not None
    assert (entry.name, entry.kept, entry.path) == ("nucleus 1", newer, None)
    assert entry.specialist.path is None
    assert row(section, 1)[-1] == "for now"
    assert "kept for now: export" in section.details.toPlainText()
    # What is on the list is not offered, and comes back when it is taken off.
    assert [earlier.choice.itemData(i) for i in range(earlier.choice.count())] == [older]
    section.remove([entry])
    assert earlier.choice.count() == 2
    assert newer.is_file()


def test_what_is_exported_is_not_kept_for_now_any_more(
    section: SpecialistsSection, state: PluginState, make: Any, tmp_path: Path, qtbot: Any
) -> None:
    specialist = make()
    kept = put_aside(state, specialist)
    entry = state.add_trained(specialist, kept)
    section.show()
    assert row(section, 0)[-1] == "for now"
    section.export(tmp_path / "sent")
    qtbot.waitUntil(lambda: entry.saved, timeout=10_000)
    assert (entry.kept, row(section, 0)[-1]) == (None, "yes")
    assert not kept.exists()
    assert section.earlier.isHidden()


def test_damaged_files_of_another_time_are_passed_over(
    section: SpecialistsSection, state: PluginState, make: Any, qtbot: Any
) -> None:
    good = put_aside(state, make())
    for name, content in (("1", b""), ("9", b"\xff" * 100), ("9b", good.read_bytes()[:200])):
        (state.shelf.folder / f"{name}.ptsam.safetensors").write_bytes(content)
    (state.shelf.folder / "8.ptsam.safetensors").mkdir()
    section.show()
    qtbot.waitUntil(lambda: section.earlier.choice.count() == 1, timeout=10_000)
    assert section.earlier.choice.currentData() == good


def test_nothing_is_offered_where_nothing_was_trained(
    section: SpecialistsSection, state: PluginState, qtbot: Any
) -> None:
    section.show()
    qtbot.waitUntil(lambda: not state.jobs._asides, timeout=10_000)
    assert section.earlier.isHidden()
    assert not state.shelf.folder.exists()


def test_the_newest_are_kept(state: PluginState, make: Any) -> None:
    specialist = make()
    paths = [put_aside(state, specialist) for _ in range(KEPT + 3)]
    assert [one.path for one in state.shelf.earlier()] == paths[:2:-1]
    assert sorted(state.shelf.folder.iterdir()) == paths[3:]
