"""Where a set of records lies, as TensorFlow Datasets has it."""

from pathlib import Path

NAME = "sia_trajectories"
VERSION = "1.0.0"


def set_folder(folder: Path) -> Path:
    """Where TensorFlow Datasets looks for the set in a data folder."""
    return folder / NAME / VERSION
