"""Peaks of devices by the names that JAX has for them."""

from types import SimpleNamespace
from typing import Any

import pytest

from sia_jax.costs.roofline import peak_flops


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        *(("TPU v4", 275), ("TPU v5 lite", 197), ("TPU v5e", 197), ("TPU v5", 459), ("TPU v5p", 459)),
        *(("TPU v6 lite", 918), ("TPU v6e", 918), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H200", 989)),
        *(("NVIDIA A100-SXM4-80GB", 312), ("cpu", None), ("TPU v5 something", None)),
    ],
)
def test_a_device_has_the_peak_of_its_maker_s_data_sheet_or_none(kind: str, teraflops: float | None) -> None:
    device: Any = SimpleNamespace(device_kind=kind)
    assert peak_flops(device) == (None if teraflops is None else teraflops * 1e12)
