"""Small videos and pictures of each container that marks are written into."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from sglat.media.pictures import encode_png, generated_marks
from sglat.media.writer import VideoWriter
from tests.support.pictures import jpeg
from tests.support.video import moving_square, write_video

SIZE = (64, 48)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
KINDS = ("a.mp4", "fragmented.mp4", "a.mov", "a.avi", "a.png", "a.apng", "a.gif", "a.jpg", "a.webp")


def make_media(folder: Path, name: str) -> Path:
    """Write an unmarked video or picture; its name tells which."""
    path, pictures = folder / name, [moving_square(i) for i in range(8)]
    if name.endswith((".jpg", ".png")):
        path.write_bytes((jpeg if name.endswith(".jpg") else encode_png)(pictures[0]))
    elif name == "fragmented.mp4":
        with av.open(str(path), "w", container_options=FRAGMENTS) as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "2"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for picture in pictures:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    elif name.endswith(".webp"):
        write_video(path, pictures[:1], codec="libwebp")
    else:
        write_generated(path, is_marked=False)
    return path


def write_generated(path: Path, *, is_marked: bool = True, **more: str) -> Path:
    """Write a video as `sgl-decode` does, with tags alone."""
    marks = generated_marks(generated_by="sglat test", **more) if is_marked else {}
    with VideoWriter(
        path, size=SIZE, time_base=Fraction(1, 25), metadata=marks, force=True
    ) as writer:
        for index in range(8):
            writer.write(moving_square(index), index, duration=1)
    return path
