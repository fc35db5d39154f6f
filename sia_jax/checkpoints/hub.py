"""Where a checkpoint is: a folder, or else a Hub id."""

import os
import re
from pathlib import Path

_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*tokenizer.model", "*token_reward_head.pt")
_NOT = ("onnx/*", "original/*")  # further copies of the weights, for other programs


_REMEDIES = {
    "GatedRepoError": "; accept its licence on its page there, then run hf auth login, or set HF_TOKEN",
    "RepositoryNotFoundError": "; look at the spelling; for a private one run hf auth login, or set HF_TOKEN",
}
"""By the kind of huggingface_hub's error, which is not imported for it."""


def resolve_checkpoint(path_or_id: str | Path) -> Path:
    """The folder of a checkpoint, downloaded through huggingface_hub if it is a Hub id.

    huggingface_hub's own settings hold: its cache folder, HF_TOKEN, and offline mode (HF_HUB_OFFLINE=1), in
    which only what is cached is found.

    Args:
      path_or_id: an existing folder, or "owner/name" (or a bare "name") on the Hub, or "owner/name/folder"
        for one of several checkpoints in a repository, of which the rest is left there.

    Raises:
      NotADirectoryError: a file.
      TypeError: neither a str nor a Path.
      FileNotFoundError: no such folder, and it cannot be had from the Hub either.
    """
    if not isinstance(path_or_id, str | Path):
        raise TypeError(f"expected a folder or a Hub id, as a str or a Path, got {type(path_or_id).__name__}")
    folder = expanded(path_or_id)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise NotADirectoryError(
            f"{path_or_id} is a file, and a checkpoint is a folder; name the folder that holds it"
        )
    name = str(path_or_id)
    if not re.fullmatch(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+){0,2}", name):
        raise FileNotFoundError(f"{name}: no such folder, and not a Hub id (owner/name or owner/name/folder)")
    *repository, within = name.split("/") if name.count("/") == 2 else (name, "")
    files = [f"{within}/{pattern}" if within else pattern for pattern in _FILES]
    # Imported here because it costs 0.3 s, which a local folder need not pay.
    from huggingface_hub import snapshot_download

    try:
        whole = snapshot_download("/".join(repository), allow_patterns=files, ignore_patterns=list(_NOT))
    except Exception as error:  # its own kinds, and whatever the client below it raises of proxies and lines
        first, kind = (str(error).splitlines() or ["it says no more"])[0], type(error).__name__
        raise FileNotFoundError(
            f"{name}: no such folder here, and as a Hub id it cannot be had ({kind}: {first})"
            + _REMEDIES.get(kind, "")
        ) from error
    found = Path(whole) / within
    if not found.is_dir():
        raise FileNotFoundError(
            f"{name}: no such folder here, and {'/'.join(repository)} has no {within}/ either"
        )
    return found


def checkpoint_name(path_or_id: str | Path) -> str:
    """The last part of a folder's path or Hub id: what people call the checkpoint.

    A folder of the Hub's cache is called by its commit, "models--Qwen--Qwen3-1.7B/snapshots/70d2...", and so
    is a link to it meant: there the repository's name is what counts.
    """
    given = expanded(path_or_id)
    if "\0" in str(given):  # no path, but what a file may call its base
        return given.name
    resolved = Path(os.path.realpath(given))  # Path.resolve() knows links that lead in a circle as an error
    for folder in (given.absolute(), resolved):
        repository = folder.parents[1].name if len(folder.parents) > 1 else ""
        if folder.parent.name == "snapshots" and repository.startswith("models--"):
            return repository.split("--")[-1]
    return given.name or resolved.name


def expanded(path: str | Path) -> Path:
    """A path with the home folder for its ~ or ~name; as it stands where there is none of that name.

    Args:
      path: of a user, or what a file calls its base.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # nobody of that name here; a shell leaves it as it stands, too
        return Path(path)
