"""Published checkpoints become parts of a bundle exactly, or nothing is written."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.bundles.catalogue import BUNDLES, LICENCES, Member
from sglat.bundles.controls import PAPER_CHANNELS
from sglat.bundles.convert import convert_checkpoint, keep_as_is, paper_controls, unpack
from sglat.bundles.download import hash_download
from sglat.bundles.manifest import canonical_json
from sglat.bundles.store import import_own
from sglat.errors import BundleError, MissingExtraError, UsageError
from sglat.networks.face_analysis import DETECTOR_FILE, IDENTITY_FILE, pack_folder
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.measure import judges
from sglat_lab.measure.teachers import FsaNetPair
from tests.bundles.toys import (
    TOY_CONFIG,
    toy_generator,
    write_generator,
    write_toy_flow,
    write_toy_generator,
)

PACK = BUNDLES["insightface"].files[0]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("layout", ["rosinality", "nvidia"])
def test_an_imported_generator_renders_the_same_bits(tmp_path: Path, layout: str) -> None:
    generator = toy_generator()
    state = write_generator(generator.state_dict(), TOY_CONFIG, layout)  # type: ignore[arg-type]
    path = tmp_path / "weights.pt"
    torch.save({"G_ema" if layout == "nvidia" else "g_ema": state}, path)
    import_own(path, "mine")
    bundle = load_bundle("mine")
    assert bundle.config == TOY_CONFIG
    own = generator.state_dict()
    loaded = bundle.generator.state_dict()
    assert set(loaded) == set(own)
    assert all(torch.equal(loaded[name], own[name]) for name in own)
    ws = generator.repeat(torch.randn(2, 512))
    with torch.inference_mode():
        assert torch.equal(bundle.generator(ws), generator(ws))


def test_parts_of_one_bundle_come_one_by_one(tmp_path: Path) -> None:
    import_own(write_toy_generator(tmp_path / "g.pt"), "mine")
    state = import_own(write_toy_flow(tmp_path / "flow.pt"), "mine")
    assert state.manifest is not None
    assert set(state.manifest.parts) == {"generator", "pose_flow"}
    assert state.manifest.decoder_id is None  # controls are missing still
    ws = torch.randn(2, 6, 512)
    degrees = torch.tensor([[10.0, 5.0], [0.0, 0.0]])
    turned = load_bundle("mine").pose_flow.turn(ws, torch.zeros(2, 2), degrees)
    assert torch.equal(turned[:, 4:], ws[:, 4:])


def test_a_part_for_another_generator_is_refused(tmp_path: Path) -> None:
    narrow = replace(TOY_CONFIG, style_dim=32)
    generator = type(toy_generator())(narrow)
    state = write_generator(generator.state_dict(), narrow, "rosinality")
    torch.save({"g_ema": state}, tmp_path / "narrow.pt")
    import_own(tmp_path / "narrow.pt", "mine")
    before = (load_bundle("mine").folder / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match=r"pose_flow: expected style_dim 32.*found 512"):
        import_own(write_toy_flow(tmp_path / "flow.pt"), "mine")
    assert (load_bundle("mine").folder / "manifest.json").read_bytes() == before


def test_an_unknown_checkpoint_writes_nothing(tmp_path: Path, home: Path) -> None:
    torch.save({"layer.weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(BundleError, match=r"other.pt: expected StyleGAN2.*layer\.weight"):
        import_own(tmp_path / "other.pt", "mine")
    assert not (home / "bundles").exists()


def test_missing_tensors_are_named_and_nothing_is_written(tmp_path: Path, home: Path) -> None:
    state = write_generator(toy_generator().state_dict(), TOY_CONFIG, "rosinality")
    del state["to_rgbs.0.bias"]
    torch.save({"g_ema": state}, tmp_path / "g.pt")
    with pytest.raises(BundleError, match=r"g\.pt: expected .* to_rgbs\.0\.bias"):
        import_own(tmp_path / "g.pt", "mine")
    assert not (home / "bundles").exists()


def test_wrong_shapes_are_named_and_nothing_is_written(tmp_path: Path, home: Path) -> None:
    state = write_generator(toy_generator().state_dict(), TOY_CONFIG, "rosinality")
    state["conv1.noise.weight"] = torch.zeros(7)
    torch.save({"g_ema": state}, tmp_path / "g.pt")
    with pytest.raises(BundleError, match=r"conv1\.noise\.weight \[1\], found \[7\]"):
        import_own(tmp_path / "g.pt", "mine")
    assert not (home / "bundles").exists()


def test_a_truncated_file_writes_nothing(tmp_path: Path, home: Path) -> None:
    path = write_toy_generator(tmp_path / "g.pt")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BundleError, match=r"g\.pt"):
        import_own(path, "mine")
    assert not (home / "bundles").exists()


@pytest.mark.parametrize("name", ["mini", "ffhq", "insightface"])
def test_published_names_cannot_be_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="published"):
        import_own(write_toy_generator(tmp_path / "g.pt"), name)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Big", "x" * 65])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="bad-name"):
        import_own(write_toy_generator(tmp_path / "g.pt"), name)


def alexnet_state() -> dict[str, torch.Tensor]:
    """torchvision's AlexNet with the classifier left out, random."""
    torch.manual_seed(0)
    shapes = {
        0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }  # fmt: skip
    state = {f"features.{n}.weight": torch.randn(shape) for n, shape in shapes.items()}
    return state | {f"features.{n}.bias": torch.randn(shape[0]) for n, shape in shapes.items()}


