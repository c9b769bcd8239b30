"""What can be fetched: every published file with address, size, sha256, licence and preprocessing.

Sizes and hashes are those shown by the hosting pages or pinned in public code, cross-checked
between hosts; each file is checked again after its download. Where only part of that is known,
`evidence` states what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sglat.errors import BundleError

Content = Literal["checkpoint", "onnx_pack", "torchscript"]


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Terms of use of a file."""

    name: str
    terms: str
    """The point in one sentence."""
    url: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file inside a pack."""

    name: str
    role: str
    size_bytes: int
    sha256: str
    folder: str = ""
    """Where it goes inside the bundle's folder; ends with a slash."""


@dataclass(frozen=True, kw_only=True)
class CatalogueFile:
    """One published file."""

    name: str
    size_bytes: int | None
    sha256: str | None
    git_blob_sha1: str | None = None
    """Checked where no sha256 is known: SHA-1 over `blob <size>`, a zero byte and the content."""
    addresses: tuple[str, ...] = ()
    """Direct addresses, tried in order; none where the publisher has no stable one."""
    by_hand: str = ""
    """Page for a manual download where there is no direct address."""
    licence: str
    """A name of `LICENCES`."""
    source: str
    """Project that trained the weights."""
    preprocessing: str
    """What the network expects."""
    evidence: str
    """How size and hash are known."""
    content: Content = "checkpoint"
    members: tuple[Member, ...] = ()
    """What a pack holds."""


LICENCES: Final = {
    "nvidia-nc": Licence(
        name="NVIDIA Source Code License-NC (generator) and MIT (e4e code)",
        terms="research and evaluation only, no commercial use",
        url="https://nvlabs.github.io/stylegan2/license.html",
    ),
    "cc-by-nc-sa-4.0": Licence(
        name="CC BY-NC-SA 4.0",
        terms="academic, non-commercial use; share alike; name the authors",
        url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    ),
    "arcface-unstated": Licence(
        name="MIT (repository); terms of the weights not stated",
        terms="the weights' own terms are unknown: treat as research only",
        url="https://github.com/TreB1eN/InsightFace_Pytorch/blob/master/LICENSE",
    ),
    "bisenet": Licence(
        name="MIT; trained on CelebAMask-HQ",
        terms="the training data allow non-commercial research only",
        url="https://github.com/zllrunning/face-parsing.PyTorch/blob/master/LICENSE",
    ),
    "bsd": Licence(
        name="BSD-3-Clause (torchvision)",
        terms="free use with the notice kept",
        url="https://github.com/pytorch/vision/blob/main/LICENSE",
    ),
    "insightface": Licence(
        name="insightface model licence",
        terms="non-commercial research only",
        url="https://github.com/deepinsight/insightface#license",
    ),
    "unstated": Licence(
        name="not stated",
        terms="no terms are published with this file",
        url="https://github.com/universome/stylegan-v",
    ),
}

_STYLEFLOW: Final = "RameenAbdal/StyleFlow/53a8c54c7f93fc97e1a8dc5893947e4c9df77d58"
_FACEXLIB: Final = "https://github.com/xinntao/facexlib/releases/download"

