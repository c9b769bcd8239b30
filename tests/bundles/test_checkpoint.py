"""Weight files as published: torch zip and legacy, pickled modules, safetensors; and damaged."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from sglat.bundles.checkpoint import read_checkpoint
from sglat.errors import BundleError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    named = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    return {
        **named,
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "transposed": base.t(),
        "slice": base[1:3, ::2],
        "shared": base,
        "expanded": torch.randn(1, 5).expand(3, 5),
        "parameter": nn.Parameter(torch.randn(3)),
    }


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_every_tensor_comes_back_exactly(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state(), path, _use_new_zipfile_serialization=is_zip)
    found = read_checkpoint(path)
    assert set(found) == set(state())
    for name, tensor in state().items():
        assert found[name].dtype == tensor.dtype
        assert found[name].is_contiguous()
        assert torch.equal(found[name], tensor.detach()), name


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_containers_are_joined_with_dots(tmp_path: Path, is_zip: bool) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    path = tmp_path / "weights.pt"
    options = {"size": 1024, "lr": 0.5, "name": "x", "on": True, "none": None}
    content = {"g_ema": network.state_dict(), "opts": options, "latent_avg": torch.ones(3)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    found = read_checkpoint(path)
    assert set(found) == {f"g_ema.{name}" for name in network.state_dict()} | {"latent_avg"}


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_whole_module_gives_its_state(tmp_path: Path, is_zip: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Sequential(nn.PReLU(3)), nn.BatchNorm2d(3))
    path = tmp_path / "module.pt"
    torch.save(network, path, _use_new_zipfile_serialization=is_zip)
    found = read_checkpoint(path)
    assert set(found) == set(network.state_dict())
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(3.0)}, path)
    assert torch.equal(read_checkpoint(path)["a"], torch.arange(3.0))


@pytest.fixture
def persistent_module() -> Iterator[type[nn.Module]]:
    """A module class that pickles itself as NVIDIA's do: source text, class name, state."""
    package, persistence = types.ModuleType("torch_utils"), types.ModuleType("persistence")
    dnnlib, util = types.ModuleType("dnnlib"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("the pickle was run")

    class EasyDict(dict[str, Any]):
        pass

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    util.EasyDict = EasyDict  # type: ignore[attr-defined]

    class Persistent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3))
            self.register_buffer("filter", torch.ones(4))
            self.register_buffer("absent", None)
            self.options = EasyDict(fused=True)
            self.numbers = np.arange(3, dtype=np.float32)

        def __reduce__(self) -> tuple[Any, ...]:
            meta = {"type": "class", "version": 6, "class_name": "Layer"}
            meta |= {"module_src": "import os; os.abort()", "state": self.__dict__}
            return _reconstruct_persistent_obj, (EasyDict(meta),)

    fakes = {"torch_utils": package, "torch_utils.persistence": persistence}
    fakes |= {"dnnlib": dnnlib, "dnnlib.util": util}
    sys.modules.update(fakes)
    yield Persistent
    for name in fakes:
        del sys.modules[name]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickled_module_gives_its_state_without_running(
    tmp_path: Path, persistent_module: type[nn.Module], protocol: int
) -> None:
    outer = persistent_module()
    outer.add_module("b4", persistent_module())
    path = tmp_path / "network.pkl"
    content = {"G_ema": outer, "D": None, "training_set_kwargs": {"resolution": 256}}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_checkpoint(path)
    expected = outer.state_dict()
    assert set(found) == {f"G_ema.{name}" for name in expected}
    assert all(torch.equal(found[f"G_ema.{n}"], value) for n, value in expected.items())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_arrays_are_read(tmp_path: Path, protocol: int, order: Any) -> None:
    array = np.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4), order=order)
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({"a": array, "b": np.float64(1.5)}, protocol=protocol))
    found = read_checkpoint(path)
    assert np.array_equal(found["a"].numpy(), array)
    assert found["b"] == 1.5


