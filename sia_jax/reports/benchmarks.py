"""docs/benchmarks.md, made from the recorded runs."""

import json
from pathlib import Path
from typing import Any


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
    sections = [_SECTIONS[record["kind"]](record) for record in newest.values()]
    head = (
        "# Benchmarks\n\n"
        "Made by `python -m decode.benchmark` from the records in `benchmarks/`; not edited by hand.\n"
        "A floor is the larger of bytes over bandwidth and FLOPs over peak, both measured in the same run.\n"
    )
    page.write_text("\n".join([head, *sections]))


def _decode_step(record: dict[str, Any]) -> str:
    shape = _SHAPE.format(**record["config"])
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    head = (
        '## One decoding step, shape "{shape}"\n\n'
        "{device}, {bandwidth_gb_per_s:.1f} GB/s, {peak_gflop_per_s:.0f} GFLOP/s; commit {commit}, {time}, "
        "Python {python}, {all_versions}; load {load_average:.1f} (`{file}`).\n"
        "{config_text}, float32; prompt {prompt_tokens}, {new_tokens} new tokens, greedy; median of {tries}."
        "\n\n"
        "| batch | system | ms a step (best) | tokens/s | floor, ms | floor / time | same tokens |\n"
        "|--:|---|--:|--:|--:|--:|--:|\n"
    ).format(**record, all_versions=versions, config_text=shape)
    row = (
        "| {batch} | {system} | {ms_per_step:.2f} ({best_ms_per_step:.2f}) | {tokens_per_second:.0f} "
        "| {floor_ms:.2f}, {floor_bound} | {of_floor:.2f} | {same_tokens_as_sia_jax:.0%} |\n"
    )
    return head + "".join(row.format(**values) for values in record["rows"])


_SHAPE = (
    "{family}, {num_layers} layers, D {hidden_size}, F {intermediate_size}, N {num_heads}, K {num_kv_heads}, "
    "H {head_dim}, V {vocab_size}"
)
_SECTIONS = {"decode_step": _decode_step}
