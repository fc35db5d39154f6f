"""The static description of a sampler: both networks, the steering, and the shapes of its passes."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jax.sharding import Mesh

from sia_jax.arguments import check_kind, check_real, check_whole, told
from sia_jax.decoding.schedule import Burst, Schedule, Shared, check_schedule
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.fused_attention import KERNELS, Kernel
from sia_jax.parallel.mesh import check_axes, row_shards
from sia_jax.reprs import changed
from sia_jax.steering.config import DecisionConfig, SteeringConfig
from sia_jax.steering.gates import markers

_TILE, _FEW = 32, 20
"""Tokens that the kernels of a product take at a time, of which two cost little more than one; and up to how
many a pass stays as small as it is."""
_OPTIONAL = ("num_tokens", "slots", "pass_tokens", "row_tokens")


@dataclass(frozen=True, repr=False)
class SamplerConfig:
    """What shapes the compiled sampler. Frozen and hashable: the one static argument of its program.

    The sizes of the value pass (slots, pass_tokens, row_tokens) and the schedule change how fast a reply
    comes, never what it is; None leaves them to the rule of `auto`.
    """

    policy: ModelConfig
    value: ValueConfig | None = None
    """None: no value model, nothing is steered."""
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    max_new_tokens: int = 128
    """T, the buffer. The knob of the same name may only be smaller."""
    record: Literal["candidates"] | None = None
    """"candidates" adds the candidates of every position and the KL of what was sampled from."""
    top_logprobs: int = 0
    """K: that many ids that the policy finds likeliest are recorded at every position, with their
    log-probabilities; 0: none."""
    num_tokens: int | None = None
    """Ids from here on have no token, and all before have one; None: as `policy` says, which for a loaded one
    is what its tokenizer knows."""
    branches: int = 1
    """Replies for each prompt, which is prefilled once; reply j of a prompt uses fold_in(key, j)."""

    mesh: Mesh | None = None
    """The devices that hold the weights, of `make_mesh`; rows, caches and passes are split over "data" and
    "fsdp". None: one device."""
    attention: Kernel | None = None
    """"cudnn": passes attend by cuDNN, on one NVIDIA GPU, in bfloat16 or float16; not measured yet. "xla": by
    the same calls without cuDNN, anywhere. None: by this library's own products."""

    schedule: Schedule | None = None
    """When rows that wait at a junction are served: one of `sia_jax.decoding.schedule`. Its numbers are
    defaults of traced ones, which `Knobs.schedule` overrides."""
    slots: int | None = None
    """J: rows that one value pass may serve; with a mesh, of each group along "tensor"."""
    pass_tokens: int | None = None
    """F: tokens that one value pass computes, whichever rows they belong to; of each group's own."""
    row_tokens: int | None = None
    """Q: tokens that one row may bring to a value pass; a longer span takes several."""
    chunk: int = 32
    """Policy steps of one scan."""

    def __post_init__(self) -> None:
        check_kind("policy", self.policy, ModelConfig, "a ModelConfig, such as policy.config")
        if self.value is not None:
            check_kind("value", self.value, ValueConfig, "a ValueConfig, such as value.config, or None")
        check_kind("steering", self.steering, SteeringConfig, "a SteeringConfig(...)")
        if self.schedule is not None:
            check_schedule(self.schedule)
        for name in (*("max_new_tokens", "top_logprobs", "branches", "chunk"), *_OPTIONAL):
            if getattr(self, name) is not None or name not in _OPTIONAL:
                check_whole(name, getattr(self, name))
        sizes = ("max_new_tokens", "branches", "slots", "pass_tokens", "row_tokens", "chunk")
        wrong = {n: getattr(self, n) for n in sizes if getattr(self, n) is not None and getattr(self, n) < 1}
        if wrong:
            raise ValueError(f"sizes of a sampler must be positive, got {wrong}")
        if self.steering.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens must be at most max_new_tokens, got {self.steering.min_new_tokens} and "
                f"{self.max_new_tokens}; raise max_new_tokens"
            )
        if self.mesh is not None:
            check_axes(self.mesh)
        if self.attention is not None:
            self._check_attention()
        c, v = self.steering.num_candidates, self.policy.vocab_size
        if not 0 <= self.top_logprobs <= v:
            raise ValueError(
                f"top_logprobs must lie in 0 .. {v} (the policy's vocabulary), got {self.top_logprobs}"
            )
        if self.num_tokens is not None and not 1 <= self.num_tokens <= v:
            raise ValueError(
                f"num_tokens must lie in 1 .. {v} (the policy's vocabulary), got {self.num_tokens}"
            )
        known = self.real_tokens - sum(end - first for first, end in self.unused_ids)
        if c > known:
            raise ValueError(f"num_candidates must be at most {known} (ids with a token), got {c}; lower it")
        for marker in markers(self.steering.gate):
            if max(marker) >= v:
                raise ValueError(
                    f"the ids of After must lie in 0 .. {v - 1} (the policy's vocabulary), got {marker}; "
                    "take those that its own tokenizer gives"
                )
        if self.record is not None and not (isinstance(self.record, str) and self.record == "candidates"):
            raise ValueError(f"record must be None or 'candidates', got {told(self.record)}")
        if isinstance(self.schedule, Shared):
            self._check_shared(self.schedule)
        if self.value is None:
            return
        if self.value.backbone.vocab_size < self.real_tokens:
            raise ValueError(
                f"the value model knows {self.value.backbone.vocab_size} ids and the policy "
                f"{self.real_tokens}: they need one tokenizer; if only the padding differs, set num_tokens"
            )
        need = self.candidate_tokens + 1 if self.value_passes else 1
        for name in ("pass_tokens", "row_tokens"):
            size = getattr(self, name)
            if size is not None and size < need:
                raise ValueError(f"{name} must be at least {need} (a token and the candidates), got {size}")

    def _check_attention(self) -> None:
        if not (isinstance(self.attention, str) and self.attention in KERNELS):
            raise ValueError(f"attention must be None or one of {KERNELS}, got {told(self.attention)}")
        if self.mesh is not None:
            raise ValueError(
                f"attention={self.attention!r} is for one device, got a mesh of {dict(self.mesh.shape)}; "
                "leave attention out"
            )

    def _check_shared(self, schedule: Shared) -> None:
        if self.value is None or self.value.lora is None:
            other = "one with weights of its own" if self.value_passes else "a head on its hidden states"
            raise ValueError(
                "Shared serves a value model that is a LoRA over the policy's own weights, got "
                f"{'none' if self.value is None else other}; load it over the policy, or take Burst"
            )
        if schedule.look_ahead and not self.reads_candidates:
            raise ValueError(
                "look_ahead reads candidates, of which a vocabulary head reads none; take "
                "Shared(look_ahead=False)"
            )

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
    def candidate_tokens(self) -> int:
        """Tokens that a junction's candidates are in a value pass: C, or none with a vocabulary head."""
        return self.steering.num_candidates if self.reads_candidates else 0

    @property
    def look_ahead_tokens(self) -> int:
        """Candidates of a row that the policy may read in a pass before one of them is chosen: C, or none."""
        ahead = isinstance(self.schedule, Shared) and self.schedule.look_ahead
        return self.steering.num_candidates if ahead else 0

    @property
    def reads_candidates(self) -> bool:
        """Whether the value model reads the candidates; one with a vocabulary head reads the prefix alone."""
        return self.value is not None and self.value.reads_candidates

    @property
    def value_passes(self) -> bool:
        """Whether there is a value model that runs passes; without them no row ever waits."""
        return self.value is not None and self.value.runs_passes

    @property
    def decision(self) -> DecisionConfig:
        """What a position's decision is compiled for."""
        return DecisionConfig(
            steering=self.steering,
            num_tokens=self.real_tokens,
            unused_ids=self.unused_ids,
            steered=self.value is not None,
            record_candidates=self.record == "candidates",
            top_logprobs=self.top_logprobs,
            reads_candidates=self.reads_candidates or self.value is None,
            reads_all=self.value is not None and not self.value_passes,
        )

    def value_tokens(self, prompt: Any, tokens: Any, readings: Any, values_read: Any) -> Any:
        """Tokens that the value model must read up to and with a junction: prompt, spans and candidates.

        P' + (t - m) + n, for a token chosen among candidates that were read was one of them; with a vocab
        head P' + t, and with one on the policy's hidden states none.

        Args:
          prompt: P', ids of its prompt; an integer, or an array of them, as all four.
          tokens: t, of the reply before the junction.
          readings: m, those among them that are of junctions at which values were read.
          values_read: n, candidates that were read at those junctions and at this one.
        """
        if self.value is not None and not self.value_passes:
            return 0 * tokens
        if self.value is not None and not self.reads_candidates:
            return prompt + tokens
        return prompt + tokens - readings + values_read

    @classmethod
    def auto(
        cls,
        batch: int,
        expected_ratio: float = 0.2,
        expected_contenders: float | None = None,
        **fields: Any,
    ) -> "SamplerConfig":
        """The configuration whose value passes suit a batch of which a share are junctions.

        The rule, with r the share of positions at which values are read. Between two lie (1 - r) / r tokens
        on average, so a row brings n = C + (1 - r) / r tokens to a pass, and r B rows come to one in a policy
        step. For these, or for the k that wait (see `Burst`) if they are more, a pass takes n tokens each,
        rounded up to whole 32s and to 64 at least, as the kernels take them; 20 or fewer stay. Idle slots
        fill what is left with spans of rows that will come to a junction later; hence twice as many slots.
        One row may bring twice its usual span, and a longer one takes several passes. With a mesh, slots and
        tokens are of each group along "tensor", which has its share of the rows; those that wait are of all.

        Under a bounded tilt c candidates contend at a junction on average. As if c were geometric, 1 / c of
        the junctions are decided without a value, and at the others c + 1 contend: r is (1 - 1 / c) times the
        share of junctions, and C is c + 1 where contenders alone are read.

        The schedule is `Burst`. `Shared`, which takes the bytes of the weights once for more tokens, is there
        to be asked for: on a CPU the tokens decide, and on an accelerator it has not been measured yet.

        Args:
          batch: rows, branches included.
          expected_ratio: the share of tokens that are junctions; 1: dense.
          expected_contenders: c, for a bounded tilt alone. None: 3 b / T, at most C, of the configuration's
            own numbers: SmolLM2-135M has 3.0 at b = 1 and 6.2 at b = 2.
          **fields: the other fields of the configuration.

        Raises:
          ValueError: a size, a share or a number of contenders that there cannot be.

        Examples:
          >>> from sia_jax.checkpoints.huggingface import read_backbone_config
          >>> from sia_jax.world.files import world_models
          >>> policy = read_backbone_config(world_models() / "policy")
          >>> config = SamplerConfig.auto(16, expected_ratio=0.2, policy=policy, value=ValueConfig(policy))
          >>> config.slots, config.pass_tokens, config.row_tokens, config.schedule
          (8, 64, 18, Burst(min_waiting=4, max_wait=4))
        """
        check_whole("batch", batch)
        check_real("expected_ratio", expected_ratio)
        if not 0 < expected_ratio <= 1 or batch < 1:
            raise ValueError(
                f"expected batch >= 1 and 0 < expected_ratio <= 1, got {batch}, {expected_ratio}"
            )
        config = cls(**fields)
        if expected_contenders is not None:
            check_real("expected_contenders", expected_contenders)
            most = config.steering.num_candidates
            if not 1 <= expected_contenders <= most:
                raise ValueError(
                    f"expected_contenders must lie in 1 .. {most} (the candidates), got {expected_contenders}"
                )
            if not config.steering.tilt.bounded:
                raise ValueError(
                    f"expected_contenders is for a bounded tilt, got {config.steering.tilt}, under which all "
                    "candidates are read; leave it out, or take Clipped(1.0, of=Advantage())"
                )
        return _resolve(config, batch, expected_ratio, expected_contenders)

    def resolve(self, batch: int) -> "SamplerConfig":
        """This configuration with what was left to the rule of `auto` filled in."""
        check_whole("batch", batch)
        return _resolve(self, batch, 0.2, None)


