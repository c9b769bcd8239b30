"""Reads the pickle opcodes of weight files without ever importing, calling or building a class.

The opcodes are interpreted here, one by one. Every name a stream mentions stays a `Symbol`, a pair
of strings. Names outside the allow-list end the reading. What a name would have built is described
in `Rebuilder`, whose results are descriptions of tensors, plain containers and inert records.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
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
    """What would have been an object: its state."""

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
    """Interpret the pickle at the stream's position and leave the stream right after it.

    The result holds plain containers, numbers, strings, and what `rebuilder`, the allow-list, made.

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
_OF_MARKED: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": lambda items: dict(_pairs(items)),
    "FROZENSET": lambda items: frozenset(map(plain_key, items)),
}
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
        elif name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        elif name in _OF_MARKED:
            self._stack.append(_OF_MARKED[name](self._pop_to_mark()))
        else:
            self._move(name, argument)

    def _move(self, name: str, argument: Any) -> None:
        """Carry out an opcode on stack, marks or memo, or one that fills a container."""
        match name:
            case "FRAME" | "STOP":
                pass
            case "PROTO":
                if argument > 5:
                    raise BundleError("bad-pickle", f"expected protocol 0 to 5, found {argument}")
            case "MARK":
                self._marks.append(len(self._stack))
            case "POP" if self._marks and len(self._stack) == self._marks[-1]:
                self._marks.pop()  # POP right after MARK drops the mark
            case "POP":
                self._pop()
            case "POP_MARK":
                self._pop_to_mark()
            case "DUP":
                self._stack.append(self._top())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[int(argument)] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[int(argument)])
            case "APPEND":
                value = self._pop()
                _expect(self._top(), list).append(value)
            case "APPENDS":
                items = self._pop_to_mark()
                _expect(self._top(), list).extend(items)
            case "SETITEM":
                value, key = self._pop(), self._pop()
                _expect(self._top(), dict)[plain_key(key)] = value
            case "SETITEMS":
                items = self._pop_to_mark()
                _expect(self._top(), dict).update(_pairs(items))
            case "ADDITEMS":
                items = self._pop_to_mark()
                _expect(self._top(), set).update(map(plain_key, items))
            case "BYTEARRAY8":
                self._stack.append(bytes(argument))
            case _:
                self._rebuild(name, argument)

    def _rebuild(self, name: str, argument: Any) -> None:
        """Carry out an opcode that names or builds something."""
        match name:
            case "GLOBAL":
                module, _, symbol = argument.partition(" ")
                self._push_symbol(module, symbol)
            case "STACK_GLOBAL":
                symbol, module = self._pop(), self._pop()
                self._push_symbol(_expect(module, str), _expect(symbol, str))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                if name == "NEWOBJ_EX" and _expect(self._pop(), dict):
                    raise BundleError("bad-pickle", "an object built with keyword arguments")
                args, called = self._pop(), _expect(self._pop(), Symbol)
                self._stack.append(self._rebuilder.call(called, _expect(args, tuple)))
            case "BUILD":
                state = self._pop()
                self._rebuilder.set_state(self._top(), state)
            case "BINPERSID":
                self._stack.append(self._rebuilder.persistent(self._pop()))
            case _:
                raise BundleError("bad-pickle", f"operation {name} has no place in a weight file")

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("the stack is empty")
        return self._stack[-1]

    def _pop(self) -> Any:
        top = self._top()
        del self._stack[-1]
        return top

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError("no mark on the stack")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _push_symbol(self, module: str, name: str) -> None:
        symbol = Symbol(module, name)
        self._rebuilder.check(symbol)
        self._stack.append(symbol)


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield keys and values that alternate."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        yield plain_key(key), value


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
