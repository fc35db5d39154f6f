"""Tokenizers of checkpoints: loading one from its folder, and whether two of them mean the same by an id."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sia_jax.checkpoints.files import is_there, read_json
from sia_jax.checkpoints.tokenizer_files import (
    OLD_TEMPLATE,
    TOKENIZER_CONFIG,
    check_tokenizer_config,
    remove_others,
    tokenizer_files,
    without_templates,
)
from sia_jax.checkpoints.tokenizer_json import check_growth
from sia_jax.files.shown import shown_line
from sia_jax.files.writing import make_folder, publish, staging, writing
from sia_jax.text.tokenizer import Tokenizer

# Any of these sets holds a whole vocabulary.
_VOCABULARIES = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"tokenizer.model"})


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """Load the tokenizer of a checkpoint folder; nothing is downloaded, and no code from the folder is run.

    Args:
      folder: a checkpoint, with or without a tokenizer.

    Returns:
      A transformers tokenizer; None if the folder has no tokenizer files.

    Raises:
      FileNotFoundError: no such folder, or a link to a file that is gone.
      ValueError: there are tokenizer files, but without a vocabulary, or they cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    files = tokenizer_files(folder)
    present = without_templates(files)
    if not present:
        return None
    # From the config alone, transformers makes a tokenizer that knows only the special tokens.
    if not any(whole <= set(present) for whole in _VOCABULARIES):
        raise ValueError(
            f"{folder} has {sorted(present)} but no vocabulary, expected tokenizer.json; "
            "copy it from the original checkpoint, or remove the other files"
        )
    check_growth(folder)
    # Imported here because it takes seconds, which a folder without a tokenizer need not pay.
    with _torch_not_missed():
        from transformers import AutoTokenizer

    try:
        check_tokenizer_config(folder)
        # Left to itself, trust_remote_code asks on stdin.
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **special_tokens_for_4(folder)
        )
    except Exception as error:  # the readers raise what they like; tokenizers a bare Exception
        broken = [name for name in present if name.endswith(".json") and not _is_object(folder / name)]
        raise ValueError(
            f"{folder}: cannot read the tokenizer from {', '.join(sorted(broken or present))} "
            f"({type(error).__name__}: {shown_line(error, 500)}); copy the files from the original "
            "checkpoint again"
        ) from error
    if not tokenizer.chat_template and OLD_TEMPLATE in files:
        tokenizer.chat_template = _old_template(folder / OLD_TEMPLATE)
    return tokenizer


def special_tokens_for_4(folder: Path, installed: str | None = None) -> dict[str, Any]:
    """What transformers 4 must be told of a tokenizer that transformers 5 has saved; nothing else.

    Both have a field `extra_special_tokens`. In 5 it is a list, which 4 calls `additional_special_tokens`.

    Args:
      folder: of the tokenizer's files.
      installed: the version of transformers; by default of the one that is installed.
    """
    path = folder / TOKENIZER_CONFIG
    if int((installed or version("transformers")).split(".")[0]) > 4 or not is_there(path):
        return {}
    extra = read_json(path).get("extra_special_tokens")
    if not isinstance(extra, list):
        return {}
    return {"additional_special_tokens": extra, "extra_special_tokens": {}}


def save_tokenizer(tokenizer: Tokenizer | None, folder: Path) -> None:
    """Save a tokenizer, if there is one, file by file: readers see each as it was or as it will be.

    Args:
      tokenizer: what to save.
      folder: an existing folder; files of the same names are replaced, and of another tokenizer nothing
        stays.
    """
    names: list[str] = []
    if tokenizer is not None:
        with staging(folder, "tokenizer") as new:
            with writing(folder / "tokenizer.json"):
                tokenizer.save_pretrained(str(new))
            for path in sorted(path for path in new.rglob("*") if path.is_file()):
                names.append(path.relative_to(new).as_posix())
                target = folder / names[-1]
                make_folder(target.parent)  # further chat templates have a folder
                publish(path, target)
    remove_others(folder, names)


def check_same_vocabulary(
    policy_tokenizer: Tokenizer, value_tokenizer: Tokenizer, *, policy_name: str, value_name: str
) -> None:
    """Check that every id of the policy's tokenizer means the same token to the value model.

    The value model reads the policy's ids as they are; where they differ it would read garbage. Further ids
    of its own, such as an added [PAD], do no harm.

    Args:
      policy_tokenizer: of the policy.
      value_tokenizer: of the value model.
      policy_name: what the error calls the policy.
      value_name: what the error calls the value model.

    Raises:
      ValueError: how many ids differ, and the first five of them.
    """
    policy, value = policy_tokenizer.get_vocab(), value_tokenizer.get_vocab()
    differing = sorted((index, token) for token, index in policy.items() if value.get(token) != index)
    if not differing:
        return
    meaning = {index: repr(token) for token, index in value.items()}
    examples = [f"{index}: {token!r} != {meaning.get(index, 'no token')}" for index, token in differing[:5]]
    raise ValueError(
        f"the policy {policy_name} and the value model {value_name} have different vocabularies: "
        f"{len(differing)} of the policy's {len(policy)} ids mean another token or none "
        f"({', '.join(examples)}{', ...' if len(differing) > 5 else ''}); "
        "take a value model that was trained on the policy's tokenizer"
    )


@contextmanager
def _torch_not_missed() -> Iterator[None]:
    """At its import transformers warns where there is no PyTorch, which no tokenizer needs."""
    logger = logging.getLogger("transformers")

    def is_of_something_else(record: logging.LogRecord) -> bool:
        return "PyTorch was not found" not in record.getMessage()

    logger.addFilter(is_of_something_else)
    try:
        yield
    finally:
        logger.removeFilter(is_of_something_else)


def _old_template(path: Path) -> Any:
    """A template, or several by name.

    Raises:
      ValueError: the file holds none.
    """
    try:
        return read_json(path)["chat_template"]
    except (ValueError, KeyError) as error:
        raise ValueError(
            f'{path}: expected {{"chat_template": "..."}} ({type(error).__name__}: {error}); copy the file '
            "from the original checkpoint again, or remove it"
        ) from None


def _is_object(path: Path) -> bool:
    try:
        read_json(path)
    except (OSError, ValueError):
        return False
    return True
