"""A stand-in for the published set `ffhq`: files in the publishers' own layouts, filled by the rule
of the golden vectors, and a catalogue that leads to a local server."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sglat.bundles.catalogue import BUNDLES, CatalogueBundle
from sglat_lab.measure.video_nets import I3D, InceptionV3
from tests.support.shared import shared_path

SEED = "sglat-stand-in"
ALEXNET = {
    "features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5), "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3), "features.10": (256, 256, 3, 3),
}  # fmt: skip
CLASSIFIER = {
    "classifier.1": (4096, 9216), "classifier.4": (4096, 4096), "classifier.6": (1000, 4096),
}  # fmt: skip


def entries(name: str) -> list[dict[str, Any]]:
    """Return the tensors of a golden case."""
    found = json.loads(shared_path(f"golden/{name}/manifest.json").read_text(encoding="utf-8"))
    return list(found["tensors"])


def filled(tensors: list[dict[str, Any]], seed: str = SEED) -> dict[str, Any]:
    """Fill tensors by the golden rule, nested as in their file."""
    spec = importlib.util.spec_from_file_location("golden_fill", shared_path("golden/fill.py"))
    assert spec is not None and spec.loader is not None
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    found = fill.fill_checkpoint({"seed": seed, "tensors": tensors})
    return dict(_to_torch(found))


def _to_torch(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_torch(item) for name, item in value.items()}
    return torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)


def e4e_file(resolution: int) -> dict[str, Any]:
    """Return e4e's checkpoint, encoder and generator, for FFHQ crops of a resolution."""
    if resolution == 1024:
        content = filled(entries("e4e_encoder"))
    else:
        assert resolution == 256
        heads = [f"encoder.styles.{row}." for row in range(14, 18)]
        encoder = [
            entry
            for entry in entries("e4e_encoder")
            if entry["name"].startswith("encoder.") and not entry["name"].startswith(tuple(heads))
        ]
        generator = [
            {**entry, "container": "state_dict", "name": f"decoder.{entry['name']}"}
            for entry in entries("stylegan2_rosinality_256")
            if entry["container"] == "g_ema"
        ]
        mean = {
            "container": "", "name": "latent_avg", "shape": [14, 512], "dtype": "float32",
            "rule": "rows_0.3",
        }  # fmt: skip
        content = filled([*encoder, *generator, mean])
    return {**content, "opts": {"output_size": resolution}}


def alexnet_file(*, has_classifier: bool) -> dict[str, Any]:
    """Return torchvision's AlexNet; only `features` are ever used."""
    shapes = ALEXNET | (CLASSIFIER if has_classifier else {})
    tensors = []
    for name, shape in shapes.items():
        common = {"container": "", "dtype": "float32"}
        tensors += [
            {**common, "name": f"{name}.weight", "shape": shape, "rule": "fan_in_2"},
            {**common, "name": f"{name}.bias", "shape": shape[:1], "rule": "scale_0.1"},
        ]
    return filled(tensors)


def write_files(folder: Path, resolution: int) -> list[Path]:
    """Write the five published files of `ffhq`, with a generator of 256 or 1024 px."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "e4e_ffhq_encode.pt": lambda: e4e_file(resolution),
        "modellarge10k.pt": lambda: filled(entries("styleflow_cnf")),
        "model_ir_se50.pth": lambda: filled(entries("arcface_irse50")),
        "79999_iter.pth": lambda: filled(entries("bisenet_19")),
        "alexnet-owt-7be5be79.pth": lambda: alexnet_file(has_classifier=resolution == 1024),
    }
    for name, make in contents.items():
        torch.save(make(), folder / name)
    return [folder / name for name in contents]


def write_metric_files(folder: Path) -> list[Path]:
    """Write the published files of the bundle `metrics`."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "rgb_imagenet.pt": I3D, "pt_inception-2015-12-05-6726825d.pth": InceptionV3
    }  # fmt: skip
    for name, network in contents.items():
        state = filled_network(network(), SEED).state_dict()
        torch.save(state, folder / name)
    return [folder / name for name in contents]


def filled_network(network: nn.Module, seed: str) -> nn.Module:
    """Fill a network of convolutions and batch normalisation by the golden rule."""
    tensors: list[dict[str, Any]] = [
        {
            "container": "", "name": name, "shape": list(tensor.shape), "dtype": "float32",
            "rule": _rule(name, tensor),
        }
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]  # fmt: skip
    network.load_state_dict(filled(tensors, seed), strict=False)
    return network.eval()


def _rule(name: str, tensor: torch.Tensor) -> str:
    if name.endswith("running_var"):
        return "exp_0.1"
    if name.endswith(("running_mean", "bias")):
        return "scale_0.1"
    return "one_plus_0.1" if tensor.ndim == 1 else "fan_in_2"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's files and give the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def catalogue(files: list[Path], address: str, name: str = "ffhq") -> CatalogueBundle:
    """Return a bundle of the catalogue with sizes, hashes and addresses of the stand-in."""
    changed = []
    for file in BUNDLES[name].files:
        path = next(path for path in files if path.name == file.name)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        changed.append(
            replace(
                file, size_bytes=path.stat().st_size, sha256=sha256, git_blob_sha1=None,
                addresses=(f"{address}/{path.name}",),
            )
        )  # fmt: skip
    return replace(BUNDLES[name], files=tuple(changed))
