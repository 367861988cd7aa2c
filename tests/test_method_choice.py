"""Any method can be chosen in Python and on the command line, and is saved alike."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import bright_discs

from napari_ptsam.cli.parser import build_parser
from napari_ptsam.errors import InputError
from napari_ptsam.methods import METHODS
from napari_ptsam.specialist import Specialist

QUICK: dict[str, Any] = {"preset": "quick", "steps": 2, "device": "cpu", "scale": "fit"}
CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"encoder": True}),
    ("autosam", {}),
    ("samed", {"rank": 2}),
    ("decoder", {}),
    ("ssam", {"text_encoder": "learned"}),
]


@pytest.fixture(scope="module")
def stack() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and masks, 3x64x64."""
    examples = bright_discs(3)
    masks = np.stack([e.mask for e in examples]).astype(np.uint8)
    return np.stack([e.image[..., 0] for e in examples]).astype(np.uint8), masks


@pytest.mark.parametrize(("name", "settings"), CHOICES)
def test_a_specialist_of_any_method_is_trained_saved_and_loaded(
    name: str,
    settings: dict[str, Any],
    stack: tuple[NDArray[Any], NDArray[Any]],
    tiny_backbone: Path,
    tmp_path: Path,
) -> None:
    options = {"method": name, "method_settings": settings} | QUICK
    trained = Specialist.train(*stack, backbone=tiny_backbone, **options)
    assert trained.method.name == name
    plan = trained.metadata.training["plan"]
    assert plan["learning_rate"] == trained.method.learning_rate
    loaded = Specialist.load(trained.save(tmp_path / "x"), backbone=tiny_backbone, device="cpu")
    assert loaded.trainable_parameters == trained.trainable_parameters
    for image in stack[0]:
        one, other = trained.predict(image), loaded.predict(image)
        np.testing.assert_array_equal(one.probability, other.probability)


def test_training_goes_on_with_the_method_of_the_start(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    options = {"method": "lora", "method_settings": {"rank": 2}} | QUICK
    first = Specialist.train(*stack, backbone=tiny_backbone, **options)
    second = Specialist.train(*stack, start_from=first, **QUICK)
    assert second.method.settings == first.method.settings
    rates = [s.metadata.training["plan"]["learning_rate"] for s in (first, second)]
    assert rates[1] == pytest.approx(0.2 * rates[0])
    with pytest.raises(InputError, match=r"made by the method 'lora'.*start anew"):
        Specialist.train(*stack, start_from=first, method="samed", **QUICK)
    with pytest.raises(InputError, match=r"settings .*'rank': 2.*which stay"):
        Specialist.train(*stack, start_from=first, method_settings={"rank": 4}, **QUICK)


def test_the_learning_rate_can_be_chosen(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    options = {"backbone": tiny_backbone, "learning_rate": 0.125} | QUICK
    trained = Specialist.train(*stack, **options)
    assert trained.metadata.training["plan"]["learning_rate"] == 0.125
    more = Specialist.train(*stack, start_from=trained, learning_rate=0.25, **QUICK)
    assert more.metadata.training["plan"]["learning_rate"] == 0.25
    assert not more.metadata.training["plan"]["start_from_examples"]


def test_encoder_prompts_of_another_method_are_refused(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    with pytest.raises(InputError, match=r"belong to the method 'ptsam', not to 'lora'"):
        Specialist.train(
            *stack, backbone=tiny_backbone, method="lora", encoder_prompts=True, **QUICK
        )


def test_the_command_line_takes_a_method_and_its_settings() -> None:
    line = ["train", "--images", "a", "--masks", "b", "-o", "c", "--method", "ssam"]
    settings = ["--method-setting", 'labels=["nuclei"]', "--method-setting", "text_encoder=learned"]
    args = build_parser().parse_args(line + settings)
    assert args.method == "ssam"
    assert dict(args.method_setting) == {"labels": ["nuclei"], "text_encoder": "learned"}
    plain = build_parser().parse_args(line[:7])
    assert (plain.method, plain.method_setting) == (None, [])
    with pytest.raises(SystemExit):
        build_parser().parse_args([*line, "--method-setting", "rank"])


def test_the_help_names_every_method() -> None:
    parser = build_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    told = commands.choices["train"].format_help()
    assert all(name in told for name in METHODS)