E4E: Final = CatalogueFile(
    name="e4e_ffhq_encode.pt",
    size_bytes=1_201_649_680,
    sha256="2ace1d9a8c05c10a399bcd500b8dda118f759ff1aac89dbdab7435f2136a0999",
    addresses=("https://huggingface.co/zhengchong/e4e/resolve/main/e4e_ffhq_encode.pt",),
    by_hand="https://drive.google.com/file/d/1cUv_reLE6k3604or78EranS7XzuVMWeO/view",
    licence="nvidia-nc",
    source="omertov/encoder4editing (inverter) with the StyleGAN2 config-f FFHQ generator",
    preprocessing="FFHQ-aligned crop, 256 x 256 RGB in [-1, 1]",
    evidence="the publisher's drive has no stable address; the same bytes lie on two other hosts",
)
STYLEFLOW: Final = CatalogueFile(
    name="modellarge10k.pt",
    size_bytes=None,
    sha256=None,
    git_blob_sha1="94fd23b8d3e51d1921309694bc51ee9ead122961",
    addresses=(f"https://raw.githubusercontent.com/{_STYLEFLOW}/flow_weight/modellarge10k.pt",),
    licence="cc-by-nc-sa-4.0",
    source="RameenAbdal/StyleFlow",
    preprocessing="W+ rows of the FFHQ generator; yaw and pitch in degrees, conditions 11 and 12",
    evidence="size and sha256 unknown; git's own hash of the file, read from the repository's tree",
)
ARCFACE: Final = CatalogueFile(
    name="model_ir_se50.pth",
    size_bytes=175_367_323,
    sha256="a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
    addresses=(f"{_FACEXLIB}/v0.1.0/recognition_arcface_ir_se50.pth",),
    by_hand="https://drive.google.com/file/d/1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn/view",
    licence="arcface-unstated",
    source="TreB1eN/InsightFace_Pytorch, as used by e4e",
    preprocessing="rows 35:223, columns 32:220 of a 256 px crop, pooled to 112 px, RGB in [-1, 1]",
    evidence="hosting pages of several copies agree",
)
BISENET: Final = CatalogueFile(
    name="79999_iter.pth",
    size_bytes=53_289_463,
    sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
    addresses=(f"{_FACEXLIB}/v0.2.0/parsing_bisenet.pth",),
    by_hand="https://drive.google.com/file/d/154JgKpzCPW82qINcVieuPH3fZ2e0P812/view",
    licence="bisenet",
    source="zllrunning/face-parsing.PyTorch",
    preprocessing="512 x 512 RGB, ImageNet mean and standard deviation",
    evidence="hosting pages of several copies agree",
)
ALEXNET: Final = CatalogueFile(
    name="alexnet-owt-7be5be79.pth",
    size_bytes=None,
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    addresses=("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
    licence="bsd",
    source="torchvision",
    preprocessing="LPIPS v0.1: RGB in [-1, 1], shifted and scaled; its heads come with `lpips`",
    evidence="the sha256 begins as the file's name says; size about 244 MB, exact value unknown",
)
_PACK_FOLDER: Final = "models/buffalo_l/"  # as insightface looks for it under its home
BUFFALO: Final = CatalogueFile(
    name="buffalo_l.zip",
    size_bytes=288_621_354,
    sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
    addresses=("https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip",),
    licence="insightface",
    source="deepinsight/insightface",
    preprocessing="ONNX; recognition: 5-point warp to 112 px, (x - 127.5) / 127.5",
    evidence="hosting page; the hashes inside are pinned in public code",
    content="onnx_pack",
    members=(
        Member(
            name="w600k_r50.onnx",
            folder=_PACK_FOLDER,
            role="recognition",
            size_bytes=174_383_860,
            sha256="4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        ),
        Member(
            name="det_10g.onnx",
            folder=_PACK_FOLDER,
            role="detection",
            size_bytes=16_923_827,
            sha256="5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        ),
        Member(
            name="2d106det.onnx",
            folder=_PACK_FOLDER,
            role="landmark_2d_106",
            size_bytes=5_030_888,
            sha256="f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf",
        ),
        Member(
            name="1k3d68.onnx",
            folder=_PACK_FOLDER,
            role="landmark_3d_68",
            size_bytes=143_607_619,
            sha256="df5c06b8a0c12e422b2ed8947b8869faa4105387f199c477af038aa01f9a45cc",
        ),
        Member(
            name="genderage.onnx",
            folder=_PACK_FOLDER,
            role="genderage",
            size_bytes=1_322_532,
            sha256="4fde69b1c810857b88c64a335084f1c3fe8f01246c9a191b48c7bb756d6652fb",
        ),
    ),
)
I3D: Final = CatalogueFile(
    name="i3d_torchscript.pt",
    size_bytes=51_235_320,
    sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    addresses=("https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",),
    licence="unstated",
    source="StyleGAN-V's reproduction of I3D, Kinetics-400",
    preprocessing="video [B, C, T, H, W] of more than 10 frames",
    evidence="hosting pages of three copies agree",
    content="torchscript",
)
INCEPTION: Final = CatalogueFile(
    name="inception-2015-12-05.pt",
    size_bytes=95_607_719,
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    addresses=(
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
        "inception-2015-12-05.pt",
    ),
    licence="nvidia-nc",
    source="NVlabs/stylegan2-ada-pytorch",
    preprocessing="RGB, 0 to 255; features for FID",
    evidence="hosting page",
    content="torchscript",
)


@dataclass(frozen=True, kw_only=True)
class CatalogueBundle:
    """A named set of files."""

    name: str
    summary: str
    files: tuple[CatalogueFile, ...]


BUNDLES: Final = {
    bundle.name: bundle
    for bundle in (
        CatalogueBundle(
            name="ffhq",
            summary="StyleGAN2 config-f 1024 px, e4e, StyleFlow, ArcFace, BiSeNet, AlexNet",
            files=(E4E, STYLEFLOW, ARCFACE, BISENET, ALEXNET),
        ),
        CatalogueBundle(
            name="insightface",
            summary="detector, landmarks and recognition of insightface (extra `insightface`)",
            files=(BUFFALO,),
        ),
        CatalogueBundle(
            name="metrics",
            summary="networks of FVD and FID, used by the benchmarks only",
            files=(I3D, INCEPTION),
        ),
    )
}


def catalogue_bundle(name: str) -> CatalogueBundle:
    """Return a set of files; raises BundleError for an unknown name."""
    if name not in BUNDLES:
        raise BundleError(
            "unknown-bundle", f"expected one of {sorted(BUNDLES)} to fetch, got {name!r:.80}"
        )
    return BUNDLES[name]


def find_file(sha256: str, git_blob_sha1: str) -> tuple[CatalogueBundle, CatalogueFile] | None:
    """Return the catalogue's entry for a file with these hashes, or None."""
    for bundle in BUNDLES.values():
        for file in bundle.files:
            if sha256 == file.sha256 or git_blob_sha1 == file.git_blob_sha1:
                return bundle, file
    return None
