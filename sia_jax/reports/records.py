"""Records of a prepared set in a terminal, as the value model sees them: their ids, token by token."""

from collections.abc import Sequence

from rich.text import Text

from sia_jax.data.records import Record, RecordSource
from sia_jax.data.tokenise import stop_id
from sia_jax.files.shown import shown
from sia_jax.text.decoder import token_text
from sia_jax.text.markup import markup_of, markup_of_set
from sia_jax.text.token_ids import num_tokens
from sia_jax.text.tokenizer import Tokenizer

COLOURS = ("green", "cyan")
"""Of neighbouring tokens of a reply."""


def heading(source: RecordSource, number: int, tokenizer: Tokenizer) -> Text:
    """'record 3 of 120: id mine:4, group g2; 41 tokens of prompt, 96 of reply, reward 0.52'.

    Raises:
      ValueError: ids that the tokenizer does not know: the set was made with another one.
    """
    record = source[number]
    known = num_tokens(tokenizer)
    unknown = sorted({int(i) for i in (*record.prompt_ids, *record.reply_ids) if i >= known})
    if unknown:
        raise ValueError(
            f"record {number} has ids that the tokenizer does not know, {unknown[:5]}: name the one that the "
            "set was made with"
        )
    reward = "no reward" if record.reward is None else f"reward {record.reward:.4g}"
    markup = markup_of_set(source.meta, str(source.folder), tokenizer) or markup_of(tokenizer)
    cut = "" if record.reply_ids[-1] == stop_id(tokenizer, markup) else ", cut by length"
    return Text(
        f"record {number:,} of {len(source):,}: id {shown(record.id)}, group {shown(record.group)}; "
        f"{len(record.prompt_ids)} tokens of prompt, {len(record.reply_ids)} of reply{cut}, {reward}",
        "bold",
    )


def tokens(record: Record, tokenizer: Tokenizer, with_ids: bool) -> Text:
    """The record's tokens, one after the other."""
    text = Text()
    for style, ids in (("dim", record.prompt_ids.tolist()), (None, record.reply_ids.tolist())):
        _append(text, ids, tokenizer, style, with_ids)
    return text


def _append(text: Text, ids: Sequence[int], tokenizer: Tokenizer, style: str | None, with_ids: bool) -> None:
    for place, token in enumerate(ids):
        colour = style or COLOURS[place % len(COLOURS)]
        says = shown(token_text(tokenizer, token)).replace("\n", "⏎\n")
        text.append(says or "∅", colour)
        if with_ids:
            text.append(f"·{token} ", "dim")
