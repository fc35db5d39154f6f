"""Seconds of a chip that a reply takes: sampled, labelled and trained on, counted from bytes and FLOPs.

A copy of the models lies on t chips of one host, split along "tensor": their memory, bandwidth and peak add
up, and what they send each other is left out. Copies share nothing. All prompts have P ids and all replies T.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from sia_jax.costs.passes import DEVICES, expected_ratio, expected_rounds
from sia_jax.costs.reply import reward_flops
from sia_jax.costs.roofline import DeviceRates, decode_step_cost, pass_cost, training_flops
from sia_jax.costs.sampler import SamplerMemory, sampler_memory
from sia_jax.costs.tpu import CHIP_BYTES
from sia_jax.decoding.config import SamplerConfig
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.transformer import abstract_model
from sia_jax.models.value_model import abstract_value
from sia_jax.parallel.mesh import make_mesh
from sia_jax.types import Params


@dataclass(frozen=True)
class Chip:
    """A device, and how many of them a host has."""

    name: str
    memory: float
    """In bytes, from the maker's data sheet."""
    host: int
    """Chips of a host."""
    caches: int
    """How often a program that samples holds its caches."""

    @property
    def rates(self) -> DeviceRates:
        """From the maker's data sheet."""
        return DEVICES[self.name]


CHIPS = (Chip("H100 SXM", 80e9, 8, 1), Chip("TPU v5e", CHIP_BYTES["v5e"], 8, 2))
"""What is compiled for v5e holds the caches twice: as they are handed in, and as its loops lay them out. What
a GPU makes of them has not been looked at."""
ITEMSIZE = 2
"""Bytes of a bfloat16."""


@dataclass(frozen=True)
class Lengths:
    """In ids, of every prompt and reply."""

    prompt: int
    reply: int

    @property
    def both(self) -> int:
        """P + T."""
        return self.prompt + self.reply


@dataclass(frozen=True)
class Copy:
    """Where one copy of the models lies."""

    chips: int
    """t."""
    rows: int
    """B, of all its chips together."""

    def rates(self, rates: DeviceRates) -> DeviceRates:
        """Of its chips together.

        Args:
          rates: of one.
        """
        return DeviceRates(self.chips * rates.bytes_per_second, self.chips * rates.flops_per_second)


def abstract_trees(policy: ModelConfig, value: ValueConfig) -> tuple[Params, Params]:
    """The trees of policy and value model in bfloat16, of shapes; all layers of one are alike.

    Args:
      policy: its shape.
      value: the value model's; its adapter, if it has one, in all layers alike.
    """
    tree = {"model": abstract_model(replace(policy, num_layers=1), jnp.bfloat16)}
    if not policy.tie_word_embeddings:
        head = jax.ShapeDtypeStruct((policy.vocab_size, policy.hidden_size), jnp.bfloat16)
        tree |= {"lm_head": {"weight": head}}
    thin = replace(value, backbone=replace(value.backbone, num_layers=1))
    value_tree = abstract_value(thin, jnp.bfloat16)
    return _deepened(tree, policy.num_layers), _deepened(value_tree, value.backbone.num_layers)


def memory_of_a_row(
    policy: ModelConfig, value: ValueConfig | None, trees: tuple[Params, Params | None], lengths: Lengths
) -> SamplerMemory:
    """What the weights and one row take of one device.

    Args:
      policy: its shape.
      value: the value model's; None: nothing is steered.
      trees: of both, of shapes, such as `abstract_trees` makes.
      lengths: of prompts and replies.
    """
    config = SamplerConfig(policy, value, max_new_tokens=lengths.reply)
    mesh = make_mesh(devices=jax.devices()[:1])
    return sampler_memory(config, *trees, mesh, rows=1, prompt=lengths.prompt)


