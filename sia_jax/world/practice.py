"""What the base policy learns to reply to: more requests than the training prompts, and in every frame.

From 536 prompts, each in one frame, a small network learns prompts by heart and takes a new one for the
nearest that it knows. So it practises on the training requests in all of their frames, and on the requests
that no split has. None of the held-out requests is among them, in any frame.
"""

from collections.abc import Iterator
from functools import cache
from itertools import chain, count, islice, product, starmap

from sia_jax.world.activities import ACTIVITIES
from sia_jax.world.circumstances import CIRCUMSTANCES
from sia_jax.world.grammar import sample_reply
from sia_jax.world.mischief import DEEDS, VICTIMS
from sia_jax.world.prompts import (
    FRAMES,
    SPLITS,
    Family,
    HowTo,
    Mischief,
    Prompt,
    Subject,
    TwoFacts,
    ask,
    prompts,
    request_id,
)
from sia_jax.world.streams import shuffled, stream


@cache
def practice_prompts() -> tuple[Prompt, ...]:
    """Every request that is not held out, in every frame of its family; two facts also the other way round.

    Their ids are those of the requests with the number of the frame: they are no prompts of a split, which
    `find_prompt` finds, though they say "train".
    """
    subjects: list[tuple[Family, Subject]] = []
    for prompt in prompts("train"):
        subjects.append((prompt.family, prompt.subject))
        if isinstance(prompt.subject, TwoFacts):
            turned = TwoFacts(prompt.subject.kind, prompt.subject.entity, prompt.subject.asked[::-1])
            subjects.append((prompt.family, turned))
    subjects += _of_no_split()
    return tuple(
        Prompt(f"{request_id(subject)}#{number}", family, "train", ask(subject, frame), subject)
        for family, subject in subjects
        for number, frame in enumerate(FRAMES[family])
    )


def practice(seed: int, n: int, start: int = 0) -> Iterator[tuple[Prompt, str]]:
    """Dialogues for the base policy, as (prompt, reply), in rounds of every prompt in random order.

    A prompt for two facts comes twice a round: what is true of which entity is known from nothing else, and
    takes most to learn. The first dialogues of a longer sequence are those of a shorter one.

    Args:
      seed: of prompts' order and replies.
      n: how many.
      start: how many of them are left out, at the beginning; they are not written.
    """
    asked = practice_prompts()
    asked += tuple(prompt for prompt in asked if prompt.family == "honest")
    rounds = (shuffled(stream(seed, "practice", "round", i), asked) for i in count())
    for i, prompt in enumerate(islice(chain.from_iterable(rounds), start, n), start):
        yield prompt, sample_reply(prompt, stream(seed, "practice", i))


def _of_no_split() -> Iterator[tuple[Family, Subject]]:
    dealt = {prompt.id for split in SPLITS for prompt in prompts(split)}
    for how_to in starmap(HowTo, product(ACTIVITIES, CIRCUMSTANCES)):
        if request_id(how_to) not in dealt:
            yield "helpful", how_to
    for mischief in starmap(Mischief, product(DEEDS, VICTIMS)):
        if request_id(mischief) not in dealt:
            yield "harmless", mischief