def expected_reads(ratio: float, contenders: float, candidates: int) -> tuple[float, float]:
    """The share of positions at which values are read, and how many are: (1 - 1 / c) ratio and c + 1.

    As if the contenders of a junction were geometric: 1 / c of the junctions have one alone.

    Args:
      ratio: the share of positions that are junctions.
      contenders: c, on average, 1 or more.
      candidates: C, of which no more are read.

    Examples:
      >>> expected_reads(0.5, contenders=4.0, candidates=10)
      (0.375, 5.0)
    """
    return ratio * (1 - 1 / contenders), min(contenders + 1, candidates)


def _resolve(config: SamplerConfig, batch: int, ratio: float, contenders: float | None) -> SamplerConfig:
    candidates = most = config.candidate_tokens
    steering = config.steering
    contends = steering.tilt.bounded and not steering.read_all
    if contenders is None and contends:
        contenders = 3 * float(steering.tilt.limit()) / (steering.temperature or 1)
    if contends and contenders is not None and contenders < steering.num_candidates:
        ratio, read = expected_reads(ratio, max(contenders, 1.25), steering.num_candidates)  # some always are
        if steering.tilt.separable:
            candidates = min(math.ceil(read), most)
    schedule = (config.schedule or Burst()).resolve(batch, ratio)
    at_once = schedule.rows_a_pass(batch, ratio) / config.row_groups
    batch = -(-batch // config.row_groups)
    span = math.ceil((1 - ratio) / ratio)
    usual = candidates + span if candidates else span + 1  # a vocabulary head reads the last token anew
    slots = min(batch, config.slots or math.ceil(2 * at_once))
    row_tokens = config.row_tokens or most + max(1, 2 * span)
    tokens = math.ceil(min(at_once, slots) * usual)
    if tokens > _FEW:
        tokens = min(max(2 * _TILE, -(-tokens // _TILE) * _TILE), batch * usual)
    pass_tokens = config.pass_tokens or max(row_tokens, tokens)
    return replace(
        config,
        schedule=schedule,
        slots=slots,
        pass_tokens=pass_tokens,
        row_tokens=min(row_tokens, pass_tokens),
    )
