"""Reads and writes the files of `torch.save`, without torch and without running pickled code.

Such a file is a zip of uncompressed entries below one folder: `data.pkl`, a pickle of protocol 2 in which
each tensor refers to a storage by its key, and `data/<key>`, the bytes of that storage, little-endian.

The pickle is not given to `pickle.Unpickler`: even where that may find no class, a few bytes can make it take
gigabytes (a large memo index) or end the process (the hash of a deeply nested tuple). torch.save writes few
opcodes; they are interpreted here as data, and any other opcode and any other global is refused.
"""

import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from sia_jax.files.writing import replacing

_ORDERED_DICT = "collections.OrderedDict"
_REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
_STORAGE_DTYPES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.LongStorage": np.dtype("<i8"),
}
_GLOBALS = (_ORDERED_DICT, _REBUILD_TENSOR, *_STORAGE_DTYPES)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MAX_PICKLE_BYTES = 1 << 20  # some 5000 tensors; bounds what a hostile pickle can build
_ALIGNMENT = 64  # of the storages in the file, as torch.save aligns them


@dataclass(frozen=True)
class _Global:
    """A name that the pickle refers to; the object of that name is never looked up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The elements of a storage, before a tensor gives them a shape."""

    elements: np.ndarray  # [numel]


def read_torch_file(path: str | Path) -> dict[str, Any]:
    """Read a file of `torch.save` whose content is a dict, such as token_reward_head.pt.

    A tensor's device and `requires_grad`, and a state dict's `_metadata` (the versions of its modules), have
    no meaning here and are dropped. Tensors that share a storage share memory here too.

    Args:
      path: of the file.

    Returns:
      A dict of str to int, float, bool, str, None, array, or again such a dict. Arrays are read-only and of
      dtype float32, float16, bfloat16, float64 or int64, with the strides of the saved tensors.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not whole, or holds anything but such a dict; nothing of it has been run.
    """
    with open(path, "rb") as file:
        try:
            return _read(file)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # bytes of unknown origin can fail anywhere in zipfile and pickletools
            raise ValueError(
                f"{path}: not a whole file of torch.save ({type(error).__name__}: {error}). Copy it again if "
                "it may be truncated; if torch before 1.6 wrote it, load and save it with a later torch"
            ) from error


def write_torch_file(path: str | Path, tree: dict[str, Any]) -> None:
    """Write a file that `torch.load(path, weights_only=True)` reads. Equal trees give equal bytes.

    Args:
      path: of the file; its stem names the folder in the zip.
      tree: a dict of str to int, float, bool, str, None, array (a tensor for torch), or again such a dict (an
        OrderedDict for torch, as its state dicts are). Dtypes as for `read_torch_file`.

    Raises:
      ValueError: `tree` holds anything else; no file is written then.
    """
    path = Path(path)
    arrays: list[np.ndarray] = []
    try:
        program = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + _dump_items(tree, "", arrays) + pickle.STOP
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    storages = {f"data/{key}": array.tobytes() for key, array in enumerate(arrays)}
    entries = {"data.pkl": program, "byteorder": b"little", **storages, "version": b"3\n"}
    with replacing(path) as new, new.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(f"{path.stem}/{name}")  # dated 1980: the bytes do not depend on the clock
            info.create_system, info.external_attr = 3, 0o644 << 16
            # The content follows 30 bytes of header, the name, and this extra field: 4 bytes and the padding.
            padding = -(file.tell() + 30 + len(info.filename.encode()) + 4) % _ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
            archive.writestr(info, content)


