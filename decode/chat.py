r"""Talk with a steered model.

    python -m decode.chat --policy Qwen/Qwen3-1.7B-Base --value out/vm/best
    python -m decode.chat --policy Qwen/Qwen3-1.7B-Base --value out/vm/best \
        --stop "Human:" --threshold 1.2
    echo "How do I keep basil alive in winter?" | python -m decode.chat --policy Qwen/Qwen3-1.7B

The conversation is kept. Junctions are magenta, and underlined where the value model changed the token. /help
lists the commands: /compare shows the last reply beside what the policy alone would have said, /candidates
what stood to choice at its junctions, and /threshold, /beta, /temperature and /seed change the numbers. A
turn that begins with a slash is typed with two. Ctrl-C clears the line, or drops the reply that is being
written; end of file or /quit ends the program.

Of a turn the models read only what is new. The first of its kind compiles what reads it: a longer one, or one
that the policy reads alone, as it does for /compare and at a threshold of inf. Other numbers compile nothing.
"""

import contextlib
import functools
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rich.text import Text

from sia_jax.engine.handle import Handle
from sia_jax.engine.reply import Reply
from sia_jax.engine.stops import split_stops
from sia_jax.reports.terminal import ReplyStream, candidates_table, legend, side_by_side, summary
from sia_jax.runs import runner
from sia_jax.runs.cli import Int, memory_explained, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.partner import Partner, longest_conversation
from sia_jax.runs.progress import waiting
from sia_jax.text.decoder import token_text


@dataclass(frozen=True, kw_only=True)
class Args(SamplingArgs):
    """Talk with a model."""

    max_length: Int = None
    """Tokens of the longest conversation, its last reply among them; short ones take no memory for it.
    Default 4096, more where --max-new-tokens is, or what the models hold."""


def main(args: Args) -> None:
    """Talk until the input ends; exits with 1 if something is wrong with options or files."""
    console = Terminal()
    with program("decode.chat", MemoryError):
        runner.check_options(args)
        policy = runner.prepare(args)
        if policy.tokenizer is None:
            raise ValueError(f"{args.policy} has no tokenizer, and a conversation needs one")
        split_stops(policy.tokenizer, args.stop)
        longest_conversation(args, args.max_length, policy.config.max_position_embeddings)
        with waiting(console, "loading the models"):
            chat = Chat(args, runner.load_models(args), console)
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (arrow keys and history in input())
    with contextlib.closing(chat):
        chat.greet()
        _talk(chat, console)


def _talk(chat: "Chat", console: Terminal) -> None:
    while True:
        try:
            line = console.input(Text("> ", "bold"))
        except KeyboardInterrupt:  # what was typed is dropped, as in a shell
            console.print()
            continue
        except EOFError:
            console.print()
            return
        except UnicodeDecodeError as error:
            console.print(Text(f"that line is not UTF-8 ({error}); left out", "red"))
            continue
        if not sys.stdin.isatty():
            console.print(Text(line, "bold"))
        try:
            with memory_explained("/reset begins a shorter conversation"):
                if not chat.take(line.strip()):
                    return
        except (ValueError, MemoryError) as error:
            console.print(Text(str(error), "red"))
        except KeyboardInterrupt:
            console.print("dropped", style="dim")


