"""The allow-list of names in weight files, and what each is read as: a tensor or a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import torch
from torch import Tensor

from sglat.bundles.inert_pickle import InertObject, Symbol, plain_key
from sglat.errors import BundleError

MAX_AXES: Final = 8
STORAGE_DTYPES: Final = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_NUMPY_DTYPES: Final = {
    "f8": torch.float64,
    "f4": torch.float32,
    "f2": torch.float16,
    "i8": torch.int64,
    "i4": torch.int32,
    "i2": torch.int16,
    "i1": torch.int8,
    "u1": torch.uint8,
    "b1": torch.bool,
}
# Classes whose instances are kept as inert records, for the tensors inside them.
_INERT_CLASSES: Final = frozenset({"argparse.Namespace", "builtins.object", "__builtin__.object"})
_INERT_MODULES: Final = ("torch.nn.modules.", "torch_utils.", "training.", "dnnlib.")
_TENSORFLOW_NETWORK: Final = "dnnlib.tflib.network"


@dataclass(eq=False)
class Storage:
    """A run of numbers in the file; its place may become known later."""

    dtype: torch.dtype
    count: int
    """Numbers, not bytes."""
    read: Callable[[int, int], bytearray] | None = None
    """Returns a copy of `size` bytes from byte `start` on."""


@dataclass(eq=False)
class StoredTensor:
    """A view of a storage, not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def span(self) -> int:
        """Numbers between the first and the last that the view touches, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    @property
    def size_bytes(self) -> int:
        """Memory that reading and unfolding the view takes."""
        return max(prod(self.shape), self.span) * self.storage.dtype.itemsize

    def load(self) -> Tensor:
        """Return the tensor, contiguous and sharing memory with nothing."""
        if self.storage.read is None:
            raise BundleError("bad-checkpoint", "a tensor whose numbers are not in the file")
        if self.span == 0:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        item = self.storage.dtype.itemsize
        raw = self.storage.read(self.offset * item, self.span * item)
        numbers = torch.frombuffer(raw, dtype=self.storage.dtype)
        return numbers.as_strided(self.shape, self.stride).contiguous()


class WeightNames:
    """The allow-list: plain containers, torch tensors, numpy arrays, modules as inert records."""

    def __init__(
        self,
        storage: Callable[[torch.dtype, str, int], Storage],
        nested: Callable[[bytes], Any] | None = None,
    ) -> None:
        """Prepare for one pickle.

        Args:
            storage: returns the storage of this dtype, key and count.
            nested: reads a torch file inside the pickle; None where that is not allowed.
        """
        self._storage = storage
        self._nested = nested

    def check(self, symbol: Symbol) -> None:
        """Refuse a name that no weight file needs."""
        if symbol.module == _TENSORFLOW_NETWORK:
            raise BundleError(
                "unsupported-checkpoint",
                "a TensorFlow network; expected the PyTorch file (stylegan2-ada-pytorch ffhq.pkl)",
            )
        if not (
            str(symbol) in _CALLS
            or str(symbol) in _INERT_CLASSES
            or symbol.module.startswith(_INERT_MODULES)
            or _is_storage(symbol)
            or _is_dtype(symbol)
            or _is_tensor_class(symbol)
        ):
            raise BundleError(
                "forbidden-name", f"the file wants {str(symbol)!r:.120}, which no weights need"
            )

    def call(self, symbol: Symbol, args: tuple[Any, ...]) -> Any:
        """Return what stands for `symbol(*args)`."""
        call = _CALLS.get(str(symbol))
        if call is not None:
            return call(self, *args)
        if str(symbol) in _INERT_CLASSES or symbol.module.startswith(_INERT_MODULES):
            return InertObject()
        raise BundleError("forbidden-name", f"the file calls {str(symbol)!r:.120}")

    def persistent(self, key: Any) -> Storage | Symbol:
        """Return the storage a torch file keeps beside its pickle, or a module's class."""
        if isinstance(key, tuple) and len(key) == 4 and isinstance(key[1], Symbol):
            return key[1]  # checked when it was named; the source text beside it is dropped
        if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage":
            raise BundleError("bad-checkpoint", "expected a reference to a storage")
        _, kind, name, _, count, *view = key
        if not isinstance(kind, Symbol) or not _is_storage(kind) or not isinstance(name, str):
            raise BundleError("bad-checkpoint", "expected a storage of a known type")
        if view not in ([], [None]):
            raise BundleError("unsupported-checkpoint", "a storage that is part of another one")
        return self._storage(STORAGE_DTYPES[kind.name], name, _count(count))

    def set_state(self, target: Any, state: Any) -> None:
        """Keep an inert object's attributes; those of containers and tensors are dropped."""
        if isinstance(target, InertObject):
            if isinstance(state, tuple) and len(state) == 2:  # attributes and slots
                state = state[0]
            if isinstance(state, dict):
                target.state.update(state)
        elif isinstance(target, _NumpyDtype):
            target.order = state[1]
        elif isinstance(target, _NumpyArray):
            target.fill(*state)
        elif not isinstance(target, dict | StoredTensor):
            raise BundleError("bad-pickle", f"state for a {type(target).__name__}")

    def ordered_dict(self, items: Any = ()) -> dict[Any, Any]:
        """OrderedDict, defaultdict and EasyDict become plain dicts."""
        return {plain_key(key): value for key, value in _pairs(items)}

    def default_dict(self, _: Any = None, items: Any = ()) -> dict[Any, Any]:
        """The factory is dropped."""
        return self.ordered_dict(items)

    def set_of(self, items: Any = ()) -> set[Any]:
        """A set of plain keys."""
        return {plain_key(item) for item in items}

    def encode(self, text: Any, encoding: Any) -> bytes:
        """Bytes of protocol 2, spelled as Latin-1 text."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise BundleError("bad-pickle", "expected Latin-1 text")
        return text.encode("latin-1")

    def text(self, value: Any = "", *_: Any) -> str:
        """torch.device and the like become their name."""
        return str(value) if isinstance(value, str | int) else ""

    def size(self, value: Any = ()) -> tuple[int, ...]:
        """torch.Size."""
        return tuple(_count(item) for item in value)

    def tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
        """A view of a storage, checked against its size."""
        if not isinstance(storage, Storage) or not isinstance(shape, tuple):
            raise BundleError("bad-checkpoint", "expected a tensor on a storage")
        view = StoredTensor(
            storage, _count(offset), tuple(map(_count, shape)), tuple(map(_count, stride))
        )
        if len(view.shape) != len(view.stride) or len(view.shape) > MAX_AXES:
            raise BundleError("bad-checkpoint", f"a tensor of {len(view.shape)} axes")
        if view.span and view.offset + view.span > storage.count:
            raise BundleError(
                "bad-checkpoint",
                f"a tensor that ends at {view.offset + view.span} of {storage.count} numbers",
            )
        return view

    def parameter(self, data: Any, *_: Any) -> Any:
        """A parameter is its tensor."""
        return data

    def typed_tensor(self, function: Any, _: Any, args: Any, *__: Any) -> Any:
        """A tensor with attributes; the attributes are dropped."""
        if not isinstance(function, Symbol) or not isinstance(args, tuple):
            raise BundleError("bad-checkpoint", "expected a tensor")
        self.check(function)
        return self.call(function, args)

    def nested_file(self, data: Any) -> Any:
        """A whole torch file inside the pickle, as modules pickled without torch have it."""
        if self._nested is None or not isinstance(data, bytes):
            raise BundleError("bad-checkpoint", "a torch file inside a torch file")
        return self._nested(data)

    def persistent_object(self, meta: Any) -> InertObject:
        """NVIDIA's modules carry source text; only their state is kept."""
        if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
            raise BundleError("bad-checkpoint", "expected a persistent object with a state")
        return InertObject(meta["state"])

    def reconstruct(self, symbol: Any, *_: Any) -> Any:
        """An instance made by protocols 0 and 1."""
        if not isinstance(symbol, Symbol):
            raise BundleError("bad-pickle", "expected a class")
        return self.call(symbol, ())

    def numpy_dtype(self, name: Any, *_: Any) -> _NumpyDtype:
        """A numpy dtype by its short name."""
        name = name.lstrip("<>|=") if isinstance(name, str) else ""
        if name not in _NUMPY_DTYPES:
            raise BundleError("unsupported-checkpoint", f"a numpy array of type {name!r:.40}")
        return _NumpyDtype(_NUMPY_DTYPES[name])

    def numpy_array(self, *_: Any) -> _NumpyArray:
        """An empty array whose state follows."""
        return _NumpyArray()

    def numpy_scalar(self, dtype: Any, data: Any) -> StoredTensor:
        """A single number."""
        return _NumpyArray().fill(1, (), dtype, False, data)

    def numpy_buffer(self, data: Any, dtype: Any, shape: Any, order: Any) -> StoredTensor:
        """An array of protocol 5."""
        return _NumpyArray().fill(1, shape, dtype, order == "F", data)


