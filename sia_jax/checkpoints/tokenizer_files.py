"""Which files of a checkpoint folder are its tokenizer's: found, copied and removed by one list."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sia_jax.checkpoints.files import check_whole, has_folder, is_there, read_json
from sia_jax.checkpoints.values import Kinds, is_bool, is_number, is_object, wrong_values
from sia_jax.files.writing import copy_file, make_folder

TOKENIZER_CONFIG = "tokenizer_config.json"
OLD_TEMPLATE = "chat_template.json"
"""Where processors had the chat template, which transformers reads only for those."""

_OWN = (
    *("tokenizer.json", TOKENIZER_CONFIG, "vocab.json", "merges.txt", "tokenizer.model"),
    *("added_tokens.json", "special_tokens_map.json"),
)
# Beside them; the oldest checkpoints have the template in tokenizer_config.json.
_TEMPLATES = ("chat_template.jinja", OLD_TEMPLATE)
_MORE_TEMPLATES = "additional_chat_templates"  # a folder of one file for each


def tokenizer_files(folder: Path) -> list[str]:
    """The tokenizer's files in a folder, chat templates among them, by their names; all of them are whole.

    Args:
      folder: a checkpoint, with or without a tokenizer.

    Raises:
      FileNotFoundError: a link to a file that is gone.
      ValueError: one that is empty, no file, or something else that was saved in place of the file.
    """
    names = [*_OWN, *_TEMPLATES]
    if has_folder(folder / _MORE_TEMPLATES):
        names += _more_templates(folder)
    found = [name for name in names if is_there(folder / name)]
    for name in found:
        check_whole(folder / name)
    return found


def without_templates(names: Collection[str]) -> list[str]:
    """Of the tokenizer's files those that make one; a chat template alone does not."""
    return [name for name in names if name in _OWN]


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files of a checkpoint folder byte for byte; of another tokenizer nothing stays.

    Args:
      source: a checkpoint, with or without a tokenizer.
      target: an existing folder.

    Raises:
      FileNotFoundError, ValueError: the source's are not whole (`tokenizer_files`); nothing is written then.
    """
    names = tokenizer_files(source)
    for name in names:
        make_folder((target / name).parent)
        copy_file(source / name, target / name)
    remove_others(target, names)


def remove_others(folder: Path, kept: Collection[str]) -> None:
    """Remove what an earlier tokenizer left, which would be read along with the files of the new one.

    Args:
      folder: the new files are in place.
      kept: the names of those.
    """
    more = folder / _MORE_TEMPLATES
    is_own = more.is_dir() and not more.is_symlink()  # not one of another checkpoint
    for name in (*_OWN, *_TEMPLATES, *(_more_templates(folder) if is_own else ())):
        path = folder / name
        if name not in kept and (path.is_file() or path.is_symlink()):
            path.unlink()
    if is_own and not any(more.iterdir()):
        more.rmdir()


def check_tokenizer_config(folder: Path) -> None:
    """Fields of tokenizer_config.json are of their kinds, as far as transformers takes them as they come.

    Raises:
      ValueError: some are not, all of them in one report; or it is no JSON object.
    """
    path = folder / TOKENIZER_CONFIG
    if not is_there(path):
        return
    problems = wrong_values(read_json(path), _KINDS)
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")


def _more_templates(folder: Path) -> list[str]:
    return [f"{_MORE_TEMPLATES}/{path.name}" for path in sorted((folder / _MORE_TEMPLATES).glob("*.jinja"))]


def _is_token(value: Any) -> bool:
    """A token's text, alone or with how it is matched."""
    return isinstance(value, str) or (is_object(value) and isinstance(value.get("content"), str))


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_token, value))


def _are_named_tokens(value: Any) -> bool:
    return _are_tokens(list(value.values()) if is_object(value) else value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


_KINDS: Kinds = (
    (("model_max_length", "max_len"), is_number, "a number"),
    (
        (
            *("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces"),
            *("split_special_tokens", "legacy"),
        ),
        is_bool,
        "true or false",
    ),
    (("additional_special_tokens",), _are_tokens, "a list of tokens"),
    (("extra_special_tokens",), _are_named_tokens, "a list of tokens, or an object of tokens by their names"),
    (("model_input_names", "fast_tokenizer_files"), _are_texts, "a list of texts"),
)
