"""Hostile pickles: nothing they name is ever run, and they cannot take the machine's memory."""

from __future__ import annotations

import os
import pickle
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sglat.bundles.checkpoint import read_checkpoint
from sglat.bundles.inert_pickle import MAX_OPERATIONS
from sglat.errors import BundleError


class Shell:
    """What an attacker puts into a weight file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "hostile.pkl"
    path.write_bytes(data)
    return path


def refused(folder: Path, data: bytes) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_checkpoint(write(folder, data))
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_shell_command_is_named_and_not_run(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "sprung"
    error = refused(tmp_path, pickle.dumps({"weights": Shell(trap)}, protocol=protocol))
    assert error.code == "forbidden-name"
    assert "system" in error.message
    assert not trap.exists()


def test_the_trap_of_these_tests_does_spring(tmp_path: Path) -> None:
    """Python's own reader falls into it, so the tests here would notice."""
    trap = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Shell(trap)))
    assert trap.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "posix system",
        "subprocess Popen",
        "builtins eval",
        "builtins exec",
        "builtins getattr",
        "builtins __import__",
        "importlib import_module",
        "torch load",
        "torch.hub load",
        "torch.jit load",
        "torch ops",
        "torch.serialization load",
        "numpy load",
        "numpy.lib.npyio load",
        "functools partial",
        "operator attrgetter",
        "types CodeType",
        "pickle loads",
        "copyreg add_extension",
        "sglat.bundles.checkpoint read_checkpoint",
        "__main__ anything",
        " ",
    ],
)
def test_names_outside_the_allow_list_are_refused(tmp_path: Path, name: str) -> None:
    stream = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n)R."
    assert refused(tmp_path, stream).code == "forbidden-name"


def test_a_name_from_the_stack_is_refused(tmp_path: Path) -> None:
    stream = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."
    assert refused(tmp_path, stream).code == "forbidden-name"


def test_a_dotted_name_is_not_walked(tmp_path: Path) -> None:
    stream = b"\x80\x04\x8c\x0bcollections\x8c\x19OrderedDict.__init__.__globals__\x93)R."
    stream = stream.replace(b"\x19", bytes([len("OrderedDict.__init__.__globals__")]))
    assert refused(tmp_path, stream).code == "forbidden-name"


def test_a_forbidden_name_that_is_never_called_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, b"\x80\x02cos\nsystem\n0}.").code == "forbidden-name"


def test_an_allowed_module_class_stays_inert(tmp_path: Path) -> None:
    """Names under the prefixes of known packages become records; nothing is imported for them."""
    stream = b"\x80\x02ctraining.nothing\nGenerator\n)R}U\x01aK\x01sb."
    assert refused(tmp_path, stream).code == "not-a-checkpoint"  # read, but holds no tensors
    assert "training.nothing" not in sys.modules


@pytest.mark.parametrize(
    "target",
    [b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"K\x01", b"]", b"N"],
)
def test_state_cannot_be_set_on_names_or_plain_values(tmp_path: Path, target: bytes) -> None:
    stream = b"\x80\x02" + target + b"}U\x0c__defaults__K\x01sb."
    assert refused(tmp_path, stream).code == "bad-pickle"


def test_state_of_a_container_is_dropped(tmp_path: Path) -> None:
    stream = b"\x80\x02ccollections\nOrderedDict\n)R}U\x09__class__cargparse\nNamespace\nsb."
    assert refused(tmp_path, stream).code == "not-a-checkpoint"


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02(ios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nU\x02ido.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02\x84\x01\x00\x00\x00.",  # EXT4
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x02P0\n.",  # PERSID
        b"\x80\x09N.",  # protocol of the future
        b"\x80\x02U\x01aK\x01R.",  # call of a text
        b"\x80\x02ccollections\nOrderedDict\nK\x01R.",  # arguments that are no tuple
        b"\x80\x020.",  # empty stack
        b"\x80\x02(.",
        b"\x80\x02t.",
        b"\x80\x02NN.",
        b"\x80\x02h\x07.",  # memo that was never filled
        b"\x80\x02]K\x01s.",
        b"\x80\x02}]K\x01s.",  # a list as a key
        b"\x80\x02}))K\x01s.",  # a tuple as a key
        b"\x80\x02}(K\x01u.",  # a key without a value
        b"\x80\x02\xff.",  # no such operation
        b"\x80\x02Inot a number\n.",
        b"\x80\x02",
        b"\x80",
    ],
)
def test_broken_streams_end_in_one_line(tmp_path: Path, stream: bytes) -> None:
    assert refused(tmp_path, stream).code in ("bad-pickle", "forbidden-name")


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02T\xff\xff\xff\x7fabc",  # BINSTRING of 2 GB
        b"\x80\x02X\xff\xff\xff\xffabc",  # BINUNICODE of 4 GB
        b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc",  # BINUNICODE8 of 9 exabytes
        b"\x80\x04\x8e" + b"\xff" * 8 + b"abc",  # BINBYTES8 of 18 exabytes
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 50) + b"abc",  # BYTEARRAY8 of a petabyte
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"abc",  # FRAME of an exabyte
        b"\x80\x02\x8b\xff\xff\xff\x7fabc",  # LONG4 of 2 GB
        b"\x80\x02Nr\xff\xff\xff\xff0.",  # memo slot 4 294 967 295
        b"\x80\x02N" + b"2" * 100_000 + b".",  # a tall stack
        b"\x80\x02" + b"(" * 100_000 + b".",
    ],
)
def test_large_claims_take_no_memory(tmp_path: Path, stream: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, stream)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_too_many_operations_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, b"\x80\x02" + b"N0" * (MAX_OPERATIONS // 2 + 1) + b"N.")
    assert "operations" in error.message


def test_shared_containers_do_not_multiply(tmp_path: Path) -> None:
    stream = b"\x80\x04}\x94\x8c\x01aK\x01s0"  # the innermost dict, in memo slot 0
    for level in range(12):
        body = b"".join(b"\x8c\x01" + bytes([97 + i]) + b"h" + bytes([level]) for i in range(10))
        stream += b"}\x94(" + body + b"u0"
    error = refused(tmp_path, stream + b"h\x0c.")
    assert "too many entries" in error.message


def test_a_dict_that_holds_itself_ends(tmp_path: Path) -> None:
    assert refused(tmp_path, b"\x80\x04}\x94\x8c\x01ah\x00s.").code == "bad-checkpoint"


def test_deep_nesting_ends(tmp_path: Path) -> None:
    depth = 200_000
    assert refused(tmp_path, b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".").message
    stream = b"\x80\x02" + b"}U\x01a" * depth + b"N" + b"s" * depth + b"."
    assert refused(tmp_path, stream).code == "bad-checkpoint"


def test_every_truncation_of_a_module_pickle_is_one_line(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": [1, 2.5, "x", (None, True)], "b": {"c": b"bytes"}}, protocol=4)
    for length in range(1, len(whole)):
        refused(tmp_path, whole[:length])


def test_reading_imports_nothing_new(tmp_path: Path) -> None:
    """A fresh interpreter ends with the same modules before and after a stream full of names."""
    path = write(
        tmp_path,
        b"\x80\x02cdnnlib.util\nEasyDict\n)Rctraining.networks\nGenerator\n)R"
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n00.",
    )
    program = (
        "import sys; from pathlib import Path\n"
        "from sglat.bundles.checkpoint import read_checkpoint\n"
        "from sglat.errors import BundleError\n"
        "before = set(sys.modules)\n"
        "try: read_checkpoint(Path(sys.argv[1]))\n"
        "except BundleError: pass\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