def _read(file: BinaryIO) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"the zip has {len(pickles)} entries <folder>/data.pkl, torch.save writes 1")
        folder = pickles[0].removesuffix("data.pkl")

        def content(name: str) -> bytes:
            info = entries.get(folder + name)
            if info is None:
                raise ValueError(f"the zip has no entry {folder}{name}; copy the file again")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed, torch.save never does so; save the file again")
            if name == "data.pkl" and info.file_size > _MAX_PICKLE_BYTES:
                raise ValueError(f"data.pkl has {info.file_size} bytes, expected at most {_MAX_PICKLE_BYTES}")
            return archive.read(info)

        if folder + "byteorder" in entries and (order := content("byteorder")) != b"little":
            raise ValueError(f"byteorder is {order!r}, expected b'little'; save the file on such a machine")
        return _interpret(content("data.pkl"), content)


def _interpret(program: bytes, content: Callable[[str], bytes]) -> dict[str, Any]:
    """The dict that the opcodes of `program` build, with storages from the zip's `content`."""
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack
    memo: dict[int, Any] = {}
    storages: dict[str, np.ndarray] = {}

    def pop_from(height: int) -> list[Any]:
        values = stack[height:]
        del stack[height:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO" if argument == 2:
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "GLOBAL":
                stack.append(_load_global(argument))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_from(marks.pop())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop_from(-int(opcode.name[-1]))))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                # With each dict in one place the result is a tree: no cycles, no more nodes than opcodes.
                if isinstance(memo[argument], dict):
                    raise ValueError("a dict occurs twice, expected a tree; save a copy in one place")
                stack.append(memo[argument])
            case "BINPERSID":
                stack.append(_load_storage(stack.pop(), storages, content))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "SETITEM":
                _set_items(pop_from(-2), stack[-1])
            case "SETITEMS":
                _set_items(pop_from(marks.pop()), stack[-1])
            case "BUILD":
                match stack.pop(), stack[-1]:
                    case {"_metadata": _, **rest}, dict() if not rest:
                        pass
                    case _:
                        raise ValueError("attributes are set, expected only the _metadata of a state dict")
            case "STOP":
                break
            case name:
                raise ValueError(
                    f"the pickle has the opcode {name} ({argument!r}), which torch.save does not write for "
                    "tensors in dicts; save it again with the default pickle_protocol (2)"
                )
    if len(stack) != 1 or not isinstance(stack[0], dict):
        raise ValueError(f"the pickle holds {[type(value).__name__ for value in stack]}, expected one dict")
    return stack[0]


def _load_global(reference: str) -> _Global:
    name = reference.replace(" ", ".")
    if name not in _GLOBALS:
        raise ValueError(f"the pickle refers to {name}, expected dicts of tensors; save a state_dict()")
    return _Global(name)


def _set_items(items: list[Any], target: Any) -> None:
    if not isinstance(target, dict):
        raise ValueError(f"items of a {type(target).__name__} are set, expected a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):
            raise ValueError(f"a dict has a key of type {type(key).__name__}, expected str")
        if isinstance(value, tuple | _Global | _Storage):
            kind = type(value).__name__.removeprefix("_").lower()
            raise ValueError(f"{key!r} is a {kind}, expected a tensor, dict, number, bool, str or None")
        target[key] = value


def _call(function: Any, arguments: Any) -> Any:
    """A new dict, or the array of a tensor."""
    match function, arguments:
        case _Global(name), () if name == _ORDERED_DICT:
            return {}
        case _Global(name), (_Storage(elements), offset, tuple(size), tuple(stride), bool(), {**hooks}) if (
            name == _REBUILD_TENSOR and not hooks
        ):
            return _tensor(elements, offset, size, stride)
        case _Global(name), _:
            raise ValueError(f"{name} has arguments that torch.save does not write for a dense tensor")
    raise ValueError(f"a {type(function).__name__} is called, expected one of {_GLOBALS}")


def _load_storage(pid: Any, storages: dict[str, np.ndarray], content: Callable[[str], bytes]) -> _Storage:
    """The storage that a persistent id names; its bytes are read once."""
    match pid:
        case ("storage", _Global(name), str(key), str(), int(numel)) if name in _STORAGE_DTYPES:
            dtype = _STORAGE_DTYPES[name]
        case _:
            raise ValueError("a persistent id is not ('storage', class, key, device, number of elements)")
    if key not in storages:
        storages[key] = np.frombuffer(content(f"data/{key}"), np.uint8)
    stored = storages[key]
    if stored.size != numel * dtype.itemsize:
        raise ValueError(
            f"data/{key} has {stored.size} bytes, expected {numel} of {dtype}; copy the file again"
        )
    return _Storage(stored.view(dtype))


def _tensor(elements: np.ndarray, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]) -> np.ndarray:
    """The array [*size] whose first element is at `offset` and whose axes advance by `stride` elements."""
    counts = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(count, int) and 0 <= count < 2**48 for count in counts):
        raise ValueError("offset, size and stride of a tensor are not counts of elements")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # More elements than are stored means that some repeat: a small file could so claim an array of any size.
    if math.prod(size) > elements.size or (math.prod(size) > 0 and last >= elements.size):
        raise ValueError(
            f"a tensor of offset {offset}, size {size} and stride {stride} does not fit its storage of "
            f"{elements.size} elements; if it was expanded, save its contiguous()"
        )
    start = min(offset, elements.size)  # an empty slice may lie beyond the storage
    strides = [step * elements.itemsize for step in stride]
    return np.ndarray(size, elements.dtype, elements, start * elements.itemsize, strides)