class Chat:
    """A conversation, its settings, and the commands.

    Args:
      args: the settings that it begins with.
      models: loaded, the policy with a tokenizer.
      console: where everything is shown.

    Raises:
      ValueError: lengths that the models do not hold.
      MemoryError: conversations of such lengths do not fit.
    """

    def __init__(self, args: Args, models: Models, console: Terminal):
        self.args = args
        self.models = models
        self.console = console
        self.partner = Partner(models, args, args.max_length)
        self.messages: list[dict[str, str]] = []
        self.last: Reply | None = None
        self._last_args = args
        """What the last reply was written with."""
        self._commands: dict[str, tuple[str, Callable[[str, str], None]]] = {
            "/reset": ("forget the conversation", self._reset),
            "/threshold": (
                "entropy in nats from which tokens are steered; inf: none, -inf: all",
                self._number,
            ),
            "/beta": ("strength of the steering", self._number),
            "/temperature": ("0: always the best token", self._number),
            "/seed": ("of everything random", self._number),
            "/compare": ("the last reply beside what the policy alone would have said", self._compare),
            "/candidates": ("what stood to choice at the junctions of the last reply", self._candidates),
            "/help": ("this", self._help),
            "/quit": ("end; so does the end of the input", self._help),
            "//": ("a turn that begins with a slash: //etc says /etc", self._help),
        }
        self._reset()

    def greet(self) -> None:
        """Say who is there."""
        value = self.models.value
        steered = f", steered by {value.name}" if value is not None else ", not steered"
        self.console.print(Text.assemble((self.models.policy.name, "bold"), steered, ("  /help", "dim")))
        if value is not None:
            self.console.print(legend())
        assert self.partner.prompting is not None  # the policy has a tokenizer
        for line in self.partner.prompting.why:
            self.console.print(Text(line, "dim"), soft_wrap=True)

    def take(self, line: str) -> bool:
        """Obey a command, or reply to a turn; False if the conversation is over.

        Raises:
          ValueError: a number that cannot be, or a conversation that has become too long; nothing has changed
            then.
        """
        if line.startswith("/") and not line.startswith("//"):
            command, _, rest = line.partition(" ")
            if command == "/quit":
                return False
            if command not in self._commands:
                raise ValueError(
                    f"there is no {command}; /help lists the commands, and a turn that begins with a slash "
                    f"is typed with two: /{command}"
                )
            self._commands[command][1](command[1:], rest.strip())
        elif line:
            line = line.removeprefix("/")
            turns = [*self.messages, {"role": "user", "content": line}]
            reply, seconds = self._reply(turns, self.args)
            steered = self.models.value is not None
            self.console.print(Text(summary(reply, seconds, steered=steered), "dim"))
            self.messages = [*turns, {"role": "assistant", "content": reply.text}]
            self.last = reply
            self._last_args = self.args
        return True

    def close(self) -> None:
        """End what generates."""
        self.partner.close()

    def _reply(self, turns: list[dict[str, str]], args: Args, *, alone: bool = False) -> tuple[Reply, float]:
        """The reply to a conversation, and the seconds it took.

        Args:
          turns: the last one the user's.
          args: the numbers.
          alone: of the policy alone, which is not shown as it is written.
        """
        try:
            request = self.partner.request(turns, args, alone=alone)
        except ValueError as error:
            raise ValueError(f"{error}; /reset begins anew") from None
        with self.partner.asked(request, self._compiling, alone=alone) as handle:
            begin = time.perf_counter()
            if not alone:
                self._show(handle)
            with waiting(self.console, "writing") if alone else contextlib.nullcontext():
                return handle.result(), time.perf_counter() - begin

    def _compiling(self) -> contextlib.AbstractContextManager[None]:
        return waiting(self.console, "compiling for turns such as this, once")

    def _show(self, handle: Handle) -> None:
        """Show a reply as it is written."""
        stream, pieces = ReplyStream(self.models.policy.tokenizer), iter(handle)
        with waiting(self.console, "writing"):
            first = next(pieces)
        try:
            for piece in itertools.chain([first], pieces):
                with self.partner.engine().tokenizing:
                    text = stream.push(piece)
                # The terminal breaks lines: where the next piece begins to be shown, rich does not know.
                self.console.print(text, end="", soft_wrap=True)
        finally:
            self.console.print()

    def _reset(self, *_: str) -> None:
        self.last = None
        self.messages = []
        if self.args.system is not None:
            self.messages = [{"role": "system", "content": self.args.system}]

    def _number(self, name: str, text: str) -> None:
        if text:
            try:
                number: Any = int(text) if name == "seed" else float(text)
            except ValueError:
                raise ValueError(f"/{name} takes a number, got {text!r}") from None
            changed = replace(self.args, **{name: number})
            runner.check_options(changed)
            runner.check_numbers(changed, self.models.policy)
            self.args = changed
        self.console.print(f"{name} {self._setting(name)}", style="dim", highlight=False)

    def _setting(self, name: str, args: Args | None = None) -> str:
        args = args or self.args
        if name == "threshold":
            return f"{runner.threshold(args):g}"
        value = getattr(args, name)
        return f"{getattr(runner.steering(args), name) if value is None else value:g}"

    def _compare(self, *_: str) -> None:
        if self.models.value is None:
            raise ValueError("without a value model there is nothing to compare: start with --value DIR")
        if self.last is None:
            raise ValueError("there is no reply yet")
        with_ = self._last_args
        base, _seconds = self._reply(self.messages[:-1], with_, alone=True)
        how = f"{runner.where(with_, runner.threshold(with_))}, beta {self._setting('beta', with_)}"
        self.console.print(side_by_side(base, self.last, ("base", f"steered, {how}")))

    def _candidates(self, *_: str) -> None:
        if self.last is None:
            raise ValueError("there is no reply yet")
        if not self.last.num_junctions:
            self.console.print("the last reply has no junctions", style="dim")
            return
        name = functools.partial(token_text, self.models.policy.tokenizer)
        self.console.print(candidates_table(self.last, name))

    def _help(self, *_: str) -> None:
        for command, (what, _function) in self._commands.items():
            name = command[1:]
            now = (
                f" (now {self._setting(name)})"
                if name in ("threshold", "beta", "temperature", "seed")
                else ""
            )
            self.console.print(Text.assemble((f"{command:14}", "bold"), what, (now, "dim")))


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
