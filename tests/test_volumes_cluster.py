"""The same job on a Dask cluster: the same files, and a worker may die."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stacks import any_specialist, assert_same, drained, spots, stored, write_source

from napari_ptsam.errors import InputError
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Access, Settings, segment_volume
from napari_ptsam.volumes.cluster import Cluster, Engine, connected

pytest.importorskip("distributed", reason="pip install 'dask[distributed]'")

# Dask warns of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def specialist(tiny_backbone: Path) -> Specialist:
    return any_specialist(tiny_backbone)


def access(source, backbone):
    return Access(source=str(source), backbone=str(backbone), device="cpu")


def test_chunks_computed_one_by_one_by_a_worker_are_those_of_the_local_job(
    specialist, tiny_backbone, tmp_path
):
    """What a worker does, without the cluster around it: opened from the job's folder alone."""
    source = write_source(tmp_path / "in.zarr", spots(4, 40, 50))
    settings = Settings(z_smooth=1.0, probability=True)
    here = access(source, tiny_backbone)
    drained(segment_volume(specialist, source, tmp_path / "here.zarr", settings, access=here))
    engines = []

    def runner(job, stage, todo):
        engines.append(Engine(job.folder))
        for number in reversed(todo):  # in any order
            assert engines[-1].run(stage.name, number) == number
            yield number

    there = tmp_path / "there.zarr"
    drained(segment_volume(specialist, source, there, settings, access=here, runner=runner))
    assert len(engines) == 2
    assert_same(tmp_path / "here.zarr", there)
    assert_same(tmp_path / "here_probability.zarr", tmp_path / "there_probability.zarr")


def test_a_worker_reads_the_input_as_in_training_where_that_fits(
    specialist, tiny_backbone, tmp_path, monkeypatch
):
    taught = replace(specialist.metadata, channels={"axes": "CZYX", "channel": 1})
    monkeypatch.setattr(specialist, "metadata", taught)
    data = spots(2, 3, 40, 50)

    def runner(job, stage, todo):
        engine = Engine(job.folder)
        yield from (engine.run(stage.name, number) for number in todo)

    for name, image in (("both", data), ("plane", data[0, 0])):
        np.save(tmp_path / f"{name}.npy", image)
        source, target = tmp_path / f"{name}.npy", tmp_path / f"{name}.zarr"
        here = access(source, tiny_backbone)
        drained(segment_volume(specialist, source, target, access=here, runner=runner))
    shown = [*data[1], data[0, 0]]
    found = [*stored(tmp_path / "both.zarr"), np.squeeze(stored(tmp_path / "plane.zarr"))]
    for image, mask in zip(shown, found, strict=True):
        np.testing.assert_array_equal(mask > 0, specialist.predict(image).mask)


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(
    specialist, tiny_backbone, tmp_path
):
    source = write_source(tmp_path / "in.zarr", spots(16, 64, 64))
    here = access(source, tiny_backbone)
    drained(segment_volume(specialist, source, tmp_path / "here.zarr", access=here))
    with connected("local:2") as cluster:
        assert cluster.dashboard.startswith("http")
        cores = os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // 2, 1)))
        assert set(cluster.client.run(os.environ.get, "OMP_NUM_THREADS").values()) == {cores}
        # Of what is smaller than this, workers keep the memory: Dask's own value is 64 KiB.
        kept = os.environ.get("MALLOC_TRIM_THRESHOLD_", str(2**30))
        assert set(cluster.client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()) == {kept}
        work = segment_volume(
            specialist, source, tmp_path / "there.zarr", access=here, runner=cluster.run
        )
        with closing(work):
            next(work)
            victim = next(iter(cluster.client.run(os.getpid).values()))
            os.kill(victim, signal.SIGKILL)
            steps, _ = drained(work)
    assert steps[-1].done == 16
    assert_same(tmp_path / "here.zarr", tmp_path / "there.zarr")


def test_an_array_in_memory_is_refused(specialist, tmp_path):
    work = segment_volume(
        specialist, np.zeros((2, 40, 50)), tmp_path / "out.zarr", runner=Cluster(None, "").run
    )
    with pytest.raises(InputError, match="in memory"):
        drained(work)


@pytest.mark.parametrize("wrong", ["local:0", "local:many", "local"])
def test_a_wrong_number_of_workers_is_refused(wrong):
    with pytest.raises(InputError, match="local:2"), connected(wrong):
        pass
