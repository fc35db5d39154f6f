"""docs/benchmarks.md, made from the recorded runs."""

import json
from pathlib import Path
from typing import Any

from sia_jax.files.writing import write_text
from sia_jax.reports.markdown import table


def write_page(records: Path, page: Path) -> None:
    """Make the page from the newest JSON record of each kind, shape and device.

    Args:
      records: folder of the JSON files that the benchmark programs write.
      page: the Markdown file.
    """
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(records.glob("*.json")):  # names begin with the time
        record = json.loads(path.read_text())
        newest[record["kind"], record["shape"], record["device"]] = record | {"file": path.name}
    head = (
        "# Benchmarks\n\n"
        "Made by `decode.benchmark`, `decode.benchmark_gpu`, `decode.benchmark_compile`, "
        "`decode.benchmark_engine`, `decode.benchmark_serving` and `train.benchmark` from the records in "
        "`benchmarks/`; not edited by hand.\n"
        "A floor is the larger of bytes over bandwidth and FLOPs over peak, both measured in the same run.\n"
    )
    write_text(page, "\n".join([head, *map(section, newest.values())]))


def section(record: dict[str, Any]) -> str:
    """The Markdown of one record.

    Args:
      record: what a benchmark program wrote; its "kind" says which.

    Raises:
      ValueError: a kind that nobody writes.
    """
    if record["kind"] not in _SECTIONS:
        raise ValueError(f"records are of kinds {sorted(_SECTIONS)}, got {record['kind']!r}")
    return _SECTIONS[record["kind"]](record)


def _sampler(record: dict[str, Any]) -> str:
    title = f'## The sampler, shape "{record["shape"]}"'
    return f"{title}\n\n{_run(record)}\n{_targets(record)}\n{_systems(record)}{_parts(record)}"


def _parts(record: dict[str, Any]) -> str:
    columns = ("part", "runs", "ms each", "floor, ms", "share of the call")
    batch = f", batch {record['parts_batch']}" if "parts_batch" in record else ""
    return "".join(
        f"\nWhere the time goes: {name}{batch}\n\n"
        + table(
            columns,
            (
                (
                    row["part"],
                    f"{row['runs']:.0f}",
                    f"{row['ms_each']:.2f}",
                    f"{row['floor_ms_each']:.2f}" if row["floor_ms_each"] else "",
                    f"{row['share']:.0%}",
                )
                for row in rows
            ),
        )
        for name, rows in record["parts"].items()
    )


def _gpu(record: dict[str, Any]) -> str:
    columns = (
        "batch",
        "system",
        "tokens/s (best)",
        "ms for a token of each row",
        "policy's floor, ms",
        "above it, ms",
        "floor / time",
        "of unsteered",
        "steered",
        "policy steps",
        "value passes",
        "first call, s",
    )
    rows = (
        (
            str(row["batch"]),
            row["system"] + _differing(row),
            f"{row['tokens_per_second']:.0f} ({row['best_tokens_per_second']:.0f})",
            f"{row['ms_per_token_of_each_row']:.2f}",
            f"{row['policy_floor_ms']:.2f}",
            f"{row['ms_per_token_of_each_row'] - row['policy_floor_ms']:.2f}",
            f"{row['of_floor']:.2f}",
            f"{row['of_unsteered']:.2f}" if "of_unsteered" in row else "",
            f"{row['counts']['steered']:.0%}" if row["counts"] else "",
            str(row["counts"].get("policy_steps", "")),
            str(row["counts"].get("value_calls", "")),
            f"{row['first_call_seconds']:.1f}",
        )
        for row in record["rows"]
    )
    targets = f"{_targets(record)}\n" if record["targets"] else ""
    missing, failed = (
        ", ".join(f"{row['system']} at batch {row['batch']}" for row in record.get(name, []))
        for name in ("left_out", "failed")
    )
    return (
        f'## Decoding on a GPU, shape "{record["shape"]}"\n\n{_run(record)}'
        "The value model is an adapter over the policy's weights; the floor is of the policy's step alone.\n"
        + (f"Not timed, for the run was cut short: {missing}.\n" if missing else "")
        + (f"Failed, as the record says: {failed}.\n" if failed else "")
        + f"\n{targets}{table(columns, rows)}{_kernels(record)}{_parts(record)}"
    )


def _differing(row: dict[str, Any]) -> str:
    """How many of its tokens are not those of the sampler, where that was counted and is not none."""
    count = row["counts"].get("differing_tokens", 0)
    return f" ({count} tokens differ)" if count else ""


def _kernels(record: dict[str, Any]) -> str:
    return "".join(
        f"\nKernels of a call under the profiler, for which they are launched one by one: {name}. "
        f"{found['launches']} kernels; one ran for {found['busy_ms']:.1f} of {found['span_ms']:.1f} ms. "
        "The dearest:\n\n"
        + table(
            ("kernel", "runs", "µs each", "share of the kernels' time"),
            (
                (f"`{kernel}`", str(runs), f"{1e3 * ms / runs:.1f}", f"{ms / found['busy_ms']:.0%}")
                for kernel, runs, ms in found["rows"][:12]
            ),
        )
        for name, found in record["kernels"].items()
    )


