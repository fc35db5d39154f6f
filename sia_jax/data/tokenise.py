"""Conversations as records: the value model's own prompt, and the reply in its ids."""

import numpy as np

from sia_jax.data.chat import Tokenizer, turn_end, value_prompt
from sia_jax.data.records import Record
from sia_jax.data.sources.conversations import Conversation
from sia_jax.models.config import Family


def tokenise(tokenizer: Tokenizer, conversation: Conversation, family: Family) -> Record:
    """The ids that a value model learns from.

    prompt_ids = value_prompt(all messages but the last), reply_ids = encode(reply) + [turn end]. A reply that
    was cut by length gets no turn end. The reply is tokenised by itself, as the sampler meets it: no token
    spans prompt and reply. (The official code appends one of two stop tokens at random; this is always the
    one that ends a turn in the prompt.)

    Args:
      tokenizer: the value model's.
      conversation: its reply is as the model wrote it.
      family: of the value model's backbone.

    Raises:
      ValueError: a tokenizer without the family's special tokens.
    """
    *prompt, reply = conversation.messages
    reply_ids = tokenizer.encode(reply["content"], add_special_tokens=False)
    if conversation.complete:
        reply_ids = [*reply_ids, stop_id(tokenizer, family)]
    return Record(
        id=conversation.id,
        group=conversation.group,
        messages=conversation.messages,
        prompt_ids=np.array(value_prompt(tokenizer, prompt, family), np.int32),
        reply_ids=np.array(reply_ids, np.int32),
        reward=conversation.reward,
    )


def stop_id(tokenizer: Tokenizer, family: Family) -> int:
    """The id that ends a complete reply: <|im_end|> of Qwen3, <|eot_id|> of Llama.

    Raises:
      ValueError: the tokenizer has no such token.
    """
    token = turn_end(family)
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer lacks the special token {token!r} of family "
            f"{family!r}; use the value model's own tokenizer"
        )
    return int(ids[0])
