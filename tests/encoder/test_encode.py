"""The whole encoder on a drawn face and a random 16 px bundle: every stage, resuming, the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sglat
from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.encoder import analysis as analysis_module
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import EncodeResult, encode
from sglat.encoder.paper_solver import PaperConfig
from sglat.errors import FaceError, UsageError
from sglat.media.audio import AudioReader
from sglat.networks.embedded_nets import LandmarkOutput
from sglat.networks.face_points import NUM_BLENDSHAPES, NUM_POINTS
from sglat.networks.perceptual import weighted_feature_distance
from tests.bundles.tiny import make_tiny_bundle
from tests.support.faces import DrawnFaces, draw_face
from tests.support.video import write_video

CONFIG = EncodeConfig(tune_steps=6, identity_bytes=6_000, self_check=True)


class Eyes(DrawnFaces):
    """Drawn faces with stand-ins for identity and parsing."""

    def embed(self, crops: Tensor) -> Tensor:
        return F.normalize(F.adaptive_avg_pool2d(crops, 4).flatten(1) + 0.1, dim=1)

    embed_for_loss = embed

    def parse(self, crops: Tensor) -> Tensor:
        classes = crops.new_zeros(len(crops), 19, *crops.shape[2:])
        classes[:, 1] = 1.0
        return classes


class Pixels:
    """A perceptual distance that is none."""

    def heads(self) -> list[Tensor]:
        return [torch.full((3,), 1 / 3)]

    def features(self, pictures: Tensor) -> list[Tensor]:
        return [pictures]

    def distance(
        self, first: list[Tensor], second: list[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        return weighted_feature_distance(first, second, self.heads(), mask)


class Points(nn.Module):
    """A landmark network of one random layer: the shapes and derivatives of the embedded one, which
    would take a third of an encoding at 16 px."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(2)
        self.layer = nn.Parameter(
            0.1 * torch.randn(2 * NUM_POINTS + 3, 48, generator=random), requires_grad=False
        )

    def forward(self, crops: Tensor) -> LandmarkOutput:
        blocks = F.avg_pool2d(crops, crops.shape[-1] // 4).flatten(1)
        numbers = torch.tanh(F.linear(blocks, self.layer))
        return LandmarkOutput(
            points=0.5 + 0.4 * numbers[:, :-3].view(-1, NUM_POINTS, 2),
            pose=20 * numbers[:, -3:],
            eye_openness=crops.new_full((len(crops), 2), 0.3),
            blendshapes=crops.new_zeros(len(crops), NUM_BLENDSHAPES),
            score_logit=crops.new_ones(len(crops)),
        )


def see_drawn_faces(bundle: Bundle) -> Bundle:
    """Give a bundle stand-ins for all networks that look at faces; return it."""
    bundle.__dict__.update(faces=Eyes(), perceptual=Pixels(), landmarks=Points().to(bundle.device))
    return bundle


def drawn_bundle(folder: Path) -> Bundle:
    """Return a random bundle that finds drawn faces."""
    return see_drawn_faces(make_tiny_bundle(folder))


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    bundle = drawn_bundle(tmp_path / "tiny")
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
    return bundle


def draw_clip(path: Path, frames: int = 9, *, audio: str | None = "aac") -> Path:
    wall = np.full((96, 128, 3), 60, np.uint8)
    pictures = [draw_face(wall, 60 + i % 3, 48, 72, shut=i % 5 == 4) for i in range(frames)]
    return write_video(path, pictures, audio_codec=audio)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return draw_clip(tmp_path / "in.mp4")


@dataclass(frozen=True)
class Encoded:
    """One encoding that several tests look at."""

    bundle: Bundle
    clip: Path
    file: Path
    result: EncodeResult


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    folder = Path(tmp_path_factory.mktemp("encoded"))
    bundle, clip = drawn_bundle(folder / "tiny"), draw_clip(folder / "in.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
        result = encode(clip, folder / "out.sglat", CONFIG)
    return Encoded(bundle, clip, folder / "out.sglat", result)


def test_every_frame_is_in_the_file(encoded: Encoded) -> None:
    with open_reader(encoded.file) as reader:
        assert reader.header.frame_count == 9
        assert reader.read_motion().values.shape == (9, 34)


def test_the_sound_is_carried_bit_for_bit(encoded: Encoded) -> None:
    with AudioReader(encoded.clip) as audio:
        wanted = [packet.data for packet in audio]
    with open_reader(encoded.file) as reader:
        found = [packet.data for group in reader.groups() for packet in group.packets]
    assert found == wanted


def test_the_file_decodes_to_pictures(encoded: Encoded) -> None:
    frames = list(sglat.decode(encoded.file, bundle=encoded.bundle))
    assert [frame.picture.shape for frame in frames] == [(16, 16, 3)] * 9


def test_the_result_counts_every_byte(encoded: Encoded) -> None:
    sizes = dict(encoded.result.bytes_by_stream)
    total = sizes.pop("total")
    assert total == encoded.file.stat().st_size == sum(sizes.values())


def test_the_identity_keeps_its_budget(encoded: Encoded) -> None:
    assert encoded.result.bytes_by_stream["identity"] <= CONFIG.identity_bytes


def test_the_work_file_is_gone_at_the_end(encoded: Encoded) -> None:
    assert list(encoded.file.parent.glob("*.work")) == []


class Killed(BaseException):
    """Ends an encoding as a kill would, without a chance to tidy up."""


PLACES = (("track", 5), ("align", 12), ("invert", 1), ("tune", 4), ("expression", 1))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Return a clip, and its file by each solver."""
    folder = Path(tmp_path_factory.mktemp("whole"))
    bundle, clip = drawn_bundle(folder / "tiny"), draw_clip(folder / "in.mp4")
    files = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
        patch.setitem(PaperConfig.__init__.__kwdefaults__, "epochs", 3)
        for solver in ("fast", "paper"):
            encode(clip, folder / solver, replace(CONFIG, solver=solver, self_check=False))
            files[solver] = (folder / solver).read_bytes()
    return clip, files


@pytest.mark.parametrize(
    ("place", "solver"), [*((place, "fast") for place in PLACES), (("expression", 8), "paper")]
)
def test_an_interrupted_encoding_ends_with_the_same_bytes(
    bundle: Bundle,
    uninterrupted: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[str, int],
    solver: str,
) -> None:
    monkeypatch.setitem(PaperConfig.__init__.__kwdefaults__, "epochs", 3)
    clip, files = uninterrupted
    config = replace(CONFIG, solver=solver, self_check=False)

    def kill(stage: str, done: int, total: int) -> None:
        if stage == place[0] and done >= place[1]:
            raise Killed

    with pytest.raises(Killed):
        encode(clip, tmp_path / "cut.sglat", config, progress=kill)
    assert not (tmp_path / "cut.sglat").exists()
    encode(clip, tmp_path / "cut.sglat", config)
    assert (tmp_path / "cut.sglat").read_bytes() == files[solver]


def test_a_single_frame_is_a_clip(bundle: Bundle, tmp_path: Path) -> None:
    path = draw_clip(tmp_path / "one.mp4", 1, audio=None)
    result = encode(path, tmp_path / "one.sglat", CONFIG)
    assert result.frames == 1


CHOICES = (
    {"solver": "paper"},
    {"target": "inverted"},
    {"tuning": "id-frame"},
    {"tuning": "pti"},
    {"tuning": "none"},
    {"plate": True},
    {"tune_frames": 2},
)


@pytest.mark.parametrize("option", CHOICES)
def test_every_choice_gives_a_whole_file(
    bundle: Bundle, clip: Path, tmp_path: Path, option: dict[str, object]
) -> None:
    settings = {"tune_steps": 4, "identity_bytes": 6_000, "self_check": False, **option}
    config = EncodeConfig(**settings)  # type: ignore[arg-type]
    result: EncodeResult = encode(clip, tmp_path / "out.sglat", config)
    with open_reader(tmp_path / "out.sglat") as reader:
        assert len(reader.read_motion().values) == result.frames


def test_a_video_without_a_face_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    wall = np.full((96, 128, 3), 60, np.uint8)
    path = write_video(tmp_path / "wall.mp4", [wall] * 3)
    with pytest.raises(FaceError, match="no-face"):
        encode(path, tmp_path / "out.sglat", CONFIG)
    assert list(tmp_path.glob("*.work")) == []


def test_an_existing_file_is_kept(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out.sglat").write_bytes(b"precious")
    with pytest.raises(UsageError, match="output-exists"):
        encode(clip, tmp_path / "out.sglat", CONFIG)
    assert (tmp_path / "out.sglat").read_bytes() == b"precious"
