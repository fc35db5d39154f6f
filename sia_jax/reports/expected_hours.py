"""What very many prompts take of GPUs and TPUs, as tables: counted, beside what was measured of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from sia_jax.benchmarks.gpu import SPARSE, UNSTEERED
from sia_jax.costs.roofline import DeviceRates
from sia_jax.costs.shapes import ADAPTED_SHAPES, REAL_SHAPES
from sia_jax.costs.work import (
    CHIPS,
    Chip,
    Copy,
    Lengths,
    abstract_trees,
    fitting_copy,
    labelling_seconds,
    memory_of_a_row,
    sampling_seconds,
    token_seconds,
    training_seconds,
)
from sia_jax.data.prompts import PromptLine
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import make_reply
from sia_jax.files.reading import read_object
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.reports.markdown import table
from sia_jax.runs.reply_lines import ReplyLines
from sia_jax.steering.types import TokenRecord

FLEETS = ((CHIPS[0], 8), (CHIPS[0], 64), (CHIPS[1], 16), (CHIPS[1], 64), (CHIPS[1], 256))
"""Devices, and how many of them."""
_RATIOS = {"unsteered": None, "20% steered": 0.2, "dense": 1.0}
_MEASURED = {UNSTEERED: None, SPARSE: 0.2, "dense": 1.0}
"""Systems of a benchmark's record that are looked at: the share that is steered."""
_BYTES_A_TOKEN = 4
"""Of text; what English takes is about that."""
_BYTES_AN_ID = 4
_BYTES_A_PROMPT = 2_400
"""What a driver holds of a prompt beside its ids and its text; measured by tests/cluster/test_memory.py."""


@dataclass(frozen=True)
class Asked:
    """What is to be reckoned."""

    prompts: int
    lengths: Lengths
    reward: str
    """A shape of `REAL_SHAPES`."""
    memory: float
    """Share of a chip's memory for weights, caches and ids."""
    most_rows: int


@dataclass(frozen=True)
class _Stage:
    """A stage of the work, and its seconds of a chip for a reply, by the chip's name."""

    models: str
    name: str
    tokens: int
    """Of a prompt and its reply that the rate is of."""
    copies: dict[str, str]
    seconds: dict[str, float]

    def hours(self, asked: Asked, chip: Chip, chips: int = 1, share: float = 1.0) -> float:
        """Of so many chips, at a share of the limit."""
        return asked.prompts * self.seconds[chip.name] / chips / share / 3600


@dataclass(frozen=True)
class Measured:
    """Of a benchmark's record, how fast one device sampled."""

    BATCH: ClassVar[int] = 16

    file: str
    device: str
    commit: str
    shape: str
    model: ModelConfig
    rates: DeviceRates
    """As they were measured in the same run."""
    itemsize: int
    lengths: Lengths
    tokens_per_second: dict[str, float]
    """Of the systems of `_RATIOS`, at a batch of 16."""
    first_seconds: tuple[float, ...]
    """Of their first calls; empty where they were not told."""

    @staticmethod
    def read(path: Path) -> "Measured":
        """The record.

        Raises:
          OSError, ValueError: it cannot be read, or is none of a sampler with an adapter.
        """
        record = read_object(path, "record of a benchmark", "name one of docs/benchmarks")
        kind, shape = record.get("kind"), record.get("shape")
        shapes = REAL_SHAPES | ADAPTED_SHAPES
        if kind not in ("gpu", "sampler") or not (isinstance(shape, str) and shape in shapes):
            raise ValueError(
                f"{path}: expected a record of kind gpu or sampler of a shape in {sorted(shapes)}, got kind "
                f"{kind!r} of shape {shape!r}"
            )
        try:
            rows: list[Any] = [
                next(
                    row
                    for row in record["rows"]
                    if (row["system"], row["batch"]) == (system, Measured.BATCH)
                    and row.get("new_tokens", record["new_tokens"]) == record["new_tokens"]
                )
                for system in _MEASURED
            ]
            return Measured(
                path.name,
                str(record["device"]),
                str(record["commit"]),
                str(shape),
                shapes[shape],
                DeviceRates(1e9 * record["bandwidth_gb_per_s"], 1e9 * record["peak_gflop_per_s"]),
                jnp.dtype(record.get("dtype", "float32")).itemsize,
                Lengths(int(record["prompt_tokens"]), int(record["new_tokens"])),
                {name: float(row["tokens_per_second"]) for name, row in zip(_RATIOS, rows, strict=True)},
                tuple(float(row["first_call_seconds"]) for row in rows if "first_call_seconds" in row),
            )
        except (KeyError, TypeError, StopIteration) as error:
            raise ValueError(
                f"{path}: expected rows of {', '.join(_MEASURED)} at batch {Measured.BATCH}, and did not "
                f"find them ({type(error).__name__}: {error}); name another record"
            ) from None

    def shares(self) -> list[float]:
        """Of the limit that is counted for the same batch and lengths, at the rates of the same run."""
        found = []
        for name, ratio in _RATIOS.items():
            value = None if ratio is None else ValueConfig(self.model, lora=LoraConfig())
            columns = self.lengths.prompt + self.lengths.reply / 2
            seconds = token_seconds(
                self.model, value, ratio or 0.0, self.BATCH, columns, self.rates, self.itemsize
            )
            found.append(self.tokens_per_second[name] * seconds / self.BATCH)
        return found


