"""Tensors of safetensors files, read in slices and placed straight onto their devices, one at a time."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy, without which safetensors cannot read it)
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sia_jax.checkpoints.files import check_whole, is_there, read_json
from sia_jax.files.shown import shown_line, shown_value
from sia_jax.files.writing import publish, replacing, staging, write_text, writing
from sia_jax.parallel.mesh import partition_spec
from sia_jax.types import Params, flatten_names, unflatten_names

CHUNK_BYTES = 32 << 20
"""What is read of a file at a time."""

_INDEX = "model.safetensors.index.json"
_WRAPPERS = ("_orig_mod.", "module.", "base_model.model.")
_BARE = ("embed_tokens.", "layers.", "norm.", "rotary_emb.")
_WITHIN = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "the recomputing of activations",
}
_ADAPTER_NAME = re.compile(r"\.lora_[AB]\.([^.]+)\.weight$")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file, or the shards of a folder: names to slices that are read on demand."""

    source: Path
    """The file or folder, for messages."""
    slices: Mapping[str, Any]
    """Name -> the library's lazy slice."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self.slices[name].get_shape())

    def dtype(self, name: str) -> np.dtype:
        """NumPy (or ml_dtypes) dtype of a tensor.

        Raises:
          ValueError: it is not a floating-point tensor that is supported (a quantised one, say).
        """
        stored = self.slices[name].get_dtype()
        if stored not in _DTYPES:
            raise ValueError(
                f"{self.source}: tensor {name} has dtype {stored}, expected one of {sorted(_DTYPES)}"
            )
        return np.dtype(_DTYPES[stored])

    def read(self, name: str, index: tuple[slice, ...] | None = None, dtype: Any = None) -> np.ndarray:
        """A tensor, or a box of it, as a new array in `dtype` (default: as stored).

        Read and converted in chunks into one aligned buffer, so that nothing else of its size is ever held;
        on a CPU, JAX adopts such a buffer without copying it.
        """
        shape = self.shape(name)
        bounds = [
            range(size)[part] for size, part in zip(shape, index or (slice(None),) * len(shape), strict=True)
        ]
        out = _aligned_empty([len(bound) for bound in bounds], np.dtype(dtype or self.dtype(name)))
        if out.size == 0 or not bounds:
            return out
        rest = tuple(slice(bound.start, bound.stop) for bound in bounds[1:])
        row_bytes = max(1, out[:1].size * self.dtype(name).itemsize)
        step = max(1, CHUNK_BYTES // row_bytes)
        for start in range(0, len(bounds[0]), step):
            stop = min(start + step, len(bounds[0]))
            rows = slice(bounds[0].start + start, bounds[0].start + stop)
            out[start:stop] = self.slices[name][(rows, *rest)]
        return out

    def place(self, name: str, dtype: Any, sharding: jax.sharding.Sharding) -> jax.Array:
        """A tensor on its devices: each device's box is read once, whoever else holds the same."""
        boxes: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

        def read_box(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            box = tuple(part.indices(size)[:2] for part, size in zip(index, self.shape(name), strict=True))
            if box not in boxes:
                boxes[box] = self.read(name, index, dtype)
            return boxes[box]

        array = jax.make_array_from_callback(self.shape(name), sharding, read_box, dtype=dtype)
        return jax.block_until_ready(array)  # the buffers of one tensor go before the next are read


def open_checkpoint(folder: Path) -> TensorFile:
    """model.safetensors, or else the shards of model.safetensors.index.json, of a checkpoint folder.

    Where both are there, the single file is the model, as transformers has it: what saves one over shards may
    leave their index behind.

    Raises:
      FileNotFoundError: neither is there, or shards are missing (all of them named).
      ValueError: a file is truncated or foreign, or the index and the shards disagree.
    """
    index_path = folder / _INDEX
    single = folder / "model.safetensors"
    if is_there(single):
        return as_transformers_names_them(open_file(single))
    if not is_there(index_path):
        pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        hint = ""
        if others:
            hint = f"; it has {shown_value(others[:5])}: the weights of a model have one of these names"
        if pickled:
            hint = f"; {pickled[:5]} are pickles: save the model as safetensors with transformers"
        raise FileNotFoundError(f"{folder}: no model.safetensors and no model.safetensors.index.json{hint}")

    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError(
            f"{index_path} is not an index of safetensors shards: weight_map is {shown_value(weight_map)}, "
            "expected an object of names of files"
        )
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if not _is_plain_name(name) or not name.endswith(".safetensors")]
    if outside:
        raise ValueError(
            f"{index_path} names {shown_value(outside)}, expected safetensors files of its own folder"
        )
    missing = [name for name in names if not is_there(folder / name)]
    if missing:
        raise FileNotFoundError(
            f"{index_path} names shards that are missing: {shown_value(missing)}; copy them from the "
            "original checkpoint"
        )
    shards = {name: open_file(folder / name) for name in names}
    absent = sorted(key for key, name in weight_map.items() if key not in shards[name].slices)
    unlisted = sorted(key for name in names for key in shards[name].slices if weight_map.get(key) != name)
    if absent or unlisted:
        raise ValueError(
            f"{index_path} and the shards disagree: not in the shard they are listed for: "
            f"{shown_value(absent)}; in a shard but not listed for it: {shown_value(unlisted)}"
        )
    file = TensorFile(folder, {key: shards[name].slices[key] for key, name in weight_map.items()})
    return as_transformers_names_them(file)


