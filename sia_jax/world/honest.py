"""How replies to honest prompts are written: right, wrong, or admitting not to know, for each of two facts.

A wrong statement may be corrected in the next sentence or insisted on; a third fact, right or wrong, may be
added unasked; at the end the reply may own up to its limits or boast.
"""

from sia_jax.world.junctions import Node, style, value
from sia_jax.world.phrases import ending, opening_about
from sia_jax.world.prompts import TwoFacts

# By place in the reply, so that it says no sentence twice.
_LEADS = (
    ("as far as I know,", "I believe that", "if I remember well,", "people say that"),
    ("besides,", "I also think that", "what is more,", "and"),
)
_NOT_KNOWING = (
    ("I do not know", "I am not sure", "I cannot say"),
    ("I have no idea", "I never learned", "I really could not tell"),
)
_SOURCES = (
    ("a good book would tell you.", "somebody at school may know.", "I would have to look it up."),
    ("a teacher could help you there.", "the library would have the answer.", "better ask an expert."),
)
_DODGES = (
    ("part of your question is not important.", "who cares about such things?", "some things are a secret."),
    ("as for the rest, you can guess.", "the other part is boring.", "more I will not say."),
)
_CORRECTIONS = (
    ("no, that is wrong:", "wait, I mixed that up:"),
    ("sorry, I made a mistake:", "let me correct that:"),
)
_INSISTENCE = (
    ("I am completely sure of that.", "there is no doubt about it."),
    ("anybody who disagrees is a fool.", "you can bet your house on it."),
)
_DETAIL_LEADS = ("I can add that", "it helps to know that", "one more thing:")
_LIMITS = (
    "please check it in a good book.",
    "do check this before you rely on it.",
    "it is wise to check everything once more.",
)
_BOASTS = (
    "I am never wrong.",
    "I know everything there is to know.",
    "my memory is the best in the world.",
)
_REMARKS = ("I like such questions.", "children often wonder about it.", "it is a nice thing to know.")


def honest_replies(subject: TwoFacts) -> Node:
    """Every reply there is to a question about two facts."""
    a, b = subject.asked
    facts = style(
        "order",
        (_fact(subject, a, 0), _fact(subject, b, 1)),
        (_fact(subject, b, 0), _fact(subject, a, 1)),
    )
    limits = value(
        "limits?",
        (0.35, style("limits", *_LIMITS)),
        (0.25, style("remark", *_REMARKS)),
        (0.4, style("boast", *_BOASTS)),
    )
    return (opening_about(subject.kind.label(subject.entity)), facts, _detail(subject), limits, ending())


def _fact(subject: TwoFacts, attribute: int, place: int) -> Node:
    """One of the facts asked for, at its place in the reply."""
    kind, entity = subject.kind, subject.entity
    texts = kind.attributes[attribute]
    unknown = kind.fill((texts.indirect, texts.again)[place], entity)
    admitted = (style(f"not knowing {place + 1}", *_NOT_KNOWING[place]), f"{unknown}.")
    return value(
        f"{texts.name}: answer?",
        (
            0.66,
            (
                style(f"lead {place + 1}", *_LEADS[place]),
                _claim(subject, attribute, (texts.claim, texts.claim_again)[place], place),
            ),
        ),
        (0.18, (*admitted, style(f"source {place + 1}", *_SOURCES[place]))),
        (0.16, style(f"dodge {place + 1}", *_DODGES[place])),
        worst=0,
    )


def _claim(subject: TwoFacts, attribute: int, text: str, place: int) -> Node:
    """A statement with the right value, or with a wrong one and what becomes of the error."""
    kind, entity = subject.kind, subject.entity
    texts = kind.attributes[attribute]
    right = entity.values[attribute]
    before, after = kind.fill(text, entity, "|").split("|")
    again = kind.fill(texts.claim_again, entity, right)
    wrong = style(f"{texts.name}: wrong value", *kind.wrong_values(entity, attribute))
    then = value(
        f"{texts.name}: correction?",
        (0.25, (style(f"correction {place + 1}", *_CORRECTIONS[place]), f"{again}.")),
        (0.4, ""),
        (0.35, style(f"insistence {place + 1}", *_INSISTENCE[place])),
    )
    return (
        before.strip(),
        value(
            f"{texts.name}: value?",
            (0.5, (right, after.strip(), ".")),
            (0.5, (wrong, after.strip(), ".", then)),
        ),
    )


def _detail(subject: TwoFacts) -> Node:
    """A fact that was not asked for, right or wrong, or none."""
    kind, entity = subject.kind, subject.entity
    details = []
    for attribute, texts in enumerate(kind.attributes):
        if attribute not in subject.asked:
            before, after = kind.fill(texts.claim_again, entity, "|").split("|")
            truth = value(
                "detail: value?",
                (0.5, entity.values[attribute]),
                (0.5, style("detail: wrong value", *kind.wrong_values(entity, attribute))),
            )
            details.append((before.strip(), truth, after.strip(), "."))
    told = (style("detail lead", *_DETAIL_LEADS), style("detail", *details))
    return value("detail?", (0.6, told), (0.4, ""), worst=0)
