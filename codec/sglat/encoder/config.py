"""Everything a user may choose of an encoding, and the presets that choose for them."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, fields, replace
from pathlib import Path
from typing import Final, Literal

from sglat.encoder.gauss_newton import SolverConfig
from sglat.encoder.motion_bank import MotionBankConfig
from sglat.encoder.solve_motion import POLISH, POLISH_KNOWN, THOROUGH
from sglat.errors import UsageError
from sglat.media.audio import SoundChoice

PresetName = Literal["live", "fast", "default", "best"]


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Everything a user may choose."""

    bundle: str = "mini"
    """Name or folder of the weights."""
    face: int = 1
    """1 is the largest face over the clip."""
    like: Path | None = None
    """A picture of the person to follow, in place of a number."""
    quality: int | None = None
    """0 to 100: quantizer of the motion. None: 62, or less where that takes more than 47 bits a
    frame."""
    motion_bits: float | None = None
    """Most bits a frame for the motion; the quality is lowered where they are exceeded. None: no
    limit where a quality is given."""
    identity_bytes: int = 64_000
    """Most bytes of the identity, all layers."""
    resolution: int | None = None
    """Of the file, one of the bundle's rungs; None: the largest for which the source has detail."""
    solver: Literal["fast", "paper"] = "fast"
    """How the motion is solved for."""
    target: Literal["frame", "inverted"] | None = None
    """What the motion is fitted to: the camera frame, or the tuned generator's rendering of its
    inversion. None: the latter with the paper's solver."""
    tuning: Literal["manifold", "id-frame", "pti", "none"] = "manifold"
    """How the generator is tuned to the person: together with its latent within what the file can
    carry, on many frames or on the ID frame alone; by pivotal tuning as published; or not."""
    tune_steps: int | None = None
    """None: the default of tuning."""
    tune_frames: int | None = None
    """Tuning frames; None: the default of their choice."""
    motion_bank: MotionBankConfig = MotionBankConfig()  # noqa: RUF009
    """Regularisation of tuning by motions that the clip lacks, where the bundle has a motion bank;
    off by default."""
    plate: bool = False
    """Store a still background for full frames."""
    preset: PresetName = "default"
    """Time against quality (see `PRESETS`); other options override what it chooses."""
    identity: Path | None = None
    """A file with the person, by `sgl-enrol` or any other with an identity: only motion is encoded,
    and the result refers to that identity by its hash."""
    embed: bool = False
    """Carry the known identity in the result."""
    adapt: bool = False
    """Refine the known identity on this clip by a layer of its own, which the result carries."""
    seed: int = 0
    """Of all random numbers."""
    workfile: Path | None = None
    """Folder for resuming; None puts it beside the output."""
    keep_workfile: bool = False
    """Keep the folder of unfinished work after the end."""
    start_seconds: float = 0.0
    """First second that is encoded; sound is trimmed with the pictures."""
    end_seconds: float | None = None
    """The last frame before it is encoded; None: to the end."""
    audio: SoundChoice = "auto"
    """How sound is stored: compressed sound is copied and PCM becomes FLAC unless chosen."""
    resume: bool = True
    """Continue unfinished work; else forget it."""
    device: str = "auto"
    """As for decoding: a GPU where there is one. Other devices than the processor round differently
    and give other bytes."""
    threads: int | None = None
    """Processor threads; None: all."""
    self_check: bool | None = None
    """Decode the result and measure it. None: all presets do but `live`."""
    similarity_plot: Path | None = None
    """Write the identity similarity over time as SVG here."""
    consent: str = ""
    """The pictured person's statement of consent, kept in the file."""
    force: bool = False
    """Replace an existing output."""
    is_forced: InitVar[bool] = False
    """An older name of `force`."""

    def __post_init__(self, is_forced: bool) -> None:
        object.__setattr__(self, "force", self.force or is_forced)

    @property
    def matched(self) -> Literal["frame", "inverted"]:
        """What the motion is fitted to."""
        if self.target is not None:
            return self.target
        return "inverted" if self.solver == "paper" and self.identity is None else "frame"

    @property
    def is_checked(self) -> bool:
        """Whether the result is decoded and measured."""
        return self.preset != "live" if self.self_check is None else self.self_check


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a preset chooses."""

    tune_steps: int = 1500
    refine_steps: int = 200
    detail_steps: int = 1000
    inverted_frames: int = 400
    """Most frames that are inverted."""
    tune_batch: int = 4
    """Frames of a tuning step."""
    sweep_only: bool = False
    """Leave out the batched steps after the sweep."""
    polish: SolverConfig = POLISH


PRESETS: Final[dict[PresetName, Preset]] = {
    "live": Preset(
        tune_steps=300, refine_steps=60, detail_steps=200, inverted_frames=48, sweep_only=True
    ),
    "fast": Preset(
        tune_steps=300, refine_steps=60, detail_steps=200, inverted_frames=48,
        polish=replace(POLISH, iterations=1),
    ),
    "default": Preset(),
    "best": Preset(tune_steps=3000, detail_steps=2000, polish=THOROUGH),
}  # fmt: skip


def polish_of(config: EncodeConfig) -> SolverConfig | None:
    """Return the batched steps of the fast solver after the sweep; None leaves it at the sweep."""
    preset = PRESETS[config.preset]
    if preset.sweep_only:
        return None
    is_known = config.identity is not None and config.preset == "default"
    return POLISH_KNOWN if is_known else preset.polish


_OF_PERSON: Final = ("tuning", "target", "identity_bytes", "resolution")
_OF_TUNING: Final = ("tune_steps", "tune_frames", "similarity_plot")
"""What refining a known person needs too."""


def check_choices(config: EncodeConfig) -> None:
    """Refuse choices that contradict each other.

    Raises:
        UsageError: `bad-options`.
    """
    if config.identity is None:
        for name in ("embed", "adapt"):
            if getattr(config, name):
                raise UsageError("bad-options", f"--{name} needs --identity FILE")
        return
    refused = _OF_PERSON if config.adapt else (*_OF_PERSON, *_OF_TUNING)
    for field in fields(config):
        if field.name in refused and getattr(config, field.name) != field.default:
            option = field.name.replace("_", "-")
            way = "add --adapt to refine it" if field.name in _OF_TUNING else "leave one out"
            raise UsageError(
                "bad-options",
                f"--{option} and --identity contradict each other: the person is taken as "
                f"{config.identity} has it; {way}",
            )
