"""A short schedule for nnU-Net, which finds it by ``nnUNet_extTrainer``."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class ShortTrainer(nnUNetTrainer):
    """500 steps in place of 250,000: what one core does in half an hour.

    Everything else is nnU-Net's own: its augmentation, its loss, its falling rate, and its test
    with mirrored images. The rate falls from epoch to epoch, hence ten short ones.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        # nnU-Net looks the parameters up by these very names.
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 10
        self.num_iterations_per_epoch = 50
        self.num_val_iterations_per_epoch = 1

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Leave it out: where all images are for training, it would predict these again."""