def test_alexnet_becomes_the_perceptual_network(tmp_path: Path) -> None:
    torch.save(alexnet_state() | {"classifier.6.weight": torch.ones(2)}, tmp_path / "alex.pth")
    import_own(tmp_path / "alex.pth", "mine")
    bundle = load_bundle("mine")
    assert bundle.part("faces_perceptual").kind == "lpips_alex"
    try:
        network = bundle.module("faces_perceptual")
    except MissingExtraError as error:
        pytest.skip(str(error))
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    assert float(network(picture, picture)) == 0
    assert float(network(picture, -picture)) > 0


def test_alexnet_with_a_missing_layer_is_refused(tmp_path: Path) -> None:
    state = alexnet_state()
    del state["features.8.bias"]
    torch.save(state, tmp_path / "alex.pth")
    with pytest.raises(BundleError, match=r"alex\.pth: expected 10 tensors.*features\.8\.bias"):
        convert_checkpoint(tmp_path / "alex.pth")


def test_the_papers_controls_fit_the_ffhq_generator() -> None:
    part = paper_controls(GeneratorConfig.config_f(1024))
    assert [tuple(pair) for pair in part.tensors["channels"].tolist()] == list(PAPER_CHANNELS)


def test_the_papers_controls_fit_the_generator_up_to_256_px() -> None:
    part = paper_controls(GeneratorConfig.config_f(256), sigma=[2.0] * 32)
    assert [tuple(pair) for pair in part.tensors["channels"].tolist()] == list(PAPER_CHANNELS)
    assert part.hints["step"] == [0.5] * 32


def test_the_papers_controls_refuse_the_generator_up_to_128_px() -> None:
    with pytest.raises(BundleError, match="18 at least are needed; this generator has 17"):
        paper_controls(GeneratorConfig.config_f(128))


def test_the_papers_controls_refuse_another_generator() -> None:
    with pytest.raises(BundleError, match="26 layers with 9088 channels"):
        paper_controls(TOY_CONFIG)


def make_pack(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def member(data: bytes) -> Member:
    sha256 = hashlib.sha256(data).hexdigest()
    return Member(name="net.onnx", role="detection", size_bytes=len(data), sha256=sha256)


def test_a_pack_is_unpacked_and_checked(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack.zip", {"sub/net.onnx": b"onnx", "other": b"x"})
    file = replace(PACK, members=(replace(member(b"onnx"), folder="models/pack/"),))
    unpack(pack, file, tmp_path / "here", name="insightface", source="pack")
    assert (tmp_path / "here" / "models" / "pack" / "net.onnx").read_bytes() == b"onnx"
    bundle = Bundle(tmp_path / "here")
    bundle.verify()
    (tmp_path / "here" / "models" / "pack" / "net.onnx").write_bytes(b"onny")
    with pytest.raises(BundleError, match=r"net\.onnx: expected sha256"):
        bundle.verify()


@pytest.mark.parametrize(
    "content",
    [
        {"net.onnx": b"onny"},
        {"net.onnx": b"longer"},
        {},
        {"a/net.onnx": b"onnx", "net.onnx": b"onnx"},
    ],
)
def test_a_wrong_pack_writes_nothing(tmp_path: Path, content: dict[str, bytes]) -> None:
    pack = make_pack(tmp_path / "pack.zip", content)
    file = replace(PACK, members=(member(b"onnx"),))
    with pytest.raises(BundleError, match=r"pack\.zip: .*expected"):
        unpack(pack, file, tmp_path / "here", name="insightface", source="pack")
    assert [path for path in (tmp_path / "here").rglob("*") if path.is_file()] == []


def test_a_file_kept_as_it_is_gets_the_name_programs_look_for(tmp_path: Path) -> None:
    (tmp_path / "published.onnx").write_bytes(b"onnx")
    file = replace(PACK, content="as_is", members=(member(b"onnx"),))
    keep_as_is(tmp_path / "published.onnx", file, tmp_path / "here", name="teachers", source="x")
    assert (tmp_path / "here" / "net.onnx").read_bytes() == b"onnx"
    Bundle(tmp_path / "here").verify()


def test_the_teachers_are_kept_under_the_names_the_laboratory_reads() -> None:
    files = BUNDLES["teachers"].files
    assert {file.members[0].name for file in files} == {
        judges.LANDMARKER_FILE, judges.IDENTITY_FILE, judges.SQUEEZE_SOURCE, *FsaNetPair.FILES
    }  # fmt: skip
    for file in files:
        (kept,) = file.members
        assert (kept.size_bytes, kept.sha256) == (file.size_bytes, file.sha256)


def test_the_insightface_pack_goes_where_insightface_looks(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path)
    places = {tmp_path / f"{member.folder}{member.name}" for member in PACK.members}
    assert {folder / DETECTOR_FILE, folder / IDENTITY_FILE} <= places


def test_every_catalogue_entry_is_complete() -> None:
    for bundle in BUNDLES.values():
        for file in bundle.files:
            assert file.licence in LICENCES
            assert file.sha256 or file.git_blob_sha1
            assert all(len(h) == 64 for h in (file.sha256,) if h)
            assert all(address.startswith("https://") for address in file.addresses)
            assert file.addresses or file.by_hand
            assert canonical_json([file.source, file.preprocessing, file.evidence])


def test_the_hash_of_gits_objects_is_computed_as_git_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")  # the value is that of `git hash-object`
    assert hash_download(tmp_path / "file")[1] == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_web_page_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "e4e.pt").write_text("<!DOCTYPE html><html>Virus scan warning</html>")
    with pytest.raises(BundleError, match="web page"):
        convert_checkpoint(tmp_path / "e4e.pt")
