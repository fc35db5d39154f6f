"""FLOPs of a reply against XLA's own count, token by token sums, and what must not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.costs.reply import last_value_flops, policy_flops, reward_flops, steering_flops
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.models.passes import hidden_states
from tests.support.checkpoints import tiny_config, tiny_policy

pytestmark = pytest.mark.optimised

CONFIG = tiny_config()
LORA = LoraConfig(rank=4)


def token_flops(config: ModelConfig, columns: int, head: bool) -> int:
    """One token that sees so many columns: two for each number of a matrix, two products with each column."""
    n, k, h = config.num_heads, config.num_kv_heads, config.head_dim
    d, f = config.hidden_size, config.intermediate_size
    matrices = d * n * h + 2 * d * k * h + n * h * d + 3 * d * f
    return config.num_layers * (2 * matrices + 4 * columns * n * h) + head * 2 * d * config.vocab_size


def adapter_flops(config: ModelConfig) -> int:
    """LORA on q, k, v and o, one token."""
    d, q, kv = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return config.num_layers * 2 * LORA.rank * (4 * d + 2 * q + 2 * kv)


def test_policy_token_by_token() -> None:
    prompt, replies = 7, [5, 1, 9]
    expected = sum(token_flops(CONFIG, place + 1, head=False) for place in range(prompt - 1))
    for tokens in replies:
        expected += sum(token_flops(CONFIG, prompt + t, head=True) for t in range(tokens))
    assert policy_flops(CONFIG, prompt, replies) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("lora", [None, LORA])
def test_value_model_token_by_token(lora: LoraConfig | None) -> None:
    prompt, config = 6, ValueConfig(CONFIG, lora=lora)
    extra = 0 if lora is None else adapter_flops(CONFIG)
    replies = [np.array([10, 0, 0, 10, 3]), np.array([], int), np.array([0] * 8 + [2, 0])]
    expected = sum(token_flops(CONFIG, place + 1, head=False) + extra for place in range(prompt))
    for read in replies:
        for t in range(max(np.flatnonzero(read), default=-1) + 1):
            one = token_flops(CONFIG, prompt + t + 1, head=False) + extra
            expected += read[t] * (one + 2 * CONFIG.hidden_size) if read[t] else one
    assert steering_flops(config, prompt, replies) == pytest.approx(expected, rel=1e-9)


def test_a_vocab_head_reads_the_prefix_alone_and_its_own_rows_of_the_candidates() -> None:
    prompt, config = 6, ValueConfig(CONFIG, "vocab", 3)
    read = np.array([10, 0, 0, 10, 10, 0])
    expected = sum(token_flops(CONFIG, place + 1, head=False) for place in range(prompt + 4))
    expected += 3 * 2 * (3 * CONFIG.hidden_size + 10 * 3)
    assert steering_flops(config, prompt, [read]) == pytest.approx(expected, rel=1e-9)


def test_a_head_on_the_policys_states_costs_two_products_a_junction_and_no_pass() -> None:
    config = ValueConfig(CONFIG, "vocab", 3, states="policy")
    replies = [np.array([10, 0, 0, 10, 10, 0]), np.zeros(3, int), np.array([0, 10])]
    expected = 4 * 2 * (3 * CONFIG.hidden_size + 10 * 3)
    assert steering_flops(config, 6, replies) == expected
    sampler = sia_jax.SamplerConfig(policy=CONFIG, value=config)
    assert sampler.value_tokens(7, 5, 2, 20) == 0


@pytest.mark.parametrize("places", [[0], [0, 1, 2], [3, 9, 10, 40]])
def test_the_tokens_that_are_counted_are_those_that_the_sampler_counts(places: list[int]) -> None:
    """What an adapter costs is proportional to the tokens that go through it."""
    read = np.zeros(places[-1] + 3, int)
    read[places] = np.arange(len(places)) + 2
    value = ValueConfig(CONFIG, lora=LORA)
    with_adapter, without = (steering_flops(config, 7, [read]) for config in (value, ValueConfig(CONFIG)))
    sampler = sia_jax.SamplerConfig(policy=CONFIG, value=value)
    counted = sampler.value_tokens(7, places[-1], len(places) - 1, int(read.sum()))
    assert (with_adapter - without) / adapter_flops(CONFIG) == pytest.approx(counted, rel=1e-9)


def test_whole_passes_against_xla() -> None:
    """XLA counts what it compiled: masked columns, norms and the like too, so a little more."""
    policy, length = tiny_policy(), 32

    def run(tokens: jax.Array) -> jax.Array:
        return hidden_states(policy.params["model"], tokens, config=policy.config)

    analysis = jax.jit(run).lower(jnp.zeros((1, length), jnp.int32)).compile().cost_analysis()
    assert isinstance(analysis, dict)
    causal = length * (length + 1) / 2
    masked = policy.config.num_layers * 4 * policy.config.num_heads * policy.config.head_dim
    ours = reward_flops(policy.config, [length]) - 2 * policy.config.hidden_size
    ours += masked * (length**2 - causal)
    assert ours < analysis["flops"] < 1.3 * ours


def test_passes_over_finished_replies_are_full_ones() -> None:
    config = ValueConfig(CONFIG)
    assert last_value_flops(config, 5, [7, 2]) == pytest.approx(reward_flops(CONFIG, [12, 7]), rel=1e-12)


def test_branches_share_the_prompt_and_nothing_else() -> None:
    one, two = policy_flops(CONFIG, 50, [8]), policy_flops(CONFIG, 50, [8, 8])
    prompt = reward_flops(CONFIG, [49]) - 2 * CONFIG.hidden_size
    assert two - one == pytest.approx(one - prompt, rel=1e-9)


def test_without_a_junction_the_value_model_does_nothing() -> None:
    assert steering_flops(ValueConfig(CONFIG), 30, [np.zeros(n, int) for n in range(3)]) == 0
