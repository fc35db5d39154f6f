"""What is said of TPUs that are not there; all without libtpu."""

import jax
import pytest

from sia_jax.costs import tpu
from sia_jax.costs.tpu import chip_bytes, tpu_devices


def test_a_topology_of_no_known_generation_is_refused():
    assert chip_bytes("v5e:2x4") == 16e9
    with pytest.raises(ValueError, match=r"such as v5e:2x4, of a generation in .* got 'h100:8'"):
        tpu_devices("h100:8")


@pytest.mark.parametrize(
    ("failure", "error", "says"),
    [
        (RuntimeError("TPU support not installed"), ModuleNotFoundError, "make tpu installs it"),
        (jax.errors.JaxRuntimeError("not divisible"), ValueError, "no topology 'v5e:3x3': not divisible"),
    ],
)
def test_what_libtpu_lacks_is_said_in_ones_own_words(failure, error, says, monkeypatch):
    def fail(**_):
        raise failure

    for name in tpu._NO_HOST:
        monkeypatch.setenv(name, "as it was")
    monkeypatch.setattr(tpu.topologies, "get_topology_desc", fail)
    with pytest.raises(error, match=says):
        tpu_devices("v5e:3x3")
