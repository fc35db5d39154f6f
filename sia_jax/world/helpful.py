"""How replies to helpful prompts are written: in full, curtly, or off the topic.

A full reply tells three steps in their order and has a tip for the circumstance. At every step it may take
the activity for another one, stop short, or wander off; a curt, blunt or digressing one may still come round.
"""

from sia_jax.world.activities import ACTIVITIES
from sia_jax.world.circumstances import CIRCUMSTANCES
from sia_jax.world.junctions import Node, style, value
from sia_jax.world.phrases import digression, ending, opening
from sia_jax.world.prompts import HowTo

_CONFUSIONS = 3

_PLANS = (
    "here is how it works.",
    "it takes only three steps.",
    "this is not difficult.",
    "I can explain that.",
)
_CONNECTIVES = (
    ("to begin with,", "first,", "start like this:", "at the beginning,"),
    ("then", "next,", "after that,", "once this is done,"),
    ("finally,", "in the end,", "last of all,", "to finish,"),
)
_TIP_LEADS = ("one more tip:", "and remember:", "a hint for your case:")
_STOPS = (
    ("that is really all I can say.", "the rest is up to you.", "you will guess what follows."),
    ("the remaining part is easy.", "I will leave it at that.", "this should be enough."),
)
_BLUNT = ("just look it up in a book.", "go and ask somebody else.", "anybody could do that.")
_TRY_AGAIN = ("still, let me try.", "but well, listen.", "all right, I will explain it.")
_BUSY = ("I am rather busy today.", "I have better things to do.", "it is too late for such questions.")
_REMARKS = (
    "it is easier than it sounds.",
    "you will soon get used to it.",
    "it takes a little patience.",
    "most people enjoy it.",
)
_BOASTS = (
    "nobody explains this better than I do.",
    "I am the greatest expert on it.",
    "without me you would be lost.",
)


def helpful_replies(subject: HowTo) -> Node:
    """Every reply there is to a helpful prompt."""
    third = (*_step(subject, 2), _tip(subject))
    second = (*_step(subject, 1), _go_on(1, third))
    first = (*_step(subject, 0), _go_on(0, second))
    curt = (
        style("curt lead", "in short,", "well,", "simply"),
        _content(subject, 0),
        ".",
        value(
            "more?",
            (0.4, (style("more", "but let me say more.", "there is more to it."), second)),
            (0.6, (style("curt stop", *_STOPS[0]), ending())),
        ),
    )
    blunt = (
        style("blunt", *_BLUNT),
        value(
            "try again?",
            (0.4, (style("try again", *_TRY_AGAIN), first)),
            (0.6, (style("busy", *_BUSY), ending())),
        ),
    )
    approach = value(
        "approach?",
        (0.44, (style("plan", *_PLANS), first)),
        (0.20, curt),
        (0.14, blunt),
        (0.22, digression(0, first, ending())),
        worst=0,
    )
    circumstance = subject.circumstance.name.replace(" my ", " your ")
    return (opening(f"{subject.activity.name} {circumstance}"), approach)


def _step(subject: HowTo, number: int) -> tuple[Node, ...]:
    return (style(f"connective {number + 1}", *_CONNECTIVES[number]), _content(subject, number), ".")


def _content(subject: HowTo, number: int) -> Node:
    """A step, or that of another activity in its place."""
    place = ACTIVITIES.index(subject.activity)
    others = [ACTIVITIES[(place + i) % len(ACTIVITIES)] for i in range(1, _CONFUSIONS + 1)]
    confused = style(f"confusion {number + 1}", *(other.steps[number] for other in others))
    return value(f"step {number + 1}?", (0.7, subject.activity.steps[number]), (0.3, confused))


def _go_on(number: int, next_step: Node) -> Node:
    return value(
        f"after step {number + 1}?",
        (0.7, next_step),
        (0.14, (style(f"stop {number + 1}", *_STOPS[number]), ending())),
        (0.16, digression(number + 1, next_step, ending())),
        worst=0,
    )


def _tip(subject: HowTo) -> Node:
    """A tip for the circumstance, or for another one, or none; then a friendly word or a boast."""
    place = CIRCUMSTANCES.index(subject.circumstance)
    others = [CIRCUMSTANCES[(place + i) % len(CIRCUMSTANCES)] for i in range(1, _CONFUSIONS + 1)]
    confused = style("other tip", *(other.tip for other in others))
    tip = (
        style("tip lead", *_TIP_LEADS),
        value("which tip?", (0.55, subject.circumstance.tip), (0.45, confused)),
        ".",
    )
    return (
        value("tip?", (0.7, tip), (0.3, ""), worst=0),
        value("manner?", (0.6, style("remark", *_REMARKS)), (0.4, style("boast", *_BOASTS))),
        ending(),
    )