def test_an_ordered_dict_of_protocol_0_style_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(OrderedDict(a=torch.ones(2)), path, pickle_protocol=3)
    assert list(read_checkpoint(path)) == ["a"]


def refused(path: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_tensorflow_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "stylegan2-ffhq-config-f.pkl"
    path.write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\n)R.")
    assert "TensorFlow" in refused(path).message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n<html>", "web page"),
        (b"version https://git-lfs", "expected a torch file"),
        (b"\x00" * 100, "expected a torch file"),
        (b"PK\x03\x04 and no more", "no directory"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    assert word in refused(path).message


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere.pt").code == "unreadable"


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1, 1)), path)
    assert "TorchScript" in refused(path).message


def test_another_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")
    assert "torch.save" in refused(path).message


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1 << 20)}, buffer)
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "compressed" in refused(path).message


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_every_truncation_is_one_line(tmp_path: Path, is_zip: bool) -> None:
    buffer = io.BytesIO()
    torch.save(
        {"a": torch.ones(3, 2), "b": torch.ones(2)}, buffer, _use_new_zipfile_serialization=is_zip
    )
    path = tmp_path / "cut.pt"
    for length in range(len(buffer.getvalue())):
        path.write_bytes(buffer.getvalue()[:length])
        refused(path)


@settings(max_examples=300, deadline=None)
@given(bit=st.integers(0), is_zip=st.booleans())
def test_a_flipped_bit_is_one_line_or_another_tensor(
    tmp_path_factory: pytest.TempPathFactory, bit: int, is_zip: bool
) -> None:
    """Nothing but BundleError leaves the reader, whichever bit is wrong."""
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3, 2)}, buffer, _use_new_zipfile_serialization=is_zip)
    data = bytearray(buffer.getvalue())
    bit %= 8 * len(data)
    data[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    path.write_bytes(data)
    try:
        read_checkpoint(path)
    except BundleError as error:
        assert "\n" not in str(error)


def test_damaged_numbers_in_an_archive_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.full((1000,), 7.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\xe0\x40" * 10)] ^= 1
    path.write_bytes(data)
    assert "checksum" in refused(path).message


def forged(storage_count: int, offset: int, shape: str, stride: str) -> bytes:
    """A torch zip with one tensor whose view is written by hand."""
    stream = (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n"
        b"U\x010U\x03cpuI%d\ntQI%d\n(%st(%st\x89}tRs." % (
            storage_count, offset, shape.encode(), stride.encode()
        )
    )  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", stream)
        archive.writestr("x/data/0", b"\x00" * 16)
    return buffer.getvalue()


def test_the_forged_archive_is_read_when_it_is_right(tmp_path: Path) -> None:
    path = tmp_path / "forged.pt"
    path.write_bytes(forged(4, 1, "I3\n", "I1\n"))
    assert read_checkpoint(path)["a"].shape == (3,)


@pytest.mark.parametrize(
    ("count", "offset", "shape", "stride"),
    [
        (4, 2, "I3\n", "I1\n"),  # ends after the storage
        (4, 0, "I3\n", "I2\n"),
        (5, 0, "I3\n", "I1\n"),  # the storage is shorter than said
        (4, -1, "I3\n", "I1\n"),
        (4, 0, "I-3\n", "I1\n"),
        (4, 3, "I3\n", "I-1\n"),
        (4, 0, "I3\nI3\n", "I1\n"),
        (4, 0, "I1099511627775\n", "I0\n"),  # a petabyte out of one number
        (4, 0, "I1000000\nI1000000\n", "I0\nI0\n"),
        (4, 0, "I1\n" * 9, "I1\n" * 9),
        (4, 0, "U\x01x", "I1\n"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, count: int, offset: int, shape: str, stride: str
) -> None:
    path = tmp_path / "forged.pt"
    path.write_bytes(forged(count, offset, shape, stride))
    assert refused(path).code == "bad-checkpoint"
