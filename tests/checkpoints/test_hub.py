"""Where a checkpoint is found: in a folder, else in the local cache of the Hub; here never on the network."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub import constants, errors
from huggingface_hub.utils import filter_repo_objects

import sia_jax
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from tests.support.checkpoints import assert_same_trees, save_tiny_policy

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill_cache(cache: Path, repository: str) -> Path:
    """Lay out a repository as the Hub's cache does; returns the folder of its snapshot."""
    home = cache / ("models--" + repository.replace("/", "--"))
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(COMMIT)
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.fixture
def attempts(monkeypatch):
    """Every attempt to reach a host is refused, and listed here."""
    hosts = []

    def refuse(*arguments, **_options):
        hosts.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return hosts


@pytest.fixture
def cache(tmp_path, monkeypatch, attempts):
    """An empty cache of the Hub, in offline mode."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


@pytest.fixture
def never_the_hub(monkeypatch):
    """Any call of huggingface_hub fails the test."""

    def fail(*arguments, **_options):
        raise AssertionError(f"the Hub was asked for {arguments}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)


def test_cached_repository_is_found_by_its_id(cache, attempts):
    snapshot = fill_cache(cache, "owner/tiny-model")
    policy = save_tiny_policy(snapshot)
    assert resolve_checkpoint("owner/tiny-model") == snapshot
    loaded = sia_jax.load_policy("owner/tiny-model")
    assert_same_trees(loaded.params, policy.params)
    assert loaded.name == "tiny-model"
    assert not attempts


def test_one_of_several_checkpoints_of_a_repository_is_found_by_its_folder(cache, attempts):
    snapshot = fill_cache(cache, "owner/many")
    save_tiny_policy(snapshot / "VM-tiny")
    assert resolve_checkpoint("owner/many/VM-tiny") == snapshot / "VM-tiny"
    assert sia_jax.load_policy("owner/many/VM-tiny").name == "VM-tiny"
    with pytest.raises(FileNotFoundError, match="owner/many has no VM-large/ either"):
        resolve_checkpoint("owner/many/VM-large")
    assert not attempts


def test_of_several_checkpoints_only_the_one_is_asked_for(tmp_path, monkeypatch):
    asked = []

    def download(repository, *, allow_patterns, ignore_patterns):
        asked.append((repository, allow_patterns))
        return tmp_path

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    (tmp_path / "VM-tiny").mkdir()
    assert resolve_checkpoint("owner/many/VM-tiny") == tmp_path / "VM-tiny"
    ((repository, patterns),) = asked
    assert repository == "owner/many"
    names = ["VM-tiny/lora_weights/adapter_model.safetensors", "VM-tiny/token_reward_head.pt"]
    assert list(filter_repo_objects([*names, "VM-large/config.json"], allow_patterns=patterns)) == names


def test_id_without_an_owner_is_found(cache):
    snapshot = fill_cache(cache, "tiny-model")
    assert resolve_checkpoint("tiny-model") == snapshot


@pytest.mark.parametrize("name", ["owner/absent", "absent"])
def test_id_that_is_not_cached_is_not_found_and_not_asked_for(cache, attempts, name):
    fill_cache(cache, "owner/other")
    with pytest.raises(
        FileNotFoundError, match=f"{name}: no such folder here, and as a Hub id it cannot be had"
    ):
        sia_jax.load_policy(name)
    assert not attempts


@pytest.mark.parametrize("message", ["the proxy refuses\nand more", ""])
def test_whatever_the_client_raises_is_told_in_a_line(monkeypatch, message):
    """Of a proxy, or of a line that breaks, it raises kinds that are no OSError."""

    def fail(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    told = message.partition("\n")[0] or "it says no more"
    with pytest.raises(FileNotFoundError, match=rf"cannot be had \(RuntimeError: {told}\)"):
        resolve_checkpoint("owner/tiny")


def test_environment_that_says_offline_is_heeded(tmp_path):
    snapshot = fill_cache(tmp_path / "hub", "owner/cached")
    program = """
