"""Sealed packets: forged, replayed, of another session or key; keys from files and passphrases."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglat.errors import FormatError, MissingExtraError, UsageError
from sglat.live.rtp import (
    MOTION_TYPE,
    RtpHeader,
    extended,
    pack_rtp,
    unpack_rtp,
)
from sglat.live.secure import (
    REPLAY_WINDOW,
    PacketOpener,
    PacketSealer,
    ReplayWindow,
    Sealer,
    SealError,
    derive,
    key_from_file,
    key_from_passphrase,
)

KEY, SALT, SSRC = bytes(range(32)), b"\5" * 64, 0xDEADBEEF


def sealer(key: bytes = KEY, salt: bytes = SALT) -> Sealer:
    return Sealer(key, salt, "media")


def sender() -> PacketSealer:
    return PacketSealer(sealer(), SSRC, MOTION_TYPE)


def opener() -> PacketOpener:
    return PacketOpener(sealer(), {SSRC: MOTION_TYPE})


def test_the_header_has_the_bytes_of_rfc_3550() -> None:
    header = RtpHeader(payload_type=96, sequence=0x10002, timestamp=3600, ssrc=SSRC, is_marked=True)
    assert pack_rtp(header).hex() == "80e0000200000e10deadbeef"
    assert unpack_rtp(pack_rtp(header)).sequence == 2


@pytest.mark.parametrize("packet", [b"", b"\x80" * 11, b"\x40" + bytes(20), b"\x90" + bytes(20)])
def test_other_bytes_are_no_packet(packet: bytes) -> None:
    with pytest.raises(FormatError, match="bad-packet"):
        unpack_rtp(packet)


@pytest.mark.parametrize(
    ("low", "near", "found"),
    [(0, 65535, 65536), (65535, 65536, 65535), (5, 0, 5), (65000, 0, 65000)],
)
def test_numbers_go_on_past_their_lowest_bits(low: int, near: int, found: int) -> None:
    assert extended(low, 16, near) == found


def test_derived_bytes_are_those_of_rfc_5869() -> None:
    """Test case 3 of the RFC: neither salt nor info."""
    found = derive(b"\x0b" * 22, b"", "", 42)
    expected = (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
    assert found.hex() == expected


def test_packets_open_once_in_any_order() -> None:
    source, sink = sender(), opener()
    packets = [source.pack(3600 * n, bytes([n])) for n in range(6)]
    order = (1, 0, 5, 2, 2, 1, 3)
    opened = [sink.open(packets[n]) for n in order]
    assert [None if o is None else o.payload[0] for o in opened] == [1, 0, 5, 2, None, None, 3]
    assert (sink.forged, sink.replayed) == (0, 2)


def test_a_call_may_go_on_past_65536_packets() -> None:
    source, sink = sender(), opener()
    numbers = []
    for number in range(0, 200_000, 20_000):
        source.number = number
        opened = sink.open(source.pack(number, b"x"))
        numbers.append(None if opened is None else opened.number)
    assert numbers == list(range(0, 200_000, 20_000))


def test_every_changed_bit_is_found() -> None:
    packet = sender().pack(3600, b"motion")
    sink = opener()
    for bit in range(8 * len(packet)):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        assert sink.open(bytes(changed)) is None
    assert sink.forged == 8 * len(packet)
    assert sink.open(packet) is not None


@pytest.mark.parametrize("size", range(20))
def test_every_truncation_is_found(size: int) -> None:
    packet = sender().pack(3600, b"motion")
    assert opener().open(packet[: min(size, len(packet) - 1)]) is None


def test_packets_of_another_key_session_or_stream_are_forged() -> None:
    sink = opener()
    wrong = (
        PacketSealer(sealer(key=bytes(32)), SSRC, MOTION_TYPE),
        PacketSealer(sealer(salt=bytes(64)), SSRC, MOTION_TYPE),
        PacketSealer(sealer(), SSRC ^ 1, MOTION_TYPE),
        PacketSealer(sealer(), SSRC, MOTION_TYPE + 1),
    )
    assert [sink.open(one.pack(0, b"me")) for one in wrong] == [None] * 4
    assert sink.forged == 4


def test_a_nonce_is_never_used_for_two_packets() -> None:
    one = sealer()
    nonces = {one._nonce(stream, n) for stream in (1, 2, SSRC) for n in (0, 1, 1 << 40)}
    assert len(nonces) == 9
    assert {len(nonce) for nonce in nonces} == {13}


def test_what_is_older_than_the_window_counts_as_seen() -> None:
    window = ReplayWindow()
    window.take(REPLAY_WINDOW + 1)
    assert not window.is_new(1)
    assert window.is_new(2)


def test_an_opened_seal_needs_the_header() -> None:
    sealed = sealer().seal(1, 0, b"data", b"one")
    with pytest.raises(SealError):
        sealer().open(1, 0, sealed, b"two")


@pytest.mark.parametrize("data", [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n"])
def test_a_key_file_holds_bytes_or_digits(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "call.key"
    path.write_bytes(data)
    assert key_from_file(path) == KEY


@pytest.mark.parametrize("data", [b"", b"secret", b"z" * 64, KEY + b"\0", b"\xff" * 64])
def test_another_key_file_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "call.key"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="openssl rand -hex 32") as found:
        key_from_file(path)
    assert "\n" not in str(found.value)


def test_a_passphrase_gives_one_key() -> None:
    assert key_from_passphrase("correct horse").hex() == PASSPHRASE_KEY
    with pytest.raises(UsageError, match="bad-key"):
        key_from_passphrase("short")


PASSPHRASE_KEY = "b01b9e7a5b7ddc5c93966bd81637203359b92b4ebc1cad9353905074fda5d6ef"


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", ".hazmat", ".hazmat.primitives", ".hazmat.primitives.ciphers.aead"):
        monkeypatch.setitem(__import__("sys").modules, f"cryptography{name}", None)
    with pytest.raises(MissingExtraError, match=r"pip install sglat\[live\]"):
        sealer()
