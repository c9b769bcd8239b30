"""What one training run of the embedded bundle does, and what cannot be trained."""

from __future__ import annotations

from dataclasses import dataclass

from sglat.networks.stylespace import GeneratorConfig

SIZES = (128, 256)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What one run does; everything here is written into the checkpoint."""

    stage: str = "manifold"
    """`autoencoder` or `manifold`."""
    size: int = 128
    """Side of the generator's picture: 128 or 256. Weights of a smaller one are grown."""
    resolution: int = 0
    """Resolution of the losses, layers above it rest; 0: that of the picture."""
    batch: int = 8
    rate_generator: float = 2e-3
    """Learning rate of the generator (equalised weights)."""
    rate_inverter: float = 3e-3
    rate_motion: float = 1e-3
    """Learning rate of pose flow, controls and motion estimator."""
    weight_perceptual: float = 0.03
    weight_identity: float = 0.0
    weight_adversarial: float = 0.0
    """Of the critic, which sees pictures with adaptive augmentation."""
    weight_r1: float = 1.0
    weight_locality: float = 0.0
    """Of what a control changes outside its part of the face (stage `manifold`)."""
    weight_pose: float = 0.0
    """Of degrees that were asked for and not seen, and of the person lost on the way (stage
    `manifold`)."""
    trial_faces: int = 4
    """Faces of a batch on which a control or a pose is tried."""
    weight_features: float = 2.0
    """Extra L1 weight on eyes and mouth."""
    identity_every: int = 4
    ema: float = 0.998
    """Decay of the averaged weights per step at full warm-up."""
    still_share: float = 0.4
    """Share of stills in a batch; the rest are pairs of frames of one clip."""
    far_share: float = 0.0
    """Share of the pairs whose heads are turned apart as far as the clip readily gives."""
    precision: str = "auto"
    """Of features: `bf16`, `fp32`, or `auto`: bf16 where that is the faster."""
    compile: str = "auto"
    """Whether `torch.compile` makes the networks faster: `on`, `off`, or `auto`: on CUDA."""
    seed: int = 0
    minutes: float = 60.0
    """Stop after this much wall time."""
    steps: int = 0
    """Stop after so many steps of this run; 0: by the time alone."""
    anneal_minutes: float = 0.0
    """Let the learning rates fall to 5 % over the last minutes."""
    anneal_steps: int = 0
    """Likewise over the last of `steps`: runs of unlike speed then compare by pictures seen."""

    @property
    def side(self) -> int:
        """Side of the pictures that are compared, in pixels."""
        return self.resolution or self.size


def check(config: TrainConfig) -> None:
    """End with one line where the configuration cannot be trained."""
    full = config.size
    if full not in SIZES:
        raise SystemExit(f"--size: expected one of {SIZES}, found {full}")
    if config.compile not in ("auto", "on", "off"):
        raise SystemExit(f"--compile: expected auto, on or off, found {config.compile}")
    if config.anneal_steps > config.steps:
        raise SystemExit(
            f"--anneal-steps: expected at most the {config.steps} of --steps, "
            f"found {config.anneal_steps}"
        )
    if config.stage not in ("autoencoder", "manifold"):
        raise SystemExit(f"--stage: expected autoencoder or manifold, found {config.stage}")
    if config.precision not in ("auto", "bf16", "fp32"):
        raise SystemExit(f"--precision: expected auto, bf16 or fp32, found {config.precision}")
    if config.side not in GeneratorConfig.mini(full).resolutions:
        raise SystemExit(f"--resolution: expected a power of two to {full}, found {config.side}")
    if config.side < 32:
        raise SystemExit(f"--resolution: the losses need 32 px, found {config.side}")
    if config.side < full and (config.stage == "manifold" or config.weight_adversarial):
        raise SystemExit(
            f"--resolution: stage manifold and the adversarial term need {full}, "
            f"found {config.side}"
        )
