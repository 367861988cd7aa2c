"""Checkpoint files: safe to read, recognised by content, identified by tensors."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_ptsam.backbones.architecture import (
    ARCHITECTURES,
    SamArchitecture,
    architecture_of,
    build_sam,
)
from napari_ptsam.backbones.checkpoint import build_sam_from_state, load_state, state_identity
from napari_ptsam.errors import BackboneError

SMALL = SamArchitecture(
    width=32,
    depth=3,
    heads=2,
    global_blocks=(1,),
    window=3,
    patch_size=8,
    image_size=64,
    mlp_width=48,
    decoder_width=64,
    decoder_depth=1,
    decoder_mlp_width=96,
    mask_tokens=3,
    iou_head_depth=2,
    iou_head_width=24,
    mask_channels=8,
)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_sam(SMALL).state_dict()


class Hostile:
    """Unpickling this creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_published_architectures_are_recognised_from_shapes(name: str) -> None:
    with torch.device("meta"):
        found = architecture_of(build_sam(ARCHITECTURES[name]).state_dict())
    assert found == ARCHITECTURES[name]
    assert found.name == name


def test_parameter_counts_are_those_of_sam() -> None:
    with torch.device("meta"):
        sam = build_sam(ARCHITECTURES["vit_b"])
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in sam.named_children()
    }
    assert counts == {
        "image_encoder": 89_670_912,
        "mask_decoder": 4_058_340,
        "prompt_encoder": 6_220,
    }


def test_any_other_size_is_custom(state: dict[str, Tensor]) -> None:
    assert architecture_of(state) == SMALL
    assert SMALL.name == "custom"
    assert replace(ARCHITECTURES["vit_b"], image_size=512).name == "custom"


def test_an_encoder_of_global_blocks_alone_is_recognised() -> None:
    sizes = replace(SMALL, global_blocks=(0, 1, 2), window=0)
    assert architecture_of(build_sam(sizes).state_dict()) == sizes


