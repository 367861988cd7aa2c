"""A folder of files from the dock: nothing of the user's is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from napari.utils.notifications import notification_manager
from segmentable import make_specialist


def test_masks_that_are_not_ours_stay_and_the_user_is_told(
    tiny_backbone_loaded: Any, discs: Any, qtbot: Any, tmp_path: Path
) -> None:
    from napari_ptsam._widgets.folders import FolderRun
    from napari_ptsam._widgets.jobs import Jobs
    from napari_ptsam._widgets.results import Look
    from napari_ptsam._widgets.state import SpecialistEntry

    for folder, names in (("in", "ab"), ("out", "b")):
        (tmp_path / folder).mkdir()
        for name in names:
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", discs[0])
    entry = SpecialistEntry("disc", make_specialist(tiny_backbone_loaded), None, saved=True)
    run = FolderRun(
        entry, tmp_path / "in", tmp_path / "out", Look(0.5), None, rotations=1, probability=False
    )
    jobs, over, notified = Jobs(), [], len(notification_manager.records)

    def wait() -> None:
        run.start(jobs, lambda: over.append(True))
        qtbot.waitUntil(lambda: bool(over), timeout=60_000)
        over.clear()

    wait()
    message = notification_manager.records[notified].message
    assert "b.tif exists and may be somebody's work" in message
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.tif"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "b.tif"), discs[0])
    assert run.missing == 2
    # With the file out of the way it goes on, and again over its own masks.
    (tmp_path / "out" / "b.tif").rename(tmp_path / "kept.tif")
    wait()
    assert run.missing == 0
    assert len(list((tmp_path / "out").iterdir())) == 2
    jobs.close()
