"""The library reads as the commands do: README's example, run."""

from __future__ import annotations

import ast
import inspect
import pydoc
import subprocess
import sys
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import sglat
from sglat.bundles.bundle import Bundle
from tests.encoder.test_encode import bundle as bundle  # a fixture
from tests.encoder.test_encode import draw_clip

CONFIG = sglat.EncodeConfig(tune_steps=2, identity_bytes=6_000, self_check=False)


def test_encode_open_decode_and_swap(bundle: Bundle, tmp_path: Path) -> None:
    first, second, both = (str(tmp_path / f"{name}.sglat") for name in "abc")
    result = sglat.encode(str(draw_clip(tmp_path / "a.mp4", 5)), first, CONFIG)
    sglat.encode(str(draw_clip(tmp_path / "b.mp4", 3)), second, CONFIG)
    assert (result.frames, result.path) == (5, Path(first))
    with sglat.open(first) as reader:
        assert reader.header.frame_count == 5
        motion = reader.read_motion().values
    pictures = [frame.picture for frame in sglat.decode(first, bundle=bundle)]
    assert len(pictures) == 5
    assert (pictures[0].dtype, pictures[0].shape) == (np.uint8, (16, 16, 3))
    sglat.swap(motion=first, identity=second, out=both)
    with sglat.open(both) as reader:
        assert np.array_equal(reader.read_motion().values, motion)
    with pytest.raises(sglat.SglatError):
        sglat.swap(motion=first, identity=second, out=both)
    with pytest.raises(sglat.SglatError, match="same-file"):
        sglat.swap(motion=first, identity=second, out=first, force=True)


def test_every_public_name_is_documented() -> None:
    names = [name for name in sglat.__all__ if not name.startswith("__")]
    assert [name for name in names if not getattr(sglat, name).__doc__] == []


def test_type_checkers_see_the_public_names(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sglat\n"
        "reveal_type(sglat.encode)\n"
        "for frame in sglat.decode('a.sglat'):\n"
        "    reveal_type(frame)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "EncodeResult" in done.stdout
    assert "DecodedFrame" in done.stdout


def test_everything_public_is_documented() -> None:
    """Functions with their arguments, classes with each of their fields."""
    lacking = []
    for name in set(sglat.__all__) - {"__version__"}:
        thing = getattr(sglat, name)
        text = inspect.getdoc(thing) or ""
        if inspect.isfunction(thing):
            lacking += [
                f"{name}({p})" for p in inspect.signature(thing).parameters if p not in text
            ]
        if not is_dataclass(thing):
            continue
        tree = ast.parse(inspect.getsource(thing)).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, after in pairwise([*tree.body, None]):
            if isinstance(field, ast.AnnAssign) and not isinstance(after, ast.Expr):
                lacking.append(f"{name}.{ast.unparse(field.target)}")
    assert lacking == []


def test_help_names_what_there_is() -> None:
    shown = pydoc.render_doc(sglat, renderer=pydoc.plaintext)
    assert all(f"sglat.{name}(" in shown for name in ("encode", "decode", "decode_video", "swap"))
