"""The command `cache`: what is kept on disk, whether it is sound, and away with it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from napari_ptsam.cache import DiskCache, size_text
from napari_ptsam.cli.usage import PROGRAM, UsageError
from napari_ptsam.progress import Progress


def show(args: argparse.Namespace) -> None:
    """Say what is kept, and how much may be."""
    cache = DiskCache()
    shares, limit = cache.shares(), cache.limit()
    in_use = sum(share.nbytes for share in shares)
    if args.json:
        facts = {"folder": str(cache.folder), "limit": limit, "in_use": in_use}
        print(json.dumps(facts | {"backbones": [asdict(share) for share in shares]}))
        return
    for share in shares:
        print(
            f"{share.backbone:20}  {share.embeddings:8,} embeddings  {size_text(share.nbytes):>10}"
            f"  {share.identity[:12]}"
        )
    print(f"{size_text(in_use)} of {size_text(limit)} in use; embeddings are in {cache.folder}.")


def verify(args: argparse.Namespace) -> None:
    """Read all of it; what is damaged is removed, and computed anew when it is needed."""
    cache = DiskCache()
    total = sum(share.embeddings for share in cache.shares())
    sound = damaged = 0
    with Progress(sys.stderr) as progress:
        for good in cache.verify():
            sound, damaged = sound + good, damaged + (not good)
            progress.update("verifying", sound + damaged, total)
    if args.json:
        print(json.dumps({"sound": sound, "damaged_and_removed": damaged}))
        return
    removed = f", {damaged:,} damaged and removed" if damaged else ""
    print(f"{sound:,} embeddings are sound{removed}.")


def clear(args: argparse.Namespace) -> None:
    """Remove what is kept of one backbone or of all.

    Raises
    ------
    UsageError
        If nothing is kept of the backbone that was named.
    """
    cache = DiskCache()
    known = [share.backbone for share in cache.shares()]
    removed = cache.clear(args.backbone)
    if args.backbone and not removed:
        names = ", ".join(known) or "none"
        raise UsageError(
            f"nothing is kept of the backbone '{args.backbone}', but of: {names}. "
            f"'{PROGRAM} cache' lists them"
        )
    count, nbytes = sum(r.embeddings for r in removed), sum(r.nbytes for r in removed)
    if args.json:
        print(json.dumps({"removed": count, "bytes": nbytes}))
        return
    print(f"Removed {count:,} embeddings, {size_text(nbytes)}.")
