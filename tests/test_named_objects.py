"""Several objects by name, learned by one specialist."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import example

from napari_ptsam.cli import main
from napari_ptsam.cli.parser import build_parser
from napari_ptsam.errors import InputError
from napari_ptsam.examples import Example, data_hash
from napari_ptsam.specialist import Specialist
from napari_ptsam.training.heldout import split_examples

CLASSES = {"bright": 1, "dark": 2}
OPTIONS: dict[str, Any] = {
    "method": "ssam",
    "method_settings": {"text_encoder": "learned"},
    "classes": CLASSES,
    "device": "cpu",
    "scale": "fit",
    "preset": "quick",
}


@pytest.fixture(scope="module")
def stack() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images of a bright and a dark square on grey, and masks in which they are 1 and 2."""
    images = np.full((4, 64, 64), 120, np.uint8)
    masks = np.zeros((4, 64, 64), np.uint8)
    for i in range(4):
        for label, grey, corner in ((1, 250, 4 + 2 * i), (2, 5, 36 - 2 * i)):
            part = (i, slice(corner, corner + 22), slice(4 + 30 * (label - 1), 26 + 32 * label))
            images[part], masks[part] = grey, label
    return images, masks


@pytest.fixture(scope="module")
def specialist(stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path) -> Specialist:
    options = OPTIONS | {"learning_rate": 0.01, "steps": 60}
    return Specialist.train(*stack, backbone=tiny_backbone, **options)


