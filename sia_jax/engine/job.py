"""A request, checked against the engine that it is for, as the device takes it."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from sia_jax.arguments import read_integers
from sia_jax.decoding.checks import check_threshold
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.row_params import row_params_of
from sia_jax.engine.markers import with_markers
from sia_jax.engine.request import Request
from sia_jax.engine.sampling_keys import fold_in, key_of_seed, words_of
from sia_jax.engine.stops import split_stops
from sia_jax.models.config import ModelConfig
from sia_jax.pretrained import Policy, ValueModel
from sia_jax.steering.config import Knobs
from sia_jax.steering.gates import Gate, reads_threshold, shut_at_infinity
from sia_jax.steering.numbers import NUMBERS
from sia_jax.steering.types import RowParams
from sia_jax.text.tokenizer import opened_ids


@dataclass(frozen=True, eq=False)
class Terms:
    """What an engine was made for."""

    policy: Policy
    value: ValueModel | None
    config: SamplerConfig
    """Of its longest rows."""
    lengths: tuple[int, ...]
    """Tokens of prompt and reply that rows hold, each kind of rows, ascending."""
    threshold: float
    max_new_tokens: int
    """Of requests that do not say."""
    max_stop_ids: int
    max_logit_bias: int
    tokenizing: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever uses a tokenizer: those of transformers are not safe to share."""


@dataclass(frozen=True, eq=False)
class Job:
    """A request in numbers; all of its replies share them but for the key."""

    request: Request
    policy_ids: np.ndarray  # [P]
    value_ids: np.ndarray  # [P']
    numbers: RowParams  # of one row, [1] each, NumPy
    keys: np.ndarray  # [n, 2] of each reply
    length: int
    """Tokens of the rows that it goes into."""
    stops: tuple[str, ...]
    """Texts to be looked for."""
    min_new_tokens: int
    reads_values: bool
    """Whether the value model is to read the prompt: a reply that is never steered needs it not."""


def make_job(request: Request, terms: Terms) -> Job:
    """Check a request and put it in numbers; nothing runs on the device that is compiled for it.

    Raises:
      ValueError: a prompt or a number that cannot be, or that this engine has no room for.
      TypeError: an argument of another kind, or a key that is not threefry2x32.
    """
    config, steering = terms.config, terms.config.steering
    with terms.tokenizing:
        policy_ids, value_ids = read_prompts(request, terms)
        special, stops = split_stops(terms.policy.tokenizer, tuple(request.stop))
    models = [("policy", policy_ids, config.policy)]
    if config.value is not None and config.value_passes:
        models.append(("value model", value_ids, config.value.backbone))
    for name, ids, model in models:
        check_ids(f"the {name}'s prompt", ids, model)
    longest = max(len(ids) for _, ids, _ in models)
    room = terms.lengths[-1] - longest
    most = request.max_new_tokens
    if most is None:
        most = min(terms.max_new_tokens, room)
    if room < 1 or most > room:
        raise ValueError(
            f"a prompt of {longest} ids and {max(most, 1)} new tokens do not fit into the engine's "
            f"max_length of {terms.lengths[-1]}; cut the prompt, lower max_new_tokens, or raise max_length"
        )
    threshold = _threshold(request, terms)
    eos = () if request.ignore_eos else config.policy.eos_token_ids
    stop_ids = _filled("stop_ids", [*eos, *special, *request.stop_ids], terms.max_stop_ids)
    banned = [id_ for id_, bias in request.logit_bias.items() if bias == -math.inf]
    bias = {id_: bias for id_, bias in request.logit_bias.items() if bias != -math.inf}
    bias_ids = _filled("logit_bias", list(bias), terms.max_logit_bias)
    nats = np.zeros(terms.max_logit_bias, np.float32)
    nats[: len(bias)] = list(bias.values())
    knobs = Knobs(
        **{name: getattr(request, name) for name in NUMBERS},
        max_new_tokens=most,
        stop_ids=stop_ids,
        banned_ids=_filled("logit_bias of -inf", banned, terms.max_logit_bias),
        bias_ids=bias_ids,
        bias=nats,
        gate=_gate(request, config.steering.gate, policy_ids),
        tilt=request.tilt,
    )
    key = key_of_seed(request.seed) if request.key is None else words_of(request.key)
    numbers = row_params_of(threshold, key[None], knobs, 1, config)
    steered = config.value_passes and not (threshold == math.inf and shut_at_infinity(steering.gate))
    return Job(
        request=request,
        policy_ids=np.asarray(policy_ids, np.int32),
        value_ids=np.asarray(value_ids, np.int32),
        numbers=jax.tree.map(np.asarray, numbers),
        keys=key[None] if request.n == 1 else fold_in(key, np.arange(request.n)),
        length=next(length for length in terms.lengths if longest + most <= length),
        stops=stops,
        min_new_tokens=int(numbers.min_new_tokens[0]),
        reads_values=steered,
    )


