"""Makes the pictures of the plugin: ``python docs/make_pictures.py``, on a machine with a screen.

Drives the plugin in a window of 1280x720 on the packaged sample, from painting to the segmented
stack, and writes ``docs/images``. Without a screen:
``xvfb-run -a -s "-screen 0 1280x720x24 +extension GLX" python docs/make_pictures.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from qtpy.QtCore import QBuffer
from scipy import ndimage
from skimage.feature import peak_local_max

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.driving import PLUGIN, SAMPLE, Driver  # noqa: E402 (the checkout is no package)

IMAGES = ROOT / "docs" / "images"
PAINTED = (2, 5, 8, 11, 14)
LABELLED = 16
"""Planes of the sample that have labels."""

CLICKED = 8
UNSEEN = (20, 17)
"""Planes without paint, looked at one after the other: what is seen on them was learned."""

PNG_LIMIT, GIF_LIMIT = 200_000, 2_500_000
FRAME_WIDTH = 640
DABS, TRAINING_FRAMES, COMING_FRAMES, RESULT_STEP = 4, 10, 8, 4
"""Cells painted between two frames; frames of the training, and while planes come in; planes
between two frames of the result.
"""
CONTROLS = 325
"""Pixels at the left, with napari's layer controls, that the animation leaves out."""


def grabbed(driver: Driver) -> Image.Image:
    """The window as it is now."""
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    driver.window.grab().save(buffer, "PNG")
    return Image.open(BytesIO(bytes(buffer.data()))).convert("RGB")


def save_png(picture: Image.Image, name: str) -> None:
    """Write a picture in 256 colours.

    Raises
    ------
    ValueError
        If it is larger than it should be.
    """
    path = IMAGES / name
    few = quantized(picture, 256)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    if path.stat().st_size > PNG_LIMIT:
        raise ValueError(f"{path} is larger than {PNG_LIMIT} bytes")


def save_gif(frames: list[Image.Image], durations: list[int], path: Path) -> None:
    """Write an animation, in as many colours as its limit allows."""
    small = []
    for frame in frames:
        part = frame.crop((CONTROLS, 22, frame.width, frame.height))
        height = round(part.height * FRAME_WIDTH / part.width)
        small.append(part.resize((FRAME_WIDTH, height), Image.Resampling.LANCZOS))
    for colours in (128, 64, 48, 32, 24, 16):
        few = [quantized(frame, colours) for frame in small]
        few[0].save(
            path, save_all=True, append_images=few[1:], duration=durations, loop=0, optimize=True
        )
        if path.stat().st_size <= GIF_LIMIT:
            break
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {len(few)} frames, {colours} colours")


def quantized(picture: Image.Image, colours: int) -> Image.Image:
    """A picture in few colours: most for what covers much of it, a third for what is rare."""
    rare = colours // 3
    methods = {Image.Quantize.MEDIANCUT: colours - rare, Image.Quantize.MAXCOVERAGE: rare}
    both: list[int] = []
    for method, count in methods.items():
        found = picture.quantize(count, method=method, dither=Image.Dither.NONE).getpalette()
        both += (found or [])[: 3 * count]
    palette = Image.new("P", (1, 1))
    palette.putpalette(both)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def paint(driver: Driver, labels: Any, truth: Any) -> Iterator[None]:
    """Dab the brush on every cell of the plane in view, one after the other."""
    for number, where in enumerate(ndimage.find_objects(truth), start=1):
        if where is not None:
            cell = truth == number
            row, column = ndimage.center_of_mass(cell)
            labels.brush_size = max(2, round(2 * np.sqrt(cell.sum() / np.pi)))
            driver.stroke([(row, column), (row, column + 1)])
            yield


def annotate(driver: Driver, dock: Any) -> list[Image.Image]:
    """The first picture: some planes are painted; and frames, the first plane cell by cell."""
    viewer, section = driver.viewer, dock.sections["annotate"]
    given = viewer.layers[1]
    dock.show_section("annotate")
    driver.pause(0.3)
    driver.press(section.new_labels)
    truth = np.array(given.data)
    # Less noise to be seen, and to be stored in the animation.
    viewer.layers[0].contrast_limits = (55, 190)
    viewer.layers.remove(given)
    labels = dock.state.annotations.labels
    frames = []
    for plane in PAINTED:
        viewer.dims.set_point(0, plane)
        driver.pause(0.2)
        for number, _ in enumerate(paint(driver, labels, truth[plane])):
            if plane == PAINTED[0] and number % DABS == 0:
                frames.append(grabbed(driver))
        driver.pause(0.5)
        frames.append(grabbed(driver))
    driver.wait_until(
        lambda: len(dock.state.annotations.annotated()) == len(PAINTED), 10, "The list of planes"
    )
    save_png(frames[-1], "annotate.png")
    # napari leaves a dot where the brush was last: beside the image it is not seen.
    labels.brush_size = 1
    driver.stroke([(-6, -6), (-6, -6)])
    labels.brush_size = 10
    labels.mode = "pan_zoom"
    driver.leave_image()
    return frames


