from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from napari_ptsam import demo
from napari_ptsam.demo_data import MASK_FOLDER, SETS, DemoSet, demo_mask, wheel_image
from napari_ptsam.demo_picture import FALSE, MISSED, Comparison, save_comparison
from napari_ptsam.errors import InputError
from napari_ptsam.planes import open_planes

each_set = pytest.mark.parametrize("demo_set", SETS, ids=lambda s: s.name)


class FakeSpecialist:
    """Stands for a trained specialist: finds what is bright."""

    calls: list[dict[str, object]]

    @classmethod
    def train(cls, images, masks, *, on_step, **options):
        cls.calls.append({"images": images, "masks": masks, **options})
        step = SimpleNamespace(phase="train", step=1, steps=1, loss=0.5, held_out_dice=None)
        on_step(step)
        return cls()

    def save(self, path):
        path.write_bytes(b"prompts")

    def segment(self, source, output, *, planes, overwrite):
        assert overwrite  # an earlier demo is in the way
        images = open_planes(source)
        chosen = range(len(images)) if planes is None else planes
        masks = [np.atleast_3d(images.read(i)).mean(2) > 127 for i in chosen]
        if planes is not None:
            Image.fromarray(masks[0]).save(
                output, save_all=True, append_images=[Image.fromarray(m) for m in masks[1:]]
            )
        for number, index in enumerate(chosen):
            if planes is None:
                output.mkdir(exist_ok=True)
                picture = Image.fromarray(masks[number].astype(np.uint8))
                picture.save(output / f"{images.keys[index]}.tif")
            yield SimpleNamespace(done=number + 1, total=len(masks))


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture."""
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture
def specialist(monkeypatch: pytest.MonkeyPatch) -> type[FakeSpecialist]:
    FakeSpecialist.calls = []
    monkeypatch.setattr(demo, "Specialist", FakeSpecialist)
    return FakeSpecialist


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without development data beside it."""
    here = tmp_path / "checkout"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv(demo.DATA_VARIABLE, raising=False)
    return here


def write_development_data(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for fold in ("train", "test"):
        for kind in ("images", "masks"):
            (folder / "dsb2018" / fold / kind).mkdir(parents=True)
        for name in "ab":
            image = rng.integers(0, 255, (20, 24), np.uint8)
            home = folder / "dsb2018" / fold
            Image.fromarray(image).save(home / "images" / f"{name}.png")
            Image.fromarray(np.uint8(image > 127)).save(home / "masks" / f"{name}.png")
    (folder / "isbi2012").mkdir()
    planes = [Image.fromarray(rng.integers(0, 255, (16, 18), np.uint8)) for _ in range(30)]
    masks = [Image.fromarray(np.uint8(np.asarray(p) > 127)) for p in planes]
    for name, pages in (("volume", planes), ("membranes", masks)):
        path = folder / "isbi2012" / f"{name}.ome.tif"
        pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:])
    return folder


@each_set
def test_mask_has_its_pictures_size_and_both_classes(demo_set: DemoSet) -> None:
    mask = demo_mask(demo_set)
    assert mask.shape == wheel_image(demo_set).shape[:2]
    assert 0.02 < mask.mean() < 0.7


def test_pictures_need_no_download() -> None:
    from importlib.metadata import files

    installed = {str(file) for file in files("scikit-image") or []}
    assert {f"skimage/data/{demo_set.file}" for demo_set in SETS} <= installed


def test_committed_masks_stay_small() -> None:
    sizes = {path.name: path.stat().st_size for path in MASK_FOLDER.glob("*.png")}
    assert set(sizes) == {f"{demo_set.name}.png" for demo_set in SETS}
    assert sum(sizes.values()) < 100_000


@each_set
def test_training_and_test_parts_share_no_pixel(demo_set: DemoSet) -> None:
    used = np.zeros(wheel_image(demo_set).shape[:2], int)
    folds = set()
    for fold, _, window in demo_set.parts():
        used[window] += 1
        folds.add(fold)
    assert used.max() == 1
    assert folds == {"train", "test"}


