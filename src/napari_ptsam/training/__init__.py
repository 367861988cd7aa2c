"""Training: examples, augmentation, losses and the loop."""
