"""Refining a known person on another clip, by a layer of weight deltas of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from sglat.bitstream.records import Identity
from sglat.encoder.align import Alignment
from sglat.encoder.known import KnownPerson
from sglat.encoder.losses import LossConfig, TargetLoss
from sglat.encoder.solve_motion import MotionProblem
from sglat.encoder.stages import Stage, Task
from sglat.encoder.tune import TuneConfig, Tuner, tune
from sglat.encoder.visible import Visible
from sglat.encoder.weight_deltas import DeltaConfig, delta_budget, growths
from sglat.encoder.write import identity_size
from sglat.networks.face_points import feature_weights


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(Stage[KnownPerson]):
    """How a known person is refined; latent and neutral stay."""

    name = "adapt"
    phase = "tune"
    networks = ("synthesizer", "perceptual", "faces")

    steps: int = 150
    extra_bytes: int = 8_000
    """Most bytes of the added layers."""
    ranks: tuple[int, ...] = (2,)
    seed: int = 0

    def run(
        self,
        task: Task,
        aligned: Alignment,
        visible: Visible,
        chosen: list[int],
        problem: MotionProblem,
        known: KnownPerson,
    ) -> KnownPerson:
        """Tune the deltas on some frames, starting from the person as known."""
        store, bundle = task.open(), task.bundle
        targets = aligned.crops.tensor(chosen).to(bundle.device, memory_format=torch.channels_last)
        points = problem.points[chosen].to(bundle.device)
        masks = visible.masks(chosen, bundle.resolution)
        masks = None if masks is None else masks.to(bundle.device)
        weights = feature_weights(points, targets.shape[-1], LossConfig().feature_weight)
        embed = bundle.faces.embed_for_loss
        config = TuneConfig(
            steps=self.steps, latent_share=0.0, rate_latent=0.0, seed=self.seed,
            deltas=DeltaConfig(ranks=self.ranks),
        )  # fmt: skip
        size = identity_size(known.whole)
        tuner = Tuner(
            known.tuned,
            known.person,
            targets,
            problem.start[chosen],
            TargetLoss(targets, weights, bundle.perceptual, embed, config.loss, masks),
            config,
            budget_bits=8 * delta_budget(size + self.extra_bytes) - 8 * delta_budget(size),
        )
        stored = store.result() if store.is_done else store.load_checkpoint()
        if stored is not None:
            tuner.restore(*stored)
        if not store.is_done:
            tune(
                tuner,
                progress=lambda done, steps, loss: task.tell(done, steps),
                checkpoint=lambda tuner: store.save_checkpoint(*tuner.state()),
            )
            store.finish(*tuner.state())
        return self._added(known, tuner, size + self.extra_bytes)

    def _added(self, known: KnownPerson, tuner: Tuner, most_bytes: int) -> KnownPerson:
        found = tuner.result()
        for growth in growths(60):
            whole = _with_layers(known.whole, tuner)
            if identity_size(whole) <= most_bytes:
                break
            found.deltas.scale_steps(growth)
        weights = found.deltas.weights()
        return replace(
            known,
            identity=_with_layers(known.identity, tuner),
            whole=whole,
            weights={name: value.detach() for name, value in weights.items()},
            typical=torch.cat([known.typical, found.motion])[: 2 * len(known.typical)],
            reference=None,
        )


def _with_layers(identity: Identity, tuner: Tuner) -> Identity:
    return replace(identity, layers=(*identity.layers, *tuner.deltas.to_layers()))