@dataclass(eq=False)
class _NumpyDtype:
    dtype: torch.dtype
    order: Any = "<"


class _NumpyArray:
    """A numpy array until its state is known."""

    tensor: StoredTensor | None = None

    def fill(self, _: Any, shape: Any, dtype: Any, is_fortran: Any, data: Any) -> StoredTensor:
        """Take an array's state as numpy pickles it; return the tensor."""
        if not isinstance(dtype, _NumpyDtype) or not isinstance(data, bytes):
            raise BundleError("unsupported-checkpoint", "a numpy array of objects")
        if dtype.order == ">" and dtype.dtype.itemsize > 1:
            raise BundleError("unsupported-checkpoint", "a big-endian numpy array")
        shape = tuple(map(_count, shape))
        if prod(shape) * dtype.dtype.itemsize != len(data) or len(shape) > MAX_AXES:
            raise BundleError("bad-checkpoint", f"an array {list(shape)} of {len(data)} bytes")
        storage = Storage(dtype.dtype, prod(shape), lambda a, n: bytearray(data[a : a + n]))
        axes = shape if is_fortran else shape[::-1]
        steps = [prod(axes[:i]) for i in range(len(axes))]
        stride = tuple(steps if is_fortran else steps[::-1])
        self.tensor = StoredTensor(storage, 0, shape, stride)
        return self.tensor


