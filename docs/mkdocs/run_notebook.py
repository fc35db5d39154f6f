"""Run a notebook from its first cell to its last, and keep what every cell printed and drew: make notebook.

Kept with the notebook is only what a reader sees: no times, no version of this machine's Python.
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

SECONDS = 600
"""That one cell may take."""


def run(path: Path, root: Path) -> int:
    """Run a notebook in place, and return how many cells of code it has.

    Args:
      path: of the notebook.
      root: the folder in which its code runs.

    Raises:
      CellExecutionError: a cell failed; the notebook stays as it was.
    """
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of a progress bar that no cell shows
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(root)}},
    )
    client.execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    return sum(cell.cell_type == "code" for cell in notebook.cells)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", type=Path, help="an .ipynb file, which is written anew")
    notebook = parser.parse_args().notebook
    print(f"{notebook}: {run(notebook, Path.cwd())} cells of code, all run")
