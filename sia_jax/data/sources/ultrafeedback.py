"""UltraFeedback: instructions with several completions each."""

from collections.abc import Iterable, Iterator

from sia_jax.data.sources.conversations import Entry, Rejected, entry
from sia_jax.data.sources.rows import Row
from sia_jax.files.shown import shown_value

WHAT = "UltraFeedback"
REQUIRED = ("instruction", "completions")


def read_ultrafeedback(
    rows: Iterable[Row], *, system_prompts: bool = True, with_replies: bool = True
) -> Iterator[Entry]:
    """Every completion of every instruction.

    A completion was written under its `custom_system_prompt`, which most have; it stays as the system
    message, because without it the prompt is not the one that was answered. (The official code drops it.) The
    completions carry no mark of how they ended; they are taken as complete.

    Args:
      rows: of the .jsonl files.
      system_prompts: False leaves the system messages out, as the official code does.
      with_replies: False: the prompt of each completion, and of an instruction that has none.

    Raises:
      ValueError: a row that is not of UltraFeedback.
    """
    for row in rows:
        instruction = row.text("instruction")
        completions = row.fields["completions"]
        if not isinstance(completions, list):
            raise ValueError(
                f"{row.place}: 'completions' of {WHAT} must be a list, got {type(completions).__name__}"
            )
        if not completions and with_replies:
            yield Rejected("no reply", row.place)
        elif not completions:
            prompt = [{"role": "user", "content": instruction or ""}]
            yield entry(row.place, row.name, prompt, None, with_reply=False)
        for index, completion in enumerate(completions):
            place = f"{row.place}, completion {index + 1}"
            if not isinstance(completion, dict) or "response" not in completion:
                raise ValueError(f"{place}: it must have a 'response', got {shown_value(completion, 60)}")
            fields = Row(row.file, row.number, place, completion)
            system = fields.text("custom_system_prompt") if system_prompts else None
            prompt = [{"role": "user", "content": instruction or ""}]
            if system and system.strip():
                prompt.insert(0, {"role": "system", "content": system})
            name, reply = f"{row.name}:{index + 1}", fields.text("response")
            yield entry(place, name, prompt, reply, with_reply=with_replies)
