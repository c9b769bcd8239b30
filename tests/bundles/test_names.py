"""Names of controls from a manifest."""

from __future__ import annotations

from dataclasses import replace

from sglat.bitstream.channels import CONTROL_NAMES
from sglat.bundles.bundle import load_bundle
from sglat.bundles.names import control_names
from tests.bitstream.samples import sample_header


def test_a_bundle_that_is_here_gives_its_names() -> None:
    header = replace(sample_header(), decoder_id=load_bundle("mini").decoder_id)
    assert control_names(header) == CONTROL_NAMES


def test_weights_of_another_id_or_elsewhere_give_none() -> None:
    assert control_names(sample_header()) == ()
    assert control_names(replace(sample_header(), bundle="nowhere")) == ()