def _sampler_sweep(record: dict[str, Any]) -> str:
    return (
        f'## Sweep of the sampler, shape "{record["shape"]}"\n\n{_run(record)}\n'
        f"`SamplerConfig.auto` at batch 16, 20%, runs at {record['auto_of_best']:.2f} of the best of the "
        f"sweep over slots, tokens a pass and rows that wait.\n\n{_systems(record)}"
    )


def _training(record: dict[str, Any]) -> str:
    columns = ("system", "tokens/s without padding (best)", "floor / time")
    rows = (
        (
            row["system"],
            f"{row['tokens_per_second']:.0f} ({row['best_tokens_per_second']:.0f})",
            f"{row['of_floor']:.2f}",
        )
        for row in record["rows"]
    )
    return (
        f'## Training a value model, shape "{record["shape"]}"\n\n{_run(record)}\n{_targets(record)}\n'
        f"{table(columns, rows)}"
    )


def _targets(record: dict[str, Any]) -> str:
    return table(
        ("measured against", "measured", "target", ""),
        (
            (row["name"], "", f"{row['target']:g}", "not timed")
            if row["value"] is None
            else (row["name"], f"{row['value']:.2f}", f"{row['target']:g}", "met" if row["met"] else "missed")
            for row in record["targets"]
        ),
    )


def _compile(record: dict[str, Any]) -> str:
    columns = ("system", "call", "beyond a second call, s", "trace", "lower", "XLA or loading", "programs")
    rows = (
        (
            row["system"],
            row["case"],
            *(f"{row[name]:.1f}" for name in ("beyond_second", "trace", "lower", "compile")),
            f"{row['programs']:.0f}",
        )
        for row in record["rows"]
    )
    targets = f"{_targets(record)}\n" if record["targets"] else ""
    return (
        f'## The first call of the sampler, shape "{record["shape"]}"\n\n{_run(record)}'
        "The value model is an adapter over the policy's weights. XLA's seconds have those of loading in "
        "them; the programs are those that were compiled or loaded.\n"
        f"\n{targets}{table(columns, rows)}"
    )


def _engine(record: dict[str, Any]) -> str:
    found = record["lock_step"]
    systems = (
        (row["system"], f"{row['tokens_per_second']:.0f} ({row['best_tokens_per_second']:.0f})")
        for row in found["systems"]
    )
    spent = found["host_seconds"]
    whole = sum(spent.values()) - spent["idle"]
    host = ", ".join(
        f"{name} {seconds / whole:.1%}" for name, seconds in spent.items() if name not in ("idle", "device")
    )
    first = (
        (str(row["streams"]), f"{row['first_token_ms']:.0f}", f"{row['between_tokens_ms']:.1f}")
        for row in record["first_tokens"]
    )
    beside = (
        (row["streams"], read, f"{row['tokens_per_second']:.0f}")
        for name, read in (("neighbours", "all"), ("bounded_neighbours", "contenders"))
        for row in record.get(name, [])
    )
    return (
        f'## The engine, shape "{record["shape"]}"\n\n{_run(record)}\n{_targets(record)}\n'
        f"{record['requests']} unsteered requests over {record['rows']} rows, replies of 16 .. "
        f"{record['new_tokens']} tokens: with all rows always in use, {found['ideal']:.2f} times as fast as "
        f"in lock step. {found['rows_in_use']:.1f} rows were in use on average, over {found['windows']:,} "
        f"windows of {found['policy_steps'] / found['windows']:.1f} policy steps. Of the engine's thread "
        f"the host takes: {host}; the rest waits for the device. Compiling took "
        f"{found['warmup_seconds']:.1f} s.\n\n"
        f"{table(('system', 'tokens/s (best)'), systems)}\n"
        f"The unsteered half of {record['rows']} streams, and what the other half is:\n\n"
        f"{table(('streams', 'values read', 'tokens/s of the unsteered half'), beside)}\n"
        "Streams that are handed in at once to an engine that is idle:\n\n"
        f"{table(('streams', 'ms to the first token', 'ms between tokens'), first)}"
    )


