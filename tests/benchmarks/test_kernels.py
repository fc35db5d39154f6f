"""How kernels are added up."""

from types import SimpleNamespace

from sia_jax.benchmarks.kernels import record_kernels, sum_kernels


def test_kernels_of_one_name_are_added_and_overlaps_counted_once():
    def events(*spans):
        return [SimpleNamespace(name=n, start_ns=a, duration_ns=b - a) for n, a, b in spans]

    lines = [
        SimpleNamespace(
            name="Stream #1", events=events(("gemm.12", 0, 4e6), ("add_3", 6e6, 7e6), ("gemm", 9e6, 10e6))
        ),
        SimpleNamespace(name="Stream #2", events=events(("copy", 3e6, 5e6))),
        SimpleNamespace(name="XLA Ops", events=events(("gemm", 0, 10e6))),
    ]
    planes = [
        SimpleNamespace(name="/host:CPU", lines=[]),
        SimpleNamespace(name="/device:GPU:0", lines=lines),
    ]
    found = sum_kernels(planes, most=2)
    assert (found.busy_ms, found.span_ms, found.launches) == (7.0, 10.0, 4)
    assert found.rows == [("gemm", 2, 5.0), ("copy", 1, 2.0)]


def test_a_cpu_leaves_no_record_of_kernels(tmp_path):
    kept = tmp_path / "traces" / "call.xplane.pb"
    assert record_kernels(lambda: None, kept) is None
    assert kept.exists()
