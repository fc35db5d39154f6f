"""Files of a tokenizer: each is whole or is named, and of another tokenizer nothing stays behind."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sia_jax.checkpoints.files import has_folder, is_there
from sia_jax.checkpoints.tokenizer_files import copy_tokenizer, tokenizer_files
from sia_jax.checkpoints.vocabulary import load_tokenizer, save_tokenizer, special_tokens_for_4
from tests.support.checkpoints import edit_json
from tests.support.tokenizers import save_qwen3_tokenizer

MORE = "additional_chat_templates/rag.jinja"
NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model"),
    *("added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json", MORE),
)


def write(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "a link into an emptied cache": (
        lambda path: os.symlink("../../blobs/gone", path),
        FileNotFoundError,
        "is a link to ../../blobs/gone, which is gone",
    ),
    "a folder": (Path.mkdir, ValueError, "is a folder, expected a file"),
    "a pipe": (os.mkfifo, ValueError, "is a device or a pipe, expected a file"),
    "nothing in it": (write(b""), ValueError, "is empty"),
    "a pointer": (
        write(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n"),
        ValueError,
        "is a Git LFS pointer",
    ),
    "a page": (
        write(b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html>404</html>"),
        ValueError,
        "is what a server sent in place of the file, '<!DOCTYPE html>'",
    ),
    "the Hub's answer": (
        write(b"Entry not found"),
        ValueError,
        "is what a server sent in place of the file, 'Entry not found'",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a file for its template and a further one."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_qwen3_tokenizer(folder, jinja_file=True)
    (folder / MORE).parent.mkdir()
    (folder / MORE).write_text("{{ messages }}")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("damage", "kind", "told"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_only_seems_to_be_there_is_named_whoever_reads_it(
    folder: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any], kind: type[Exception], told: str
) -> None:
    (folder / name).unlink(missing_ok=True)
    damage(folder / name)
    (tmp_path / "copy").mkdir()
    readers: list[Callable[[], Any]] = [
        lambda: load_tokenizer(folder),
        lambda: copy_tokenizer(folder, tmp_path / "copy"),
    ]
    if name == "tokenizer_config.json":
        readers.append(lambda: special_tokens_for_4(folder, "4.51.3"))
    for read in readers:
        with pytest.raises(kind) as found:
            read()
        assert f"{folder / name} {told}" in str(found.value)
    assert not list((tmp_path / "copy").iterdir())


def test_a_template_alone_is_no_tokenizer_and_other_files_are_none_of_its(tmp_path: Path) -> None:
    for name in ("chat_template.jinja", MORE, "README.md", "rag.jinja", "trainer_state.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{{ messages }}")
    assert tokenizer_files(tmp_path) == ["chat_template.jinja", MORE]
    assert load_tokenizer(tmp_path) is None


def test_a_file_in_place_of_a_folder_is_refused(folder: Path) -> None:
    shutil.rmtree((folder / MORE).parent)
    assert not has_folder((folder / MORE).parent)
    (folder / MORE).parent.write_text("{{ messages }}")
    with pytest.raises(ValueError, match="additional_chat_templates is a file, expected a folder"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_in_place_of_a_file_is_not_taken_for_absent(tmp_path: Path, name: str) -> None:
    assert not is_there(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=rf"{name} is a folder, expected a file"):
        is_there(tmp_path / name)


def test_a_copy_has_all_files_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    copy_tokenizer(folder, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(folder)
    copy_tokenizer(folder, folder)
    assert contents(folder) == contents(tmp_path / "copy")


@pytest.mark.parametrize("way", ["saved", "saved without a template", "copied", "none"])
def test_of_a_tokenizer_that_was_there_nothing_stays(folder: Path, tmp_path: Path, way: str) -> None:
    new = save_qwen3_tokenizer(tmp_path / "new")
    if way == "saved without a template":
        new.chat_template = None

    def put(target: Path) -> None:
        if way == "copied":
            copy_tokenizer(tmp_path / "new", target)
        else:
            save_tokenizer(None if way == "none" else new, target)

    for name in ("chat_template.json", "merges.txt", "README.md", "notes.jinja", "vocab.txt"):
        (folder / name).write_text("{}")
    (folder / "added_tokens.json").symlink_to("gone")
    (tmp_path / "fresh").mkdir()
    for target in (tmp_path / "fresh", folder):
        put(target)
    others = dict.fromkeys(("README.md", "notes.jinja", "vocab.txt"), b"{}")
    assert contents(folder) == contents(tmp_path / "fresh") | others
    assert not (folder / "added_tokens.json").is_symlink()
    assert not (folder / MORE).parent.exists()


def test_a_folder_of_templates_that_belongs_to_another_checkpoint_is_let_be(
    folder: Path, tmp_path: Path
) -> None:
    (folder / MORE).parent.rename(tmp_path / "elsewhere")
    (folder / MORE).parent.symlink_to(tmp_path / "elsewhere")
    save_tokenizer(None, folder)
    assert (tmp_path / "elsewhere" / "rag.jinja").is_file()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_max_length": "x"}, "model_max_length is 'x', expected a number"),
        ({"model_max_length": True}, "model_max_length is True, expected a number"),
        ({"max_len": [512]}, r"max_len is [512], expected a number"),
        ({"add_bos_token": "false"}, "add_bos_token is 'false', expected true or false"),
        ({"add_eos_token": 1}, "add_eos_token is 1, expected true or false"),
        ({"add_prefix_space": "no"}, "add_prefix_space is 'no', expected true or false"),
        ({"clean_up_tokenization_spaces": "false"}, "clean_up_tokenization_spaces is 'false'"),
        ({"split_special_tokens": "false"}, "split_special_tokens is 'false'"),
        ({"additional_special_tokens": [1, 2]}, "additional_special_tokens is [1, 2], expected a list of"),
        ({"extra_special_tokens": {"image": 5}}, "extra_special_tokens is {'image': 5}, expected a list"),
        ({"model_input_names": "input_ids"}, "model_input_names is 'input_ids', expected a list of texts"),
        ({"legacy": "\x1b[2J", "max_len": "x"}, "max_len is 'x', expected a number; legacy is '\\x1b[2J'"),
    ],
)
def test_fields_of_another_kind_are_named_when_it_is_loaded(
    folder: Path, fields: dict[str, Any], told: str
) -> None:
    edit_json(folder / "tokenizer_config.json", **fields)
    with pytest.raises(ValueError, match="cannot read the tokenizer") as found:
        load_tokenizer(folder)
    assert told in str(found.value)
    assert "\x1b" not in str(found.value)


def test_fields_that_say_nothing_or_as_published_files_have_them_are_taken(folder: Path) -> None:
    expected = load_tokenizer(folder).encode("How long should I boil an egg?")
    fields = dict.fromkeys(("model_max_length", "add_bos_token", "clean_up_tokenization_spaces"))
    end = {"__type": "AddedToken", "content": "<|im_end|>", "special": True}
    edit_json(folder / "tokenizer_config.json", **fields, extra_special_tokens={"end_token": "<|im_end|>"})
    assert load_tokenizer(folder).encode("How long should I boil an egg?") == expected
    edit_json(
        folder / "tokenizer_config.json",
        model_max_length=1e30,
        additional_special_tokens=[end],
        extra_special_tokens=[],
    )
    assert load_tokenizer(folder).encode("How long should I boil an egg?") == expected
