"""What is wrong with a call, said before anything is traced.

Values that are concrete are checked. Under a caller's own `jax.jit` they are tracers, and only shapes are.
"""

import functools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from sia_jax.arguments import check_kind, concrete, read_numbers, told
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.prompt import Prompt
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.fused_attention import check_kernel
from sia_jax.models.lora import LoraConfig, is_projection
from sia_jax.models.transformer import abstract_model
from sia_jax.models.value_model import abstract_value_head
from sia_jax.steering.config import Knobs
from sia_jax.types import Params, flatten_names

Shapes = dict[str, tuple[int, ...]]


def check_params(policy: Params, value: Params | None, config: SamplerConfig) -> None:
    """The trees hold what the configuration says, tensor by tensor.

    Raises:
      TypeError: a tree that is no dict, such as the model it belongs to.
      ValueError: a value model without its configuration or the other way round; tensors that are missing,
        too many or of another shape; an adapter or a head over another backbone than the policy's.
    """
    if (value is None) != (config.value is None):
        given, missing = ("params", "config") if config.value is None else ("config", "params")
        raise ValueError(f"a value model is in the {given} but not in the {missing}; give both or neither")
    shapes = {f"model.{name}": shape for name, shape in _backbone_shapes(config.policy).items()}
    if not config.policy.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.policy.vocab_size, config.policy.hidden_size)
    _check_tree("policy", policy, shapes)
    if value is None or config.value is None:
        return
    _check_tree("value model", value, _value_shapes(config.value, value))
    if config.value.backbone.network == config.policy.network:
        return
    if not config.value_passes:
        raise ValueError(
            "a head on the policy's hidden states steers the policy that it was trained on, so its backbone "
            f"must be the policy's, got {_differences(config.value.backbone, config.policy)}; take that "
            "policy, or a value model that runs passes"
        )
    if config.value.lora is not None:
        raise ValueError(
            "a value model that is an adapter lies over the policy's weights, so its backbone must be the "
            f"policy's, got {_differences(config.value.backbone, config.policy)}; merge it into its own base "
            "to steer another policy"
        )


def check_attention(policy: Params, value: Params | None, config: SamplerConfig) -> None:
    """The kernel of `config.attention` runs here, and takes the heads of both models.

    Args:
      policy: the policy's tree.
      value: the value model's, or None.
      config: whose trees they are.

    Raises:
      ValueError: see `sia_jax.models.fused_attention.check_kernel`.
    """
    if config.attention is None:
        return
    models = [(policy["model"], config.policy)]
    if value is not None and config.value is not None and "model" in value:
        models.append((value["model"], config.value.backbone))
    for tree, model in models:
        check_kernel(config.attention, tree["embed_tokens"]["weight"].dtype, model.head_dim)


