"""What a run that samples is asked for, and the models that it has loaded."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from jax.sharding import Mesh

import sia_jax
from sia_jax.runs.cli import Count, Flag, Float, Folder, Int, Name, Repeated
from sia_jax.steering.numbers import FilterNumbers, Number, SamplingNumbers, redeclare

Expression = Annotated[str | None, tyro.conf.arg(metavar="EXPRESSION", help_behavior_hint="")]


def _option(row: Number) -> tuple[Any, Any]:
    """As tyro reads it; None: the preset's."""
    kind, metavar = (int, "N") if row.whole else (float, "X")
    text = f"{row.help} Default {row.default:g}."
    return Annotated[kind | None, tyro.conf.arg(metavar=metavar, help_behavior_hint="", help=text)], None


@dataclass(frozen=True, kw_only=True)
@redeclare(_option)
class FilterArgs(FilterNumbers):
    """What an id may be drawn by, as options."""


@dataclass(frozen=True, kw_only=True)
@redeclare(_option)
class NumberArgs(SamplingNumbers):
    """All sampling numbers, as options."""


@dataclass(frozen=True, kw_only=True)
class SteeringArgs:
    """The models, and where they steer."""

    policy: Folder
    """The language model: a folder, or else a Hub id."""
    value: Name = None
    """The value model: a folder, or else a Hub id. Without it nothing is steered."""
    value_backbone: Name = None
    """What the value model was trained on, if neither the policy nor a backbone/ in its folder."""
    check_base: bool = True
    """Whether to refuse a value model that was trained on another base."""
    dtype: Literal["config", "float32", "bfloat16"] = "config"
    """Of the weights; config: as their config.json says. float32 is the fast one on a CPU."""
    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (1, 1, 1)
    """Devices that share the prompts, the same from weights that are stored in parts, and that split heads
    and features, which alone makes room for larger models; all there are, or one."""

    preset: Literal["paper", "official"] = "paper"
    """Where unsteered tokens come from. paper: the whole vocabulary; official: the candidates."""
    threshold: Float = None
    """Entropy in nats from which a position is steered; -inf: all, inf: none. Default 1.0."""
    gate: Expression = None
    """Where to steer: entropy, entropy_ratio(0.1), position(3), bernoulli(0.2), budget(0.2), refractory(5),
    top_probability(0.5), logit_gap(1), linear(...) as decode.learn_gate prints it, after("</think>"), always,
    never; ~, & and | combine them, as in "entropy & ~position(3)". after: from the end of a text in the reply
    on, which may also be given in ids, after(151668); a prompt that ends with it counts. Default entropy."""
    tilt: Expression = None
    """What values add to logits: additive, centred, standardised, advantage, or one of them bounded in nats,
    as in "clipped(1.0, advantage)". Default additive."""
    tilt_bound: Float = None
    """Bound the steering: no logit is moved by more than so many nats. It is --tilt "clipped(X, advantage)",
    under which candidates that cannot win are not read, which changes no token and is far cheaper."""
    num_candidates: Int = None
    """Tokens that the value model chooses among. Default 10."""

    def make_mesh(self) -> Mesh | None:
        """The mesh that is asked for; None: one device.

        Raises:
          ValueError: there are more devices, or fewer, or a size below 1.
        """
        return None if self.mesh == (1, 1, 1) else sia_jax.make_mesh(*self.mesh)


@dataclass(frozen=True, kw_only=True)
class SamplingArgs(NumberArgs, SteeringArgs):
    """Models, steering and sampling."""

    max_new_tokens: Count = 128
    """Length at which a reply is cut."""
    stop: Repeated = ()
    """A text that ends a reply and is no part of it. A special token's text stands for the token."""
    seed: Count = 0
    """Of everything random."""

    prompt_form: Literal["auto", "chat", "raw"] = "auto"
    """chat: the policy's chat template; raw: plain text, as the official code prompts base models; auto: raw
    for the paper's base models, without a template, and with --preset official; else chat."""
    thinking: Flag = False
    """Let Qwen3 think before it replies."""
    date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the chat template writes, such as "26 Jul 2024"; must be given if it writes today's."""
    system: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """A system message for conversations that have none."""


@dataclass(frozen=True, eq=False)
class Models:
    """What was loaded."""

    policy: sia_jax.Policy
    value: sia_jax.ValueModel | None

    @property
    def params(self) -> sia_jax.SteeringParams:
        """The sampler's weights."""
        return sia_jax.SteeringParams(self.policy.params, None if self.value is None else self.value.params)
