"""What needs no second process: one alone compares nothing, and what would not fit is refused."""

from contextlib import contextmanager
from typing import Any

import jax
import pytest

from sia_jax.models.config import ValueConfig
from sia_jax.parallel.lock_step import agreed, every_device, on_every_process, spans_processes
from sia_jax.parallel.mesh import make_mesh
from sia_jax.runs.processes import as_chief_has, joined, mesh_of_all
from sia_jax.training.config import TrainConfig
from sia_jax.training.loop import LoopConfig, run
from tests.support.checkpoints import tiny_config
from tests.support.trajectories import random_trajectories


def unasked(_: Any) -> Any:
    raise AssertionError("a process alone says nothing")


def test_one_process_prepares_and_compares_nothing():
    for mesh in (None, make_mesh(2, 2, 2), every_device()):
        assert not spans_processes(mesh)
        assert agreed("a call", lambda: 7, unasked, mesh=mesh) == 7
        with pytest.raises(KeyError, match="mine"):
            agreed("a call", lambda: {}["mine"], unasked, mesh=mesh)
        tree = {"x": jax.numpy.ones(3)}
        assert on_every_process(tree, mesh) is tree


def test_one_process_is_the_chief_and_holds_what_is_written():
    held = []

    @contextmanager
    def lock():
        held.append("entered")
        yield
        held.append("left")

    with joined(False, lock()) as chief:
        assert chief
        assert held == ["entered"]
    assert held == ["entered", "left"]
    flags = jax.numpy.array([True, False])
    assert as_chief_has(flags, distributed=False) is flags


def test_several_devices_without_a_mesh_are_refused_under_distributed():
    assert mesh_of_all((1, 1, 1), distributed=False) is None
    with pytest.raises(ValueError, match=r"1 processes have 8 devices, and --mesh is 1 1 1; .*--mesh 1 8 1"):
        mesh_of_all((1, 1, 1), distributed=True)
    assert mesh_of_all((1, 8, 1), distributed=True) == make_mesh(1, 8, 1)
    with pytest.raises(ValueError, match="needs 4 devices, got 8"):
        mesh_of_all((1, 4, 1), distributed=True)


def test_rows_that_the_mesh_does_not_divide_are_refused_with_what_would_fit():
    config = TrainConfig(ValueConfig(tiny_config()), trained="head")
    state: Any = None
    with pytest.raises(ValueError, match=r"rows must be a multiple of 4, .*, got 6; take 8, or give"):
        run({}, state, random_trajectories(4, 64), [], config, LoopConfig(rows=6), mesh=make_mesh(2, 2, 2))
