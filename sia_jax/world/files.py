"""Where the models of the world lie that come with the library."""

from pathlib import Path


def world_models() -> Path:
    """The folder of the embedded models, and of the prompts that they know.

    Of policy/, reward/, prompts/, thresholds.json and the value models value/, value-token/, value-vocab/,
    value-small/, value-states/, value-states-token/ and value-states-distil/.
    MODEL_CARD.md says how they were made and what they score.

    Raises:
      FileNotFoundError: the installation lacks them.
    """
    folder = Path(__file__).with_name("models")
    if not (folder / "policy").is_dir():
        raise FileNotFoundError(
            f"{folder} has no models; take the whole repository, or make them again: "
            "sia train world --out out/world"
        )
    return folder