def open_file(path: Path) -> TensorFile:
    """One safetensors file.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is truncated, or not a safetensors file.
    """
    if not is_there(path):
        raise FileNotFoundError(f"{path}: no such file")
    check_whole(path)
    try:
        handle = safe_open(str(path), framework="np")
        return TensorFile(path, {name: handle.get_slice(name) for name in handle.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or is not a safetensors file: {shown_line(error, 300)}"
        ) from None


def as_transformers_names_them(file: TensorFile) -> TensorFile:
    """A model's tensors under the names that a ForCausalLM or ForSequenceClassification has for them.

    The backbone's may lack their "model.", as a saved backbone's do; all may stand under the names of
    wrappers (torch.compile, DistributedDataParallel, PEFT); the buffers of the rotary embedding, which old
    versions saved, follow from config.json, and are left out.

    Raises:
      ValueError: two names come to the same.
    """
    slices: dict[str, Any] = {}
    for name in file.slices:
        short = name
        while any(short.startswith(wrapper) for wrapper in _WRAPPERS):
            short = next(short.removeprefix(w) for w in _WRAPPERS if short.startswith(w))
        if short.startswith(_BARE):
            short = f"model.{short}"
        if short.endswith("rotary_emb.inv_freq"):
            continue
        if short in slices:
            raise ValueError(f"{file.source}: two tensors are called {shown_value(short)} but for a prefix")
        slices[short] = file.slices[name]
    return replace(file, slices=slices)


def with_embedding(file: TensorFile) -> TensorFile:
    """The tensors of a tied model, whose one matrix may be in the file as lm_head alone."""
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    if embedding in file.slices or head not in file.slices:
        return file
    return replace(
        file, slices={embedding if name == head else name: file.slices[name] for name in file.slices}
    )


def same_numbers(file: TensorFile, name: str, other: Callable[[slice], np.ndarray]) -> bool:
    """Whether a matrix holds the same numbers as another of its shape, NaN where that has NaN.

    Args:
      file: has it.
      name: of it.
      other: rows -> those rows of the other, [n, ...]; they are compared in its dtype.
    """
    rows, *rest = file.shape(name)
    step = max(1, CHUNK_BYTES // (4 * max(1, int(np.prod(rest)))))
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        theirs = other(part)
        ours = file.read(name, (part, *(slice(None) for _ in rest)), theirs.dtype)
        if not np.all((ours == theirs) | ((ours != ours) & (theirs != theirs))):
            return False
    return True


def check_tensors(
    file: TensorFile,
    expected: Mapping[str, tuple[int, ...]],
    *,
    ignored: Iterable[str] = (),
    source: str = "config.json",
) -> None:
    """Raise one ValueError that lists every missing, surplus and misshapen tensor.

    Args:
      file: what is there.
      expected: name -> shape of what must be there.
      ignored: names that may be there as well and are not read.
      source: what says what must be there, for the message.
    """
    ignored = set(ignored)
    present = set(file.slices)
    stored = {name: file.slices[name].get_dtype() for name in expected if name in present}
    missing = [name for name in expected if name not in present]
    surplus = sorted(present - set(expected) - ignored)
    problems = [f"missing: {name} {expected[name]}" for name in missing]
    problems += [f"surplus: {shown_line(name, 100)} {file.shape(name)}" for name in surplus]
    problems += [
        f"shape: {name} is {file.shape(name)}, expected {shape}"
        for name, shape in expected.items()
        if name in present and file.shape(name) != tuple(shape)
    ]
    problems += [
        f"dtype: {name} has dtype {dtype}, expected one of {sorted(_DTYPES)}"
        for name, dtype in stored.items()
        if dtype not in _DTYPES
    ]
    if problems:
        told = f"the tensors are not those of its {source} ({len(problems)} differ)"
        told += _what_names_tell(missing, surplus)
        shown = problems if len(problems) <= 25 else [*problems[:25], f"... and {len(problems) - 25} more"]
        raise ValueError(f"{file.source}: {told}\n  " + "\n  ".join(shown))


def _what_names_tell(missing: Sequence[str], surplus: Sequence[str]) -> str:
    """Why names differ, where one cause explains them, in place of a long list to be puzzled over."""
    adapters = {match[1] for name in surplus if (match := _ADAPTER_NAME.search(name))}
    if adapters and any(".lora_" in name for name in missing):
        return (
            f": the names hold that of an adapter, {shown_value(sorted(adapters)[0])}, as the state_dict() "
            "of a PEFT model has them; save it by that model's own save_pretrained()"
        )
    unmerged = [name for name in surplus if ".base_layer." in name or ".modules_to_save." in name]
    if unmerged:
        return (
            ": the file holds a PEFT model that was saved unmerged; save the result of its merge_and_unload()"
        )
    for wrapper, maker in _WITHIN.items():
        wrapped = [name for name in surplus if wrapper in name]
        if missing and 2 * len(wrapped) > len(surplus):
            return (
                f": {len(wrapped)} names hold {shown_value(wrapper)}, which {maker} puts there; save the "
                "model inside, or take it out of the names"
            )
    for name in missing:
        prefixes = {other.removesuffix(name) for other in surplus if other.endswith(name)}
        if len(prefixes) == 1:
            prefix = prefixes.pop()
            explained = [other for other in surplus if other.startswith(prefix)]
            if 2 * len(explained) > len(surplus):
                return (
                    f": {len(explained)} names begin with {shown_value(prefix)}, which the names of such a "
                    "model lack; save the model inside, or rename its tensors"
                )
    return ""


def place_tensors(file: TensorFile, names: Iterable[str], dtype: Any, mesh: Mesh | None) -> Params:
    """Read tensors one after the other onto their devices, as a tree.

    Args:
      file: the source.
      names: which tensors.
      dtype: what they become; None: as stored.
      mesh: sharded over it by the partition rules; None: on the default device.
    """
    placed = {}
    for name in names:
        if mesh is None:
            sharding: jax.sharding.Sharding = SingleDeviceSharding(_default_device())
        else:
            sharding = NamedSharding(mesh, partition_spec(name, file.shape(name), mesh))
        placed[name] = file.place(name, dtype or file.dtype(name), sharding)
    return unflatten_names(placed)


def save_tensors(
    folder: Path,
    params: Params,
    max_shard_bytes: int = 5 << 30,
    *,
    before_replacing: Callable[[], object] = lambda: None,
) -> None:
    """Write a tree as model.safetensors, or as shards with an index where it is larger than one shard.

    All files are written beside their places first: a write that fails leaves an earlier save as it was. Then
    they are renamed, and while shards are replaced there is no index: a crash leaves neither a torn file nor
    a mixture of old and new. Weights of an earlier save under other names are removed, for readers would take
    them for these.

    Args:
      folder: made if need be.
      params: the tree.
      max_shard_bytes: size from which it is split.
      before_replacing: called when all is written and nothing is renamed yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flat = flatten_names(params)
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(flat):
        nbytes = flat[name].size * flat[name].dtype.itemsize
        if shards[-1] and size + nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    count = len(shards)
    files = [
        folder / ("model.safetensors" if count == 1 else f"model-{i:05d}-of-{count:05d}.safetensors")
        for i in range(1, count + 1)
    ]
    with staging(folder, "model.safetensors") as new:
        for path, names in zip(files, shards, strict=True):
            _write_file(new / path.name, path, {name: flat[name] for name in names})
        before_replacing()
        (folder / _INDEX).unlink(missing_ok=True)
        for path in files:
            publish(new / path.name, path)
    if count > 1:
        weight_map = {name: path.name for path, names in zip(files, shards, strict=True) for name in names}
        total = sum(leaf.size * leaf.dtype.itemsize for leaf in flat.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_text(folder / _INDEX, json.dumps(index, indent=2) + "\n")
    for path in (folder / "model.safetensors", *folder.glob("model-*-of-*.safetensors")):
        if path not in files:
            path.unlink(missing_ok=True)


def save_file_atomically(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write a safetensors file so that readers see the old or the new one, never a part.

    Raises:
      OSError: it cannot be written; what was there is as it was.
    """
    with replacing(path) as new:
        _write_file(new, path, tensors)


def _is_plain_name(name: str) -> bool:
    """Whether a file of that name lies in the folder itself, on any system."""
    return Path(name).name == name and "\\" not in name and "\0" not in name


def _write_file(new: Path, path: Path, tensors: Mapping[str, Any]) -> None:
    """Write what will be `path`."""
    arrays = {name: np.ascontiguousarray(jax.device_get(tensor)) for name, tensor in tensors.items()}
    with writing(path):
        save_file(arrays, str(new), metadata={"format": "pt"})  # transformers asks for the metadata


def _aligned_empty(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array on a 64-byte boundary, which JAX on a CPU can adopt as it is."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    buffer = np.empty(nbytes + 64, np.uint8)
    offset = -buffer.ctypes.data % 64
    return buffer[offset : offset + nbytes].view(dtype).reshape(shape)


def _default_device() -> jax.Device:
    return jax.config.values["jax_default_device"] or jax.local_devices()[0]