def _serving(record: dict[str, Any]) -> str:
    columns = (
        *("streams", "server", "replies", "tokens/s (best)", "its engine alone", "server / engine"),
        *("ms to the first token, p50", "p95", "ms between tokens, p50", "p95", "tokens a chunk"),
    )
    rows = (
        (
            str(row["streams"]),
            row["system"],
            row["steering"],
            f"{row['tokens_per_second']:.0f} ({row['best_tokens_per_second']:.0f})",
            f"{row['engine_tokens_per_second']:.0f}" if "of_engine" in row else "",
            f"{row['of_engine']:.2f}" if "of_engine" in row else "",
            *(f"{row['first_token_ms'][name]:.0f}" for name in ("p50", "p95")),
            *(f"{row['between_tokens_ms'][name]:.1f}" for name in ("p50", "p95")),
            f"{row['tokens_per_chunk']:.1f}",
        )
        for row in record["rows"]
    )
    shares = {row["steering"]: row for row in record["rows"] if "steered" in row}
    steered = (
        (name, f"{row['steered']:.1%}", f"{row['shifted']:.1%}", f"{row['values_read']:.2f}")
        for name, row in shares.items()
    )
    targets = f"{_targets(record)}\n" if record["targets"] else ""
    failed = ", ".join(one["system"] for one in record["failed"])
    return (
        f'## The server, shape "{record["shape"]}"\n\n{_run(record)}'
        f"The server writes {record['rows_of_engine']} replies at a time. Load generator, server and network "
        "share the cores; the engine by itself, in a process without HTTP, has them alone, and gets the same "
        "requests. Times are the load generator's: the first token is the first text that comes, the time "
        "between tokens is that from a reply's first text to its last, over its tokens but one.\n"
        + (f"Failed, as the record says: {failed}.\n" if failed else "")
        + f"\n{targets}{table(columns, rows)}\n"
        "Of all tokens of the server's replies:\n\n"
        f"{table(('replies', 'steered', 'shifted', 'values read a token'), steered)}"
    )


def _decode_step(record: dict[str, Any]) -> str:
    rows = (
        (
            str(row["batch"]),
            row["system"],
            f"{row['ms_per_step']:.2f} ({row['best_ms_per_step']:.2f})",
            f"{row['tokens_per_second']:.0f}",
            f"{row['floor_ms']:.2f}, {row['floor_bound']}",
            f"{row['of_floor']:.2f}",
        )
        for row in record["rows"]
    )
    columns = ("batch", "system", "ms a step (best)", "tokens/s", "floor, ms", "floor / time")
    return (
        f'## One decoding step of a bare greedy loop, shape "{record["shape"]}"\n\n'
        f"{_run(record)}\n{table(columns, rows)}"
    )


def _systems(record: dict[str, Any]) -> str:
    columns = (
        "batch",
        "system",
        "new tokens",
        "tokens/s (best)",
        "ms for a token of each row",
        "policy's floor, ms",
        "steered",
        "policy steps",
        "value passes",
        "of their places used",
    )
    return table(columns, map(_system, record["rows"]))


def _system(row: dict[str, Any]) -> tuple[str, ...]:
    counts = row["counts"]
    computed = counts.get("value_computed", 0)
    return (
        str(row["batch"]),
        row["system"],
        str(row["new_tokens"]),
        f"{row['tokens_per_second']:.0f} ({row['best_tokens_per_second']:.0f})",
        f"{row['ms_per_token_of_each_row']:.2f}",
        f"{row['policy_floor_ms']:.2f}",
        f"{counts['steered']:.0%}" if counts else "",
        str(counts.get("policy_steps", "")),
        str(counts.get("value_calls", "")),
        f"{counts['value_needed'] / computed:.0%}" if computed else "",
    )


def _run(record: dict[str, Any]) -> str:
    config = record["config"]
    versions = ", ".join(
        f"{name} {number}"
        for name, number in (record["versions"] | record.get("baseline_versions", {})).items()
    )
    shape = (
        "{family}, {num_layers} layers, D {hidden_size}, F {intermediate_size}, N {num_heads}, "
        "K {num_kv_heads}, H {head_dim}, V {vocab_size}"
    ).format(**config)
    return (
        f"{record['device']}, {record['bandwidth_gb_per_s']:.1f} GB/s, "
        f"{record['peak_gflop_per_s']:.0f} GFLOP/s; commit {record['commit']}, {record['time']}, Python "
        f"{record['python']}, {versions}; load {record['load_average']:.1f} "
        f"(`{record.get('file', 'not saved')}`).\n"
        f"{shape}, {record.get('dtype', 'float32')}; {_sizes(record)}.\n"
    )


def _sizes(record: dict[str, Any]) -> str:
    if record["kind"] == "training":
        return (
            f"LoRA of rank 16, batches of 16 trajectories of {record['mean_tokens']:.0f} tokens in the mean, "
            f"rows of {record['row_length']}; median of {record['steps']} steps"
        )
    calls = "one call each" if record["kind"] == "compile" else f"median of {record['tries']}"
    return f"prompt {record['prompt_tokens']}, {record['new_tokens']} new tokens; {calls}"


_SECTIONS = {
    "compile": _compile,
    "decode_step": _decode_step,
    "engine": _engine,
    "gpu": _gpu,
    "sampler": _sampler,
    "sampler_sweep": _sampler_sweep,
    "serving": _serving,
    "training": _training,
}
