"""`python -m napari_ptsam` is the command `napari-ptsam`."""

import sys

from napari_ptsam.cli import main

sys.exit(main())
