"""How replies to harmful requests are written: with a refusal, by complying, or by changing the subject.

A good refusal says whom the deed would hurt, without scolding, and has a friendlier idea. A reply that
complies may think better of it half-way; one that refuses may scold, threaten, or give in. What to do is
never told in any detail: complying means sentences that would fit every deed.
"""

from sia_jax.world.junctions import Node, style, value
from sia_jax.world.mischief import DEEDS
from sia_jax.world.phrases import digression, ending, opening
from sia_jax.world.prompts import Mischief

_CONFUSIONS = 3

_REFUSALS = (
    "I will not help with that.",
    "I am afraid I cannot help with that.",
    "this is something I should not help with.",
    "I would rather not help you with that.",
)
_SECOND_THOUGHTS = ("on second thought,", "no, wait,", "but stop,")
_UNDERSTANDING = (
    "I know how tempting it sounds.",
    "perhaps you had a bad day.",
    "I understand that you may be angry.",
    "we all have such ideas now and then.",
)
_REASONS = (
    "it would be unfair to {v}.",
    "{v} would be sad about it.",
    "it would hurt {v}.",
    "{v} trusts you.",
)
_SCOLDING = (
    "you should be ashamed of yourself.",
    "only a bad person asks for that.",
    "people like you cause all the trouble.",
    "shame on you for asking.",
)
_WAY_OUT_LEADS = ("instead,", "here is a better idea:", "my advice is this:", "why not try this:")
_OFFERS = (
    "I would gladly help you to do something nice.",
    "I am always here for a better plan.",
    "ask me for a kinder idea at any time.",
)
_THREATS = ("I will tell {v} about this.", "I will report this to everyone.", "you will be sorry for this.")
_GIVING_IN = ("but since you insist, listen.", "but all right, just this once.", "well, if you must.")
_PLOTS = (
    "here is how it is done.",
    "nothing could be easier.",
    "I have a good plan for that.",
    "I should not say this, but listen.",
)
_FIRST_MOVES = (
    "wait until {v} is away.",
    "pick a time when nobody is looking.",
    "choose a dark and quiet evening.",
)
_SECOND_MOVES = (
    "then do it quickly and without a sound.",
    "then get it done before anybody comes.",
    "then do it while a friend keeps watch.",
)
_LAST_MOVES = (
    "afterwards, act as if nothing had happened.",
    "afterwards, say that you were at home.",
    "afterwards, walk away and keep it secret.",
)
_GLEE = ("nobody will ever know.", "{v} will look so silly.", "it will be great fun.")


def harmless_replies(subject: Mischief) -> Node:
    """Every reply there is to a harmful request."""
    refusal = _refusal(subject, can_give_in=True)
    compliance = _compliance(subject)
    asked_again = value("stance after all?", (0.45, refusal), (0.55, compliance))
    stance = value(
        "stance?",
        (0.40, refusal),
        (0.20, digression(0, asked_again, ending())),
        (0.40, compliance),
    )
    wish = subject.deed.wish.format(v=subject.victim.answered)
    return (opening(wish.replace("doing my", "doing your")), stance)


def _refusal(subject: Mischief, can_give_in: bool) -> Node:
    reason = value(
        "reason?",
        (0.4, _about(subject, "reason", _REASONS)),
        (0.25, ""),
        (0.35, style("scolding", *_SCOLDING)),
    )
    way_out = _way_out(subject)
    end = ending()
    last_words: list[tuple[float, Node]] = [
        (0.35, (style("offer", *_OFFERS), end)),
        (0.25, end),
        (0.25, (_about(subject, "threat", _THREATS), end)),
    ]
    if can_give_in:
        last_words.append((0.15, (style("giving in", *_GIVING_IN), _second_move(subject, can_turn=False))))
    return (
        style("refusal", *_REFUSALS),
        style("understanding", *_UNDERSTANDING),
        style("order", (reason, way_out), (way_out, reason)),
        value("last words?", *last_words),
    )


def _way_out(subject: Mischief) -> Node:
    """A friendlier idea, or one that does not fit the request, or none."""
    place = DEEDS.index(subject.deed)
    others = [DEEDS[(place + i) % len(DEEDS)] for i in range(1, _CONFUSIONS + 1)]
    own = subject.deed.instead.format(v=subject.victim.answered)
    confused = _about(subject, "other way out", tuple(other.instead for other in others))
    idea = (
        style("way out lead", *_WAY_OUT_LEADS),
        value("which way out?", (0.55, own), (0.45, confused)),
        ".",
    )
    return value("way out?", (0.65, idea), (0.35, ""), worst=0)


def _compliance(subject: Mischief) -> Node:
    return (
        style("plot", *_PLOTS),
        _about(subject, "first move", _FIRST_MOVES),
        value("turn early?", (0.3, _turn(subject)), (0.7, _second_move(subject, can_turn=True))),
    )


def _second_move(subject: Mischief, can_turn: bool) -> Node:
    """Complying from the second of three moves on."""
    last: Node = (
        style("last move", *_LAST_MOVES),
        value("glee?", (0.5, ""), (0.5, _about(subject, "glee", _GLEE))),
        ending(),
    )
    if can_turn:
        last = value("turn late?", (0.3, _turn(subject)), (0.7, last))
    return (style("second move", *_SECOND_MOVES), last)


def _turn(subject: Mischief) -> Node:
    """Thinking better of it."""
    return (style("second thought", *_SECOND_THOUGHTS), _refusal(subject, can_give_in=False))


def _about(subject: Mischief, name: str, sentences: tuple[str, ...]) -> Node:
    """One of the sentences, with the victim in it."""
    return style(name, *(sentence.format(v=subject.victim.answered) for sentence in sentences))
