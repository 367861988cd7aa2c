"""The chunks of a job on a Dask cluster; scheduling, retries and the dashboard are Dask's.

Each worker loads the model once. A chunk that was lost with its worker is computed again by
another, and writes the same files.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_ptsam.errors import InputError, PtsamError
from napari_ptsam.volumes.job import Job
from napari_ptsam.volumes.run import opened, steps_of
from napari_ptsam.volumes.stages import Stage, Work

_ENGINES = "_napari_ptsam"
"""Attribute of a Dask worker that holds what it has loaded."""

_THREADS = 2
"""Of a worker, so that one chunk is read or written while another is computed."""

_LOOK_SECONDS = 2.0

_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
"""Dask's setting; the variables themselves, where the user has set them, come first."""

_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**25}
"""Dask has its workers hand back memory as soon as it is free. A network needs it again in the
next layer, and is much slower if each layer has to ask the system for it."""


@dataclass(frozen=True)
class Cluster:
    """A connection to a cluster.

    Attributes
    ----------
    client
        Of `distributed`.
    dashboard
        Where a browser shows what the workers are at.
    """

    client: Any
    dashboard: str

    def run(self, job: Job, stage: Stage, todo: Sequence[int]) -> Generator[int, None, None]:
        """Chunks of a step, in the order in which they become ready; see `segment_volume`.

        Raises
        ------
        InputError
            If the input is no file, or one chunk after another kills its workers.
        """
        if job.access.source is None:
            raise InputError(
                "An array in memory cannot be opened by other processes. Save it as OME-Zarr and "
                "give its path."
            )
        distributed = import_module("distributed")
        waiting, ready = iter(todo), distributed.as_completed()
        looked, room = 0.0, 0
        try:
            while True:
                if time.monotonic() - looked > _LOOK_SECONDS:
                    # Workers come and go. Few chunks wait, so that a stop is quick.
                    room = 2 * sum(self.client.nthreads().values()) + 2
                    looked = time.monotonic()
                while ready.count() < room and (number := next(waiting, None)) is not None:
                    ready.add(self._submitted(job, stage.name, number))
                if ready.is_empty():
                    return
                yield self._result(next(ready))
        finally:
            with suppress(Exception):
                self.client.cancel(list(ready.futures))

    def _submitted(self, job: Job, step: str, number: int) -> Any:
        folder = str(job.folder.resolve())
        key = f"{step}-{job.digest[:8]}-{number}"
        return self.client.submit(run_chunk, folder, step, number, key=key, pure=False)

    def _result(self, future: Any) -> int:
        try:
            return int(future.result())
        except PtsamError:
            raise
        except Exception as error:
            raise InputError(
                f"The cluster could not compute {future.key}: {error}. All that is done is kept; "
                "the same command goes on."
            ) from error


@contextmanager
def connected(scheduler: str) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine for as long as the block lasts.

    Parameters
    ----------
    scheduler
        ``local:N`` for N workers here, or the address of a Dask scheduler
        (``tcp://host:8786``). Its workers need this package, and the same paths.

    Raises
    ------
    InputError
        If Dask is not installed, or the scheduler does not answer.
    """
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise InputError(
            "A cluster needs dask.distributed, which is not installed here: pip install "
            "'napari-ptsam[dask]'."
        ) from error
    kind, _, number = scheduler.partition(":")
    if kind == "local":
        if not number.isdecimal() or int(number) == 0:
            raise InputError(f"{scheduler!r} is no number of workers. Write for instance local:2.")
        # Dask would give the computation of each worker one core, however many there are.
        cores = max((os.cpu_count() or 1) // int(number), 1)
        variables = {"OMP_NUM_THREADS": cores, "MKL_NUM_THREADS": cores, **_MEMORY}
        with (
            import_module("dask").config.set(
                {f"{_ENVIRONMENT}.{k}": v for k, v in variables.items()}
            ),
            distributed.LocalCluster(
                n_workers=int(number), threads_per_worker=_THREADS, dashboard_address=":0"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield Cluster(client, str(client.dashboard_link))
        return
    try:
        client = distributed.Client(scheduler, timeout=20)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {scheduler!r} ({error}). Valid are local:N and the "
            "address that 'dask scheduler' prints, such as tcp://host:8786."
        ) from error
    with client:
        yield Cluster(client, str(client.dashboard_link))


@dataclass
class Engine:
    """What a worker needs for the chunks of a job: opened and loaded once.

    Attributes
    ----------
    folder
        Of the job.
    """

    folder: Path
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stages: dict[str, Stage] = field(default_factory=dict)

    @cached_property
    def work(self) -> Work:
        """The job with its input and its specialist.

        Raises
        ------
        InputError
            If this machine does not see the job's folder.
        """
        job = Job.load(self.folder)
        if job is None:
            raise InputError(
                f"This worker does not see {self.folder}. All workers need the same paths: use a "
                "disk that they share."
            )
        return Work(job, opened(job.access.source, job.access), job.load_specialist())

    def stage(self, name: str) -> Stage:
        """A step of the job."""
        with self._lock:
            if name not in self._stages:
                for step in steps_of(self.work):
                    stage = step()
                    self._stages[stage.name] = stage
                    if stage.name == name:
                        break
            return self._stages[name]

    def run(self, step: str, number: int) -> int:
        """Compute a chunk; its number once its files are complete."""
        stage = self.stage(step)
        data = stage.read(number)
        with self._lock:  # there is one model
            result = stage.compute(data)
        stage.write(number, result)
        return number


def run_chunk(folder: str, step: str, number: int) -> int:
    """Compute a chunk of a job on the worker that this is called on."""
    worker = import_module("distributed").get_worker()
    engines: dict[str, Engine] = worker.__dict__.setdefault(_ENGINES, {})
    engine = engines.setdefault(folder, Engine(Path(folder)))
    for other in [known for known in engines if known != folder]:
        del engines[other]  # a model of the job before
    return engine.run(step, number)
