"""Which modules a PEFT adapter says that it changes, by PEFT's own rule.

`target_modules` is a list of names (a module's whole path, or what follows one of its dots), a regular
expression over whole paths, or "all-linear". Under a list, `layers_to_transform` leaves the other layers out
(peft, tuners_utils.py, check_target_module_exists).
"""

from dataclasses import dataclass
from typing import Any

from sia_jax.checkpoints.values import as_list, is_index
from sia_jax.files.shown import shown_value
from sia_jax.models.lora import ATTENTION_PROJECTIONS, MLP_PROJECTIONS
from sia_jax.models.patterns import matches_whole

PROJECTIONS = ATTENTION_PROJECTIONS + MLP_PROJECTIONS
_HEAD = "lm_head"
_ALL = "all-linear"
_LAYERS = ("layers", "model.layers", r"model\.layers")


@dataclass(frozen=True)
class Targets:
    """What target_modules and layers_to_transform say."""

    names: tuple[str, ...] | None = None
    """Whole paths and ends of paths; None: the pattern counts."""
    pattern: str | None = None
    """A regular expression over whole paths, or "all-linear"."""
    layers: tuple[int, ...] | None = None
    """The layers that the names are meant for; None: all."""

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Targets":
        """Those of an adapter_config.json in which `target_problems` finds nothing."""
        targets, layers = raw["target_modules"], as_list(raw.get("layers_to_transform"))
        if isinstance(targets, str) and targets not in PROJECTIONS:
            return cls(pattern=targets)
        return cls(names=tuple(sorted(as_list(targets))), layers=tuple(layers) or None)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The projections that the targets may be among, in the order of the network."""
        if self.names is None:
            return PROJECTIONS
        ends = {name.rpartition(".")[2] for name in self.names}
        return tuple(name for name in PROJECTIONS if name in ends)

    def hold(self, path: str, *, bare: bool = False) -> bool | None:
        """Whether a projection is a target.

        Args:
          path: in the backbone, such as "layers.3.self_attn.q_proj".
          bare: PEFT was given the backbone alone, and not a model that has it as "model".

        Returns:
          None where the pattern is none that can be matched here.
        """
        whole = path if bare else f"model.{path}"
        if self.names is not None:
            named = any(whole == name or whole.endswith(f".{name}") for name in self.names)
            return named and (self.layers is None or int(path.split(".")[1]) in self.layers)
        assert self.pattern is not None
        if self.pattern.lower() == _ALL:
            return True
        try:
            return matches_whole(self.pattern, whole)
        except ValueError:
            return None


def target_problems(raw: dict[str, Any]) -> list[str]:
    """What is wrong with target_modules, one line each."""
    targets = raw["target_modules"]
    if isinstance(targets, str) and targets not in PROJECTIONS:
        return (
            [] if targets.lower() == _ALL or any(c in targets for c in r".*+?|()[]{}\^$") else _wrong(targets)
        )
    named = isinstance(targets, list | str) and all(isinstance(name, str) for name in as_list(targets))
    if not named or not any(_is_projection(name) for name in as_list(targets)):
        return _wrong(targets)
    return [] if all(_is_projection(name) or _is_head(name) for name in as_list(targets)) else _wrong(targets)


def are_layers(value: Any) -> bool:
    """Whether layers_to_transform is null, a layer or a list of layers."""
    return all(is_index(layer) for layer in as_list(value))


def are_layer_names(value: Any) -> bool:
    """Whether layers_pattern, if it is set, names the list of layers of these networks."""
    return value is None or value in ("", []) or any(name in _LAYERS for name in as_list(value))


def _is_projection(name: str) -> bool:
    return name.rpartition(".")[2] in PROJECTIONS


def _is_head(name: str) -> bool:
    """lm_head, which a value model does not have."""
    return name.rpartition(".")[2] == _HEAD


def _wrong(targets: Any) -> list[str]:
    return [
        f"target_modules is {shown_value(targets)}, expected a list out of {', '.join(PROJECTIONS)}, or of "
        "paths that end in one, a regular expression, or 'all-linear'"
    ]
