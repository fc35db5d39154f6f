"""Value models on disk: the official SIA layout, and our own with the head in safetensors.

Official (hurunyi/SIA, src/value_model/{train,model}.py):
    lora_weights/            a PEFT adapter on the backbone
    token_reward_head.pt     torch.save({"token_reward_head": {"weight", "bias"}, "hidden_size"})
    model_config.json        base_model_path, hidden_size, ...
Ours:
    lora_weights/            the same
    value_head.safetensors   the head's tensors
    value_model.json         kind and rank of the head, the base's name and the fingerprint of its weights

Either JSON file may say under "markup" how prompts mark their turns; the published ones do not, and are
prompted as their tokenizer has it. Either layout may have a folder backbone/ beside these: the base itself,
where all of its weights were trained too. The adapter then changes nothing.

Merged (merge_and_unload of peft, or own training without an adapter): the head and the JSON file of either
layout, the merged weights in backbone/, and no lora_weights/.

A head on the policy's hidden states is the head and the JSON file of our layout alone, in which "states" is
"policy".
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sia_jax.checkpoints.adapter_config import check_no_adapter, read_adapter_config
from sia_jax.checkpoints.files import is_there, read_json
from sia_jax.checkpoints.fingerprint import fingerprint, fingerprint_of_folder
from sia_jax.checkpoints.hub import checkpoint_name, expanded, resolve_checkpoint
from sia_jax.checkpoints.huggingface import load_backbone, read_backbone_config, read_embedding
from sia_jax.checkpoints.peft_adapter import load_adapter, save_adapter
from sia_jax.checkpoints.tensors import (
    check_tensors,
    open_file,
    place_tensors,
    save_file_atomically,
)
from sia_jax.checkpoints.torch_pickle import read_torch_file, write_torch_file
from sia_jax.checkpoints.values import is_count
from sia_jax.checkpoints.vocabulary import check_same_vocabulary, load_tokenizer
from sia_jax.files.shown import shown_line, shown_value
from sia_jax.files.writing import write_text
from sia_jax.models.config import HeadKind, ModelConfig, States, ValueConfig
from sia_jax.models.heads import HEADS
from sia_jax.models.lora import LoraConfig, check_adapter, merge_lora
from sia_jax.parallel.mesh import mesh_of, shard_params
from sia_jax.pretrained import Policy, ValueModel
from sia_jax.text.markup import Markup, read_markup, recorded_markup
from sia_jax.text.token_ids import with_tokens
from sia_jax.types import Params, flatten_names

OFFICIAL_HEAD = "token_reward_head.pt"
OFFICIAL_CONFIG = "model_config.json"
OUR_HEAD = "value_head.safetensors"
OUR_CONFIG = "value_model.json"
OWN_BACKBONE = "backbone"
ADAPTER = "lora_weights"
FORMAT_VERSION = 1


def load_value_model(
    path: str | Path,
    backbone: str | Path | Policy | None = None,
    *,
    policy: Policy | None = None,
    check_base: bool = True,
    dtype: Any = None,
    mesh: Mesh | None = None,
) -> ValueModel:
    """Load a value model, in the official layout or in ours.

    Args:
      path: its folder, or else a Hub id. Without lora_weights/, its weights are merged: they are its own.
      backbone: what the adapter goes on. A folder or Hub id: loaded, and the adapter merged into it. A loaded
        policy: the adapter stays apart, over the policy's own weights, which are then held once. None: the
        one that the value model brings itself (`own_backbone`). A head on the policy's hidden states takes
        the loaded policy, here or as `policy`, and nothing else.
      policy: the policy that it is to steer: every id must mean the same token in both tokenizers.
      check_base: the backbone must be the one that adapter or head was trained on: its fingerprint where the
        folder records one or the recorded base is a folder here, else its name. False: take the caller's
        word.
      dtype: of a loaded backbone; None: what its config.json names. The adapter and the head stay float32.
      mesh: shard the weights over it by the partition rules; None: the default device.

    Raises:
      FileNotFoundError: a folder or file is missing.
      ValueError: a part that does not fit the backbone, another base, another vocabulary, an adapter or head
        of a kind that is not supported, or a damaged file.
    """
    folder = folder_of_value_model(path)
    name = checkpoint_name(path)
    saved = _read_saved_config(folder)
    states = recorded_states_of(folder, saved)
    if states == "policy":
        backbone = _policy_of(folder, saved, backbone, policy)
    if backbone is None:
        backbone = own_backbone(folder)
        if backbone is None:
            raise ValueError(
                f"{folder} has no {OWN_BACKBONE}/ of its own; pass the backbone that it was trained on, "
                f"{shown_value(_recorded_base(saved))}"
            )
    adapted = (folder / ADAPTER).is_dir()
    merged = not adapted and states == "own"
    if merged:
        _check_merged(folder, backbone, check_base)
    steered = backbone if isinstance(backbone, Policy) and policy is None else policy
    digest: Callable[[], str]
    embedding: Callable[[slice], np.ndarray]
    if isinstance(backbone, Policy):
        model_config, base_name, mesh = backbone.config, backbone.name, mesh or mesh_of(backbone.params)
        tokenizer = load_tokenizer(folder) or backbone.tokenizer
        digest = functools.partial(fingerprint, backbone.params["model"])
        matrix = backbone.params["model"]["embed_tokens"]["weight"]
        embedding = lambda rows: np.asarray(matrix[rows])  # noqa: E731
    else:
        base_folder = resolve_checkpoint(backbone)
        model_config, base_name = read_backbone_config(base_folder), checkpoint_name(backbone)
        tokenizer = load_tokenizer(folder) or load_tokenizer(base_folder)
        digest = functools.partial(fingerprint_of_folder, base_folder)
        embedding = functools.partial(read_embedding, base_folder)

    # What is small is read and checked first: what does not fit shows before gigabytes are read. Another base
    # before its shapes, which say less.
    if check_base and not merged:
        adapter_base = read_adapter_config(folder / ADAPTER).base_model if adapted else None
        _check_base(folder, saved, adapter_base, digest, base_name, "adapter" if adapted else "head")
    markup = recorded_markup_of(folder)
    lora_config: LoraConfig | None = None
    lora: Params = {}
    if adapted:
        lora_config, adapter, _ = load_adapter(folder / ADAPTER, model_config, mesh, embedding)
        lora = {"lora": adapter}
    kind, rank, head = _load_head(folder, saved, model_config)
    if steered is not None:
        _check_vocabulary(steered, model_config, tokenizer, name)
    if mesh is not None:
        head = shard_params({"value_head": head}, mesh)["value_head"]

    if isinstance(backbone, Policy):
        config = ValueConfig(model_config, kind, rank, lora_config, states)
        base = backbone.params["model"]
        params = lora | {"value_head": head}
        if mesh is None:  # beside the policy, on whichever device it lies
            params = jax.device_put(params, base["norm"]["weight"].sharding)
        return ValueModel(config, params, base, tokenizer, name, markup)
    _, base = load_backbone(base_folder, dtype=dtype, mesh=mesh)
    model = base if lora_config is None else merge_lora(base, lora["lora"], lora_config)
    params = {"model": model, "value_head": head}
    return ValueModel(ValueConfig(model_config, kind, rank), params, None, tokenizer, name, markup)


def folder_of_value_model(path: str | Path) -> Path:
    """Where a value model's files are: in its folder, or in the one that a download has nested in it.

    Args:
      path: its folder, or else a Hub id.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    folder = resolve_checkpoint(path)
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not _is_value_model(folder) and len(inner) == 1 and _is_value_model(inner[0]):
        return inner[0]
    return folder


