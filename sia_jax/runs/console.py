"""The terminal that all programs print to: what is printed there is text, whoever wrote it."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text, TextType

from sia_jax.files.pipes import leave
from sia_jax.files.shown import shown


class Terminal(Console):
    """A rich console for foreign text: no markup, no emoji codes, and nothing that commands the terminal.

    Whatever is rendered (lines, tables, progress) goes through `shown` before it is written; styles are given
    by `style=` and `Text` alone.

    Args:
      stderr: write to standard error rather than to standard output.
      options: of rich's Console.
    """

    def __init__(self, *, stderr: bool = False, **options: Any):
        plain = {"markup": False, "emoji": False, "highlight": False}
        super().__init__(stderr=stderr, **(options | plain))

    def say(self, text: str, style: str = "") -> None:
        """A line of text as it is, which the terminal's width does not break."""
        self.print(Text(shown(text), style), soft_wrap=True)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """rich's, with all text made visible; what rich itself commands stays."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        """rich's, of a text that is made visible before its width is measured."""
        return super().render_str(shown(text), **options)

    def on_broken_pipe(self) -> None:
        """rich's, with the status that shells expect."""
        self.quiet = True
        leave(self.file)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """rich's, which would take a text for markup."""
        return super().status(Text(shown(status)) if isinstance(status, str) else status, **options)

    def input(self, prompt: TextType = "", **options: Any) -> str:
        """rich's, which would take a text for markup."""
        return super().input(Text(shown(prompt)) if isinstance(prompt, str) else prompt, **options)