def _dump_items(tree: Any, path: str, arrays: list[np.ndarray]) -> bytes:
    """Opcodes that set the items of the dict on the stack; the arrays of `tree` are appended to `arrays`."""
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ValueError(f"{path or 'the tree'} is not a dict whose keys are str; convert it first")
    program = b""
    for key, value in tree.items():
        program += _dump(key) + _dump(value, f"{path}.{key}" if path else key, arrays) + pickle.SETITEM
    return program


def _dump(value: Any, path: str = "", arrays: list[np.ndarray] | None = None) -> bytes:
    """Opcodes that push `value`, which stands at `path`; an array is appended to `arrays`."""
    match value:
        case None:
            return pickle.NONE
        case bool():
            return pickle.NEWTRUE if value else pickle.NEWFALSE
        case int() if -(2**63) <= value < 2**63:
            return pickle.LONG1 + b"\x08" + struct.pack("<q", value)
        case float():
            return pickle.BINFLOAT + struct.pack(">d", value)
        case str():
            text = value.encode()
            return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
        case dict() if arrays is not None:
            return _dump_call(_ORDERED_DICT) + _dump_items(value, path, arrays)
        case np.ndarray() if arrays is not None and value.dtype in _STORAGE_DTYPES.values():
            arrays.append(value)
            return _dump_array(value, key=str(len(arrays) - 1))
    got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    dtypes = ", ".join(str(dtype) for dtype in _STORAGE_DTYPES.values())
    raise ValueError(
        f"{path} is {got}, expected a dict, int of 64 bits, float, bool, str, None or NumPy array of dtype "
        f"{dtypes}; convert it first"
    )


def _dump_array(array: np.ndarray, key: str) -> bytes:
    storage_class = next(name for name, dtype in _STORAGE_DTYPES.items() if dtype == array.dtype)
    reference = (_dump("storage"), _dump_global(storage_class), _dump(key), _dump("cpu"), _dump(array.size))
    stride = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
    return _dump_call(
        _REBUILD_TENSOR,
        _dump_tuple(reference) + pickle.BINPERSID,
        _dump(0),  # offset
        _dump_tuple(map(_dump, array.shape)),
        _dump_tuple(map(_dump, stride)),
        _dump(False),  # requires_grad
        _dump_call(_ORDERED_DICT),  # backward hooks
    )


def _dump_call(name: str, *arguments: bytes) -> bytes:
    return _dump_global(name) + _dump_tuple(arguments) + pickle.REDUCE


def _dump_tuple(parts: Iterable[bytes]) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def _dump_global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()