def stages(asked: Asked) -> list[_Stage]:
    """Sampling with both pairs of models, labelling, and training the value model of each.

    Raises:
      ValueError: models that do not fit a host.
    """
    small, reward = REAL_SHAPES["1.7B"], REAL_SHAPES[asked.reward]
    adapter, separate = ValueConfig(small, lora=LoraConfig()), ValueConfig(REAL_SHAPES["4B"])
    found = [
        *_sampling("1.7B, adapter", small, adapter, asked),
        *_sampling("14B, 4B", REAL_SHAPES["14B"], separate, asked),
    ]
    whole = {chip.name: "" for chip in CHIPS}
    label = {chip.name: labelling_seconds(reward, asked.lengths, chip) for chip in CHIPS}
    found.append(_Stage(f"reward {asked.reward}", "label", asked.lengths.both, whole, label))
    for name, value in (("1.7B, adapter", adapter), ("4B", separate)):
        seconds = {chip.name: training_seconds(value, asked.lengths, chip) for chip in CHIPS}
        found.append(_Stage(name, "train an epoch", asked.lengths.both, whole, seconds))
    return found


def _sampling(name: str, policy: ModelConfig, value: ValueConfig, asked: Asked) -> list[_Stage]:
    trees = abstract_trees(policy, value)
    memories = {
        False: memory_of_a_row(policy, None, (trees[0], None), asked.lengths),
        True: memory_of_a_row(policy, value, trees, asked.lengths),
    }
    found = []
    for stage, ratio in _RATIOS.items():
        copies: dict[str, Copy] = {}
        seconds: dict[str, float] = {}
        for chip in CHIPS:
            copy = fitting_copy(memories[ratio is not None], chip, asked.memory, asked.most_rows)
            model = None if ratio is None else value
            copies[chip.name] = copy
            seconds[chip.name] = sampling_seconds(policy, model, ratio or 0.0, asked.lengths, copy, chip)
        told = {chip: f"{copy.rows} on {copy.chips}" for chip, copy in copies.items()}
        found.append(_Stage(name, stage, asked.lengths.reply, told, seconds))
    return found


def rates_table(found: Sequence[_Stage]) -> str:
    """Rows of a copy and the chips that it lies on, and tokens a second and chip."""
    columns = (
        "models",
        "stage",
        *(f"{c.name}: {what}" for c in CHIPS for what in ("rows on chips", "tokens/s a chip")),
    )
    rows = []
    for stage in found:
        cells = [stage.models, stage.name]
        for chip in CHIPS:
            cells += [stage.copies[chip.name], f"{stage.tokens / stage.seconds[chip.name]:,.0f}"]
        rows.append(cells)
    return table(columns, rows, labels=2)


