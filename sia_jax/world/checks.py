"""Whether the embedded models sample, learn and are saved as they must: what checks an installation."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

import sia_jax
from sia_jax.data.trajectories import Trajectory
from sia_jax.types import Params, flatten_names
from sia_jax.world.files import world_models
from sia_jax.world.prompts import prompts

CANDIDATES = 10
TOLERANCE = 1e-3
"""Of logits, in nats: float32 in another order."""


@dataclass(frozen=True)
class Loaded:
    """The embedded models, and two prompts."""

    policy: sia_jax.Policy
    value: sia_jax.ValueModel
    ids: list[list[int]]


class WrongError(Exception):
    """Something ran, and its numbers are wrong."""


def load_pair() -> Loaded:
    """The policy and a value model over it, in float32."""
    models = world_models()
    policy = sia_jax.load_policy(models / "policy", dtype="float32")
    value = sia_jax.load_value_model(models / "value-token", policy)
    return Loaded(policy, value, [policy.prompt_ids(prompt.messages) for prompt in prompts("test")[:2]])


def sample(loaded: Loaded, length: int, threshold: float) -> sia_jax.Samples:
    """Two replies at temperature 0."""
    config = sia_jax.SamplerConfig(
        policy=loaded.policy.config,
        value=loaded.value.config,
        steering=sia_jax.SteeringConfig(num_candidates=CANDIDATES, temperature=0.0),
        max_new_tokens=length,
    )
    params = sia_jax.SteeringParams(loaded.policy.params, loaded.value.params)
    prompt = sia_jax.Prompt.pack(loaded.ids)
    return sia_jax.sample(params, prompt, threshold, rng_key=jax.random.key(0), config=config)


def check_unsteered(loaded: Loaded, samples: sia_jax.Samples) -> None:
    """Each token has the highest logit of a pass over the whole text.

    Raises:
      WrongError: one has not, or the record says otherwise.
    """
    for row, prompt in enumerate(loaded.ids):
        reply = _reply(samples, row)
        logits = _logits(loaded, [*prompt, *reply])[len(prompt) - 1 : -1]
        gaps = logits.max(axis=-1) - logits[np.arange(len(reply)), reply]
        if gaps.max() > TOLERANCE:
            raise WrongError(f"a token's logit is {gaps.max():.2g} nats under the highest, expected none")
        logprobs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        recorded = np.asarray(samples.policy_logprob)[row, : len(reply)]
        off = np.abs(logprobs[np.arange(len(reply)), reply] - recorded).max()
        if off > TOLERANCE or np.asarray(samples.junction)[row].any():
            raise WrongError(f"the record is {off:.2g} nats from the policy's log-probabilities")


def check_dense(loaded: Loaded, samples: sia_jax.Samples) -> None:
    """At the first tokens, each candidate's value from a pass over prefix and candidate, and their argmax.

    Raises:
      WrongError: another token was said, or another value recorded.
    """
    for row, prompt in enumerate(loaded.ids):
        reply = _reply(samples, row)
        logits = _logits(loaded, [*prompt, *reply])[len(prompt) - 1 : -1]
        for t, token in enumerate(reply[:4]):
            candidates = np.argsort(-logits[t], kind="stable")[:CANDIDATES]
            texts = np.array([[*prompt, *reply[:t], c] for c in candidates], np.int32)
            read = loaded.value.values(texts, np.full(CANDIDATES, texts.shape[1], np.int32))
            values = np.asarray(read, np.float64)[:, -1]
            scores = logits[t][candidates] + values
            if token not in candidates:
                raise WrongError(f"token {t} is none of the {CANDIDATES} candidates")
            gap = scores.max() - scores[candidates == token][0]
            if gap > TOLERANCE or not np.asarray(samples.junction)[row, t]:
                raise WrongError(f"token {t} scores {gap:.2g} below the best candidate, expected 0")
            off = abs(values[candidates == token][0] - float(samples.value[row, t]))
            if off > TOLERANCE:
                raise WrongError(f"the recorded value of token {t} is off by {off:.2g}")


def check_training(loaded: Loaded, samples: sia_jax.Samples, folder: Path) -> sia_jax.ValueModel:
    """Three steps in one go, and with a checkpoint between; both end at the same weights, which are returned.

    Raises:
      MissingExtraError: a package of training is not installed.
      WrongError: they do not, or nothing was learned.
    """
    from sia_jax.training.checkpoint import Checkpoints
    from sia_jax.training.config import OptimizerConfig, TrainConfig
    from sia_jax.training.loop import LoopConfig, run
    from sia_jax.training.step import init_state

    data = [
        Trajectory(np.array(ids, np.int32), np.array(_reply(samples, row), np.int32), float(row), number=row)
        for row, ids in enumerate(loaded.ids)
    ]
    config = TrainConfig(loaded.value.config, optimizer=OptimizerConfig(learning_rate=1e-3), batch_size=2)
    longest = max(trajectory.length for trajectory in data)
    loop = LoopConfig(epochs=3, row_length=-(-longest // 64) * 64, checkpoint_every=1)
    frozen = {"model": loaded.policy.params["model"]}

    def train(name: str, **limits: int) -> Params:
        state = init_state(loaded.value.params, jax.random.key(0, impl="threefry2x32"), config=config)
        checkpoints = Checkpoints(folder / name)
        finished = run(
            frozen, state, data, [], config, dataclasses.replace(loop, **limits), checkpoints=checkpoints
        )
        checkpoints.close()
        return finished.state.trained

    whole = train("whole")
    train("halves", max_steps=2)
    halves = train("halves")
    for name, leaf in flatten_names(whole).items():
        if not np.array_equal(leaf, flatten_names(halves)[name]):
            raise WrongError(f"{name} differs after a run that went on from its checkpoint")
    if all(np.array_equal(a, b) for a, b in zip(*map(_leaves, (whole, loaded.value.params)), strict=True)):
        raise WrongError("no weight has moved")
    return dataclasses.replace(loaded.value, params=whole)


def check_saving(loaded: Loaded, value: sia_jax.ValueModel, folder: Path) -> None:
    """What is saved is loaded with the same weights.

    Raises:
      WrongError: it is not.
    """
    sia_jax.save_value_model(value, folder, base_model="policy")
    again = sia_jax.load_value_model(folder, loaded.policy)
    for a, b in zip(_leaves(value.params), _leaves(again.params), strict=True):
        if not np.array_equal(a, b):
            raise WrongError("a weight that was saved is another when it is loaded")


def _logits(loaded: Loaded, text: list[int]) -> np.ndarray:
    """[L, V] of a whole text, in float64; ids without a token cannot win."""
    logits = loaded.policy.logits(np.array([text], np.int32), np.array([len(text)], np.int32))
    return np.asarray(logits, np.float64)[0]


def _reply(samples: sia_jax.Samples, row: int) -> list[int]:
    return np.asarray(samples.tokens)[row, : int(samples.lengths[row])].tolist()


def _leaves(params: Params) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
