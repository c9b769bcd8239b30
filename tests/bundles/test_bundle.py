"""Bundles: what decides the decoder id, loading, damage, manifests that lie."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sglat.bundles.bundle import Bundle, home_folder, load_bundle
from sglat.bundles.controls import Controls
from sglat.bundles.manifest import hash_tensors, write_part
from sglat.errors import BundleError, BundleMismatchError
from tests.bitstream.samples import sample_header
from tests.bundles.tiny import TINY_CONFIG, make_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def replaced(folder: Path, role: str, **changes: Any) -> Bundle:
    """Write a part again with changes and open the bundle."""
    part = Bundle(folder).part(role)
    options = {
        "name": "tiny",
        "role": role,
        "kind": part.kind,
        "tensors": load_file(folder / part.file),
        "config": part.config,
        "hints": part.hints,
    }
    write_part(folder, **(options | changes))
    return Bundle(folder)


def test_the_whole_chain_renders(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert (bundle.resolution, bundle.num_ws, bundle.style_dim) == (16, 6, 16)
    ws = bundle.inverter(torch.rand(2, 3, 16, 16))
    turned = bundle.pose_flow.turn(ws, torch.zeros(2, 2), torch.tensor([[10.0, 0], [0, -5]]))
    styles = bundle.controls.apply(bundle.generator.styles(turned), torch.randn(2, 32))
    assert bundle.generator.synthesize(styles).shape == (2, 3, 16, 16)


def test_decoding_parts_need_no_optional_package(folder: Path) -> None:
    """A fresh interpreter that opens all of a decoder loads none of the encoder's packages."""
    program = (
        "import sys; from pathlib import Path; from sglat.bundles.bundle import load_bundle\n"
        "bundle = load_bundle(Path(sys.argv[1])); bundle.generator, bundle.pose_flow\n"
        "bundle.controls, bundle.decoder_id\n"
        "forbidden = {'cv2', 'insightface', 'lpips', 'torchvision', 'sglat.encoder'}\n"
        "print(sorted(forbidden & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_networks_are_ready_for_inference_and_built_once(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.generator is bundle.generator
    assert not bundle.generator.training
    assert not any(parameter.requires_grad for parameter in bundle.generator.parameters())


def test_stored_values_arrive_exactly(folder: Path) -> None:
    bundle = load_bundle(folder)
    stored = load_file(folder / "generator.safetensors")
    loaded = bundle.generator.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
    assert all(torch.equal(loaded[name], stored[name].float()) for name in stored)


def test_loading_leaves_the_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _ = load_bundle(folder).generator
    assert torch.equal(torch.rand(3), expected)


def test_saving_again_in_another_order_keeps_the_decoder_id(folder: Path) -> None:
    before = Bundle(folder).decoder_id
    tensors = load_file(folder / "generator.safetensors")
    backwards = dict(reversed(list(tensors.items())))
    save_file(backwards, folder / "generator.safetensors", metadata={"note": "saved again"})
    sha256 = Bundle(folder).part("generator").sha256
    after = replaced(folder, "generator", tensors=backwards)
    assert after.decoder_id == before
    assert len(before) == 32
    assert sha256 == after.part("generator").sha256  # the writer itself is canonical


def changed_weight(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    name = sorted(tensors)[0]
    return {"tensors": tensors | {name: tensors[name] + 1}}


def changed_type(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {"tensors": {name: tensor.float() for name, tensor in tensors.items()}}


def changed_name(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    name = sorted(tensors)[0]
    rest = {key: tensor for key, tensor in tensors.items() if key != name}
    return {"tensors": rest | {f"{name}x": tensors[name]}}


def changed_shape(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    name = sorted(tensors)[0]
    return {"tensors": tensors | {name: tensors[name][None]}}


def changed_config(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {"config": {"another": 1}}


def changed_kind(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {"kind": "another"}


CHANGES = [
    changed_weight, changed_type, changed_name, changed_shape, changed_config, changed_kind,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("role", ["generator", "pose_flow", "controls"])
def test_every_change_of_the_decoder_changes_its_id(
    folder: Path, role: str, change: Callable[[dict[str, torch.Tensor]], dict[str, Any]]
) -> None:
    before = Bundle(folder).decoder_id
    changes = change(load_file(folder / f"{role}.safetensors"))
    assert replaced(folder, role, **changes).decoder_id != before


def test_the_inverter_and_the_hints_do_not_belong_to_the_decoder_id(folder: Path) -> None:
    before = Bundle(folder).decoder_id
    stored = load_file(folder / "inverter.safetensors")
    assert replaced(folder, "inverter", **changed_weight(stored)).decoder_id == before
    hints = dict(Bundle(folder).part("controls").hints) | {"step": [0.125] * 32}
    after = replaced(folder, "controls", hints=hints)
    assert after.decoder_id == before
    assert after.controls.step == (0.125,) * 32


def test_the_tensor_hash_is_fixed_by_its_definition() -> None:
    """Bytes written out by hand from the documented layout."""
    import hashlib

    data = b"sglat tensors 1\n"
    data += b"\x01\x00\x00\x00a" + b"\x07\x00\x00\x00float16"
    data += b"\x02\x00\x00\x00" + (2).to_bytes(8, "little") + (1).to_bytes(8, "little")
    data += (4).to_bytes(8, "little") + b"\x00\x3c\x00\xc0"  # 1.0 and -2.0
    data += b"\x01\x00\x00\x00b" + b"\x05\x00\x00\x00int64"
    data += b"\x00\x00\x00\x00" + (8).to_bytes(8, "little") + (7).to_bytes(8, "little")
    tensors = {"b": torch.tensor(7), "a": torch.tensor([[1.0], [-2.0]]).half()}
    assert hash_tensors(tensors) == hashlib.sha256(data).hexdigest()


def test_a_file_for_another_decoder_is_refused(folder: Path) -> None:
    bundle = load_bundle(folder)
    header = replace(sample_header(), decoder_id=bundle.decoder_id, bundle="other")
    header = replace(header, resolution=bundle.resolution)
    assert bundle.of_file(header).resolution == bundle.resolution
    for changed in ({"decoder_id": bytes(32)}, {"upper_id": bytes(32)}):
        with pytest.raises(BundleMismatchError, match="made with bundle 'other'"):
            bundle.of_file(replace(header, **changed))


def test_a_bundle_without_controls_names_what_it_lacks(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parts"] = [part for part in manifest["parts"] if part["role"] != "controls"]
    manifest["decoder_id"] = None
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="no controls"):
        _ = load_bundle(folder).decoder_id


@pytest.mark.parametrize("role", ["generator", "inverter", "pose_flow", "controls"])
def test_a_damaged_file_is_named_with_both_hashes(folder: Path, role: str) -> None:
    path = folder / f"{role}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match="expected sha256") as caught:
        bundle.verify()
    assert str(path) in caught.value.message
    assert bundle.part(role).sha256 in caught.value.message
    with pytest.raises(BundleError, match="expected sha256"):
        _ = getattr(bundle, role)


def test_a_cut_file_is_named_with_both_sizes(folder: Path) -> None:
    path = folder / "generator.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BundleError, match=f"expected {size} bytes, found {size - 5}"):
        _ = load_bundle(folder).generator


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "generator.safetensors").unlink()
    with pytest.raises(BundleError, match=r"generator\.safetensors: expected \d+ bytes, no file"):
        _ = load_bundle(folder).generator


def test_missing_surplus_and_misshapen_tensors_are_named(folder: Path) -> None:
    tensors = load_file(folder / "generator.safetensors")
    less = {name: tensor for name, tensor in tensors.items() if name != "const"}
    with pytest.raises(BundleError, match=r"generator\.safetensors: .*, first const \[1, "):
        _ = replaced(folder, "generator", tensors=less).generator
    more = tensors | {"extra": torch.ones(1)}
    with pytest.raises(BundleError, match=r"found 1 more, first extra \["):
        _ = replaced(folder, "generator", tensors=more).generator
    wrong = tensors | {"w_avg": torch.ones(3)}
    with pytest.raises(BundleError, match=r"expected w_avg \[16\], found \[3\]"):
        _ = replaced(folder, "generator", tensors=wrong).generator


def test_controls_for_another_generator_are_refused(folder: Path) -> None:
    tensors, config, _ = Controls(torch.ones(32, 5), style_widths=(2, 3)).to_part()
    bundle = replaced(folder, "controls", tensors=tensors, config=config, hints={})
    with pytest.raises(BundleError, match="expected style widths"):
        _ = bundle.controls


def test_unknown_kinds_and_configs_are_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="unknown-kind"):
        _ = replaced(folder, "inverter", kind="os").inverter
    with pytest.raises(BundleError, match="bad-config"):
        _ = replaced(folder, "inverter", kind="embedded_inverter", config={"nonsense": 1}).inverter
    config = TINY_CONFIG.to_json() | {"resolution": 17}
    with pytest.raises(BundleError, match="power of two"):
        _ = replaced(folder, "generator", config=config).generator


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(manifest_version=2), "manifest_version 1, found 2"),
        (lambda m: m.update(name=3), "name"),
        (lambda m: m.update(parts={}), "list of parts"),
        (lambda m: m["parts"].append(m["parts"][0]), "twice"),
        (lambda m: m["parts"][0].pop("sha256"), "names"),
        (lambda m: m["parts"][0].update(size_bytes="1"), "int size_bytes"),
        (lambda m: m["parts"][0].update(size_bytes=True), "int size_bytes"),
        (lambda m: m["parts"][0].update(file="../../etc/passwd"), "plain file name"),
        (lambda m: m["parts"][0].update(file="/etc/passwd"), "plain file name"),
        (lambda m: m["parts"][0].update(file="sub/../../up"), "plain file name"),
        (lambda m: m["parts"][0].update(file="a\\..\\b"), "plain file name"),
        (lambda m: m["parts"][0].update(sha256="x" * 64), "bad size or sha256"),
        (lambda m: m["parts"][0].update(config={"changed": 1}), "expected decoder id"),
        (lambda m: m.update(decoder_id="0" * 64), "expected decoder id"),
    ],
)
def test_manifests_that_lie_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(folder, change)
    with pytest.raises(BundleError, match=words) as caught:
        load_bundle(folder)
    assert "manifest.json" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_broken_manifests_are_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match="bad-manifest"):
        load_bundle(folder)


def test_unknown_names_say_where_they_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path))
    with pytest.raises(BundleError, match="sgl-bundles list"):
        load_bundle("nowhere")
    with pytest.raises(BundleError, match="no-manifest"):
        load_bundle(tmp_path)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLAT_HOME", "/a/b")
    assert home_folder() == Path("/a/b")
    monkeypatch.delenv("SGLAT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert home_folder() == Path("/c/sglat")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home_folder() == Path.home() / ".cache" / "sglat"


def test_the_eyes_have_another_name_when_another_network_finds_faces() -> None:
    def with_finder(finder: object) -> str:
        bundle = load_bundle()
        bundle.__dict__["faces"] = SimpleNamespace(finder=finder)
        return bundle.faces_id

    assert with_finder(1) == with_finder(2)
    assert with_finder(1) != with_finder("insightface")
