"""Small published-looking files: a generator in both layouts, a pose flow, a catalogue of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sglat.bundles.catalogue import CatalogueBundle, CatalogueFile
from sglat.networks.layouts import Layout, names_of, styleflow_names
from sglat.networks.pose_flow import StyleFlow, StyleFlowConfig
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig

TOY_CONFIG = GeneratorConfig(resolution=16, channels=(8, 8, 4), latent_dim=16, mapping_layers=2)


def write_generator(
    state: Mapping[str, Tensor], config: GeneratorConfig, layout: Layout
) -> dict[str, Tensor]:
    """Our state as a published file stores it; the inverse of `read_generator`."""
    named = {n.theirs: state[n.ours].reshape(n.shape) for n in names_of(layout, config)}
    named["latent_avg" if layout == "rosinality" else "mapping.w_avg"] = state["w_avg"]
    return named


def toy_generator(seed: int = 0) -> Generator:
    """A random generator of 16 px whose W+ rows are 512 wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(TOY_CONFIG)
        generator.w_avg.normal_()
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                torch.nn.init.constant_(parameter, 0.5)
    return generator.eval()


def write_toy_generator(path: Path, *, seed: int = 0) -> Path:
    """A checkpoint in the rosinality layout."""
    state = write_generator(toy_generator(seed).state_dict(), TOY_CONFIG, "rosinality")
    torch.save({"g_ema": state, "latent_avg": state.pop("latent_avg")}, path)
    return path


def write_toy_flow(path: Path) -> Path:
    """A checkpoint in StyleFlow's layout."""
    config = StyleFlowConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        own = StyleFlow(config).state_dict()
    names = {name.ours: name.theirs for name in styleflow_names(config)}
    torch.save({names[name]: tensor for name, tensor in own.items()}, path)
    return path


def catalogue_file(path: Path, address: str, **options: object) -> CatalogueFile:
    """A catalogue entry for a file that a server offers under its name."""
    record = {
        "name": path.name,
        "size_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "addresses": (f"{address}/{path.name}",),
        "licence": "bsd",
        "source": "toys",
        "preprocessing": "none",
        "evidence": "made by this test",
        **options,
    }
    return CatalogueFile(**record)  # type: ignore[arg-type]


def toy_bundle(*files: CatalogueFile) -> CatalogueBundle:
    """A bundle named `toy`."""
    return CatalogueBundle(name="toy", summary="toys", files=files)