def blank(terms: Terms) -> Job:
    """A job that nobody wants: what an entry without a request holds."""
    threshold = math.inf if reads_threshold(terms.config.steering.gate) else None
    return make_job(Request(prompt_ids=[0], max_new_tokens=1, min_new_tokens=0, threshold=threshold), terms)


def _threshold(request: Request, terms: Terms) -> float:
    given = request.threshold
    gate = terms.config.steering.gate
    if given is not None and terms.value is not None and not reads_threshold(gate):
        raise ValueError(f"threshold is for a gate with entropy or budget in it, and the engine's is {gate}")
    if given is None:
        given = terms.threshold
    array = check_threshold(given, terms.config)
    if np.shape(array) != ():
        raise ValueError(f"threshold must be one number, got shape {np.shape(array)}")
    return float(array)


def _gate(request: Request, own: Gate, ids: Sequence[int]) -> Any:
    """The request's gate, which knows what the prompt has of its markers."""
    gate = own if request.gate is None else request.gate
    return with_markers(gate, [ids]) if isinstance(gate, Gate) else gate


def read_prompts(request: Request, terms: Terms) -> tuple[Sequence[int], Sequence[int]]:
    """The ids that policy and value model read of a request; `terms.tokenizing` is held.

    Raises:
      ValueError: no conversation, what the chat template refuses, or a model without a tokenizer.
    """
    policy, value = terms.policy, terms.value if terms.config.value_passes else None
    if request.prompt_ids is not None:
        value_ids = request.prompt_ids if value is None or request.value_ids is None else request.value_ids
        return request.prompt_ids, value_ids
    if request.messages is not None:
        ids = policy.prompt_ids(request.messages, request.form, **request.template)
        return ids, ids if value is None else value.prompt_ids(request.messages)
    assert request.prompt is not None
    found = []
    for model in (policy, policy if value is None else value):
        if model.tokenizer is None:
            raise ValueError(f"{model.name or 'a model'} has no tokenizer: give prompt_ids")
        found.append(opened_ids(model.tokenizer, request.prompt))
    return found[0], found[1]


def check_ids(name: str, ids: Sequence[int], model: ModelConfig) -> np.ndarray:
    """[L] int32 of a prompt that a model can read.

    Args:
      name: of the prompt.
      ids: of it.
      model: that is to read it.

    Raises:
      ValueError: no ids, or such as the model does not have.
    """
    array = read_integers(name, ids, "ids")
    if array.ndim != 1 or not array.size:
        what = "is empty; it needs at least one id, such as a BOS" if not array.size else "must be one list"
        raise ValueError(f"{name} {what}, got shape {array.shape}")
    wrong = np.unique(array[(array < 0) | (array >= model.vocab_size)])
    if wrong.size:
        raise ValueError(f"{name} must have ids in 0 .. {model.vocab_size - 1}, got {wrong[:10].tolist()}")
    return array.astype(np.int32)


def _filled(name: str, ids: Sequence[int], width: int) -> np.ndarray:
    """[X] ids, filled up with -1."""
    unique = list(dict.fromkeys(ids))
    if len(unique) > width:
        raise ValueError(
            f"{name} has {len(unique)} ids, and the engine room for {width}; give fewer, or make it with a "
            f"larger max_{'logit_bias' if 'bias' in name else 'stop_ids'}"
        )
    for id_ in unique:
        if not 0 <= id_ < 2**31:
            raise ValueError(f"{name} must be ids, got {id_}")
    return np.array([*unique, *[-1] * (width - len(unique))], np.int32)


def stacked(rows: Sequence[RowParams]) -> RowParams:
    """The numbers of several rows, [1] each, as those of a batch."""
    whole: RowParams = jax.tree.map(lambda *x: np.concatenate(x), *rows)
    return whole