def train(driver: Driver, dock: Any) -> list[Image.Image]:
    """The second picture, half through; and the frames of the training.

    Half through, the user goes to another plane, and the preview follows.
    """
    state, section = dock.state, dock.sections["train"]
    driver.viewer.dims.set_point(0, UNSEEN[0])
    driver.open_dock("Train specialist")
    section.form.class_name.setText("cell")
    driver.wait_until(lambda: "Takes" in section.estimate.text(), 120, "The estimate")
    driver.press(section.train)
    frames, shown = [], [0]

    def over() -> bool:
        curve = section.run.curve
        steps = curve.losses[0][-1] if curve is not None and curve.losses[0] else 0
        if steps >= shown[0] + 150 // TRAINING_FRAMES or (len(frames) == 1 and steps):
            shown[0] = steps
            frames.append(grabbed(driver))
            driver.viewer.dims.set_point(0, UNSEEN[2 * len(frames) > TRAINING_FRAMES])
        return state.jobs.running is None

    frames.append(grabbed(driver))
    driver.wait_until(over, 900, "The training")
    save_png(frames[len(frames) // 2], "train.png")
    driver.pause(0.5)
    return [*frames, grabbed(driver)]


def segment(driver: Driver, dock: Any) -> list[Image.Image]:
    """The third picture, and the result: while it comes, then plane by plane with its objects."""
    viewer, section = driver.viewer, dock.sections["segment"]
    driver.open_dock("Segment (batch)")
    section.what.setCurrentIndex(section.what.findData("layer"))
    dock.state.annotations.labels.visible = False
    viewer.dims.set_point(0, 0)
    driver.pause(0.3)
    driver.press(section.segment_button)
    frames, shown = [], [-1]
    planes = viewer.dims.nsteps[0]

    def over() -> bool:
        done = [i for result in section.segmenter.results for i in result.result.done()]
        if len(done) > shown[0] + planes // COMING_FRAMES:
            shown[0] = len(done)
            viewer.dims.set_point(0, done[-1])
            driver.pause(0.3)
            frames.append(grabbed(driver))
        return dock.state.jobs.running is None

    driver.wait_until(over, 600, "The segmentation")
    section.adjust.numbered.setChecked(True)
    section.adjust.separate.setChecked(True)
    driver.wait_until(lambda: section.segmenter.settled, 60, "The objects")
    driver.pause(0.5)
    save_png(grabbed(driver), "segment.png")
    for plane in range(0, planes, RESULT_STEP):
        viewer.dims.set_point(0, plane)
        driver.pause(0.3)
        frames.append(grabbed(driver))
    return frames


def click(driver: Driver) -> None:
    """The picture of the click dock: some objects are accepted, the next one is clicked."""
    viewer = driver.viewer
    driver.menu(*PLUGIN, "Click to segment").trigger()
    found = viewer.window.dock_widgets
    driver.wait_until(lambda: any(hasattr(w, "show_section") for w in found.values()), 60, "Dock")
    dock = next(w for w in found.values() if hasattr(w, "show_section"))
    state, section = dock.state, dock.sections["click"]
    driver.wait_until(lambda: len(state.annotations.annotated()) == LABELLED, 60, "The labels")
    dock.show_section("click")
    viewer.dims.set_point(0, UNSEEN[0])
    viewer.layers[0].contrast_limits = (55, 190)
    driver.press(section.toggle)
    driver.wait_until(lambda: state.canvas.taking_clicks, 60, "Clicking")
    driver.wait_until(lambda: state.session.source.embedded, 120, "The plane")
    smooth = ndimage.gaussian_filter(np.asarray(viewer.layers[0].data[UNSEEN[0]], float), 3)
    places = peak_local_max(smooth, min_distance=8, exclude_border=12, num_peaks=CLICKED)
    for number, place in enumerate(places, start=1):
        driver.stroke([tuple(place)])
        driver.wait_until(lambda: state.session.answer, 60, "The answer")
        if number < len(places):
            state.session.accept()
    driver.pause(0.5)
    save_png(grabbed(driver), "click.png")


def loop(driver: Driver) -> None:
    """The three steps of the dock, and the animation of all."""
    dock, _ = driver.open_dock("Annotate planes")
    scenes = [(annotate, 400), (train, 300), (segment, 500)]
    frames: list[Image.Image] = []
    durations: list[int] = []
    for scene, duration in scenes:
        taken = scene(driver, dock)
        frames += taken
        # Each scene rests on its last frame.
        durations += [duration] * (len(taken) - 1) + [1500]
    save_gif(frames, durations, IMAGES / "loop.gif")


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    makers = {"loop": loop, "click": click}
    parser.add_argument("--only", choices=makers, help="one part of them")
    only = parser.parse_args().only
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Neither the user's settings nor what was kept show up in the pictures.
        os.environ.update(NAPARI_CONFIG="", NAPARI_PTSAM_CACHE=folder)
        import napari

        for name in [only] if only else makers:
            make = makers[name]
            os.environ["XDG_DATA_HOME"] = str(Path(folder, name))  # nor what one left for the next
            viewer = napari.Viewer()
            driver = Driver(viewer)
            driver.menu(*SAMPLE).trigger()
            driver.wait_until(lambda: len(viewer.layers) == 2, 60, "The sample")  # noqa: B023
            make(driver)
            viewer.close()


if __name__ == "__main__":
    main()
