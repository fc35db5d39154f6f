"""Short digests of checkpoints: whether an adapter meets its base, and whether a run still has its models."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from sia_jax.checkpoints.config_json import CONFIG, GENERATION
from sia_jax.checkpoints.files import is_there
from sia_jax.checkpoints.tensors import open_checkpoint, with_embedding
from sia_jax.checkpoints.tokenizer_files import tokenizer_files
from sia_jax.types import Params, flatten_names

_SAMPLE = 64
"""Numbers of a row that go in."""
_ROWS = 8
"""Rows of a tensor that go in, evenly spread, the first and the last among them."""


def fingerprint(model: Params) -> str:
    """The digest of a loaded backbone (`params["model"]`), the same in float32 and in bfloat16.

    It tells a base from one that was trained further, in whatever way that changes rows all over a tensor; it
    is no proof that all numbers are equal.
    """
    flat = flatten_names({"model": model})
    return _digest({name: leaf.shape for name, leaf in flat.items()}, lambda name, box: flat[name][box])


def fingerprint_of_folder(folder: Path) -> str:
    """The digest of a checkpoint folder's backbone; only the sampled numbers are read."""
    file = with_embedding(open_checkpoint(folder))
    shapes = {name: file.shape(name) for name in file.slices if name.startswith("model.")}
    return _digest(shapes, file.read)


def fingerprint_of_reward_model(folder: Path) -> str:
    """The digest of all that a reward depends on: backbone, head, config, tokenizer and chat templates."""
    return _joined([fingerprint_of_folder(folder).encode(), *_head(folder), *_files(folder)])


def fingerprint_of_rest(folder: Path) -> str:
    """The digest of what answers depend on beside the backbone: head, config, tokenizer, chat templates."""
    return _joined([*_head(folder), *_files(folder)])


def fingerprint_of_tokenizer(folder: Path) -> str:
    """The digest of a tokenizer and its templates that lie beside a value model; one for all without any."""
    return _joined(_files(folder))


def _head(folder: Path) -> Iterator[bytes]:
    file = with_embedding(open_checkpoint(folder))
    if "score.weight" in file.slices:  # where it is missing, loading says so
        yield file.read("score.weight").astype(np.float32).tobytes()
    elif "lm_head.weight" in file.slices:
        yield _digest({"lm_head.weight": file.shape("lm_head.weight")}, file.read).encode()


def _files(folder: Path) -> Iterator[bytes]:
    names = [name for name in (CONFIG, GENERATION) if is_there(folder / name)]
    for name in sorted([*names, *tokenizer_files(folder)]):
        yield name.encode() + (folder / name).read_bytes()


def _joined(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _digest(shapes: Mapping[str, tuple[int, ...]], read: Callable[[str, tuple[slice, ...]], Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(shapes):
        shape = shapes[name]
        digest.update(f"{name}{tuple(shape)}".encode())
        rest = (slice(0, min(_SAMPLE, shape[-1])),) if len(shape) > 1 else ()
        length = 1 if rest else _SAMPLE
        for start in sorted({int(row) for row in np.linspace(0, max(0, shape[0] - length), _ROWS)}):
            # Rounded to bfloat16, so that a base loaded in float32 or in bfloat16 has one digest.
            sample = np.asarray(read(name, (slice(start, min(start + length, shape[0])), *rest)))
            digest.update(sample.astype(np.float32).astype(ml_dtypes.bfloat16).tobytes())
    return digest.hexdigest()