@each_set
def test_both_folds_show_the_object(demo_set: DemoSet) -> None:
    mask = demo_mask(demo_set)
    for wanted in ("train", "test"):
        parts = [mask[window] for fold, _, window in demo_set.parts() if fold == wanted]
        assert any(part.any() for part in parts)


def test_coins_mask_marks_each_coin_once() -> None:
    from scipy import ndimage

    coins = next(demo_set for demo_set in SETS if demo_set.name == "coins")
    assert ndimage.label(demo_mask(coins))[1] == 24


def test_without_data_the_wheels_pictures_are_segmented_and_scored(
    no_data: Path, specialist: type[FakeSpecialist], capsys: pytest.CaptureFixture[str]
) -> None:
    output = no_data / "out"
    demo.run_demo(output)
    printed = capsys.readouterr().out
    assert "scikit-image" in printed
    assert "README.md" in printed
    for demo_set in SETS:
        home = output / demo_set.name
        assert f"\n{demo_set.name} " in printed
        assert (home / f"{demo_set.name}.ptsam.safetensors").is_file()
        assert size_of(home / f"{demo_set.name}.png")[0] > 300
        assert len(list((home / "predicted").iterdir())) == sum(
            fold == "test" for fold, *_ in demo_set.parts()
        )
    assert [call["class_name"] for call in specialist.calls] == [s.target for s in SETS]


def test_training_sees_only_training_parts(no_data: Path, specialist: type[FakeSpecialist]) -> None:
    demo.run_demo(no_data / "out")
    assert {Path(str(call["images"])).parent.name for call in specialist.calls} == {"train"}


def test_development_data_beside_the_checkout_are_preferred(
    no_data: Path, specialist: type[FakeSpecialist], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_development_data(no_data.parent / "shared" / "data")
    demo.run_demo(no_data / "out")
    printed = capsys.readouterr().out
    assert str(folder) in printed
    assert [call["planes"] for call in specialist.calls] == [None, range(16)]
    assert {call["limit"] for call in specialist.calls} == {16}
    for name, images in (("dsb2018", 2), ("isbi2012", 10)):
        (line,) = [text for text in printed.splitlines() if text.startswith(f"{name} ")]
        assert line.split()[1:4] == ["100.0", "0.0", str(images)]
        assert (no_data / "out" / name / f"{name}.png").is_file()


def test_environment_names_the_data_folder(
    no_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_development_data(tmp_path / "elsewhere")
    monkeypatch.setenv(demo.DATA_VARIABLE, str(folder))
    assert demo.find_data() == folder


def test_named_folder_without_the_data_is_refused(no_data: Path) -> None:
    with pytest.raises(InputError, match="has no dsb2018 and no isbi2012"):
        demo.find_data(no_data)


def test_picture_shows_missed_and_false_pixels_in_their_colours(tmp_path: Path) -> None:
    truth = np.zeros((10, 10), bool)
    truth[:5] = True
    row = Comparison(np.zeros((10, 10, 3), np.float32), truth, truth.T, "half right")
    prediction = row.panels()[2].astype(int)
    for corner, colour in (((0, 9), MISSED), ((9, 0), FALSE)):
        shown = prediction[corner]
        assert np.argsort(shown).tolist() == np.argsort(colour).tolist()
        assert shown.max() > 100
    assert prediction[9, 9].max() == 0
    save_comparison([row, row], tmp_path / "rows.png", panel_width=40)
    assert size_of(tmp_path / "rows.png")[1] > 2 * 40


def test_tall_pictures_do_not_make_endless_rows(tmp_path: Path) -> None:
    blank = np.zeros((400, 10), bool)
    row = Comparison(np.zeros((400, 10, 3), np.float32), blank, blank, "")
    save_comparison([row], tmp_path / "tall.png", panel_width=40)
    assert size_of(tmp_path / "tall.png")[1] < 120


def test_prompt_files_of_different_sets_do_not_collide() -> None:
    assert all(a.name != b.name for a, b in itertools.combinations(SETS, 2))
