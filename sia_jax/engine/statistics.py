"""What an engine has done, in numbers."""

from dataclasses import dataclass, field
from typing import Any

from sia_jax.engine.reply import Reply

SECONDS = ("device", "idle", "admission", "dispatch", "text")
"""What an engine's thread spends its time with: waiting for the device or for requests, admitting, beginning
windows, making text."""


@dataclass
class Statistics:
    """Totals since the engine was made; a snapshot of them is what `Engine.statistics` gives."""

    requests: int = 0
    """Handed in."""
    replies: int = 0
    """That are whole, n of a request."""
    ended: dict[str, int] = field(default_factory=dict)
    """Of them by the names of their reasons."""
    waiting: int = 0
    """Replies in the queue now."""
    in_rows: int = 0
    """Replies that are being written now."""
    prompt_tokens: int = 0
    reused_tokens: int = 0
    """Ids of the policy's prompts that rows held already, and that were not read again."""
    completion_tokens: int = 0
    steered_tokens: int = 0
    shifted_tokens: int = 0
    policy_tokens: int = 0
    value_tokens: int = 0
    values_read: int = 0
    """Candidates whose values decided."""
    value_passes: int = 0
    """Tokens that values decided, each by a pass but with a head on the policy's states."""

    admissions: int = 0
    """Calls in which prompts were read."""
    windows: int = 0
    policy_steps: int = 0
    value_calls: int = 0
    """Passes of the value model, each of which may serve several rows."""
    scorings: int = 0
    """Calls in which prompts were scored."""
    scored_tokens: int = 0
    """Ids of those prompts."""
    rows_in_use: float = 0.0
    """Rows with a reply, on average over windows."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS, 0.0))
    """Of the engine's thread, by `SECONDS`."""

    def count_reply(self, reply: Reply) -> None:
        """Add a reply that is whole."""
        self.replies += 1
        name = reply.finish_reason.name.lower()
        self.ended[name] = self.ended.get(name, 0) + 1
        usage = reply.usage
        self.prompt_tokens += usage.prompt
        self.completion_tokens += usage.completion
        self.steered_tokens += usage.steered
        self.shifted_tokens += usage.shifted
        self.policy_tokens += usage.policy_tokens
        self.value_tokens += usage.value_tokens
        self.values_read += usage.values_read
        self.value_passes += usage.value_passes

    def count_window(self, report: Any, in_use: int) -> None:
        """Add a window that `in_use` rows took part in."""
        self.windows += 1
        self.policy_steps += int(report.policy_steps)
        self.value_calls += int(report.value_calls)
        self.rows_in_use += (in_use - self.rows_in_use) / self.windows
