"""Jobs on volumes: lazily, in blocks, killed and resumed, and always the same result."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from stacks import any_specialist, assert_same, drained, spots, stored, write_source

from napari_ptsam.errors import InputError
from napari_ptsam.objects import split_objects, without_small
from napari_ptsam.planes import open_planes
from napari_ptsam.predict import predict_plane
from napari_ptsam.specialist import Specialist
from napari_ptsam.tiling import Scaling
from napari_ptsam.volumes import Settings, segment_volume
from napari_ptsam.volumes import job as jobs
from napari_ptsam.volumes.blocks import Block, BlockPredictor, LargePlane
from napari_ptsam.volumes.pipeline import overlapped, side_by_side


@pytest.fixture(scope="module")
def specialist(tiny_backbone: Path) -> Specialist:
    return any_specialist(tiny_backbone)


# ---- one job


@pytest.fixture
def one_thread():
    """Of torch: more of them add up in another order, which changes the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_stack_gives_what_predicting_each_plane_gives(specialist, tmp_path):
    data = spots(5, 70, 90)
    source = write_source(tmp_path / "in.zarr", data)
    settings = Settings(probability=True)
    steps, done = drained(segment_volume(specialist, source, tmp_path / "out.zarr", settings))
    assert [step.done for step in steps] == [1, 2, 3, 4, 5]
    assert steps[-1].seconds_left == 0
    predicted = [specialist.predict(plane) for plane in data]
    np.testing.assert_array_equal(stored(done.output), [p.mask for p in predicted])
    np.testing.assert_array_equal(
        stored(tmp_path / "out_probability.zarr"), [p.probability for p in predicted]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "in.zarr",
        "out.zarr",
        "out_probability.zarr",
    ]


def test_axes_scale_and_units_survive(specialist, tmp_path):
    scale = {"T": (3.0, "s"), "Z": (0.5, "µm"), "Y": (0.1, "µm"), "X": (0.1, "µm")}
    source = write_source(tmp_path / "in.zarr", spots(2, 3, 40, 50), "TZYX", scale)
    for name in ("out.zarr", "out.tif"):
        drained(segment_volume(specialist, source, tmp_path / name))
        part = open_planes(tmp_path / name).parts[0]
        assert (part.axes, part.shape, part.scale) == ("TZ", (2, 3), scale)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out.tif"), stored(tmp_path / "out.zarr")
    )


def test_the_same_job_again_computes_nothing_and_another_is_refused(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(3, 40, 50))
    out = tmp_path / "out.zarr"
    drained(segment_volume(specialist, source, out))
    steps, done = drained(segment_volume(specialist, source, out))
    assert (steps, done.found) == ([], True)
    # The same pixels under another name are the same input.
    shutil.move(source, tmp_path / "renamed.zarr")
    assert drained(segment_volume(specialist, tmp_path / "renamed.zarr", out))[1].found
    other = Settings(minimum_size=9)
    with pytest.raises(InputError, match=r"minimum_size \(0 there, 9 here\).*--overwrite"):
        drained(segment_volume(specialist, tmp_path / "renamed.zarr", out, other))
    changed = write_source(tmp_path / "in.zarr", spots(3, 40, 50, seed=6))
    with pytest.raises(InputError, match="input: pixels"):
        drained(segment_volume(specialist, changed, out))
    steps, done = drained(segment_volume(specialist, changed, out, other, overwrite=True))
    assert len(steps) == 3


def test_something_else_at_the_output_is_not_replaced(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(2, 40, 50))
    for path in (tmp_path / "other.zarr", tmp_path / "folder.zarr"):
        path.mkdir()
    shutil.copytree(source, tmp_path / "other.zarr", dirs_exist_ok=True)
    with pytest.raises(InputError, match="not made by this job"):
        drained(segment_volume(specialist, source, tmp_path / "other.zarr"))
    with pytest.raises(InputError, match="no image"):
        drained(segment_volume(specialist, source, tmp_path / "folder.zarr"))
    with pytest.raises(InputError, match="lies within the input"):
        drained(segment_volume(specialist, source, source / "out.zarr"))
    with pytest.raises(InputError, match=r"\.zarr or \.tif"):
        drained(segment_volume(specialist, source, tmp_path / "out.png"))


# ---- blocks


