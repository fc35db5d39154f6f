"""The static description of a decoder: everything that shapes the compiled program, and nothing else."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from sia_jax.arguments import check_kind, check_real, check_whole, told
from sia_jax.models.heads import HEADS
from sia_jax.models.lora import LoraConfig
from sia_jax.reprs import changed, number

Family = Literal["qwen3", "llama"]


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's stretching of the slow rotary frequencies (`rope_type: "llama3"`)."""

    factor: float
    """Wavelengths longer than the original context are slowed down this many times."""
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding."""

    theta: float
    """Base of the geometric series of frequencies. Has no default: a wrong one is silently wrong."""
    scaling: Llama3Scaling | None = None


@dataclass(frozen=True, repr=False)
class ModelConfig:
    """Shapes of a Qwen3 or Llama-3 dense decoder. Frozen and hashable: a static argument of `jax.jit`.

    The two families are one network; they differ in `qk_norm` and in the rotary frequencies.

    Examples:
      Qwen3-1.7B:

      >>> config = ModelConfig(
      ...     family="qwen3", vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_layers=28,
      ...     num_heads=16, num_kv_heads=8, head_dim=128, rope=RopeConfig(1e6), rms_norm_eps=1e-6,
      ...     tie_word_embeddings=True, max_position_embeddings=40960)
      >>> config.num_parameters
      1720574976
    """

    family: Family
    vocab_size: int
    """Rows of the embedding. May exceed the number of ids that have a token (vocabularies are padded)."""
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: RopeConfig
    rms_norm_eps: float
    tie_word_embeddings: bool
    max_position_embeddings: int
    eos_token_ids: tuple[int, ...] = ()
    """Stop ids: those of generation_config.json and of config.json, united."""
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    initializer_range: float = 0.02
    num_tokens: int | None = None
    """Ids from here on have no token: one more than the last that the checkpoint's tokenizer knows. None: all
    have one."""
    unused_ids: tuple[tuple[int, int], ...] = ()
    """Ranges of ids below `num_tokens` that have no token either: (first, one past the last), in order."""

    def __post_init__(self) -> None:
        sizes = {
            name: getattr(self, name)
            for name in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_layers",
                "num_heads",
                "num_kv_heads",
                "head_dim",
            )
        }
        if not isinstance(self.family, str) or self.family not in get_args(Family):
            raise ValueError(f"family must be one of {get_args(Family)}, got {told(self.family)}")
        for name, size in (sizes | {"max_position_embeddings": self.max_position_embeddings}).items():
            check_whole(name, size)
        check_real("rms_norm_eps", self.rms_norm_eps)
        check_kind("rope", self.rope, RopeConfig, "a RopeConfig(...)")
        check_kind("eos_token_ids", self.eos_token_ids, tuple, "a tuple of ids")
        wrong = {name: size for name, size in sizes.items() if size < 1}
        if wrong:
            raise ValueError(f"sizes of a model must be positive, got {wrong}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads, got {self.num_heads} and {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even (rotary pairs), got {self.head_dim}")
        if self.num_tokens is not None and not 1 <= self.num_tokens <= self.vocab_size:
            raise ValueError(
                f"num_tokens must lie in 1 .. {self.vocab_size} (the vocabulary), got {self.num_tokens}"
            )
        bounds = [0, *(bound for ids in self.unused_ids for bound in ids), self.num_tokens or self.vocab_size]
        if bounds != sorted(bounds):
            raise ValueError(f"unused_ids must be ranges in order, within num_tokens, got {self.unused_ids}")

    def __repr__(self) -> str:
        known = "" if self.num_tokens is None else f" ({self.num_tokens} with a token)"
        tied = "tied" if self.tie_word_embeddings else "untied"
        return (
            f"ModelConfig({self.family}, {self.num_layers} layers, hidden {self.hidden_size}, "
            f"vocabulary {self.vocab_size}{known}, {tied}, {number(self.num_parameters)} parameters)"
        )

    @property
    def network(self) -> "ModelConfig":
        """This configuration without what it says of tokens: equal for all tokenizers over one network."""
        return replace(self, num_tokens=None, unused_ids=())

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head before the rotation (Qwen3)."""
        return self.family == "qwen3"

    @property
    def num_parameters(self) -> int:
        """Parameters of the backbone and, if it is not tied, of the lm_head."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)
        mlp = 3 * self.hidden_size * self.intermediate_size
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * (attention + mlp + norms) + embeddings + self.hidden_size


HeadKind = Literal["scalar", "vocab"]
States = Literal["own", "policy"]


@dataclass(frozen=True, repr=False)
class ValueConfig:
    """Shapes of a value model: a backbone, an adapter that is kept apart (or none), and a head.

    A head on the policy's hidden states is all of its value model: `ValueConfig(policy.config, "vocab", R,
    states="policy")` has no backbone of its own and runs no pass.
    """

    backbone: ModelConfig
    """What makes the hidden states that the head reads; with `states="policy"` the policy's own."""
    head: HeadKind = "scalar"
    """"scalar": V(s, a) at the candidate token. "vocab": Q(s, a) of every a from the prefix alone."""
    head_rank: int | None = None
    """R, the inner width of the vocab head; None for the scalar head."""
    lora: LoraConfig | None = None
    """Set when the parameters are an adapter over somebody else's weights; None when merged."""
    states: States = "own"
    """"own": the head reads hidden states of passes that the value model runs. "policy": those that the
    policy has anyway, behind the prompt as the policy sees it; a vocab head, and no adapter."""

    def __post_init__(self) -> None:
        check_kind("backbone", self.backbone, ModelConfig, "a ModelConfig, such as policy.config")
        if not isinstance(self.head, str) or self.head not in get_args(HeadKind):
            raise ValueError(f"head must be one of {get_args(HeadKind)}, got {told(self.head)}")
        if HEADS[self.head].has_rank != (self.head_rank is not None):
            raise ValueError(
                f"head_rank belongs to the vocab head, got head={self.head!r} with head_rank={self.head_rank}"
            )
        if not isinstance(self.states, str) or self.states not in get_args(States):
            raise ValueError(f"states must be one of {get_args(States)}, got {told(self.states)}")
        if self.states == "policy" and (self.reads_candidates or self.lora is not None):
            raise ValueError(
                "a head on the policy's states is a vocab head without an adapter, got states='policy' with "
                f"head={self.head!r} and lora={self.lora}; take head='vocab' and lora=None, or states='own'"
            )

    def __repr__(self) -> str:
        return changed(self, always=("backbone", "head"))

    @property
    def reads_candidates(self) -> bool:
        """Whether a candidate's value is read at the candidate itself; else the prefix tells all values."""
        return HEADS[self.head].reads_candidates

    @property
    def runs_passes(self) -> bool:
        """Whether the value model reads tokens in passes of its own; else the policy's states are enough."""
        return self.states == "own"
