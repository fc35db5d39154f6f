"""Loaded models: policy, value model and reward model, each with its config, parameters and tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from sia_jax.models import passes
from sia_jax.models.batches import check_batch, pad_batch, read_at
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.value_model import ValueNet, value_net
from sia_jax.parallel.lock_step import on_every_process
from sia_jax.parallel.mesh import mesh_of
from sia_jax.reprs import shortened, weights
from sia_jax.text import chat
from sia_jax.text.forms import PromptForm, prompt_form
from sia_jax.text.markup import Markup
from sia_jax.types import Params


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """A causal language model."""

    config: ModelConfig
    params: Params
    """{"model": ..., "lm_head": {"weight": [V, D]}}; no "lm_head" where it is tied to the embedding."""
    tokenizer: Any = None
    """The checkpoint's transformers tokenizer; None if the folder has none."""
    name: str = ""
    """Last part of the folder's path or Hub id."""

    def __repr__(self) -> str:
        return _told(self)

    def logits(self, tokens: Any, lengths: Any) -> Float[Array, "B L V"]:
        """Next-token logits at every token.

        Args:
          tokens: [B, L] ids, padded on the right; NumPy, JAX or nested lists.
          lengths: [B] tokens of each row, 1 .. L.

        Returns:
          [B, L, V] float32; what stands at padding is meaningless.

        Raises:
          ValueError: shapes, lengths or ids that do not fit.
        """
        padded, _ = pad_batch(tokens, lengths, self.config, mesh_of(self.params))
        batch, length = len(lengths), len(tokens[0])
        return passes.batch_logits(self.params, padded, config=self.config)[:batch, :length]

    def prompt_ids(
        self, messages: Sequence[chat.Message], form: PromptForm | None = None, **template: Any
    ) -> list[int]:
        """The ids of a conversation that waits for the policy's reply; see `sia_jax.text.chat.policy_prompt`.

        Args:
          messages: [{"role": "user", "content": ...}, ...].
          form: "chat", the checkpoint's template, or "raw", the official form for base models; by default
            the template, but for the paper's base models (`sia_jax.text.forms.prompt_form`).
          **template: passed to the chat template, e.g. enable_thinking=True, which is off by default.
        """
        tokenizer = _need_tokenizer(self.tokenizer, self.name)
        form = form or prompt_form(self.name, tokenizer)
        return chat.policy_prompt(tokenizer, messages, form=form, **template)


@dataclass(frozen=True, eq=False, repr=False)
class ValueModel:
    """A token-level value model: V(x, y_<=t) predicts the reward of the whole reply from a prefix."""

    config: ValueConfig
    params: Params
    """{"model": ..., "value_head": ...} merged; {"lora": ..., "value_head": ...} over a policy's weights;
    {"value_head": ...} on a policy's hidden states."""
    base: Params | None = None
    """The policy's backbone under the adapter or the head; None where `params` holds its own."""
    tokenizer: Any = None
    name: str = ""
    markup: Markup | None = None
    """How its prompts mark their turns; None: as its tokenizer has it (`sia_jax.text.markup.markup_of`)."""

    def __repr__(self) -> str:
        return _told(self)

    @property
    def net(self) -> ValueNet:
        """The network: its own backbone, or `base`, under the adapter if it has one; and the head."""
        return value_net(self.params, self.config, None if self.base is None else {"model": self.base})

    def values(self, tokens: Any, lengths: Any) -> Array:
        """Values at every token.

        Args:
          tokens: [B, L] ids, padded on the right.
          lengths: [B] tokens of each row, 1 .. L.

        Returns:
          [B, L] float32 (scalar head) in units of the reward; with a vocab head [B, L, V], the value of each
          next token. What stands at padding is meaningless.

        Raises:
          ValueError: shapes, lengths or ids that do not fit.
        """
        padded, _ = pad_batch(tokens, lengths, self.config.backbone, mesh_of(self.params))
        batch, length = len(lengths), len(tokens[0])
        return passes.batch_values(self.net, padded)[:batch, :length]

    def prompt_ids(self, messages: Sequence[chat.Message]) -> list[int]:
        """The ids of the conversation in the value model's own form; see `sia_jax.text.chat.value_prompt`.

        Raises:
          ValueError: it has no tokenizer, or reads the policy's hidden states, and so the policy's prompt.
        """
        if not self.config.runs_passes:
            raise ValueError(
                f"{self.name or 'this value model'} reads the policy's hidden states and has no prompt of "
                "its own; leave the value model's ids out, or pass those of policy.prompt_ids"
            )
        tokenizer = _need_tokenizer(self.tokenizer, self.name)
        return chat.value_prompt(tokenizer, messages, self.markup)


@dataclass(frozen=True, eq=False, repr=False)
class RewardModel:
    """A sequence-classification reward model: one number for a whole conversation."""

    config: ModelConfig
    params: Params
    """{"model": ..., "score": {"weight": [1, D]}}."""
    tokenizer: Any = None
    name: str = ""

    def __repr__(self) -> str:
        return _told(self)

    def score(self, tokens: Any, lengths: Any) -> Float[Array, " B"]:
        """The reward of each row, read where transformers reads it: at its last token that is not the pad id.

        That is the last one in all but models whose pad id also ends a turn.

        Args:
          tokens: [B, L] ids, padded on the right.
          lengths: [B] tokens of each row, 1 .. L.

        Returns:
          [B] float32.

        Raises:
          ValueError: shapes, lengths or ids that do not fit.
        """
        tokens, lengths = check_batch(tokens, lengths, self.config)
        places = read_at(tokens, lengths, self.config)
        mesh = mesh_of(self.params)
        padded, checked = pad_batch(tokens, places, self.config, mesh)
        rewards = passes.batch_rewards(self.params, padded, checked, config=self.config)
        return on_every_process(rewards, mesh)[: len(lengths)]

    def conversation_ids(self, messages: Sequence[chat.Message], **template: Any) -> list[int]:
        """The ids of a finished conversation; see `sia_jax.text.chat.reward_conversation`.

        Args:
          messages: ends with the assistant.
          **template: variables of the chat template. Llama 3.2's writes today's date into every conversation,
            and so into every score, unless date_string is given.
        """
        return chat.reward_conversation(_need_tokenizer(self.tokenizer, self.name), messages, **template)


def _need_tokenizer(tokenizer: Any, name: str) -> Any:
    if tokenizer is None:
        raise ValueError(
            f"{name or 'this model'} was loaded from a folder without a tokenizer; pass token ids"
        )
    return tokenizer


def _told(model: Policy | ValueModel | RewardModel) -> str:
    parts = [repr(model.name or "unnamed"), repr(model.config), weights(model.params)]
    parts.append("no tokenizer" if model.tokenizer is None else type(model.tokenizer).__name__)
    return shortened(f"{type(model).__name__}({', '.join(parts)})")