def _differences(one: ModelConfig, other: ModelConfig) -> str:
    """rms_norm_eps=0.1 instead of 1e-06, and so on."""
    pairs = [(f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(ModelConfig)]
    return ", ".join(
        f"{name}={mine!r} instead of {theirs!r}" for name, mine, theirs in pairs if mine != theirs
    )


def check_mesh(policy: Params, value: Params | None, rows: int, config: SamplerConfig) -> None:
    """The weights lie where the configuration says, and the rows can be split.

    Args:
      policy: the policy's tree.
      value: the value model's, or None.
      rows: B, prompts.
      config: its `mesh` is None for one device.

    Raises:
      ValueError: weights on other devices than the mesh's, or rows that it cannot split evenly.
    """
    expected = None if config.mesh is None else set(config.mesh.devices.flat)
    for leaf in jax.tree.leaves((policy, value)):
        if not isinstance(leaf, jax.Array) or not concrete(leaf):
            continue
        found = leaf.sharding.device_set
        on_another = isinstance(leaf.sharding, NamedSharding) and leaf.sharding.mesh != config.mesh
        if (found != expected or on_another) and (expected is not None or len(found) > 1):
            mesh = leaf.sharding.mesh if isinstance(leaf.sharding, NamedSharding) else None
            raise ValueError(
                f"the weights lie on {_told(mesh, found)}, and config.mesh is "
                f"{_told(config.mesh, expected)}; load them with mesh=..., or place them with "
                "sia_jax.parallel.mesh.shard_params, and give SamplerConfig the same mesh"
            )
    if rows % config.row_groups:
        raise ValueError(
            f"expected prompts in multiples of {config.row_groups}, which the mesh splits them into, got "
            f'{rows}; add prompts, or give the mesh more "tensor" and less of the rest'
        )


def _told(mesh: Any, devices: set[jax.Device] | None) -> str:
    if devices is None:
        return "None"
    ids = sorted(device.id for device in devices)
    return f"{'device' if mesh is None else dict(mesh.shape)} {ids}"


def _check_tree(name: str, tree: Params, shapes: Shapes) -> None:
    """Exactly these tensors, of these shapes."""
    if not isinstance(tree, Mapping):
        raise TypeError(
            f"the {name}'s params must be a tree of dicts, got {type(tree).__name__}; pass .params"
        )
    leaves = flatten_names(dict(tree))
    got = {key: tuple(getattr(leaf, "shape", ())) for key, leaf in leaves.items()}
    missing, extra = sorted(shapes.keys() - got.keys()), sorted(got.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(
            f"the {name}'s params do not fit its config: missing {missing[:4] or 'nothing'}, unexpected "
            f"{extra[:4] or 'nothing'} ({len(missing)} and {len(extra)} tensors); take both from one model"
        )
    wrong = [f"{key} {got[key]} instead of {shapes[key]}" for key in shapes if got[key] != shapes[key]]
    if wrong:
        raise ValueError(f"the {name}'s params are not of its config's shapes: {'; '.join(wrong[:4])}")
    kinds = [
        f"{key} {told(leaf)}"
        for key, leaf in leaves.items()
        if not hasattr(leaf, "dtype") or not _is_float(leaf.dtype)
    ]
    if kinds:
        raise ValueError(f"the {name}'s params must be floating-point arrays, got {'; '.join(kinds[:4])}")
    texts = _numbers_in_texts(tree)
    if texts:
        raise ValueError(
            f"the {name}'s layers must be numbered by integers, as in params['model']['layers'][0], got the "
            f"key {texts[0]!r}"
        )


def _is_float(dtype: Any) -> bool:
    try:
        return bool(jnp.issubdtype(dtype, np.floating))
    except TypeError:  # of another library
        return False


def _numbers_in_texts(tree: Mapping) -> list[str]:
    inner = [key for node in tree.values() if isinstance(node, dict) for key in _numbers_in_texts(node)]
    return [key for key in tree if isinstance(key, str) and key.isdigit()] + inner


@functools.lru_cache(maxsize=64)
def _backbone_shapes(config: ModelConfig) -> Shapes:
    return {name: leaf.shape for name, leaf in flatten_names(abstract_model(config)).items()}


def _value_shapes(config: ValueConfig, value: Params) -> Shapes:
    """Of the head, and of the backbone or of an adapter on whichever projections `value` has one on."""
    head = flatten_names({"value_head": abstract_value_head(config)})
    shapes: Shapes = {name: leaf.shape for name, leaf in head.items()}
    backbone = _backbone_shapes(config.backbone)
    if not config.runs_passes:
        return shapes
    if config.lora is None:
        return shapes | {f"model.{name}": shape for name, shape in backbone.items()}
    return shapes | _adapter_shapes(config.lora, value, backbone)


def _adapter_shapes(lora: LoraConfig, value: Params, backbone: Shapes) -> Shapes:
    tree = value.get("lora") if isinstance(value, Mapping) else None
    leaves = flatten_names(dict(tree)) if isinstance(tree, Mapping) else {}
    paths = {name.rpartition(".lora_")[0] for name in leaves}
    shapes: Shapes = {}
    for path in sorted(path for path in paths if f"{path}.weight" in backbone and is_projection(path)):
        width, inputs = backbone[f"{path}.weight"]
        rank = lora.rank_of(path)
        shapes |= {f"lora.{path}.lora_A.weight": (rank, inputs), f"lora.{path}.lora_B.weight": (width, rank)}
    return shapes or {"lora": ()}


def check_knobs(knobs: Any) -> None:
    """They are `Knobs`.

    Raises:
      TypeError: anything else, such as a dict.
    """
    check_kind("knobs", knobs, Knobs, "sia_jax.Knobs(...)")


def check_prompt(prompt: Prompt, config: SamplerConfig) -> Prompt:
    """The prompts are rows of ids that both models know, and leave room for the reply.

    Returns:
      The prompts, as arrays.

    Raises:
      TypeError: what is no `Prompt`, such as a text.
      ValueError: shapes, lengths or ids that do not fit, or more positions than a model has.
    """
    check_kind("prompt", prompt, Prompt, "sia_jax.Prompt.pack([policy.prompt_ids(messages), ...])")
    arrays = {field.name: getattr(prompt, field.name) for field in fields(Prompt)}
    for name, array in arrays.items():
        if not isinstance(array, jax.Array):  # which stays where it is
            arrays[name] = read_numbers(name, array, "an array of integers")
    prompt = Prompt(**arrays)
    models = [("policy", prompt.policy_ids, prompt.policy_lengths, config.policy)]
    if config.value is not None and config.value_passes:
        models.append(("value", prompt.value_ids, prompt.value_lengths, config.value.backbone))
    rows = np.shape(prompt.policy_ids)[0] if np.ndim(prompt.policy_ids) else 0
    for name, tokens, lengths, model in models:
        shape = np.shape(tokens)
        if len(shape) != 2 or np.shape(lengths) != (rows,) or shape[0] != rows:
            raise ValueError(
                f"the {name} prompts must be tokens [B, P] and lengths [B], got {shape} and "
                f"{np.shape(lengths)}"
            )
        if not rows:
            raise ValueError(f"the {name} prompts must be at least one, got none")
        kinds = [np.dtype(getattr(x, "dtype", np.int32)).kind for x in (tokens, lengths)]
        if not set(kinds) <= {"i", "u"}:
            raise ValueError(f"ids and lengths of the {name} prompts must be integers, got kinds {kinds}")
        if concrete(tokens) and concrete(lengths):
            _check_ids(name, np.asarray(tokens), np.asarray(lengths), model.vocab_size)
        longest = int(np.max(lengths)) if concrete(lengths) else 1
        if longest + config.max_new_tokens > model.max_position_embeddings:
            raise ValueError(
                f"{name} prompts of up to {longest} ids and {config.max_new_tokens} new tokens exceed the "
                f"{model.max_position_embeddings} positions of the {name} model; cut the prompts or lower "
                "max_new_tokens"
            )
    return prompt


def _check_ids(name: str, tokens: np.ndarray, lengths: np.ndarray, vocab: int) -> None:
    width = tokens.shape[1]
    if lengths.min() < 1 or lengths.max() > width:
        raise ValueError(
            f"lengths of the {name} prompts must lie in 1 .. {width} (the buffer), got {lengths.tolist()}; "
            "a prompt must not be empty"
        )
    real = np.arange(width) < lengths[:, None]
    wrong = sorted(set(tokens[real & ((tokens < 0) | (tokens >= vocab))].tolist()))
    if wrong:
        raise ValueError(f"ids of the {name} prompts must lie in 0 .. {vocab - 1}, got {wrong[:10]}")


def check_threshold(threshold: Any, config: SamplerConfig) -> Any:
    """The threshold is a number, and +inf where nothing can be steered.

    Returns:
      The threshold, as an array.

    Raises:
      ValueError: no number, NaN, or a finite threshold without a value model.
    """
    array = read_numbers("threshold", threshold, "numbers of nats")
    if not concrete(array):
        return array
    if array.dtype.kind == "b":
        raise ValueError(f"threshold must be numbers of nats, got {array.dtype}")
    if np.isnan(array).any():
        raise ValueError(f"threshold must not be NaN, got {array.tolist()}; -inf steers densely, +inf never")
    if config.value is None and not np.isposinf(array).all():
        raise ValueError(
            f"without a value model nothing can be steered: threshold must be +inf, got {array.tolist()}; "
            "give a value model, or pass float('inf')"
        )
    return array
