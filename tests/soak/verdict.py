"""Whether a soak found the server sound."""

from tests.soak.soak import Report

GROWTH = 6 * 2**20
"""Bytes."""


def problems(report: Report) -> list[str]:
    """What is wrong; empty: nothing."""
    found = list(report.differences)
    if report.grown > GROWTH:
        found.append(
            f"memory has grown by {report.grown / 2**20:.1f} MiB, {report.slope:.1f} bytes a request"
        )
    if report.descriptors[-1] > report.descriptors[0]:
        found.append(
            f"{report.descriptors[0]} descriptors after a round, {report.descriptors[-1]} at the end"
        )
    return found
