"""Stream parameters for muxing packets whose source file is gone.

PyAV copies a stream's parameters from an open input stream and from nothing else. So the little
that a file stores about its audio is written as a minimal Matroska file in memory and opened again.

Source: RFC 9559 (Matroska), sections 5.1.4.1 and 10.3; RFC 8794 (EBML) for the element coding.
"""

from __future__ import annotations

import io
import struct
from typing import Any, Final

import av

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError

# FFmpeg codec name: Matroska codec id
CODEC_IDS: Final = {
    "aac": "A_AAC", "ac3": "A_AC3", "alac": "A_ALAC", "dts": "A_DTS", "eac3": "A_EAC3",
    "flac": "A_FLAC", "mp1": "A_MPEG/L1", "mp2": "A_MPEG/L2", "mp3": "A_MPEG/L3",
    "opus": "A_OPUS", "pcm_f32le": "A_PCM/FLOAT/IEEE", "pcm_s16be": "A_PCM/INT/BIG",
    "pcm_s16le": "A_PCM/INT/LIT", "pcm_s24le": "A_PCM/INT/LIT", "pcm_s32le": "A_PCM/INT/LIT",
    "pcm_u8": "A_PCM/INT/LIT", "truehd": "A_TRUEHD", "tta": "A_TTA1", "vorbis": "A_VORBIS",
    "wavpack": "A_WAVPACK4",
}  # fmt: skip
PCM_BITS: Final = {
    "pcm_f32le": 32, "pcm_s16be": 16, "pcm_s16le": 16, "pcm_s24le": 24, "pcm_s32le": 32,
    "pcm_u8": 8,
}  # fmt: skip
ALAC_ATOM_HEADER: Final = 12  # size, type and version of the QuickTime atom; Matroska drops them
FLAC_STREAMINFO: Final = 34  # bytes; Matroska requires the marker and block header in front
NO_PACKET: Final = bytes(8)  # a file without any packet would not open
UNKNOWN_SIZE: Final = b"\x01\xff\xff\xff\xff\xff\xff\xff"


def open_template(audio: AudioFormat, first: AudioPacket | None) -> Any:
    """Return an open input container whose only stream carries the parameters of `audio`; from the
    first packet, None if unknown, the library learns the frame size."""
    if audio.codec not in CODEC_IDS:
        known = ", ".join(sorted(CODEC_IDS))
        raise MediaError("audio-codec", f"expected one of {known}; found {audio.codec}")
    try:
        return av.open(io.BytesIO(_matroska(audio, first)), mode="r", format="matroska")
    except av.error.FFmpegError as error:
        raise MediaError(
            "audio-header", f"cannot rebuild the {audio.codec} stream: {error}"
        ) from error


def _matroska(audio: AudioFormat, first: AudioPacket | None) -> bytes:
    ebml = _element(0x1A45DFA3, _element(0x4282, b"matroska"))
    info = _element(0x1549A966, _unsigned(0x2AD7B1, 1_000_000))  # one tick is a millisecond
    sound = _element(0xB5, struct.pack(">d", audio.sample_rate)) + _unsigned(0x9F, audio.channels)
    if audio.codec in PCM_BITS:
        sound += _unsigned(0x6264, PCM_BITS[audio.codec])
    entry = (
        _unsigned(0xD7, 1)  # track number
        + _unsigned(0x73C5, 1)  # track id
        + _unsigned(0x83, 2)  # audio
        + _element(0x86, CODEC_IDS[audio.codec].encode())
        + _element(0xE1, sound)
    )
    private = _codec_private(audio)
    if private:
        entry += _element(0x63A2, private)
    tracks = _element(0x1654AE6B, _element(0xAE, entry))
    start = ebml + _identifier(0x18538067) + UNKNOWN_SIZE + info + tracks
    data = NO_PACKET if first is None else first.data
    block = _element(0xA3, b"\x81" + struct.pack(">hB", 0, 0x80) + data)
    return start + _element(0x1F43B675, _unsigned(0xE7, 0) + block)


def _codec_private(audio: AudioFormat) -> bytes:
    data = audio.extradata
    if audio.codec == "alac" and data[4:8] == b"alac":
        return data[ALAC_ATOM_HEADER:]
    if audio.codec == "flac" and len(data) == FLAC_STREAMINFO:
        return b"fLaC\x80" + FLAC_STREAMINFO.to_bytes(3, "big") + data
    return data


def _identifier(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _element(number: int, payload: bytes) -> bytes:
    return _identifier(number) + struct.pack(">Q", len(payload) | 1 << 56) + payload


def _unsigned(number: int, value: int) -> bytes:
    return _element(number, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
