"""Names of models: presets of steering numbers over the one pair that a server has."""

import math
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sia_jax.arguments import check_real
from sia_jax.engine.job import Terms
from sia_jax.engine.reply import json_threshold
from sia_jax.steering.expressions import text_of
from sia_jax.steering.gates import budgets, reads_threshold, shut_at_infinity, with_rate
from sia_jax.steering.tilts import Clipped


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Numbers of steering; what is None is as the engine has it."""

    threshold: float | None = None
    """Nats; inf: nothing is steered."""
    beta: float | None = None
    """Nats per unit of reward."""
    bound: float | None = None
    """Nats by which a logit is moved at most."""
    budget: float | None = None
    """The share of tokens that is steered."""

    def override(self, **numbers: float | None) -> "Preset":
        """These numbers with those that are given in place of their own."""
        return replace(self, **{name: x for name, x in numbers.items() if x is not None})


class SteeringError(ValueError):
    """Numbers that the server cannot steer by; `name` is that which is wrong."""

    def __init__(self, name: str, message: str):
        super().__init__(f"{name} {message}")
        self.name = name


def default_presets(name: str, terms: Terms) -> dict[str, Preset]:
    """`name`, which is the policy alone, and `name`-sia, which is steered as the engine is by default.

    The first is left out where the gate opens whatever the threshold, and the second without a value model.

    Args:
      name: of the policy.
      terms: of the engine.
    """
    found = {}
    if terms.value is None or shut_at_infinity(terms.config.steering.gate):
        found[name] = Preset(threshold=math.inf)
    if terms.value is not None:
        found[f"{name}-sia"] = Preset()
    return found


def read_presets(path: Path, terms: Terms) -> dict[str, Preset]:
    """Presets of a TOML file: a table for each name, with threshold, beta, bound or budget.

    Args:
      path: of the file.
      terms: of the engine, which has to take the numbers.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such TOML, or holds numbers that the engine does not take.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    known = [f.name for f in fields(Preset)]
    found = {}
    for name, table in tables.items():
        where = f"{path}: [{name}]"
        if not isinstance(table, dict):
            raise ValueError(f"{where} must be a table such as [strong] with beta = 2.0, got {table!r}")
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise ValueError(f"{where} has {unknown}, expected some of {known}")
        for key, x in table.items():
            try:
                check_real(f"{where}: {key}", x)
            except TypeError as error:
                raise ValueError(str(error)) from None
        found[name] = Preset(**{key: float(x) for key, x in table.items()})
        try:
            request_fields(found[name], terms)
        except SteeringError as error:
            raise ValueError(f"{where}: {error}") from None
    return found


def request_fields(preset: Preset, terms: Terms) -> dict[str, Any]:
    """The fields of a `sia_jax.engine.request.Request` that numbers come to.

    Args:
      preset: the numbers, those of the body over those of the model's name.
      terms: of the engine.

    Raises:
      SteeringError: a number that this engine has no use for, or out of its range.
    """
    steering = terms.config.steering
    if terms.value is None:
        for name in ("beta", "bound", "budget"):
            if getattr(preset, name) is not None:
                raise SteeringError(name, "steers, and this server has no value model; leave it out")
        if preset.threshold not in (None, math.inf):
            raise SteeringError("threshold", "must be inf or left out: this server has no value model")
        return {"threshold": preset.threshold}
    found: dict[str, Any] = {}
    if preset.threshold is not None:
        if math.isnan(preset.threshold):
            raise SteeringError("threshold", "must be a number of nats, inf or -inf, got NaN")
        if not reads_threshold(steering.gate):
            raise SteeringError(
                "threshold", f"is for a gate with entropy or budget in it, not {text_of(steering.gate)}"
            )
        found["threshold"] = preset.threshold
    if preset.beta is not None:
        if not math.isfinite(preset.beta):
            raise SteeringError("beta", f"must be a finite number, got {preset.beta}")
        found["beta"] = preset.beta
    if preset.bound is not None:
        if not preset.bound >= 0:
            raise SteeringError("bound", f"must be 0 nats or more, got {preset.bound}")
        if not isinstance(steering.tilt, Clipped):
            raise SteeringError(
                "bound",
                f"is for a bounded tilt, and the server's is {text_of(steering.tilt)}; start it with a bound",
            )
        found["tilt"] = replace(steering.tilt, bound=preset.bound)
    if preset.budget is not None:
        if not 0 <= preset.budget <= 1:
            raise SteeringError("budget", f"must lie in 0 .. 1, got {preset.budget}")
        if not budgets(steering.gate):
            raise SteeringError(
                "budget",
                f"is for a gate with a budget, and the server's is {text_of(steering.gate)}; start it "
                "with one",
            )
        found["gate"] = with_rate(steering.gate, preset.budget)
    return found


def described(preset: Preset, terms: Terms) -> dict[str, Any]:
    """The numbers of a preset as JSON, those that the engine has by itself among them."""
    steering = terms.config.steering
    threshold = terms.threshold if preset.threshold is None else preset.threshold
    found: dict[str, Any] = {"threshold": json_threshold(threshold)}
    if terms.value is None:
        return found
    found["beta"] = float(steering.beta) if preset.beta is None else preset.beta
    if isinstance(steering.tilt, Clipped):
        bound = steering.tilt.limit() if preset.bound is None else preset.bound
        found["bound"] = json_threshold(float(bound))
    rates = budgets(steering.gate)
    if rates:
        found["budget"] = float(rates[0].rate) if preset.budget is None else preset.budget
    return found | {"gate": text_of(steering.gate), "tilt": text_of(steering.tilt)}