@pytest.mark.parametrize(
    ("factor", "rotations"), [(None, 1), (0.3, 1), (0.77, 1), (1.0, 4), (1.6, 1), (None, 2)]
)
def test_blocks_of_a_plane_are_the_plane_without_seams(specialist, factor, rotations):
    data = spots(1, 211, 187)
    backbone, method = specialist.backbone, specialist.method
    scaling, planes = Scaling(factor), open_planes(data)
    normalization = specialist.normalization.measured(planes, 0, side=50)
    large = LargePlane(planes, 0, normalization, scaling, backbone.input_size)
    found = np.zeros(data.shape[1:], np.float32)
    predictor = BlockPredictor(method, backbone, rotations=rotations)
    for block in Block.all_of(data.shape[1:], 64):
        found[block.slices] = predictor.predict(large, block)
    pixels = specialist.normalization.apply(data[0])
    whole = predict_plane(method, backbone, pixels, scaling, rotations)
    np.testing.assert_allclose(found, whole, atol=2e-5)


def test_the_grey_values_of_a_plane_are_measured_in_windows_as_on_the_whole(specialist):
    normalization = specialist.normalization
    data = spots(1, 700, 900).astype(np.float32)
    data[0, :3] = np.nan
    spot = np.zeros((1, 300, 300))
    spot[0, 200, 201] = 7
    for image in (data, spot):
        windows = normalization.measured(open_planes(image), 0, side=128).apply(image[0])
        np.testing.assert_array_equal(windows, normalization.apply(image[0]))


def test_measuring_a_large_plane_holds_a_window_at_a_time(specialist):
    planes = open_planes(spots(2048, 2048))
    tracemalloc.start()
    specialist.normalization.measured(planes, 0, side=256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The plane in float32 is 16 MB, the sample 1 MB.
    assert peak < 8e6


def test_a_large_image_is_segmented_in_blocks_like_the_whole(specialist, tmp_path):
    data = spots(1, 150, 170)[0]
    tifffile.imwrite(tmp_path / "in.tif", data, tile=(32, 32))
    settings = Settings(block=64, probability=True, minimum_size=12)
    for name in ("out.zarr", "out.tif"):
        _, done = drained(
            segment_volume(specialist, tmp_path / "in.tif", tmp_path / name, settings)
        )
    predicted = specialist.predict(data)
    np.testing.assert_allclose(
        stored(tmp_path / "out_probability.zarr"), predicted.probability, atol=2e-5
    )
    mask = stored(tmp_path / "out.zarr") > 0
    sizes = np.bincount(split_objects(mask).ravel())[1:]
    assert sizes.min() >= 12
    # No object at a border of blocks is taken for smaller than it is.
    expected = without_small(stored(tmp_path / "out_probability.zarr") >= specialist.threshold, 12)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif") > 0, mask)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.is_ome
        assert file.pages.first.is_tiled
    assert done.output == tmp_path / "out.tif"


# ---- interruptions


def test_a_job_closed_in_the_middle_goes_on_and_ends_its_threads(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(6, 40, 50))
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    drained(segment_volume(specialist, source, whole))
    with closing(segment_volume(specialist, source, parts)) as run:
        assert next(run).done == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("ptsam")]
    assert not parts.exists()
    assert (tmp_path / ".parts.zarr.job").is_dir()
    steps, _ = drained(segment_volume(specialist, source, parts))
    assert steps[0].done > steps[0].computed == 1
    assert_same(whole, parts)
    assert not (tmp_path / ".parts.zarr.job").exists()


def test_another_job_is_not_mixed_into_one_that_was_begun(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(4, 40, 50))
    out = tmp_path / "out.zarr"
    with closing(segment_volume(specialist, source, out)) as run:
        next(run)
    other = Settings(z_smooth=1)
    with pytest.raises(InputError, match=r"begun and not finished.*z_smooth"):
        drained(segment_volume(specialist, source, out, other))
    drained(segment_volume(specialist, source, out, other, overwrite=True))
    assert drained(segment_volume(specialist, source, out, other))[1].found


def test_two_processes_do_not_work_on_one_output(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(3, 40, 50))
    with closing(segment_volume(specialist, source, tmp_path / "out.zarr")) as run:
        next(run)
        with pytest.raises(InputError, match="Another process is at work"):
            drained(segment_volume(specialist, source, tmp_path / "out.zarr"))


def test_a_last_line_that_was_cut_off_counts_as_not_written(tmp_path):
    path = tmp_path / "done"
    path.write_text("planes 0\nplanes 1\nplanes 1")
    with closing(jobs.Done(path)) as done:
        assert done.of("planes") == {0, 1}
        done.add("planes", 12)
    with closing(jobs.Done(path)) as done:
        assert done.of("planes") == {0, 1, 12}