import socket
def refuse(*arguments, **options):
    print("network")
    raise OSError
socket.getaddrinfo = socket.socket.connect = refuse
from sia_jax.checkpoints.hub import resolve_checkpoint
print(resolve_checkpoint("owner/cached"))
try:
    resolve_checkpoint("owner/absent")
except FileNotFoundError as error:
    print(error)
"""
    settings = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | settings,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    found, message = result.stdout.splitlines()
    assert found == str(snapshot)
    assert message.startswith("owner/absent: no such folder here")


def test_existing_folder_wins_over_a_repository_of_the_same_name(cache, tmp_path, monkeypatch, never_the_hub):
    fill_cache(cache, "owner/tiny")
    (tmp_path / "owner/tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("owner/tiny").resolve() == (tmp_path / "owner/tiny").resolve()
    assert resolve_checkpoint(tmp_path / "owner") == tmp_path / "owner"


@pytest.mark.parametrize(
    "path",
    [
        "/no/such/folder",
        "/none",
        "./owner/name",
        "../name",
        "~/models/name",
        "a/b/c/d",
        "owner/name/",
        "owner//name",
        "C:\\models\\name",
        "owner/.hidden",
        "with space/name",
        "",
    ],
)
def test_what_looks_like_a_path_never_reaches_the_hub(tmp_path, monkeypatch, never_the_hub, path):
    monkeypatch.chdir(tmp_path)
    if path == "":  # the folder one is in, which exists
        assert resolve_checkpoint(path) == Path()
        return
    with pytest.raises(FileNotFoundError, match="no such folder, and not a Hub id"):
        resolve_checkpoint(path)


def test_file_is_not_a_folder(tmp_path, never_the_hub):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"model\.safetensors is a file.*name the folder that holds"):
        resolve_checkpoint(tmp_path / "model.safetensors")


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    assert resolve_checkpoint("~/models") == tmp_path / "models"


def test_name_is_the_last_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_name("Qwen/Qwen3-0.6B-Base") == "Qwen3-0.6B-Base"
    assert checkpoint_name("/models/Qwen3-0.6B-Base/") == "Qwen3-0.6B-Base"
    assert checkpoint_name(Path("/models/step100")) == "step100"
    assert checkpoint_name(".") == tmp_path.name


def test_name_of_a_path_through_the_home_of_nobody_or_in_a_circle_is_its_last_part(tmp_path):
    """As value_model.json may call its base."""
    (tmp_path / "circle").symlink_to("circle")
    assert checkpoint_name("~nobody.of.this.name/x") == "x"
    assert checkpoint_name("~nobody.of.this.name") == "~nobody.of.this.name"
    assert checkpoint_name(tmp_path / "circle") == "circle"


def test_the_home_of_nobody_is_no_folder(never_the_hub):
    with pytest.raises(FileNotFoundError, match=r"~nobody\.of\.this\.name/x: no such folder"):
        resolve_checkpoint("~nobody.of.this.name/x")


@pytest.mark.parametrize("given", [None, 5, b"policy", ["policy"]])
def test_what_is_no_path_is_called_so(given, never_the_hub):
    with pytest.raises(TypeError, match="expected a folder or a Hub id, as a str or a Path, got"):
        resolve_checkpoint(given)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [("GatedRepoError", "accept its licence"), ("RepositoryNotFoundError", "the spelling")],
)
def test_what_one_may_not_have_is_told_with_the_remedy(monkeypatch, kind, remedy):
    answer = httpx.Response(403, request=httpx.Request("GET", "http://127.0.0.1/"))

    def fail(*_, **__):
        raise getattr(errors, kind)("403 Client Error.", response=answer)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(
        FileNotFoundError, match=rf"\({kind}: 403 Client Error\.\); .*{remedy}.*hf auth login"
    ):
        resolve_checkpoint("owner/tiny")