def hours_table(found: Sequence[_Stage], asked: Asked) -> str:
    """Hours of each fleet, and hours of one device, at the limit and at half of it."""
    names = [
        f"{count} {chip.name.split()[0]}" if chip is CHIPS[0] else f"v5e-{count}" for chip, count in FLEETS
    ]
    rows = []
    for stage in found:
        cells = [stage.models, stage.name]
        for chip, count in (*FLEETS, *((chip, 1) for chip in CHIPS)):
            cells.append(" / ".join(_short(stage.hours(asked, chip, count, share)) for share in (1.0, 0.5)))
        rows.append(cells)
    return table(("models", "stage", *names, "hours of one H100", "hours of one v5e"), rows, labels=2)


def measured_line(one: Measured, asked: Asked) -> str:
    """An item of a list: what was measured, its share of the limit, and the hours that it comes to."""
    speeds = list(one.tokens_per_second.values())
    hours = [asked.prompts * asked.lengths.reply / speed / 3600 for speed in speeds]
    names = ("tokens/s unsteered", "at 20%", "dense")
    told = ", ".join(f"{speed:,.0f} {name}" for name, speed in zip(names, speeds, strict=True))
    shares = ", ".join(f"{share:.2f}" for share in one.shares())
    of_many = [", ".join(_short(each / count) for each in hours) for count in (8, 64)]
    return (
        f"- {one.device}: {one.shape} with an adapter, batch {one.BATCH}, prompts of {one.lengths.prompt} "
        f"and replies of {one.lengths.reply} ids: {told}, which is {shares} of the limit counted in the same "
        f"way. At these rates 8 of them would take {of_many[0]} hours, 64 of them {of_many[1]} "
        f"(`{one.file}`, commit {one.commit})."
    )


def record_bytes(lengths: Lengths) -> int:
    """Bytes of a line of JSONL of `sia generate`, made here of invented numbers, without the run's settings.

    Args:
      lengths: of its prompt and reply.
    """
    t, place = lengths.reply, np.arange(lengths.reply)
    some = (place * 0.6180339887 % 1).astype(np.float32)  # float32 has the digits that real ones have
    junction = place % 5 == 0
    arrays: dict[str, Any] = dict(
        tokens=(some * 151_000).astype(np.int32),
        junction=junction,
        shifted=place % 20 == 0,
        entropy=some * 3,
        policy_logprob=-some,
        logprob=-some * 2,
        value=np.where(junction, some, np.nan).astype(np.float32),
        contenders=np.where(junction, 10, 0),
        values_read=np.where(junction, 10, 0),
    )
    record = TokenRecord(**arrays, candidates=None)
    small = REAL_SHAPES["1.7B"]
    config = SamplerConfig(small, ValueConfig(small), max_new_tokens=t)
    counts, prompts = (lengths.both - 1, lengths.both), (lengths.prompt, lengths.prompt)
    text = "a" * (_BYTES_A_TOKEN * t)
    reply = make_reply(record, text, FinishReason.LENGTH, counts, prompts, config)
    asks = ({"role": "user", "content": "a" * (_BYTES_A_TOKEN * lengths.prompt)},)
    lines = ReplyLines([PromptLine(0, 0, asks)], 0, 1.2, ["0" * 32])
    return len(json.dumps(lines.record(0, 0, "steered", reply), ensure_ascii=False)) + 1


def driver_bytes(lengths: Lengths) -> int:
    """Bytes of a prompt in the program that shares prompts out.

    Its ids for the policy, its text, and the names of it and of its replies.

    Args:
      lengths: of its prompt.
    """
    return lengths.prompt * (_BYTES_AN_ID + _BYTES_A_TOKEN) + _BYTES_A_PROMPT


def _short(hours: float) -> str:
    return f"{hours:.2f}" if hours < 10 else f"{hours:,.0f}"
