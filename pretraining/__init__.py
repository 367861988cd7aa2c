"""Pre-training of the embedded backbone on procedural scenes, from nothing."""
