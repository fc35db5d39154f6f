"""Replies of the sampler over structures, schedules and meshes, each from seeds of its own."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np

import sia_jax
from tests.decoding import test_against_oracle as cases
from tests.decoding import test_over_a_mesh as meshes

MESHES = ((1, 1, 1), (4, 1, 2), (2, 2, 2), (8, 1, 1), (1, 8, 1), (4, 1, 1))
KINDS = ("adapter", "vocabulary")
RENAMED = {"own_choice": "policy_choice"}
"""Old names of fields, and the new ones, under which commits before and after the change record them."""

Recorded = dict[str, np.ndarray]


def record() -> Iterator[tuple[str, Recorded]]:
    """(name of a call, its arrays)."""
    for name, call in cases.CASES:
        yield f"{name}/{call}", arrays(cases.outcome_of(name, call).samples)
    for kind in KINDS:
        params, config = meshes.setup(kind)
        config = replace(config, record="candidates")
        yield f"mesh {kind}/one device", arrays(meshes.reply(params, config))
        for shape in MESHES:
            mesh = sia_jax.make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])
            spread = meshes.reply(meshes.placed(params, mesh), replace(config, mesh=mesh))
            yield f"mesh {kind}/{'-'.join(map(str, shape))}", arrays(spread)


def arrays(samples: sia_jax.Samples) -> Recorded:
    """All of a call's, those of the candidates by names that begin with "candidates."."""
    fields = dict(vars(jax.device_get(samples)))
    candidates = fields.pop("candidates")
    if candidates is not None:
        fields |= {f"candidates.{RENAMED.get(name, name)}": of for name, of in vars(candidates).items()}
    return {name: np.asarray(of) for name, of in fields.items()}


def margin(name: str, row: int, t: int) -> float:
    """How near to a tie the oracle was at index t of a recorded reply; NaN where no oracle follows it."""
    structure, _, call = name.rpartition("/")
    if structure not in cases.STRUCTURES:
        return float("nan")
    margins = cases.expected_of(structure, int(call))[row].margins
    return margins[t] if t < len(margins) else float("nan")


def differences(name: str, before: Recorded, after: Recorded) -> list[str]:
    """What differs between two recordings of a call.

    Of a reply it is the first token at which ids or flags differ, and the floats up to there.
    """
    if sorted(before) != sorted(after) or any(before[n].shape != after[n].shape for n in before):
        return [f"other arrays, or other shapes: {_shapes(before)}, now {_shapes(after)}"]
    found = [
        f"{n}: {before[n]}, now {after[n]}" for n in before if before[n].ndim == 0 and before[n] != after[n]
    ]
    for row in range(len(before["lengths"])):
        a, b = ({n: of[row] for n, of in call.items() if of.ndim} for call in (before, after))
        found += [f"row {row}: {n} {a[n]}, now {b[n]}" for n in a if a[n].ndim == 0 and a[n] != b[n]]
        by_token = [n for n in a if a[n].ndim]
        exact = [n for n in by_token if a[n].dtype.kind in "bi"]
        end = min((_first(a[n] == b[n]) for n in exact), default=0)
        unequal = [n for n in exact if _first(a[n] == b[n]) == end < len(a[n])]
        if unequal:
            found.append(f"row {row}, token {end}: {unequal}; margin {margin(name, row, end):.2g} nats")
        for n in by_token:
            if n not in exact:
                x, y = a[n][:end], b[n][:end]
                t = _first(np.isclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True))
                if t < end:
                    found.append(f"row {row}, token {t}: {n} {x[t]}, now {y[t]}")
    return found


def _first(same: np.ndarray) -> int:
    """The first token that is not the same in everything; their number where all are."""
    wrong = np.flatnonzero(~same.all(axis=tuple(range(1, same.ndim))))
    return int(wrong[0]) if len(wrong) else len(same)


def _shapes(call: Recorded) -> dict[str, tuple[int, ...]]:
    return {n: of.shape for n, of in sorted(call.items())}
