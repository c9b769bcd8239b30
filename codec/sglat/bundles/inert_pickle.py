"""Reads the pickle opcodes of weight files without ever importing, calling or building a class.

The opcodes are interpreted here, one by one. Every name a stream mentions stays a `Symbol`, a pair
of strings. Names outside the allow-list end the reading. What a name would have built is described
in `Rebuilder`, whose results are descriptions of tensors, plain containers and inert records.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sglat.errors import BundleError

MAX_OPERATIONS: Final = 1 << 20  # ten times the largest published checkpoint; bounds memory
MAX_KEY: Final = 1 << 60  # larger integers can be made to collide in a hash table


class ByteStream(Protocol):
    """What the reader needs of a file, a memory map or a `BytesIO`."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most `size` bytes."""

    def readline(self) -> bytes:
        """Return the bytes up to and including the next line feed."""

    def tell(self) -> int:
        """Return the position."""


@dataclass(frozen=True)
class Symbol:
    """A name mentioned by the stream, not resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class InertObject:
    """What would have been an object: its class's name and its state."""

    symbol: Symbol
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)


class Rebuilder(Protocol):
    """Builds what allowed names stand for; raises BundleError for other names."""

    def check(self, symbol: Symbol) -> None:
        """Refuse a name that is not on the allow-list."""

    def call(self, symbol: Symbol, args: tuple[Any, ...]) -> Any:
        """Return what stands for `symbol(*args)`."""

    def persistent(self, key: Any) -> Any:
        """Return what stands for an object stored outside the pickle."""

    def set_state(self, target: Any, state: Any) -> None:
        """Take the state that belongs to what `call` returned."""


def read_pickle(stream: ByteStream, rebuilder: Rebuilder) -> Any:
    """Interpret one pickle and leave the stream right after it.

    Args:
        stream: positioned at the pickle's first byte.
        rebuilder: the allow-list.

    Returns:
        Plain containers, numbers, strings, and what `rebuilder` made.

    Raises:
        BundleError: a forbidden name, a broken or truncated stream, more operations than the limit.
    """
    machine = _Machine(rebuilder)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if count >= MAX_OPERATIONS:
                raise BundleError("bad-pickle", f"more than {MAX_OPERATIONS} operations")
            machine.step(opcode.name, argument)
        return machine.result()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BundleError(
            "bad-pickle", f"broken or truncated near byte {stream.tell()}: {reason}"
        ) from error


_LITERALS: Final = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack machine of the pickle protocol, versions 0 to 5."""

    def __init__(self, rebuilder: Rebuilder) -> None:
        self._rebuilder = rebuilder
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """Return what the stream left on the stack."""
        if len(self._stack) != 1 or self._marks:
            raise BundleError("bad-pickle", f"expected one result, found {len(self._stack)}")
        return self._stack[0]

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _PUTS:
            self._memo[int(argument)] = self._top()
        elif name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        else:
            action = _ACTIONS.get(name)
            if action is None:
                raise BundleError("bad-pickle", f"operation {name} has no place in a weight file")
            action(self, argument)

    def _top(self) -> Any:
        if len(self._stack) <= self._floor():
            raise ValueError("the stack is empty")
        return self._stack[-1]

    def _pop(self) -> Any:
        top = self._top()
        del self._stack[-1]
        return top

    def _floor(self) -> int:
        return self._marks[-1] if self._marks else 0

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError("no mark on the stack")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _ignore(self, _: Any) -> None:
        pass

    def _protocol(self, version: int) -> None:
        if version > 5:
            raise BundleError("bad-pickle", f"expected protocol 0 to 5, found {version}")

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _discard(self, _: Any) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()  # POP right after MARK drops the mark
        else:
            self._pop()

    def _discard_to_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._top())

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _dict(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._set_items_of(items)

    def _append(self, _: Any) -> None:
        value = self._pop()
        _expect(self._top(), list).append(value)

    def _appends(self, _: Any) -> None:
        items = self._pop_to_mark()
        _expect(self._top(), list).extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        _expect(self._top(), dict)[plain_key(key)] = value

    def _set_items(self, _: Any) -> None:
        self._set_items_of(self._pop_to_mark())

    def _set_items_of(self, items: list[Any]) -> None:
        target = _expect(self._top(), dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value

    def _add_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        _expect(self._top(), set).update(plain_key(item) for item in items)

    def _frozen_set(self, _: Any) -> None:
        self._stack.append(frozenset(plain_key(item) for item in self._pop_to_mark()))

    def _byte_array(self, data: bytes) -> None:
        self._stack.append(bytes(data))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_symbol(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_symbol(_expect(module, str), _expect(name, str))

    def _push_symbol(self, module: str, name: str) -> None:
        symbol = Symbol(module, name)
        self._rebuilder.check(symbol)
        self._stack.append(symbol)

    def _reduce(self, _: Any) -> None:
        args, symbol = self._pop(), self._pop()
        result = self._rebuilder.call(_expect(symbol, Symbol), _expect(args, tuple))
        self._stack.append(result)

    def _new_object_extended(self, _: Any) -> None:
        keywords = _expect(self._pop(), dict)
        if keywords:
            raise BundleError("bad-pickle", "an object built with keyword arguments")
        self._reduce(None)

    def _build(self, _: Any) -> None:
        state = self._pop()
        self._rebuilder.set_state(self._top(), state)

    def _persistent(self, _: Any) -> None:
        self._stack.append(self._rebuilder.persistent(self._pop()))


def _expect(value: Any, kind: type) -> Any:
    """Return the value if it is exactly of this type."""
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def plain_key(key: Any) -> Any:
    """Return a dictionary key that is cheap to hash: text, bytes, a small integer or None."""
    if key is None or isinstance(key, str | bytes):
        return key
    if isinstance(key, int) and -MAX_KEY < key < MAX_KEY:
        return key
    raise ValueError(f"expected text or a small number as a key, found {type(key).__name__}")


_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "PROTO": _Machine._protocol,
    "FRAME": _Machine._ignore,
    "STOP": _Machine._ignore,
    "MARK": _Machine._mark,
    "POP": _Machine._discard,
    "POP_MARK": _Machine._discard_to_mark,
    "DUP": _Machine._duplicate,
    "MEMOIZE": _Machine._memoize,
    "TUPLE": _Machine._tuple,
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "ADDITEMS": _Machine._add_items,
    "FROZENSET": _Machine._frozen_set,
    "BYTEARRAY8": _Machine._byte_array,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._new_object_extended,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