def own_backbone(path: str | Path) -> Path | None:
    """The folder of the backbone that a value model brings itself, as one does of which all was trained.

    Args:
      path: the value model's folder, or else a Hub id.

    Raises:
      FileNotFoundError: there is no such value model.
    """
    folder = folder_of_value_model(path) / OWN_BACKBONE
    return folder if folder.is_dir() else None


def fingerprint_of_value_model(folder: Path) -> str:
    """The digest of a value model's files, which are small; a backbone of its own has a digest itself.

    Args:
      folder: of the value model.
    """
    digest, backbone = hashlib.sha256(), own_backbone(folder)
    for path in sorted(folder.rglob("*")):
        if (
            path.is_file()
            and backbone not in path.parents
            and path.suffix in (".json", ".safetensors", ".pt", ".bin")
        ):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def fingerprint_with_backbone(path: str | Path) -> str:
    """Of adapter, head and, where the value model brings it, the backbone.

    Args:
      path: the value model's folder, or else a Hub id.
    """
    parts = [fingerprint_of_value_model(resolve_checkpoint(path))]
    if (own := own_backbone(path)) is not None:
        parts.append(fingerprint_of_folder(own))
    return "+".join(part[:16] for part in parts)


def save_value_model(
    value: ValueModel,
    folder: str | Path,
    *,
    base_model: str,
    layout: Literal["official", "sia_jax"] = "sia_jax",
    base_fingerprint: str | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write an adapter and head (a value model over a policy's weights), or a head alone, to a folder.

    Args:
      value: with `config.lora` set, or a head on the policy's hidden states; a merged model no longer knows
        its adapter.
      folder: made if need be.
      base_model: name or path of the backbone's checkpoint, recorded in the files.
      layout: "official": what the official code reads (scalar head only); "sia_jax": ours.
      base_fingerprint: of the backbone's weights, where it is known; it is recorded in either layout then.
        None: our layout takes it of `value.base`, the official one has none.
      extra: further entries of the JSON file, such as metrics; the official ones are best_val_r2, best_epoch.

    Raises:
      ValueError: a merged model, or a vocab head in the official layout.
    """
    lora, head_alone = value.config.lora, not value.config.runs_passes
    if value.base is None or (lora is None and not head_alone):
        raise ValueError(
            "a merged value model has no adapter to save; load it with backbone=<a loaded policy>"
        )
    if layout == "official" and value.config.head != "scalar":
        raise ValueError(
            f'the official layout holds a scalar head, got {value.config.head!r}; use layout="sia_jax"'
        )
    if lora is not None:
        check_adapter(value.base, value.params["lora"])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A folder without its JSON file is not taken for a value model: it goes first, and is written last.
    for name in (OUR_CONFIG, OFFICIAL_CONFIG, OUR_HEAD, OFFICIAL_HEAD):
        (folder / name).unlink(missing_ok=True)
    head = {name: np.asarray(leaf) for name, leaf in flatten_names(value.params["value_head"]).items()}
    backbone = value.config.backbone
    hidden_size = backbone.hidden_size
    if layout == "official":
        assert lora is not None
        write_torch_file(folder / OFFICIAL_HEAD, {"token_reward_head": head, "hidden_size": hidden_size})
        saved: dict[str, Any] = {
            "base_model_path": base_model,
            "lora_r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "hidden_size": hidden_size,
            "model_type": "causal_lm",
        }
        if base_fingerprint is not None:
            saved["base_fingerprint"] = base_fingerprint
        config_name = OFFICIAL_CONFIG
    else:
        save_file_atomically(folder / OUR_HEAD, head)
        saved = {
            "format_version": FORMAT_VERSION,
            "base_model": base_model,
            "base_fingerprint": base_fingerprint or fingerprint(value.base),
            "hidden_size": hidden_size,
            "head": value.config.head,
            "head_rank": value.config.head_rank,
        }
        if head_alone:
            saved["states"] = value.config.states
        config_name = OUR_CONFIG
    markup = recorded_markup(value.markup, value.tokenizer)
    if markup is not None and not head_alone:  # which has no prompt of its own
        saved["markup"] = markup.to_json()
    if lora is not None:
        save_adapter(folder / ADAPTER, value.params["lora"], lora, base_model, backbone.num_layers)
    write_text(folder / config_name, json.dumps(saved | (extra or {}), indent=2) + "\n")


def _is_value_model(folder: Path) -> bool:
    """Whether a folder seems to be one, whole or not."""
    return (folder / ADAPTER).is_dir() or any(
        (folder / name).is_file() for name in (OUR_CONFIG, OFFICIAL_CONFIG)
    )


def recorded_states_of(folder: Path, saved: dict[str, Any] | None = None) -> States:
    """Whose hidden states the head reads, as our JSON file says; the official one knows of no choice.

    Raises:
      ValueError: a word that is none, or weights beside a head that has none.
    """
    saved = _read_saved_config(folder) if saved is None else saved
    found: States = saved.get("states", "own") if (folder / OUR_CONFIG).is_file() else "own"
    if not isinstance(found, str) or found not in get_args(States):
        raise ValueError(
            f"{folder / OUR_CONFIG}: states must be one of {get_args(States)}, got {shown_value(found)}"
        )
    weights = [name for name in (ADAPTER, OWN_BACKBONE) if (folder / name).is_dir()]
    if found == "policy" and weights:
        raise ValueError(
            f"{folder} is a head on the policy's hidden states, which has no {weights[0]}/; move that away"
        )
    return found


def _policy_of(
    folder: Path, saved: dict[str, Any], backbone: str | Path | Policy | None, policy: Policy | None
) -> Policy:
    """The loaded policy whose hidden states a head reads, which is the one that it steers.

    Raises:
      ValueError: there is none, a folder in its place, or two.
    """
    given = policy if backbone is None else backbone
    if not isinstance(given, Policy) or policy not in (None, given):
        got = "nothing" if given is None else f"{given} and {policy}" if policy else given
        raise ValueError(
            f"{folder} is a head on the hidden states of the policy that it steers and has no backbone, got "
            f"{got}; pass the loaded policy, {shown_value(_recorded_base(saved))}, and no other"
        )
    return given


def _check_merged(folder: Path, backbone: str | Path | Policy, check_base: bool) -> None:
    """Without lora_weights/, the weights must be merged ones: those it brings, or such by the caller's word.

    Raises:
      FileNotFoundError: the adapter may as well have been left behind.
      ValueError: the backbone is a loaded policy.
    """
    if isinstance(backbone, Policy):
        raise ValueError(
            f"{folder} has no {ADAPTER}/, so it is no adapter over the policy's weights; pass the "
            f"folder of its own, merged weights, or put them into {folder / OWN_BACKBONE}/ and pass none"
        )
    own, given = own_backbone(folder), expanded(backbone)
    if own is not None and given.is_dir() and own.samefile(given):
        return
    if check_base:
        raise FileNotFoundError(
            f"{folder} has no {ADAPTER}/, the adapter of a value model: copy it from where it was trained. "
            f"If the adapter was merged into {backbone}, put that into {folder / OWN_BACKBONE}/, or pass "
            "check_base=False"
        )


def recorded_markup_of(folder: Path) -> Markup | None:
    """How the prompts of a value model mark their turns, as its JSON file says; None: it does not say.

    Raises:
      ValueError: a file that cannot be read, or a markup that is none.
    """
    return read_markup(_read_saved_config(folder).get("markup"), f"{folder}: its JSON file")


def _read_saved_config(folder: Path) -> dict[str, Any]:
    """value_model.json or model_config.json; exactly one of them makes the folder a value model."""
    present = [name for name in (OUR_CONFIG, OFFICIAL_CONFIG) if is_there(folder / name)]
    if not present and ((folder / ADAPTER).is_dir() or is_there(folder / "adapter_config.json")):
        what = "is a PEFT adapter" if not (folder / ADAPTER).is_dir() else f"has {ADAPTER}/"
        raise FileNotFoundError(
            f"{folder} {what} but no value head: a value model is a folder with the adapter in {ADAPTER}/, "
            f"the head in {OFFICIAL_HEAD} and {OFFICIAL_CONFIG} (the official layout), or {OUR_HEAD} and "
            f"{OUR_CONFIG} (ours). Copy what is missing from where it was trained, or train a head "
            "with train.value_model"
        )
    if len(present) != 1:
        raise FileNotFoundError(
            f"{folder} is no value model: expected one of {OUR_CONFIG} (ours) and {OFFICIAL_CONFIG} "
            f"(the official layout), found {present or 'neither'}{_parts(folder)}"
        )
    check_no_adapter(folder, f"if it is the value model's, move its files into {ADAPTER}/, else remove them")
    path = folder / present[0]
    saved = read_json(path)
    if present[0] == OUR_CONFIG and saved.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {shown_value(saved.get('format_version'))}, this sia_jax reads "
            f"{FORMAT_VERSION}"
        )
    return saved


def _parts(folder: Path) -> str:
    """Where one of several value models should be named."""
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and _is_value_model(path))
    return f"; it holds {found[:20]}: name one of them, {folder / found[0]}" if found else ""


def _load_head(
    folder: Path, saved: dict[str, Any], config: ModelConfig
) -> tuple[HeadKind, int | None, Params]:
    """The head's kind, rank and tensors, float32."""
    d = config.hidden_size
    if saved.get("hidden_size", d) != d:
        raise ValueError(
            f"{folder}: hidden_size is {shown_value(saved['hidden_size'])}, the backbone's is {d}"
        )
    if (folder / OFFICIAL_CONFIG).is_file():
        return "scalar", None, _read_official_head(folder / OFFICIAL_HEAD, d)
    kind: Any = saved.get("head")
    rank: Any = saved.get("head_rank")
    head = HEADS.get(kind) if isinstance(kind, str) else None
    if head is None or (head.has_rank and (rank is None or not is_count(rank))):
        raise ValueError(
            f"{folder / OUR_CONFIG}: unknown head {shown_value(kind)} of rank {shown_value(rank)}"
        )
    rank = rank if head.has_rank else None
    expected = head.shapes(d, config.vocab_size, rank)
    file = open_file(folder / OUR_HEAD)
    check_tensors(file, expected, source=OUR_CONFIG)
    return kind, rank, place_tensors(file, expected, jnp.float32, None)


def _read_official_head(path: Path, hidden_size: int) -> Params:
    if not is_there(path):
        raise FileNotFoundError(f"{path}: no such file, the value head; copy it from where it was trained")
    tree = read_torch_file(path)
    unknown = sorted(set(tree) - {"token_reward_head", "hidden_size"})
    head = tree.get("token_reward_head")
    if unknown or not isinstance(head, dict) or set(head) != {"weight", "bias"}:
        found = {k: sorted(v) if isinstance(v, dict) else type(v).__name__ for k, v in tree.items()}
        raise ValueError(
            f"{path}: expected {{'token_reward_head': {{'weight', 'bias'}}, 'hidden_size'}}, got "
            f"{shown_value(found)} (another kind of head?)"
        )
    shapes = {name: np.shape(head[name]) for name in ("weight", "bias")}
    if shapes != {"weight": (1, hidden_size), "bias": (1,)}:
        raise ValueError(
            f"{path}: the head has shapes {shapes}, expected weight (1, {hidden_size}) and bias (1,)"
        )
    return {name: jnp.asarray(head[name], jnp.float32) for name in ("weight", "bias")}


def _check_vocabulary(policy: Policy, config: ModelConfig, tokenizer: Any, name: str) -> None:
    """Every id that the policy can emit must have a row in the value model's embedding, and mean the same."""
    ids = with_tokens(policy.config, policy.tokenizer).num_tokens or policy.config.vocab_size
    if config.vocab_size < ids:
        raise ValueError(
            f"the policy {policy.name} has {ids} ids, the value model {name} knows {config.vocab_size}; "
            "take a value model that was trained on the policy's tokenizer"
        )
    if policy.tokenizer is not None and tokenizer is not None:
        check_same_vocabulary(policy.tokenizer, tokenizer, policy_name=policy.name, value_name=name)


def _recorded_base(saved: dict[str, Any]) -> Any:
    return saved.get("base_model") or saved.get("base_model_path")


def _check_base(
    folder: Path,
    saved: dict[str, Any],
    adapter_base: str | None,
    digest: Callable[[], str],
    base_name: str,
    part: Literal["adapter", "head"],
) -> None:
    """The base of a part must be the given one: by its weights where that can be told, else by its name."""
    recorded = _recorded_base(saved) or adapter_base
    remedy = "pass the backbone it was trained on, or check_base=False if these are the same weights"
    if not isinstance(recorded, str):
        raise ValueError(
            f"{folder} does not say which base it was trained on, got {shown_value(recorded)}; {remedy}"
        )
    expected = saved.get("base_fingerprint")
    if expected is None:
        # Usually a path of the machine that it was trained on: then the name is what is left.
        with contextlib.suppress(OSError, ValueError):
            expected = fingerprint_of_folder(Path(recorded))
    if expected is not None:
        if digest() != expected:
            raise ValueError(
                f"{folder}: the {part} was trained on other weights ({shown_line(recorded, 200)}) than "
                f"{base_name}; {remedy}"
            )
    elif checkpoint_name(recorded) != base_name:
        raise ValueError(
            f"{folder}: the {part} was trained on {shown_value(recorded)}, the backbone is {base_name!r}; "
            f"{remedy}"
        )
