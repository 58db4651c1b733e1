"""What lies in a pickle of arrays, lists and strings, read without running it.

The python version of CIFAR is published as pickles, and unpickling a stranger's file runs whatever it says. Here the
opcodes are only listed (`pickletools.genops` executes nothing) and a few of them interpreted: containers, numbers,
strings and NumPy's own way to store an array. Any other name or opcode is refused. Not a general unpickler.
"""

import pickletools
from pathlib import Path
from typing import Any

import numpy as np

ARRAY_MAKERS = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
KNOWN = (*ARRAY_MAKERS, "numpy dtype", "numpy ndarray", "_codecs encode")
MARK = object()
SIMPLE: dict[str, Any] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "MARK": lambda: MARK, "NONE": lambda: None,
    "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
}  # fmt: skip
STRINGS_2 = ("SHORT_BINSTRING", "BINSTRING", "STRING")  # of Python 2: bytes, shown as latin-1
SKIPPED = ("PROTO", "FRAME", "STOP")


class Name:
    """A name the pickle would import; never imported here."""

    def __init__(self, dotted: str) -> None:
        if dotted not in KNOWN:
            raise ValueError(f"it names {dotted}, which no array needs")
        self.dotted = dotted


class Made:
    """An array or dtype in the making: the name called, its arguments, and the state set afterwards."""

    def __init__(self, name: Name, arguments: tuple[Any, ...]) -> None:
        self.dotted, self.arguments, self.state = name.dotted, arguments, None


def read_pickle(path: Path) -> Any:
    """The object in the file, dictionary keys as str. Raises ValueError naming the file, the byte and the reason."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    position = 0
    try:
        for opcode, argument, at in pickletools.genops(path.read_bytes()):
            position = at or 0
            _step(opcode.name, argument, stack, memo)
        (result,) = stack
        return _plain(result, {})
    except (
        ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StopIteration, RecursionError
    ) as error:  # fmt: skip
        raise ValueError(
            f"{path}, byte {position}: not a pickle of plain arrays and lists ({error}); fetch the data set again"
        ) from error


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """One opcode."""
    if name in SKIPPED:
        return
    if name in SIMPLE:
        stack.append(SIMPLE[name]())
    elif name in STRINGS_2:
        stack.append(argument.encode("latin-1"))
    elif name.startswith(("BININT", "INT", "LONG", "BINFLOAT", "FLOAT", "BINUNICODE", "SHORT_BIN", "BINBYTES")):
        stack.append(argument)
    elif name.endswith("BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name.endswith("BINGET"):
        stack.append(memo[argument])
    elif name == "GLOBAL":
        stack.append(Name(argument))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(Name(f"{module} {attribute}"))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        n = int(name[-1])
        stack[-n:] = [tuple(stack[-n:])]
    elif name in ("TUPLE", "LIST", "APPENDS", "SETITEMS", "DICT"):
        items = _since_mark(stack)
        if name in ("TUPLE", "LIST"):
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name == "APPENDS":
            stack[-1].extend(items)
        else:
            if name == "DICT":
                stack.append({})
            stack[-1].update({_text(k): v for k, v in zip(items[::2], items[1::2], strict=True)})
    elif name == "APPEND":
        item = stack.pop()
        stack[-1].append(item)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][_text(key)] = value
    elif name == "REDUCE":
        arguments, called = stack.pop(), stack.pop()
        if called.dotted == "_codecs encode":  # how Python 3 writes bytes in the protocol of Python 2
            stack.append(arguments[0].encode(arguments[1]))
        else:
            stack.append(Made(called, arguments))
    elif name == "BUILD":
        state = stack.pop()
        stack[-1].state = state
    else:
        raise ValueError(f"opcode {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    start = len(stack) - 1 - next(i for i, item in enumerate(reversed(stack)) if item is MARK)
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _text(key: Any) -> Any:
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Finished arrays and numbers instead of objects in the making; an object that is met again is made once."""
    if id(value) in done:
        return done[id(value)]
    made = value
    if isinstance(value, dict):
        made = {key: _plain(item, done) for key, item in value.items()}
    elif isinstance(value, list):
        made = [_plain(item, done) for item in value]
    elif isinstance(value, Made) and value.dotted in ARRAY_MAKERS:
        state: Any = value.state
        shape, dtype, fortran, raw = state[1:]
        array = np.frombuffer(raw, dtype=_dtype(dtype))
        made = array.reshape(shape, order="F" if fortran else "C")
    elif isinstance(value, (Made, Name)):
        raise ValueError(f"{value.dotted} is no array")
    done[id(value)] = made
    return made


def _dtype(made: Made) -> np.dtype[Any]:
    code = _text(made.arguments[0])
    dtype = np.dtype(code)
    if dtype.hasobject:
        raise ValueError(f"an array of {code}")
    order = _text(made.state[1]) if made.state else "="
    return dtype.newbyteorder(order if order in "<>" else "=")
