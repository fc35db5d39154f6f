"""When the world's parts were fixed: its commits stand beside what was measured in it."""

from pathlib import Path

from sia_jax.runs.provenance import last_commit

_PARTS = {
    "the world's gold reward": ("gold.py", "reading.py"),
    "its prompts and splits": (
        *("prompts.py", "activities.py", "circumstances.py", "mischief.py", "facts.py", "streams.py"),
    ),
    "its grammar": (*("grammar.py", "junctions.py", "phrases.py", "helpful.py", "harmless.py", "honest.py"),),
}


def world_commits() -> dict[str, str]:
    """The last commits of grammar, gold reward and splits of the world."""
    folder = Path(__file__).parent
    return {what: last_commit([folder / name for name in names], folder) for what, names in _PARTS.items()}
