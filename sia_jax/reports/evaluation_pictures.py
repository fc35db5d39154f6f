"""All pictures of a comparison, made from what `results.json` holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sia_jax.files.writing import copy_file
from sia_jax.reports.entropy_picture import entropy_picture
from sia_jax.reports.gate_pictures import gates_picture, junctions_picture
from sia_jax.reports.pareto import flops_picture, seconds_picture, share_picture
from sia_jax.reports.pictures import Picture, save_picture

NAMES = ("pareto", "pareto-flops", "pareto-seconds", "gates", "entropy", "junctions")
"""Of all pictures that there may be."""

FILES = tuple(f"{name}.{kind}" for name in NAMES for kind in ("png", "csv"))


def pictures_of(results: Mapping[str, Any]) -> list[Picture]:
    """The pictures for which a comparison has the numbers.

    Args:
      results: what `decode.evaluate` writes to results.json.
    """
    made = [share_picture(results), flops_picture(results), seconds_picture(results), gates_picture(results)]
    made += [entropy_picture(results), junctions_picture(results)]
    return [picture for picture in made if picture is not None]


def write_pictures(results: Mapping[str, Any], folder: Path) -> list[Picture]:
    """Draw all pictures, NAME.png and NAME.csv; those of an earlier run that this one lacks are removed.

    Args:
      results: of a comparison.
      folder: made if need be.

    Returns:
      Those that were drawn.

    Raises:
      OSError: one cannot be written.
    """
    pictures = pictures_of(results)
    for picture in pictures:
        save_picture(picture, folder)
    for name in {*FILES} - {name for picture in pictures for name in picture.files}:
        (folder / name).unlink(missing_ok=True)
    return pictures


def places_beside(page: Path) -> dict[str, Path]:
    """Where the files of pictures go that a page shows, by their names; all that there may be."""
    return {name: page.with_name(f"{page.stem}-{name}") for name in FILES}


def copy_beside(pictures: Sequence[Picture], folder: Path, page: Path) -> str:
    """Copy pictures and their numbers to where a page shows them, and the Markdown that does.

    Args:
      pictures: that were drawn.
      folder: into which.
      page: its folder exists.

    Raises:
      OSError: one cannot be read or written.
    """
    places, shown = places_beside(page), []
    for picture in pictures:
        for name in picture.files:
            copy_file(folder / name, places[name])
        image, numbers = (quote(places[name].name) for name in picture.files)
        shown.append(f"![{picture.caption}]({image})\n\n{picture.caption} ([numbers]({numbers})).\n")
    return "\n".join(shown)
