"""One person's motion to pictures with final weights: the decoder's fast path."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.networks.stylegan2_fast import FastSynthesis


class Renderer:
    """Renders one person's motion; inference only.

    Args:
        synthesizer: with the person's deltas applied.
        person: latent and neutral.
        half: 16-bit features in the large layers: float16 on GPUs, bfloat16 on processors, where it
            pays if they compute in it.
        workers: frames rendered side by side on a processor, one thread each. Small pictures gain
            more from this than from sharing each layer among the threads; 0 takes PyTorch's count.
    """

    def __init__(
        self, synthesizer: Synthesizer, person: Person, *, half: bool = False, workers: int = 0
    ) -> None:
        self.synthesizer = synthesizer
        self.person = person
        on_processor = synthesizer.device.type == "cpu"
        narrow = torch.bfloat16 if on_processor else torch.float16
        self._synthesis = FastSynthesis(
            synthesizer.generator, dtype=narrow if half else torch.float32
        )
        self._workers = workers or torch.get_num_threads()
        has_pool = on_processor and self._workers > 1
        self._pool = _single_threaded_pool(self._workers) if has_pool else None

    def render(self, motion: Tensor) -> Tensor:
        """Return pictures `[N, 3, R, R]` in [-1, 1] of motion `[N, 34]`."""
        motion = motion.to(self.person.ws)
        if self._pool is None or len(motion) == 1:
            return self._render(motion)
        mode = torch.is_inference_mode_enabled()

        def work(part: Tensor) -> Tensor:
            with torch.inference_mode(mode):  # the mode is each thread's own
                return self._render(part)

        return torch.cat(
            list(self._pool.map(work, motion.tensor_split(min(self._workers, len(motion)))))
        )

    def _render(self, motion: Tensor) -> Tensor:
        pictures: Tensor = self._synthesis(self.synthesizer.styles(self.person, motion))
        return pictures.clamp(-1, 1)


def _single_threaded_pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool whose threads each run PyTorch on one core; the caller's setting stays."""
    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    started = threading.Barrier(workers + 1)
    for _ in range(workers):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(own)  # also the default of threads started later
    return pool
