"""Conversations as records: the value model's own prompt, and the reply in its ids."""

import numpy as np

from sia_jax.data.records import Record
from sia_jax.data.sources.conversations import Conversation
from sia_jax.text.chat import value_prompt
from sia_jax.text.markup import Markup, check_markup
from sia_jax.text.tokenizer import Tokenizer, exact_ids


def tokenise(tokenizer: Tokenizer, conversation: Conversation, markup: Markup) -> Record:
    """The ids that a value model learns from.

    prompt_ids = value_prompt(all messages but the last), reply_ids = encode(reply) + [turn end]. A reply that
    was cut by length gets no turn end. The reply is tokenised by itself, as the sampler meets it: no token
    spans prompt and reply. (The official code appends one of two stop tokens at random; this is always the
    one that ends a turn in the prompt.)

    Args:
      tokenizer: the value model's.
      conversation: its reply is as the model wrote it.
      markup: the value model's.

    Raises:
      ValueError: a tokenizer without the markup's special tokens.
    """
    *prompt, reply = conversation.messages
    reply_ids = exact_ids(tokenizer, reply["content"])
    if conversation.complete:
        reply_ids = [*reply_ids, stop_id(tokenizer, markup)]
    return Record(
        id=conversation.id,
        group=conversation.group,
        messages=conversation.messages,
        prompt_ids=np.array(value_prompt(tokenizer, prompt, markup), np.int32),
        reply_ids=np.array(reply_ids, np.int32),
        reward=conversation.reward,
    )


def stop_id(tokenizer: Tokenizer, markup: Markup) -> int:
    """The id that ends a complete reply: <|im_end|> of ChatML, <|eot_id|> of Llama 3.

    Raises:
      ValueError: the tokenizer lacks the markup's special tokens.
    """
    check_markup(tokenizer, markup)
    (index,) = exact_ids(tokenizer, markup.turn_end)
    return index
