"""What the programs that sample share: options checked, models loaded, and what a run depends on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

import sia_jax
from sia_jax.checkpoints.config_json import read_config
from sia_jax.checkpoints.fingerprint import (
    fingerprint_of_folder,
    fingerprint_of_rest,
    fingerprint_of_tokenizer,
)
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.value_model import (
    fingerprint_of_value_model,
    folder_of_value_model,
    own_backbone,
)
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.prompts import check_seed
from sia_jax.engine.markers import encode_of, is_read
from sia_jax.engine.reply import json_threshold
from sia_jax.runs.cli import check_texts, named_as_options
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.prompting import check_room, find_prompting
from sia_jax.steering.expressions import parse_gate, parse_tilt, text_of
from sia_jax.steering.gates import reads_threshold
from sia_jax.steering.numbers import NUMBERS, check_number
from sia_jax.steering.tilts import Advantage, Clipped
from sia_jax.text.forms import Prompting
from sia_jax.text.token_ids import with_tokens

PRESETS = {"paper": sia_jax.SteeringConfig(), "official": sia_jax.SteeringConfig.official()}
"""Structures of steering by name; an option given explicitly overrides."""


def model_folders(args: SamplingArgs) -> dict[str, str | None]:
    """What is read of models, by the names of its options."""
    return {"--policy": args.policy, "--value": args.value, "--value-backbone": args.value_backbone}


def check_options(args: SamplingArgs) -> None:
    """What can be said without a file.

    Raises:
      ValueError: an option out of its range, one that needs a value model, or a mesh of other devices.
    """
    if args.preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, got {args.preset!r}")
    if args.threshold is not None and math.isnan(args.threshold):
        raise ValueError("--threshold must not be NaN; -inf steers every token, inf none")
    if args.value is None:
        if args.threshold not in (None, math.inf):
            raise ValueError(
                f"--threshold {args.threshold:g} steers, which needs a value model: give --value DIR"
            )
        given = [
            name
            for name in ("beta", "value_backbone", "gate", "tilt", "tilt_bound", "read_all")
            if getattr(args, name) is not None
        ]
        given += [] if args.check_base else ["no_check_base"]
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} needs a value model: give --value DIR")
    if args.tilt is not None and args.tilt_bound is not None:
        raise ValueError(
            f"--tilt-bound {args.tilt_bound:g} is a tilt of its own, "
            f"clipped({args.tilt_bound:g}, advantage): leave --tilt out, or bound that one: "
            f"--tilt 'clipped({args.tilt_bound:g}, {args.tilt})'"
        )
    if args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens must be 1 or more, got {args.max_new_tokens}")
    if (args.min_new_tokens or 0) > args.max_new_tokens:
        raise ValueError(
            f"--min-new-tokens must be at most --max-new-tokens, got {args.min_new_tokens} and "
            f"{args.max_new_tokens}; raise --max-new-tokens"
        )
    if "" in args.stop:
        raise ValueError("--stop must not be empty")
    check_texts(args)
    check_seed(args.seed, "--seed")
    with named_as_options(args):
        structure = steering(args)
        args.make_mesh()
    if args.read_all and not structure.tilt.bounded:
        raise ValueError(
            f"--read-all is for a bounded tilt, such as --tilt-bound 1; under {text_of(structure.tilt)} all "
            "values are read anyway"
        )
    if args.threshold is not None and not reads_threshold(structure.gate):
        raise ValueError(
            f"--threshold {args.threshold:g} is for a gate with entropy or budget in it, got --gate "
            f"{args.gate!r}"
        )


def whole_rows(args: SamplingArgs, rows: int) -> int:
    """So many prompts of a batch, rounded up to what the mesh's devices share evenly."""
    data, fsdp, _ = args.mesh
    return math.ceil(rows / (data * fsdp)) * data * fsdp


def check_batch(samples: int, batch: int) -> None:
    """The replies to a prompt run together.

    Raises:
      ValueError: a number below 1, or a batch that does not hold the samples of one prompt.
    """
    for name, number in (("samples", samples), ("batch", batch)):
        if number < 1:
            raise ValueError(f"--{name} must be 1 or more, got {number}")
    if samples > batch:
        raise ValueError(
            f"--batch must hold the --samples of a prompt, got {batch} and {samples}; pass --batch {samples}"
        )


def prepare(args: SamplingArgs) -> sia_jax.Policy:
    """The policy without its weights, which is enough to make prompts and to check the options against it.

    Raises:
      FileNotFoundError: a model's folder is missing.
      ValueError: an option that does not fit the policy.
    """
    folder = resolve_checkpoint(args.policy)
    for other in (args.value, args.value_backbone):
        if other is not None:
            resolve_checkpoint(other)
    policy = _without_weights(folder, args)
    with named_as_options(args):
        check_numbers(args, policy)
    if args.stop and policy.tokenizer is None:
        raise ValueError(f"--stop needs a tokenizer, and {folder} has none")
    return policy


def _without_weights(folder: Path, args: SamplingArgs) -> sia_jax.Policy:
    tokenizer = load_tokenizer(folder)
    model = with_tokens(read_config(folder).model, tokenizer)
    return sia_jax.Policy(model, {}, tokenizer, checkpoint_name(args.policy))


def check_numbers(args: SamplingArgs, policy: sia_jax.Policy) -> None:
    """The numbers lie in their ranges, and the gate's markers are ids of the policy, which needs no weights.

    Raises:
      ValueError: one that does not.
    """
    check_room(policy.config, args)
    # More candidates than ids, and a marker of other ids, are refused by it.
    steered = steering(args, policy)
    sia_jax.SamplerConfig(policy=policy.config, steering=steered, max_new_tokens=args.max_new_tokens)
    for name in NUMBERS:
        if getattr(args, name) is not None:
            check_number(name, getattr(args, name))