def test_each_object_is_found_by_its_name(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    for image, mask in zip(*stack, strict=True):
        for name, label in CLASSES.items():
            found = specialist.of(name).predict(image).probability
            other = CLASSES["dark" if name == "bright" else "bright"]
            assert found[mask == label].mean() > found[mask == other].mean() + 0.2


def test_without_a_name_it_is_the_first(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    image = stack[0][0]
    assert specialist.metadata.class_name == "bright"
    np.testing.assert_allclose(
        specialist.predict(image).probability,
        specialist.of("bright").predict(image).probability,
        atol=1e-5,
    )


def test_all_names_are_in_the_prompt_file(
    specialist: Specialist,
    stack: tuple[NDArray[Any], NDArray[Any]],
    tiny_backbone: Path,
    tmp_path: Path,
) -> None:
    path = specialist.of("dark").save(tmp_path / "both")
    loaded = Specialist.load(path, backbone=tiny_backbone, device="cpu")
    for name in CLASSES:
        np.testing.assert_array_equal(
            loaded.of(name).predict(stack[0][0]).mask,
            specialist.of(name).predict(stack[0][0]).mask,
        )
    with pytest.raises(InputError, match=r"does not know 'grey'.*'bright', 'dark'"):
        loaded.of("grey")


def test_a_method_of_one_object_refuses_several(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    options = OPTIONS | {"method": "lora", "method_settings": {}}
    with pytest.raises(InputError, match=r"'lora' learns one object, not bright, dark.*'ssam'"):
        Specialist.train(*stack, backbone=tiny_backbone, **options)
    for classes in ({}, {"a": 1, "b": 1}):
        with pytest.raises(InputError, match="different labels by name"):
            Specialist.train(*stack, backbone=tiny_backbone, **OPTIONS | {"classes": classes})


def test_one_object_takes_the_class_name_as_its_label(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    options = OPTIONS | {"classes": None, "class_name": "square", "steps": 1}
    trained = Specialist.train(*stack, backbone=tiny_backbone, **options)
    assert trained.method.settings_dict["labels"] == ("square",)


def test_going_on_keeps_all_names_and_the_one_in_use(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    # The dock's own name says nothing to a method that knows its objects by others.
    for start, given in ((specialist.of("dark"), None), (specialist.of("dark"), "object")):
        again = _again(stack, start, class_name=given, classes={"bright": 1, "dark": 2})
        assert again.metadata.class_name == "dark"
        np.testing.assert_array_equal(
            again.predict(stack[0][0]).probability,
            again.of("dark").predict(stack[0][0]).probability,
        )
    other = _again(stack, specialist.of("dark"), class_name="bright", classes=CLASSES)
    assert other.metadata.class_name == "bright"
    loaded = Specialist.load(again.save(tmp_path / "a"), backbone=again.backbone, device="cpu")
    assert loaded.of(loaded.metadata.class_name).metadata.class_name == "dark"


@pytest.mark.parametrize("classes", [None, {"bright": 1}, {"bright": 1, "grey": 2}])
def test_going_on_from_several_objects_takes_the_label_of_each(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]], classes: dict[str, int] | None
) -> None:
    with pytest.raises(InputError, match=r'knows bright, dark by name.*\{"bright": 1, "dark": 2\}'):
        _again(stack, specialist, classes=classes)


def test_going_on_from_one_named_object_takes_no_other(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    options = OPTIONS | {"classes": None, "class_name": "square", "steps": 1}
    first = Specialist.train(*stack, backbone=tiny_backbone, **options)
    for given in (None, "object"):
        again = _again(stack, first, class_name=given)
        assert again.of(again.metadata.class_name).metadata.class_name == "square"
    with pytest.raises(InputError, match=r"knows square by name.*labels of disc"):
        _again(stack, first, classes={"disc": 1})


def test_a_method_of_one_object_goes_on_with_its_name_or_another_but_not_with_several(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    options = OPTIONS | {"method": "lora", "method_settings": {}, "classes": None, "steps": 1}
    first = Specialist.train(*stack, backbone=tiny_backbone, class_name="square", **options)
    assert _again(stack, first).metadata.class_name == "square"
    assert _again(stack, first, class_name="disc").metadata.class_name == "disc"
    assert _again(stack, first, classes={"disc": 2}).metadata.class_name == "disc"
    with pytest.raises(InputError, match=r"'lora', which learns one object, not bright, dark"):
        _again(stack, first, classes=CLASSES)


def _again(
    stack: tuple[NDArray[Any], NDArray[Any]], start: Specialist, **options: Any
) -> Specialist:
    return Specialist.train(
        *stack, start_from=start, preset="quick", steps=1, device="cpu", **options
    )


def test_an_image_is_held_out_with_all_its_objects() -> None:
    rng = np.random.default_rng(0)
    examples = []
    for key in "abcde":
        pixels = rng.uniform(0, 255, (8, 8)).astype(np.float32)
        for name in CLASSES:
            mask = np.zeros((8, 8), bool)
            mask[:4] = (name, key) != ("dark", "a")
            examples.append(_named(example(pixels, mask, key), name))
    training, held = split_examples(examples, 0.2, seed=0)
    assert len({e.key for e in held}) == 1
    assert not {e.key for e in held} & {e.key for e in training}
    assert all(e.mask.any() for e in held)
    assert len(training) == 8
    assert data_hash(examples[:1]) != data_hash([_named(examples[0], "other")])


def _named(one: Example, name: str) -> Example:
    return replace(one, name=name)


def test_the_command_line_learns_and_segments_several(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    for name, array in zip(("images", "masks"), stack, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    where = {n: str(tmp_path / n) for n in ("images.npy", "masks.npy", "both", "dark.tif")}
    shared = ["--backbone", str(tiny_backbone), "--device", "cpu"]
    train = ["train", "--images", where["images.npy"], "--masks", where["masks.npy"]]
    settings = ["--method", "ssam", "--method-setting", "text_encoder=learned", "--steps", "1"]
    classes = ["--classes", "bright=1, dark=2", "--preset", "quick", "--scale", "fit"]
    assert main([*train, *settings, *classes, *shared, "-o", where["both"]]) == 0
    file = where["both"] + ".ptsam.safetensors"
    segment = ["segment", file, where["images.npy"], "-o", where["dark.tif"]]
    assert main([*segment, "--object", "grey", *shared]) == 1
    assert main([*segment, "--object", "dark", *shared]) == 0
    with pytest.raises(SystemExit):
        build_parser().parse_args([*train, "-o", "x", "--classes", "bright"])
