"""Names of motion channels."""

from __future__ import annotations

import pytest

from sglat.bitstream.channels import CHANNEL_NAMES, SETS, channel_label, find_channels
from sglat.errors import UsageError


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("yaw", (0,)),
        ("Pose", (0, 1)),
        ("mouth 3", (4,)),
        ("mouth_03", (4,)),
        ("mouth3", (4,)),
        ("control_02", (4,)),
        ("gaze", (33,)),
        ("brows, yaw", (0, 29, 30, 31, 32)),
        ("all", tuple(range(34))),
    ],
)
def test_a_name_stands_for_channels(text: str, channels: tuple[int, ...]) -> None:
    assert find_channels(text) == channels


def test_every_channel_has_its_own_name() -> None:
    assert [find_channels(name) for name in CHANNEL_NAMES] == [(n,) for n in range(34)]


def test_a_bundle_may_have_names_of_its_own() -> None:
    assert find_channels("6:113", [f"6:{113 + n}" for n in range(32)]) == (2,)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("mouht 3", "mouth 3"), ("eye", "eyes"), ("mouth 18", "mouth 1 to mouth 17"), ("", "''")],
)
def test_an_unknown_name_is_refused_with_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown-control") as caught:
        find_channels(text)
    assert hint in str(caught.value)


def test_channels_of_a_set_are_called_by_its_name() -> None:
    assert channel_label(SETS["eyes"]) == "eyes"
    assert channel_label([0, 4]) == "yaw, mouth 3"
