"""How positive a reply is, as a reward: the classic task of steered decoding."""

from collections.abc import Sequence
from functools import cache

from sia_jax.extras import installed_with
from sia_jax.text.chat import Message

with installed_with("sentiment"):
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


def vader(conversations: Sequence[Sequence[Message]]) -> list[float]:
    """R = 2 c of the last message, where c in [-1, 1] is VADER's compound score; R in [-2, 2], 0 for no text.

    Args:
      conversations: any language is read, and English alone is understood.

    Source: Hutto and Gilbert, VADER, ICWSM 2014; the package vaderSentiment is theirs.

    Examples:
      >>> replies = ("A great, lovely day.", "An awful day.", "")
      >>> vader([[{"role": "assistant", "content": text}] for text in replies])
      [1.672, -0.9176, 0.0]
    """
    analyzer = _analyzer()
    return [2.0 * analyzer.polarity_scores(messages[-1]["content"])["compound"] for messages in conversations]


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    """Its lexicon of 7,500 words is read once, which takes a tenth of a second."""
    return SentimentIntensityAnalyzer()
