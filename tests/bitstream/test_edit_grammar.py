"""The language of edits by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglat.bitstream.edit_grammar import parse_edit, parse_span
from sglat.errors import UsageError


@pytest.mark.parametrize(
    ("option", "text", "fields"),
    [
        ("set", "mouth 3+0.4@2s-4s", ("add", "mouth 3", 0.4)),
        ("set", "yaw-5deg", ("add", "yaw", -5.0)),
        ("set", "yaw = -5", ("set", "yaw", -5.0)),
        ("set", "pose=neutral@1s-", ("neutral", "pose", 0.0)),
        ("gain", "eyes=120%", ("gain", "eyes", 1.2)),
        ("smooth", "pose=300ms", ("smooth", "pose", 0.3)),
        ("only", "mouth,chin", ("only", "mouth,chin", 0.0)),
        ("freeze", "pose@1s", ("freeze", "pose", 0.0)),
        ("neutral", "", ("neutral", "all", 0.0)),
    ],
)
def test_an_option_is_read(option: str, text: str, fields: tuple[str, str, float]) -> None:
    edit = parse_edit(option, text)
    assert (edit.kind, edit.target, pytest.approx(edit.value)) == fields


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("2", 2), ("500ms", Fraction(1, 2)), ("1:02.5", Fraction(125, 2)), (".5s", 0.5)],
)
def test_a_time_is_exact(text: str, seconds: float) -> None:
    start = parse_span(text).start
    assert start is not None
    assert start.seconds == seconds


def test_a_range_has_ends_and_a_ramp() -> None:
    span = parse_span("2s-50f~200ms")
    assert span.start is not None
    assert span.end is not None
    assert (span.start.seconds, span.end.frame) == (2, 50)
    assert (span.ramp_seconds, span.is_instant) == (Fraction(1, 5), False)


@pytest.mark.parametrize(
    ("text", "name", "span"),
    [
        ("eyes:a.sglat", "a.sglat", ""),
        ("eyes:a@b.sglat@1s-2s", "a@b.sglat", "1s-2s"),
        ("eyes:dir/me@2x.sglat", "dir/me@2x.sglat", ""),
    ],
)
def test_a_file_to_mix_in_may_have_any_name(text: str, name: str, span: str) -> None:
    edit = parse_edit("mix", text)
    assert (edit.source, edit.span.text) == (Path(name), span)


def test_the_record_of_a_mix_names_no_folder() -> None:
    assert parse_edit("mix", "eyes:/home/me/a.sglat").text == "mix eyes:a.sglat"


@pytest.mark.parametrize(
    ("option", "text", "code"),
    [
        ("set", "mouth", "bad-edit"),
        ("set", "=3", "bad-edit"),
        ("set", "mouth=nan", "bad-value"),
        ("set", "mouth=inf", "bad-value"),
        ("set", "mouth=1e999", "bad-value"),
        ("set", "yaw=5px", "bad-value"),
        ("set", "yaw=5@", "bad-edit"),
        ("set", "yaw=5@4s-2s", "bad-time"),
        ("set", "yaw=5@2 parsecs", "bad-time"),
        ("set", "yaw=5@2s-4s~3f", "bad-time"),
        ("set", "yaw=5@99999999999f", "bad-time"),
        ("set", "yaw=5@9999999999999s", "bad-time"),
        ("gain", "eyes", "bad-edit"),
        ("gain", "eyes=1e9", "bad-value"),
        ("smooth", "pose=0", "bad-value"),
        ("smooth", "pose=3m", "bad-value"),
        ("freeze", "pose", "bad-edit"),
        ("freeze", "pose@-2s", "bad-edit"),
        ("retime", "0", "bad-value"),
        ("retime", "1e999999999", "bad-value"),
        ("retime", "2@1s", "bad-value"),
        ("mix", "eyes", "bad-edit"),
        ("mix", ":a.sglat", "bad-edit"),
        ("blur", "eyes", "bad-edit"),
    ],
)
def test_a_bad_edit_is_refused_in_one_line(option: str, text: str, code: str) -> None:
    with pytest.raises(UsageError, match=code) as caught:
        parse_edit(option, text)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.sampled_from(["set", "gain", "smooth", "only", "freeze", "retime", "mix"]),
    st.text("mouth 3=+-@~.:s fe0912nai%", max_size=16),
)
def test_any_text_is_read_or_refused(option: str, text: str) -> None:
    try:
        parse_edit(option, text)
    except UsageError as error:
        assert error.code in ("bad-edit", "bad-time", "bad-value")