Wrap = Callable[[dict[str, Tensor]], object]
WRAPS: dict[str, Wrap] = {
    "plain": lambda state: state,
    "module.": lambda state: {f"module.{k}": v for k, v in state.items()},
    "sam. in model_state": lambda state: {
        "model_state": {f"sam.{k}": v for k, v in state.items()},
        "decoder_state": {"weight": torch.zeros(3)},
        "epoch": 7,
    },
    "model": lambda state: {"model": state},
    "state_dict": lambda state: {"state_dict": {f"model.module.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_checkpoints_load(
    state: dict[str, Tensor], tmp_path: Path, wrap: Wrap, zipped: bool
) -> None:
    path = tmp_path / "model.pt"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    loaded = load_state(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["model.safetensors", "sam_vit_h.pth", "no-suffix"])
@pytest.mark.parametrize("container", ["torch", "safetensors"])
def test_the_content_decides_and_not_the_name(
    state: dict[str, Tensor], tmp_path: Path, name: str, container: str
) -> None:
    path = tmp_path / name
    torch.save(state, path) if container == "torch" else save_file(state, path)
    assert architecture_of(load_state(path)) == SMALL


def test_a_built_sam_has_the_files_tensors_and_gives_the_same_result(
    state: dict[str, Tensor],
) -> None:
    original = build_sam(SMALL)
    original.load_state_dict(state)
    built = build_sam_from_state({f"module.{k}": v for k, v in state.items()})
    assert not built.training
    image = [{"image": torch.rand(3, 64, 64) * 255, "original_size": (64, 64)}]
    ours, theirs = (
        sam(image, multimask_output=True)[0]["low_res_logits"] for sam in (built, original)
    )
    assert torch.equal(ours, theirs)


def test_half_precision_files_are_built_in_single_precision(state: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    built = build_sam_from_state(half)
    assert {tensor.dtype for tensor in built.state_dict().values()} == {torch.float32}


def test_a_built_sam_does_not_share_memory_with_its_state(state: dict[str, Tensor]) -> None:
    built = build_sam_from_state(state)
    name = "mask_decoder.iou_token.weight"
    assert built.state_dict()[name].data_ptr() != state[name].data_ptr()


def test_tensors_that_do_not_fit_are_listed_briefly(state: dict[str, Tensor]) -> None:
    changed = dict(state)
    for name in [name for name in state if name.startswith("image_encoder.neck")]:
        del changed[name]
    changed["extra.weight"] = torch.zeros(1)
    changed["image_encoder.blocks.1.norm1.weight"] = torch.zeros(5)
    with pytest.raises(BackboneError) as caught:
        build_sam_from_state(changed)
    text = str(caught.value)
    assert "missing: image_encoder.neck.0.weight" in text
    assert "and 3 more" in text
    assert "unexpected: extra.weight" in text
    assert "norm1.weight (5,) instead of (32,)" in text


def test_tensors_of_another_network_are_named() -> None:
    with pytest.raises(BackboneError, match=r"not a SAM.*conv1\.weight"):
        architecture_of({"conv1.weight": torch.zeros(64, 3, 7, 7)})
    with pytest.raises(BackboneError, match="no tensors"):
        architecture_of({})


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(
    state: dict[str, Tensor], tmp_path: Path, zipped: bool
) -> None:
    path, trace = tmp_path / "hostile.pth", tmp_path / "trace"
    torch.save({**state, "x": Hostile(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BackboneError, match="nothing was run"):
        load_state(path)
    assert not trace.exists()


def test_code_in_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "hostile.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Hostile(trace)))
    with pytest.raises(BackboneError, match="nothing was run"):
        load_state(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the trap itself does work
    assert trace.is_dir()


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.0001, 0.02, 0.5, 0.9999])
def test_a_cut_off_file_is_explained(
    state: dict[str, Tensor], tmp_path: Path, container: str, kept: float
) -> None:
    path = tmp_path / "cut.pth"
    if container == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=container == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BackboneError, match=r"cut\.pth"):
        load_state(path)


@pytest.mark.parametrize(
    ("content", "explanation"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>log in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid ...", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n and so on", "first bytes"),
        (b"\x80 garbage that looks like a pickle", "something else than tensors"),
        (b"PK\x03\x04 garbage that looks like an archive", "damaged"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{ a header that never ends", "damaged"),
    ],
)
def test_what_is_no_checkpoint_is_explained(
    tmp_path: Path, content: bytes, explanation: str
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=explanation):
        load_state(path)


def test_missing_files_folders_and_other_objects_are_explained(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no checkpoint file"):
        load_state(tmp_path / "gone.pth")
    with pytest.raises(BackboneError, match="is a folder"):
        load_state(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(BackboneError, match="holds a list"):
        load_state(tmp_path / "list.pth")


def test_identity_is_the_same_in_any_container_and_with_any_prefix(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    expected = state_identity(state)
    assert len(expected) == 64
    assert state_identity(load_state(tmp_path / "a.pth")) == expected
    assert state_identity(load_state(tmp_path / "b.safetensors")) == expected
    assert state_identity({f"sam.{k}": v for k, v in reversed(state.items())}) == expected
    assert state_identity(build_sam_from_state(state).state_dict()) == expected


def test_identity_does_not_depend_on_number_type_or_memory_layout(
    state: dict[str, Tensor],
) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    single = {name: tensor.float() for name, tensor in half.items()}
    strided = {
        name: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor
        for name, tensor in single.items()
    }
    assert state_identity(half) == state_identity(single) == state_identity(strided)


@pytest.mark.parametrize("change", ["value", "name", "shape"])
def test_identity_changes_with_any_tensor(state: dict[str, Tensor], change: str) -> None:
    name = "mask_decoder.mask_tokens.weight"
    changed = {key: tensor.clone() for key, tensor in state.items()}
    if change == "value":
        changed[name][0, 0] += 1e-6
    elif change == "name":
        changed["mask_decoder.other.weight"] = changed.pop(name)
    else:
        changed[name] = changed[name].t().contiguous().view(changed[name].shape[::-1])
    assert state_identity(changed) != state_identity(state)