def load_models(args: SamplingArgs) -> Models:
    """Load the policy, and the value model over the policy's weights or over a backbone of its own.

    Raises:
      FileNotFoundError, ValueError: what `sia_jax.load_policy` and `sia_jax.load_value_model` find.
    """
    dtype = None if args.dtype == "config" else args.dtype
    mesh = args.make_mesh()
    policy = sia_jax.load_policy(args.policy, dtype=dtype, mesh=mesh)
    if args.value is None:
        return Models(policy, None)
    try:
        value = sia_jax.load_value_model(
            args.value,
            value_backbone(args) or policy,
            policy=policy,
            check_base=args.check_base,
            dtype=dtype,
            mesh=mesh,
        )
    except ValueError as error:
        options = "--value-backbone DIR names the base, --no-check-base takes your word for it"
        raise ValueError(f"{error} ({options})" if "check_base" in str(error) else str(error)) from error
    return Models(policy, value)


def steering(args: SamplingArgs, policy: sia_jax.Policy | None = None) -> sia_jax.SteeringConfig:
    """The preset's structure with what was given explicitly.

    Args:
      args: the options.
      policy: reads the texts in a gate, with or without weights. None: they stay unread, which will do to ask
        what the gate is made of; a sampler refuses it.

    Raises:
      ValueError: a gate or a tilt that cannot be read.
    """
    given: dict[str, Any] = {"num_candidates": args.num_candidates}
    encode = encode_of(policy)
    for name, parse in (("gate", lambda text: parse_gate(text, encode)), ("tilt", parse_tilt)):
        text = getattr(args, name)
        try:
            given[name] = None if text is None else parse(text)
        except ValueError as error:
            raise ValueError(f"--{name}: {error}") from None
    if args.tilt_bound is not None:
        given["tilt"] = Clipped(args.tilt_bound, Advantage())
    return replace(PRESETS[args.preset], **{name: x for name, x in given.items() if x is not None})


def threshold(args: SamplingArgs) -> float:
    """The run's threshold: 1.0 by default; without a value model, none is ever reached."""
    if args.value is None:
        return math.inf
    return 1.0 if args.threshold is None else args.threshold


def where(args: SamplingArgs, threshold: float) -> str:
    """Where a row of this threshold is steered, in words."""
    said = [] if args.gate is None else [f"gate {args.gate}"]
    said += [f"threshold {threshold:g}"] if reads_threshold(steering(args).gate) else []
    return ", ".join(said)


def run_identity(args: SamplingArgs, found: Prompting | None = None) -> dict[str, Any]:
    """What the replies of a run depend on, but for their prompts; JSON.

    Args:
      args: the options.
      found: what `find_prompting` finds; None: it is found here.

    Raises:
      FileNotFoundError, ValueError: a checkpoint that cannot be read.
    """
    policy = None
    if found is None or not is_read(steering(args).gate):
        policy = _without_weights(resolve_checkpoint(args.policy), args)
        found = found or find_prompting(policy, args)
    preset = steering(args, policy)
    numbers = {name: _given(getattr(args, name), getattr(preset, name)) for name in NUMBERS}
    models: dict[str, Any] = {}
    for name, path in (("policy", args.policy), ("value_backbone", value_backbone(args))):
        own = None if path is None else resolve_checkpoint(path)
        models[name] = None if path is None else checkpoint_name(path)
        models[f"{name}_fingerprint"] = None if own is None else fingerprint_of_folder(own)[:16]
        models[f"{name}_files"] = None if own is None else fingerprint_of_rest(own)[:16]
    if args.value is None:
        models |= dict.fromkeys(("value", "value_fingerprint", "value_files"))
    else:
        models["value"] = checkpoint_name(args.value)
        models["value_fingerprint"] = fingerprint_of_value_model(resolve_checkpoint(args.value))[:16]
        models["value_files"] = fingerprint_of_tokenizer(folder_of_value_model(args.value))[:16]
    return models | {
        "dtype": args.dtype,
        "threshold": json_threshold(threshold(args)),
        "num_candidates": preset.num_candidates,
        "unsteered": preset.unsteered,
        **{
            name: text_of(getattr(preset, name))
            for name, options in (("gate", ("gate",)), ("tilt", ("tilt", "tilt_bound")))
            if any(getattr(args, option) is not None for option in options)
        },
        **numbers,
        "max_new_tokens": args.max_new_tokens,
        "stop": list(args.stop),
        "seed": args.seed,
        # What they came to: another release, or another name of the folder, may choose otherwise.
        "prompt_form": None if found is None else found.form,
        "thinking": args.thinking,
        "date_string": None if found is None else found.date_string,
    }


def prompt_key(seed: int, index: int) -> jax.Array:
    """The key of the prompt at `index`: whatever its batch, its reply is the same."""
    return jax.random.fold_in(own_key(seed), index)


def own_key(seed: int) -> jax.Array:
    """The key of a prompt that brings its own seed."""
    return jax.random.key(seed, impl="threefry2x32")


def value_backbone(args: SamplingArgs) -> str | None:
    """What lies under the value model: as told, or what it brings itself. None: the policy."""
    if args.value is None or args.value_backbone is not None:
        return args.value_backbone
    own = own_backbone(args.value)
    return None if own is None else str(own)


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value
