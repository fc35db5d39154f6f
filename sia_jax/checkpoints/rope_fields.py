"""The rotary fields of config.json, in the spellings that transformers has used, read as it reads them.

Up to 4.x the base stands at the top as `rope_theta`, and a scaling of the frequencies in `rope_scaling`; 5.x
writes one object, `rope_parameters`. `original_max_position_embeddings` may stand at the top too, and counts
before the one in the object (transformers, modeling_rope_utils.py, standardize_rope_params). What would
rotate otherwise than this network does is refused.
"""

from typing import Any

from sia_jax.checkpoints.values import is_number, is_positive, is_set
from sia_jax.files.shown import shown_value
from sia_jax.models.config import Llama3Scaling, RopeConfig

_CONTEXT = "original_max_position_embeddings"
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", _CONTEXT)
_TYPES = ("rope_type", "type")
_OBJECTS = ("rope_parameters", "rope_scaling")
_IN_OBJECT = {"rope_theta", "partial_rotary_factor", *_TYPES, *_LLAMA3}

AT_TOP = frozenset({"rope_theta", "partial_rotary_factor", _CONTEXT, *_OBJECTS})
"""The fields of config.json that say how the network rotates."""


def parse_rope(raw: dict[str, Any]) -> tuple[RopeConfig | None, list[str]]:
    """The rotary embedding that a config.json describes.

    Args:
      raw: the whole file, parsed; of any types.

    Returns:
      (the embedding, no problems), or (None, what is wrong with its fields, one line each).
    """
    problems = [
        f"{name} is {shown_value(raw[name])}, expected an object or null"
        for name in _OBJECTS
        if raw.get(name) is not None and not isinstance(raw[name], dict)
    ]
    problems += [
        f"{shown_value(name)} is {shown_value(value)}, which is not known here, and would rotate otherwise"
        for name, value in raw.items()
        if name.startswith(("rope", "rotary")) and name not in AT_TOP and is_set(value)
    ]
    if problems:
        return None, problems
    new, old = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    differ = any(new[key] != old[key] for key in set(new) & set(old))
    if differ or (new and old and set(old) - set(new)):
        return None, [f"rope_scaling and rope_parameters disagree: {shown_value(old)} and {shown_value(new)}"]
    fields = {**old, **new}
    unknown = {key: value for key, value in fields.items() if key not in _IN_OBJECT and is_set(value)}
    if unknown:
        name = "rope_parameters" if new else "rope_scaling"
        return None, [
            f"{name} has {shown_value(unknown)}, expected no fields but {', '.join(sorted(_IN_OBJECT))}"
        ]
    partial = [
        f["partial_rotary_factor"] for f in (raw, fields) if f.get("partial_rotary_factor") is not None
    ]
    if any(factor != 1 for factor in partial):
        return None, [f"partial_rotary_factor {shown_value(partial[0])} is not supported, expected 1"]
    return _rope(raw, fields)


def _rope(raw: dict[str, Any], fields: dict[str, Any]) -> tuple[RopeConfig | None, list[str]]:
    """The base and the scaling; `fields` are those of the object."""
    thetas = [theta for theta in (raw.get("rope_theta"), fields.get("rope_theta")) if theta is not None]
    if not thetas:
        return None, ["rope theta is missing: neither rope_parameters.rope_theta nor rope_theta is present"]
    wrong = [theta for theta in thetas if not is_positive(theta)]
    if wrong:
        return None, [f"rope_theta (rope theta) is {shown_value(wrong[0])}, expected a number above 0"]
    if len(set(thetas)) > 1:
        return None, [f"rope_theta and rope_parameters disagree: {sorted(set(thetas))}"]
    theta = float(thetas[0])
    types = [fields[name] for name in _TYPES if name in fields]
    if types and types[0] != types[-1]:
        return None, [
            f"rope_type {shown_value(types[0])} and type {shown_value(types[1])} disagree, two names of one "
            "thing; copy the object from the original checkpoint"
        ]
    scaling = {name: fields[name] for name in _LLAMA3[:3] if fields.get(name) is not None}
    if scaling and not types and not _is_one(scaling.get("factor")):
        return None, [
            f"rope scaling by {shown_value(scaling)} without its type, expected a rope_type beside them; "
            "copy the object from the original checkpoint"
        ]
    rope_type = types[0] if types else "default"
    if rope_type == "default":  # whatever numbers stand beside it, as in transformers
        return RopeConfig(theta), []
    if rope_type != "llama3":
        return None, [f"rope type {shown_value(rope_type)} is not supported, expected 'default' or 'llama3'"]
    if _CONTEXT in raw:
        fields = fields | {_CONTEXT: raw[_CONTEXT]}
    missing = [name for name in _LLAMA3 if fields.get(name) is None]
    if missing:
        return None, [f"llama3 rope scaling lacks {missing}"]
    factor, low, high, context = (fields[name] for name in _LLAMA3)
    whole = context == int(context) if is_positive(context) else False
    if not (whole and all(map(is_positive, (factor, low, high))) and factor >= 1 and low < high):
        impossible = {name: fields[name] for name in _LLAMA3}
        return None, [f"llama3 rope scaling has impossible values: {shown_value(impossible)}"]
    return RopeConfig(theta, Llama3Scaling(float(factor), float(low), float(high), int(context))), []


def _is_one(factor: Any) -> bool:
    """Whether a factor scales nothing."""
    return is_number(factor) and factor == 1
