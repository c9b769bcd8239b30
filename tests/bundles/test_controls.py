"""The 32 controls: table 1, both kinds, storage, bad values."""

from __future__ import annotations

import pytest
import torch

from sglat.bitstream.channels import GROUP_SIZES, GROUPS
from sglat.bundles.controls import NUM_CONTROLS, PAPER_CHANNELS, Controls
from sglat.errors import BundleError, UsageError
from sglat.networks.stylespace import GeneratorConfig

FFHQ = GeneratorConfig.config_f(1024)
WIDTHS = (6, 4, 5, 3)


def vectors(**units: object) -> Controls:
    torch.manual_seed(0)
    matrix = torch.randn(NUM_CONTROLS, sum(WIDTHS)).half().float()
    matrix[:, 6:10] = 0  # one layer stays untouched
    return Controls(matrix, style_widths=WIDTHS, **units)  # type: ignore[arg-type]


def styles(widths: tuple[int, ...], batch: int = 3) -> list[torch.Tensor]:
    return [torch.randn(batch, width) for width in widths]


def test_the_groups_are_those_of_table_1() -> None:
    assert GROUP_SIZES == {"mouth": 17, "chin": 4, "eyes": 6, "brows": 4, "gaze": 1}
    assert len(GROUPS) == len(PAPER_CHANNELS) == len(set(PAPER_CHANNELS)) == 32
    assert PAPER_CHANNELS[0] == (6, 113)
    assert PAPER_CHANNELS[-1] == (9, 409)
    assert PAPER_CHANNELS[17:21] == ((5, 50), (5, 505), (6, 131), (8, 390))


def test_no_channel_of_table_1_is_a_torgb_layer() -> None:
    kinds = {FFHQ.style_table[layer].kind for layer, _ in PAPER_CHANNELS}
    assert kinds == {"conv", "conv_up"}


def test_a_channel_control_moves_its_channel_and_no_other() -> None:
    controls = Controls.from_channels(PAPER_CHANNELS, FFHQ.style_widths)
    before = [torch.zeros(1, width) for width in FFHQ.style_widths]
    for index, (layer, channel) in enumerate(PAPER_CHANNELS):
        values = torch.zeros(1, NUM_CONTROLS)
        values[0, index] = 2.5
        after = controls.apply(before, values)
        moved = [(n, int(c)) for n, style in enumerate(after) for c in style[0].nonzero()]
        assert moved == [(layer, channel)]
        assert after[layer][0, channel] == 2.5


def test_two_controls_on_one_channel_add_up() -> None:
    channels = [(0, i % 6) for i in range(NUM_CONTROLS)]
    after = Controls.from_channels(channels, WIDTHS).apply(
        [torch.zeros(1, width) for width in WIDTHS], torch.ones(1, NUM_CONTROLS)
    )
    assert after[0].tolist() == [[6, 6, 5, 5, 5, 5]]


def test_vectors_are_a_matrix_product() -> None:
    controls, before, values = vectors(), styles(WIDTHS), torch.randn(3, NUM_CONTROLS)
    after = torch.cat(controls.apply(before, values), dim=1)
    expected = torch.cat(before, dim=1) + values @ controls.matrix
    assert torch.allclose(after, expected, atol=1e-5)


def test_zero_changes_nothing_and_untouched_layers_are_the_same_tensors() -> None:
    controls, before = vectors(), styles(WIDTHS)
    after = controls.apply(before, torch.zeros(3, NUM_CONTROLS))
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert after[1] is before[1]


def test_styles_of_a_lower_resolution_lose_the_edits_above() -> None:
    controls, before, values = vectors(), styles(WIDTHS), torch.randn(3, NUM_CONTROLS)
    whole = controls.apply(before, values)
    short = controls.apply(before[:2], values)
    assert len(short) == 2
    assert all(torch.equal(a, b) for a, b in zip(short, whole[:2], strict=True))


@pytest.mark.parametrize("kind", ["channels", "vectors"])
def test_gradients_reach_the_values(kind: str) -> None:
    channels = [(0, i % 6) for i in range(NUM_CONTROLS)]
    controls = vectors() if kind == "vectors" else Controls.from_channels(channels, WIDTHS)
    before = styles(WIDTHS)
    jacobian = torch.func.jacfwd(
        lambda values: torch.cat(controls.apply([s[:1] for s in before], values[None]), dim=1)[0]
    )(torch.zeros(NUM_CONTROLS))
    assert torch.allclose(jacobian.T, controls.matrix, atol=1e-6)


@pytest.mark.parametrize("kind", ["channels", "vectors"])
def test_storage_keeps_everything(kind: str) -> None:
    units = {
        "sigma": [0.5 + i for i in range(32)],
        "step": [0.1] * 32,
        "yaw_step_degrees": 0.75,
        "names": [f"c{i}" for i in range(32)],
    }
    if kind == "channels":
        controls = Controls.from_channels(PAPER_CHANNELS, FFHQ.style_widths, **units)
    else:
        controls = vectors(**units)
    found = Controls.from_part(*controls.to_part())
    assert torch.equal(found.matrix, controls.matrix)
    assert found.is_single_channel == (kind == "channels")
    assert (found.names, found.sigma, found.step) == (controls.names, controls.sigma, controls.step)
    assert (found.yaw_step_degrees, found.pitch_step_degrees) == (0.75, 0.5)


def test_channels_of_vectors_are_an_error() -> None:
    with pytest.raises(UsageError, match="vectors"):
        vectors().channels()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"style_widths": (6, 4, 5)}, "expected control vectors"),
        ({"names": ["a"]}, "expected 32 names"),
        ({"sigma": [1.0] * 31}, "expected 32 names"),
        ({"sigma": [0.0] * 32}, "positive"),
        ({"step": [float("nan")] * 32}, "positive"),
        ({"yaw_step_degrees": -1.0}, "positive"),
    ],
)
def test_bad_units_are_refused(change: dict[str, object], words: str) -> None:
    options: dict[str, object] = {"style_widths": WIDTHS} | change
    with pytest.raises(BundleError, match=words):
        Controls(torch.ones(NUM_CONTROLS, sum(WIDTHS)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_bad_vectors_are_refused(value: float) -> None:
    matrix = torch.ones(NUM_CONTROLS, sum(WIDTHS))
    matrix[3] = value
    with pytest.raises(BundleError, match="control"):
        Controls(matrix, style_widths=WIDTHS)


@pytest.mark.parametrize("channel", [(26, 0), (0, 512), (-1, 0), (0, -1)])
def test_channels_outside_the_generator_are_refused(channel: tuple[int, int]) -> None:
    with pytest.raises(BundleError, match=f"{channel[0]}:{channel[1]}"):
        Controls.from_channels([channel, *PAPER_CHANNELS[1:]], FFHQ.style_widths)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"values \[N, 32\]"):
        vectors().apply(styles(WIDTHS), torch.zeros(3, 31))
    with pytest.raises(UsageError, match="widths"):
        vectors().apply(styles((6, 4, 5, 2)), torch.zeros(3, 32))
