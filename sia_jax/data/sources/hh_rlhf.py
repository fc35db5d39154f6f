r"""HH-RLHF: transcripts "\n\nHuman: ...\n\nAssistant: ..." with a chosen and a rejected reply."""

from collections.abc import Iterable, Iterator

from sia_jax.data.sources.conversations import Entry, Rejected, entry, prompt_group
from sia_jax.data.sources.rows import Row
from sia_jax.text.chat import Message
from sia_jax.text.messages import parse_transcript, read_messages

WHAT = "HH-RLHF"
REQUIRED = ("chosen", "rejected")
OPTIONAL = ("prompt", "response")


def read_hh_rlhf(rows: Iterable[Row], *, with_replies: bool = True) -> Iterator[Entry]:
    """Both replies of every row, as one group.

    Rows with a `prompt` are those of Dahoas/full-hh-rlhf, where `chosen` and `rejected` are the replies
    alone; a `response` that is neither is a third. Rows without are Anthropic's: two whole transcripts, which
    should differ in the last reply; where they part earlier, each keeps its own prompt. Lists of messages, as
    TRL has them, are read too.

    Args:
      rows: of Parquet or JSONL files.
      with_replies: False: the prompt of each reply.

    Raises:
      ValueError: a row that is not of HH-RLHF.
    """
    for row in rows:
        if isinstance(row.fields["chosen"], list):
            yield from _pair(row, with_replies)
            continue
        replies = [row.text("chosen"), row.text("rejected")]
        third = row.text("response")
        group = None
        for kind, text in zip(("chosen", "rejected", "response"), [*replies, third], strict=True):
            if kind == "response" and (third is None or third in replies):
                continue
            place = f"{row.place}, {kind}"
            try:
                prompt, reply = _turns(row, text)
            except ValueError as error:
                yield Rejected("not a transcript", f"{place} ({error})")
                continue
            group = group or prompt_group(prompt)
            yield entry(place, f"{row.name}:{kind}", prompt, reply, with_reply=with_replies, group=group)


def _turns(row: Row, text: str | None) -> tuple[list[Message], str | None]:
    """(the prompt's messages, the reply)."""
    if "prompt" not in row.fields:
        turns = parse_transcript(text or "")
        return (turns[:-1], turns[-1]["content"]) if turns[-1]["role"] == "assistant" else (turns, None)
    turns = parse_transcript(row.text("prompt") or "")
    if turns[-1] != {"role": "assistant", "content": ""}:
        raise ValueError(f"the prompt must end with 'Assistant:', got {row.fields['prompt'][-40:]!r}")
    return turns[:-1], None if text is None else text.strip()


def _pair(row: Row, with_replies: bool) -> Iterator[Entry]:
    """TRL's pairs: two conversations as messages, or two replies to a prompt of messages."""
    group = None
    for kind in ("chosen", "rejected"):
        place = f"{row.place}, {kind}"
        try:
            messages = read_messages(row.fields[kind], kind)
            if isinstance(row.fields.get("prompt"), list):
                prompt = read_messages(row.fields["prompt"], "prompt")
                messages = messages if messages[: len(prompt)] == prompt else [*prompt, *messages]
        except ValueError as error:
            yield Rejected("not a conversation", f"{place} ({error})")
            continue
        is_finished = bool(messages) and messages[-1]["role"] == "assistant"
        prompt, reply = (messages[:-1], messages[-1]["content"]) if is_finished else (messages, None)
        group = group or prompt_group(prompt)
        yield entry(place, f"{row.name}:{kind}", prompt, reply, with_reply=with_replies, group=group)
