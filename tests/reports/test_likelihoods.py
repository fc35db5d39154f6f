"""The section of perplexities and KL: what stands in its cells, and where nothing does."""

from typing import Any

from sia_jax.reports.likelihoods import likelihoods_section


def interval(mean: float | None) -> dict[str, Any]:
    if mean is None:
        return {"mean": None, "low": None, "high": None, "why": "no reply with a number"}
    return {"mean": mean, "low": mean - 0.5, "high": mean + 0.5}


def perplexity(mean: float | None, unscored: int = 0, **over: float) -> dict[str, Any]:
    ratios = {rival: interval(ratio) for rival, ratio in over.items()}
    return {"perplexity": interval(mean), "over": ratios, "unscored": unscored}


def cells(text: str) -> dict[str, list[str]]:
    """Of each line of the table, by its first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: [cell.strip() for cell in line[1:]] for line in lines}


ROWS: list[dict[str, Any]] = [
    {"name": "base", "perplexities": {"policy": perplexity(5.0), "fluency": perplexity(9.0, 2)}},
    {
        "name": "dense",
        "perplexities": {"policy": perplexity(6.0, base=1.2), "fluency": perplexity(None, 7, base=1.25)},
        "kl": {"reply": interval(3.0), "token": interval(0.6), "is_bound": False},
    },
    {"name": "best", "kl": {"reply": interval(2.0), "is_bound": True}},
    {"name": "old"},
]


def test_every_method_has_its_perplexities_their_ratios_and_its_kl() -> None:
    text = likelihoods_section({"rows": ROWS, "settings": {"fluency": "Qwen3-4B"}})
    found = cells(text)
    assert list(found) == ["method", "---", "base", "dense", "best"]
    assert found["method"] == [
        *("perplexity, policy", "/ base", "/ dense", "perplexity, fluency", "/ base", "/ dense"),
        *("KL a reply, nats", "KL a token, nats"),
    ]
    assert found["base"][:4] == ["5.00 [4.50, 5.50]", "", "", "9.00 [8.50, 9.50]"]
    assert found["dense"][:3] == ["6.00 [5.50, 6.50]", "1.200 [0.700, 1.700]", ""]
    assert found["dense"][3:5] == ["?", "1.250 [0.750, 1.750]"]
    assert found["dense"][6:] == ["3.000 [2.500, 3.500]", "0.600 [0.100, 1.100]"]
    assert found["best"][6:][0] == "≤ 2.000 [1.500, 2.500]"
    assert "Fluency is under `Qwen3-4B`" in text
    assert "left out with their partners: base: 2, dense: 7." in text


def test_of_one_model_there_are_its_columns_alone_and_without_any_there_is_no_section() -> None:
    rows = [{"name": "base", "perplexities": {"policy": perplexity(5.0)}}]
    text = likelihoods_section({"rows": rows})
    assert "fluency" not in text.lower()
    assert "left out" not in text
    assert likelihoods_section({"rows": [{"name": "old"}]}) == ""
