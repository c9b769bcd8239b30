"""A device that is not there: tensors that say they lie elsewhere, computed on the processor.

Nothing here mocks numbers. A far tensor holds a real one, every operation really runs, and what a
GPU would refuse is refused: tensors of two devices in one operation, reading far memory as an
array, drawing far numbers with the processor's generator, and, since MPS has none, float64.
It is named `meta`, the one device of PyTorch that needs no driver and is not the processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

FAR: Final = torch.device("meta")
_aten: Final = torch.ops.aten
_MOVES: Final = (_aten.copy_.default, _aten._to_copy.default)
# their indices may stay on the processor, as PyTorch allows
_INDEXING: Final = (
    _aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default,
    _aten._index_put_impl_.default,
)  # fmt: skip


class Misplaced(Exception):
    """An operation that a device of its own would refuse."""


class FarTensor(Tensor):
    """A tensor on the far device."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        if near.dtype == torch.float64:
            raise Misplaced("float64 on a device that may have none")
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[no-any-return, attr-defined]
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=FAR,
        )  # fmt: skip

    def __init__(self, near: Tensor) -> None:
        self.near = near

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FarTensor({self.near})"

    def tolist(self) -> Any:
        """Return the numbers, as any device's tensor does."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def far_device() -> Iterator[None]:
    """Inside, `device=FAR` and `.to(FAR)` make far tensors."""
    with _Operations(), _Literals():
        yield


class _Literals(TorchFunctionMode):
    """Numbers written in Python become tensors on the processor first, as for any device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            func, args = torch.tensor, args[1:]
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], _index(args[1]), *args[2:])
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device, has_gradient = kwargs.pop("device"), kwargs.pop("requires_grad", False)
            return func(*args, **kwargs).to(device).requires_grad_(has_gradient)
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _is_composed(func):  # in inference mode composed operations come whole
        with _Operations():
            parts = func.decompose(*args, **kwargs)
        # `to` may return its argument, which no mode may
        return _aten.alias.default(parts) if parts is args[0] else parts
    tensors = list(_tensors((args, *kwargs.values())))
    is_far = any(isinstance(tensor, FarTensor) for tensor in tensors)
    if is_far and func not in _MOVES:
        _check(func, args, tensors)
    wanted = kwargs.get("device")
    if wanted is not None:
        is_far = torch.device(wanted).type == FAR.type
        kwargs = {**kwargs, "device": "cpu"}
    if is_far and kwargs.get("generator") is not None:
        raise Misplaced(f"{func} draws far numbers with the processor's generator")
    if func is _aten._efficientzerotensor.default:  # has no memory to compute with
        func = _aten.zeros.default
    found = func(*map(_near, args), **{name: _near(value) for name, value in kwargs.items()})
    if _is_in_place(func) and args and isinstance(args[0], Tensor):
        return args[0]
    return _far(found) if is_far else found


@cache
def _is_composed(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd  # type: ignore[attr-defined]
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
    return key in func.py_kernels or bool(has_kernel)


@cache
def _is_in_place(func: Any) -> bool:
    return str(func).split(".")[1].endswith("_")


def _check(func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise Misplaced for tensors of the processor, single numbers excepted."""
    indices = list(_tensors((args[1],))) if func in _INDEXING else []
    for tensor in tensors:
        if isinstance(tensor, FarTensor):
            continue
        is_index = any(tensor is index for index in indices)
        if tensor.is_meta or (tensor.ndim and not is_index):
            raise Misplaced(
                f"{func}: a tensor {list(tensor.shape)} of the processor among far ones"
            )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among an operation's arguments."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return torch.tensor(index) if isinstance(index, list) else index


def _near(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_near, value))
    return value.near if isinstance(value, FarTensor) else value


def _far(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_far, value))
    return FarTensor(value) if isinstance(value, Tensor) else value
