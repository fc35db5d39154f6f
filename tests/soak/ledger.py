"""What a server ought to have counted, by those who asked it; and what it says that it has."""

import re
from collections import Counter
from collections.abc import Mapping

from tests.soak.recipes import Recipe

Counts = Mapping[str, float]

_LINE = re.compile(r"^([\w:]+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_USAGE = {
    "vllm:prompt_tokens_total": "prompt",
    "vllm:generation_tokens_total": "completion",
    "sia:steered_tokens_total": "steered",
    "sia:shifted_tokens_total": "shifted",
    "sia:values_read_total": "values_read",
    "sia:value_passes_total": "value_passes",
    "sia:policy_tokens_total": "policy_tokens",
    "sia:value_tokens_total": "value_tokens",
}
_OF_REPLIES = (
    "vllm:e2e_request_latency_seconds_count",
    "vllm:request_queue_time_seconds_count",
    "vllm:request_prompt_tokens_count",
    "vllm:request_generation_tokens_count",
    "sia:request_steered_ratio_count",
)
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
SUCCESS, REFUSED, HTTP = "vllm:request_success_total", "sia:refused_requests_total", "http_requests_total"
DISCONNECTS = "sia:disconnects_total"


def counts_of(exposition: str) -> dict[str, float]:
    """By name and labels but the model's: "http_requests_total handler=/health method=GET status=200".

    Args:
      exposition: Prometheus's text.
    """
    found = {}
    for name, labels, value in _LINE.findall(exposition):
        own = sorted(re.findall(r'(\w+)="([^"]*)"', labels))
        words = [f"{label}={text}" for label, text in own if label != "model_name"]
        found[" ".join([name, *words])] = float(value)
    return found


class Ledger:
    """What was asked and how it was answered; `certain` holds exactly, `possible` at most as much again.

    Of who left before the end it is known what may have come of it, and not what has.
    """

    def __init__(self) -> None:
        self.certain: Counter[str] = Counter()
        self.possible: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        """Requests of HTTP of who left, by method; each was counted once, whatever came of it."""

    def answered(self, method: str, handler: str, status: int) -> None:
        """A request was answered."""
        self.certain[_http(handler, method, status)] += 1

    def refused(self, status: int) -> None:
        """One was not admitted."""
        self.certain[f"{REFUSED} status={status}"] += 1

    def accepted(self, recipe: Recipe) -> None:
        """All of its replies were written."""
        self.certain.update(_of_recipe(recipe))

    def left_early(self, recipe: Recipe) -> None:
        """Its client left before the answer was whole: whatever had been written by then."""
        self.left["POST"] += 1
        for handler, status in (
            (recipe.route, 200),
            (recipe.route, 499),
            (recipe.route, 503),
            ("other", 499),
        ):
            self.possible[_http(handler, "POST", status)] += 1
        self.possible[f"{REFUSED} status=503"] += 1
        self.possible[DISCONNECTS] += 1
        self.possible.update(_of_recipe(recipe))
        self.possible[f"{SUCCESS} finished_reason=abort"] += len(recipe.replies)

    def differences(self, before: Counts, after: Counts) -> list[str]:
        """Where a server's counts have not grown as they ought to.

        Args:
          before: when this ledger was empty.
          after: now.
        """
        grown = {name: x - before.get(name, 0) for name, x in after.items()}
        found = []
        names = {*self.certain, *self.possible, *_names(grown)}
        for name in sorted(names):
            least, most = self.certain[name], self.certain[name] + self.possible[name]
            if not least <= grown.get(name, 0) <= most:
                found.append(f"{name} has grown by {grown.get(name, 0):g}, expected {least} .. {most}")
        whole = sum(x for name, x in grown.items() if name.startswith(HTTP + " "))
        expected = sum(x for name, x in self.certain.items() if name.startswith(HTTP + " "))
        if whole != expected + sum(self.left.values()):
            found.append(f"{whole:g} requests of HTTP, expected {expected + sum(self.left.values())}")
        begun = grown.get("vllm:request_params_n_sum", 0)
        ended = sum(x for name, x in grown.items() if name.startswith(SUCCESS))
        if begun != ended:
            found.append(f"{begun:g} replies were asked for and {ended:g} have ended")
        found += [f"{name} is {after[name]:g}, expected 0" for name in GAUGES if after[name]]
        return found


def _names(grown: Counts) -> list[str]:
    """Of counters that nothing else may have moved."""
    prefixes = (HTTP + " ", SUCCESS, REFUSED, DISCONNECTS)
    return [name for name in grown if name.startswith(prefixes)]


def _http(handler: str, method: str, status: int) -> str:
    return f"{HTTP} handler={handler} method={method} status={status}"


def _of_recipe(recipe: Recipe) -> Counter[str]:
    found: Counter[str] = Counter()
    n = len(recipe.replies) // recipe.prompts
    found["vllm:request_params_n_count"] = found["vllm:request_params_max_tokens_count"] = recipe.prompts
    found["vllm:request_params_n_sum"] = n * recipe.prompts
    found["vllm:request_params_max_tokens_sum"] = recipe.body["max_tokens"] * recipe.prompts
    for reply in recipe.replies:
        found[f"{SUCCESS} finished_reason={reply.finish_reason.name.lower()}"] += 1
        for name, own in _USAGE.items():
            found[name] += getattr(reply.usage, own)
        for name in _OF_REPLIES:
            found[name] += 1
        found["vllm:time_to_first_token_seconds_count"] += 1
        found["vllm:inter_token_latency_seconds_count"] += reply.usage.completion - 1
    return found
