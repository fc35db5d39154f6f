"""The static description of a sampler: both networks, the steering, and the shapes of its passes."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jax.sharding import Mesh

from sia_jax.arguments import check_kind, check_real, check_whole, told
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.parallel.mesh import check_axes, row_shards
from sia_jax.reprs import changed
from sia_jax.steering.config import SteeringConfig

_OPTIONAL = ("num_tokens", "slots", "places", "slot_places", "quorum")


@dataclass(frozen=True, repr=False)
class SamplerConfig:
    """What shapes the compiled sampler. Frozen and hashable: the one static argument of its program.

    The numbers of the value pass (slots, places) and of the schedule (quorum, patience) change how fast a
    reply comes, never what it is; None leaves them to the rule of `auto`.
    """

    policy: ModelConfig
    value: ValueConfig | None = None
    """None: no value model, nothing is steered."""
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    max_new_tokens: int = 128
    """T, the buffer. The knob of the same name may only be smaller."""
    record: Literal["candidates"] | None = None
    """"candidates" adds the candidates of every position and the KL of what was sampled from."""
    num_tokens: int | None = None
    """Ids from here on have no token, and all before have one; None: as `policy` says, which for a loaded one
    is what its tokenizer knows."""
    branches: int = 1
    """Replies for each prompt, which is prefilled once; reply j of a prompt uses fold_in(key, j)."""

    mesh: Mesh | None = None
    """The devices that hold the weights, of `make_mesh`; rows, caches and passes are split over "data" and
    "fsdp". None: one device."""

    slots: int | None = None
    """J: rows that one value pass may serve; with a mesh, of each group along "tensor"."""
    places: int | None = None
    """F: tokens that one value pass computes, whichever rows they belong to; of each group's own."""
    slot_places: int | None = None
    """Q: tokens that one row may bring to a value pass; a longer span takes several."""
    quorum: int | None = None
    """Rows, of all devices, that wait before a value pass runs, unless fewer are left. 1 is the plain order.
    Traced."""
    patience: int = 4
    """Policy steps for which a row waits at most while others run. Traced."""
    chunk: int = 32
    """Policy steps of one scan."""

    def __post_init__(self) -> None:
        check_kind("policy", self.policy, ModelConfig, "a ModelConfig, such as policy.config")
        if self.value is not None:
            check_kind("value", self.value, ValueConfig, "a ValueConfig, such as value.config, or None")
        check_kind("steering", self.steering, SteeringConfig, "a SteeringConfig(...)")
        check_whole("patience", self.patience)
        for name in (*("max_new_tokens", "branches", "chunk"), *_OPTIONAL):
            if getattr(self, name) is not None or name not in _OPTIONAL:
                check_whole(name, getattr(self, name))
        sizes = ("max_new_tokens", "branches", "slots", "places", "slot_places", "quorum", "chunk")
        wrong = {n: getattr(self, n) for n in sizes if getattr(self, n) is not None and getattr(self, n) < 1}
        if wrong or self.patience < 0:
            raise ValueError(
                f"sizes of a sampler must be positive, got {wrong or {'patience': self.patience}}"
            )
        if self.steering.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens must be at most max_new_tokens, got {self.steering.min_new_tokens} and "
                f"{self.max_new_tokens}; raise max_new_tokens"
            )
        if self.mesh is not None:
            check_axes(self.mesh)
        c, v = self.steering.num_candidates, self.policy.vocab_size
        if self.num_tokens is not None and not 1 <= self.num_tokens <= v:
            raise ValueError(
                f"num_tokens must lie in 1 .. {v} (the policy's vocabulary), got {self.num_tokens}"
            )
        known = self.real_tokens - sum(end - first for first, end in self.unused_ids)
        if c > known:
            raise ValueError(f"num_candidates must be at most {known} (ids with a token), got {c}; lower it")
        if self.record is not None and not (isinstance(self.record, str) and self.record == "candidates"):
            raise ValueError(f"record must be None or 'candidates', got {told(self.record)}")
        if self.value is None:
            return
        if self.value.backbone.vocab_size < self.real_tokens:
            raise ValueError(
                f"the value model knows {self.value.backbone.vocab_size} ids and the policy "
                f"{self.real_tokens}: they need one tokenizer; if only the padding differs, set num_tokens"
            )
        need = self.candidate_places + 1
        for name in ("places", "slot_places"):
            size = getattr(self, name)
            if size is not None and size < need:
                raise ValueError(f"{name} must be at least {need} (a token and the candidates), got {size}")

    def __repr__(self) -> str:
        return changed(self, always=("policy", "value", "max_new_tokens"))

    @property
    def real_tokens(self) -> int:
        """One more than the last id that has a token."""
        return self.num_tokens or self.policy.num_tokens or self.policy.vocab_size

    @property
    def unused_ids(self) -> tuple[tuple[int, int], ...]:
        """Ranges of ids below `real_tokens` that have no token; none where `num_tokens` is given."""
        return self.policy.unused_ids if self.num_tokens is None else ()

    @property
    def row_groups(self) -> int:
        """Parts into which a mesh splits the rows."""
        return row_shards(self.mesh)

    @property
    def candidate_places(self) -> int:
        """Places that a junction's candidates take in a value pass: C, or none with a vocab head."""
        scalar = self.value is not None and self.value.head == "scalar"
        return self.steering.num_candidates if scalar else 0

    def value_tokens(self, prompt: Any, tokens: Any, junctions: Any) -> Any:
        """Tokens that the value model must read up to and with a junction: prompt, spans and candidates.

        P' + (t - n) + C (n + 1), for a token chosen among candidates was read as one of them; with a vocab
        head P' + t.

        Args:
          prompt: P', ids of its prompt; an integer, or an array of them, as all three.
          tokens: t, of the reply before the junction.
          junctions: n, those among them that were junctions.
        """
        if self.value is not None and self.value.head == "vocab":
            return prompt + tokens
        return prompt + tokens - junctions + self.candidate_places * (junctions + 1)

    @classmethod
    def auto(cls, batch: int, expected_ratio: float = 0.2, **fields: Any) -> "SamplerConfig":
        """The configuration whose value passes suit a batch of which a share are junctions.

        The rule, with r the share. Between two junctions lie (1 - r) / r tokens on average, so a row brings
        n = C + (1 - r) / r tokens to a pass, and r B rows come to a junction in a policy step. The quorum is
        r B: fewer would fill the passes with padding, and more would idle, for a row that waits costs as much
        as one that speaks. Places are 1.25 n r B, for passes that must wait for a place are dearer than a
        fifth of padding, and idle slots fill that with spans of rows that will come to a junction later;
        hence 2.5 r B slots. One row may bring twice its usual span, and a longer one takes several passes.
        With a mesh, slots and places are of each group along "tensor", whose B is its share of the rows; the
        quorum is of all.

        Args:
          batch: rows, branches included.
          expected_ratio: r, the share of tokens that are junctions; 1: dense.
          **fields: the other fields of the configuration.
        """
        check_whole("batch", batch)
        check_real("expected_ratio", expected_ratio)
        if not 0 < expected_ratio <= 1 or batch < 1:
            raise ValueError(
                f"expected batch >= 1 and 0 < expected_ratio <= 1, got {batch}, {expected_ratio}"
            )
        return _resolve(cls(**fields), batch, expected_ratio)

    def resolve(self, batch: int) -> "SamplerConfig":
        """This configuration with what was left to the rule of `auto` filled in."""
        check_whole("batch", batch)
        return _resolve(self, batch, 0.2)


def _resolve(config: SamplerConfig, batch: int, ratio: float) -> SamplerConfig:
    quorum = max(1, round(ratio * batch))
    batch = -(-batch // config.row_groups)
    candidates, arrivals = config.candidate_places, ratio * batch
    span = math.ceil((1 - ratio) / ratio)
    usual = candidates + span if candidates else span + 1  # a vocab head reads the last token anew
    slots = min(batch, config.slots or math.ceil(2.5 * arrivals))
    slot_places = config.slot_places or candidates + max(1, 2 * span)
    places = config.places or max(slot_places, math.ceil(min(1.25 * arrivals, slots) * usual))
    return replace(
        config,
        slots=slots,
        places=places,
        slot_places=min(slot_places, places),
        quorum=config.quorum or quorum,
    )