CHILD = """
import sys
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Settings, segment_volume
prompt, backbone, source, out = sys.argv[1:]
specialist = Specialist.load(prompt, backbone=backbone)
settings = Settings(probability=True, objects=True, z_smooth=1.0)
for step in segment_volume(specialist, source, out, settings):
    print(step.step, step.done, flush=True)
"""


def test_killed_at_random_moments_the_result_is_the_same(specialist, tiny_backbone, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(8, 64, 64))
    prompt = specialist.save(tmp_path / "s")
    settings = Settings(probability=True, objects=True, z_smooth=1.0)
    drained(segment_volume(specialist, source, tmp_path / "whole.zarr", settings))
    words = [sys.executable, "-c", CHILD, prompt, tiny_backbone, source, tmp_path / "killed.zarr"]
    for lines in (2, 9, None):  # among the planes, while they are combined, to the end
        child = subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        read = child.stdout if lines is None else itertools.islice(child.stdout, lines)
        assert list(read)
        if lines is not None:
            child.send_signal(signal.SIGKILL)
        assert (child.wait(timeout=60) == 0) == (lines is None)
        child.stdout.close()
        assert (tmp_path / "killed.zarr").exists() == (lines is None)
    for name in ("", "_probability", "_objects"):
        assert_same(tmp_path / f"whole{name}.zarr", tmp_path / f"killed{name}.zarr")
    tables = [(tmp_path / f"{name}_objects.csv").read_bytes() for name in ("whole", "killed")]
    assert tables[0] == tables[1]


# ---- the pipeline


def test_reading_and_writing_go_on_while_something_is_computed():
    busy, seen = set(), []

    def note(name, seconds):
        busy.add(name)
        seen.append(frozenset(busy))
        time.sleep(seconds)
        busy.discard(name)

    def read(item):
        note("read", 0.02)
        return item

    def compute(item):
        note("compute", 0.02)
        return item

    run = overlapped(range(6), read, compute, lambda item, data: note("write", 0.02))
    assert list(run) == list(range(6))
    assert any(len(names) > 1 for names in seen)


def test_several_are_computed_at_the_same_time_each_in_one_thread_of_torch():
    together, before = threading.Barrier(2, timeout=5), torch.get_num_threads()

    def compute(item):
        together.wait()  # fails if one waits for the other
        return item, torch.get_num_threads()

    found = {}
    torch.set_num_threads(3)
    try:
        run = overlapped(range(6), lambda n: n, compute, found.__setitem__, at_once=2)
        assert list(run) == list(range(6))
        assert found == {n: (n, 1) for n in range(6)}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_fewer_planes_than_threads_have_all_of_them_one_after_the_other(specialist):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = [side_by_side(specialist.backbone, planes) for planes in (1, 2, 3, 100)]
    finally:
        torch.set_num_threads(before)
    assert found == [1, 1, 3, 3]


def test_planes_computed_side_by_side_are_those_of_one_after_the_other(tmp_path):
    specialist = any_specialist("embedded")
    data = spots(4, 200, 300)
    source = write_source(tmp_path / "in.zarr", data)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predicted = [specialist.predict(plane).probability for plane in data]
        run = segment_volume(specialist, source, tmp_path / "o.zarr", Settings(probability=True))
        drained(run)
    finally:
        torch.set_num_threads(before)
    # Up to the rounding of float32: a single plane is predicted with all threads.
    found = stored(tmp_path / "o_probability.zarr")
    np.testing.assert_allclose(found, predicted, rtol=0, atol=1e-5)


def test_no_more_is_read_ahead_than_allowed():
    read = []
    run = overlapped(range(50), lambda n: read.append(n) or n, lambda n: n, lambda n, d: None)
    next(run)
    time.sleep(0.05)
    assert len(read) <= 8
    run.close()


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("where", ["read", "compute", "write"])
def test_an_error_anywhere_ends_the_pipeline_and_its_threads(where, at_once):
    def fail(name):
        if name == where:
            raise ValueError(where)

    run = overlapped(
        range(5), lambda n: fail("read"), lambda d: fail("compute"), lambda n, d: fail("write"),
        at_once=at_once,
    )  # fmt: skip
    with pytest.raises(ValueError, match=where):
        list(run)
    assert not [t for t in threading.enumerate() if t.name.startswith("ptsam")]