def fitting_copy(memory: SamplerMemory, chip: Chip, share: float, most: int) -> Copy:
    """The fewest chips of a host that hold a copy, and the rows that fit beside it.

    rows = (share t M - weights) / (k caches + t ids), k times the caches, with M bytes of a chip.

    Args:
      memory: of `memory_of_a_row`.
      chip: of which a host has several.
      share: of the memory for all this; the rest is for activations and logits.
      most: rows, where more would fit.

    Raises:
      ValueError: not even one row fits a host.
    """
    chips = 1
    while chips <= chip.host:
        room = share * chips * chip.memory - memory.weights
        rows = int(room // (chip.caches * memory.caches + chips * memory.ids))
        if rows >= 1:
            return Copy(chips, min(rows, most))
        chips *= 2
    raise ValueError(
        f"{memory.weights / 1e9:.1f} GB of weights and a row must fit {share:.0%} of the "
        f"{chip.memory / 1e9:.0f} GB of {chip.host} chips ({chip.name}), and do not; take smaller models or "
        "shorter rows"
    )


def token_seconds(
    policy: ModelConfig,
    value: ValueConfig | None,
    ratio: float,
    rows: int,
    columns: float,
    rates: DeviceRates,
    itemsize: int = ITEMSIZE,
) -> float:
    """Seconds in which each of B rows comes one token further, without prefill.

    Args:
      policy: its shape.
      value: the value model's; None: nothing is steered.
      ratio: the share of tokens that are steered, all ten candidates of which are read, under `Burst`.
      rows: B.
      columns: that a row holds, on average.
      rates: of all chips of a copy.
      itemsize: bytes of a weight and of a cache entry.
    """
    step = rates.floor_seconds(decode_step_cost(policy, rows, columns, itemsize))
    if value is None:
        return step
    config = SamplerConfig.auto(rows, ratio, policy=policy, value=value)
    rounds = expected_rounds(config, rows, ratio, config.steering.num_candidates)
    return step / expected_ratio(config, rows, rounds, rates, columns, itemsize)


def sampling_seconds(
    policy: ModelConfig, value: ValueConfig | None, ratio: float, lengths: Lengths, copy: Copy, chip: Chip
) -> float:
    """Seconds of a chip for a prompt and its reply, all rows being in use at all times.

    t (prefill + T token) / B, with the prompts of B rows read together, and rows that hold P + T / 2 ids on
    average. The adapter's own FLOPs on prompts are left out.

    Args:
      policy: see `token_seconds`, as are the following.
      value: likewise.
      ratio: likewise.
      lengths: of prompts and replies.
      copy: of `fitting_copy`.
      chip: likewise.
    """
    rates, tokens = copy.rates(chip.rates), copy.rows * lengths.prompt
    prefill = sum(
        rates.floor_seconds(
            pass_cost(model, tokens, columns_seen=(lengths.prompt + 1) / 2, columns_read=0, itemsize=ITEMSIZE)
        )
        for model in (policy, *(() if value is None else (value.backbone,)))
    )
    columns = lengths.prompt + lengths.reply / 2
    token = token_seconds(policy, value, ratio, copy.rows, columns, rates)
    return copy.chips * (prefill + lengths.reply * token) / copy.rows


def labelling_seconds(reward: ModelConfig, lengths: Lengths, chip: Chip) -> float:
    """Seconds of a chip for the reward of a prompt and its reply: FLOPs over peak.

    Args:
      reward: the reward model's shape.
      lengths: of prompts and replies.
      chip: with its peak.
    """
    return reward_flops(reward, [lengths.both]) / chip.rates.flops_per_second


def training_seconds(value: ValueConfig, lengths: Lengths, chip: Chip) -> float:
    """Seconds of a chip for a prompt and its reply in training: an adapter, layers computed again.

    FLOPs over peak; the adapter's own are left out, and so is the exchange of gradients.

    Args:
      value: the value model.
      lengths: of prompts and replies, packed without padding.
      chip: with its peak.
    """
    flops = training_flops(value.backbone, lengths.both, (lengths.both + 1) / 2, weights=False, remat=True)
    return flops / chip.rates.flops_per_second


def _deepened(tree: Params, layers: int) -> Params:
    """The tree with so many layers like its only one: tracing each by itself takes seconds."""
    return {
        name: (
            dict.fromkeys(range(layers), node[0])
            if name == "layers"
            else _deepened(node, layers)
            if isinstance(node, dict)
            else node
        )
        for name, node in tree.items()
    }