_CALLS: Final[dict[str, Callable[..., Any]]] = {
    "collections.OrderedDict": WeightNames.ordered_dict,
    "collections.defaultdict": WeightNames.default_dict,
    "builtins.dict": WeightNames.ordered_dict,
    "__builtin__.dict": WeightNames.ordered_dict,
    "dnnlib.util.EasyDict": WeightNames.ordered_dict,
    "builtins.set": WeightNames.set_of,
    "__builtin__.set": WeightNames.set_of,
    "_codecs.encode": WeightNames.encode,
    "torch.device": WeightNames.text,
    "torch.Size": WeightNames.size,
    "torch._utils._rebuild_tensor": WeightNames.tensor,
    "torch._utils._rebuild_tensor_v2": WeightNames.tensor,
    "torch._utils._rebuild_parameter": WeightNames.parameter,
    "torch._utils._rebuild_parameter_with_state": WeightNames.parameter,
    "torch._tensor._rebuild_from_type_v2": WeightNames.typed_tensor,
    "torch.storage._load_from_bytes": WeightNames.nested_file,
    "torch_utils.persistence._reconstruct_persistent_obj": WeightNames.persistent_object,
    "copyreg._reconstructor": WeightNames.reconstruct,
    "copy_reg._reconstructor": WeightNames.reconstruct,
    "numpy.dtype": WeightNames.numpy_dtype,
    "numpy.ndarray": WeightNames.numpy_array,
    "numpy.core.multiarray._reconstruct": WeightNames.numpy_array,
    "numpy._core.multiarray._reconstruct": WeightNames.numpy_array,
    "numpy.core.multiarray.scalar": WeightNames.numpy_scalar,
    "numpy._core.multiarray.scalar": WeightNames.numpy_scalar,
    "numpy.core.numeric._frombuffer": WeightNames.numpy_buffer,
    "numpy._core.numeric._frombuffer": WeightNames.numpy_buffer,
}


def loaded_tensor(value: Any) -> StoredTensor | None:
    """Return the tensor description that a value is, or None."""
    if isinstance(value, _NumpyArray):
        return value.tensor
    return value if isinstance(value, StoredTensor) else None


def _is_storage(symbol: Symbol) -> bool:
    return symbol.module in ("torch", "torch.storage") and symbol.name in STORAGE_DTYPES


def _is_dtype(symbol: Symbol) -> bool:
    return symbol.module == "torch" and isinstance(getattr(torch, symbol.name, None), torch.dtype)


def _is_tensor_class(symbol: Symbol) -> bool:
    return str(symbol) in ("torch.Tensor", "torch.nn.parameter.Parameter")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise BundleError("bad-checkpoint", f"expected a size, found {value!r:.40}")
    return value


def _pairs(items: Any) -> list[tuple[Any, Any]]:
    if isinstance(items, dict):
        return list(items.items())
    if not isinstance(items, list | tuple):
        raise BundleError("bad-pickle", "expected a list of pairs")
    pairs = []
    for item in items:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise BundleError("bad-pickle", "expected a list of pairs")
        pairs.append((item[0], item[1]))
    return pairs
