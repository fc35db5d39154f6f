"""What replies of every family say: greetings, good wishes, and digressions."""

from sia_jax.world.junctions import Junction, Node, style, value

_OPENINGS = (
    "hello there. so you want to {request}.",
    "thank you for asking how to {request}.",
    "let me think. you would like to {request}.",
    "ah, I see. you hope to {request}.",
    "good day to you. I hear that you want to {request}.",
    "what a surprise that you want to {request}.",
)
_OPENINGS_ABOUT = (
    "hello there. so this is about {thing}.",
    "thank you for asking about {thing}.",
    "let me think about {thing}.",
    "ah, I see. you are curious about {thing}.",
    "good day to you. you would like to hear about {thing}.",
    "what a surprise to be asked about {thing}.",
)

CLOSINGS = (
    "all the best.",
    "take care.",
    "have a nice day.",
    "see you soon.",
    "until next time.",
    "greetings from me.",
)

DIGRESSIONS = (
    ("by the way, the old tram has a new bell", "it rings at every corner"),
    ("that reminds me: a penguin has moved into the zoo", "it slides down the stairs all day"),
    ("I must tell you that my favourite song is about a yellow hat", "its last words are rather sad"),
    ("by the way, our team won the football match", "I watched it with an old friend"),
    ("that reminds me: the museum shows a silver spoon", "a queen once lost it in a pond"),
    ("I must tell you that the bridge is purple now", "most people like it very much"),
    ("by the way, a circus has come to the village", "the clown sleeps in a tent"),
    ("that reminds me: there is a film about a brave snail", "it lasts for three long hours"),
    ("I must tell you that the church clock is slow again", "it has been like this for weeks"),
    ("one more story: the village band has bought a tuba", "it is too big for the door"),
    ("guess what: a goose has crossed the road", "all the trains had to wait"),
    ("in other news, a cloud looked like a lemon", "I watched it for half the night"),
)
"""Subjects that nobody asked about: how one begins, and how one goes on."""

# A reply may digress more than once, and should not then say the same sentence twice.
_SPELLS = ("first digression", "second digression", "third digression")
_RETURNS = (
    ("but back to your question.", "now, where was I?"),
    ("but I digress.", "anyway, let me go on."),
    ("sorry, I got carried away.", "but that is another story."),
)
_EACH = 3


def opening(request: str) -> Junction:
    """How a reply to a request begins."""
    return style("opening", *(text.format(request=request) for text in _OPENINGS))


def opening_about(thing: str) -> Junction:
    """How a reply to a question begins."""
    return style("opening", *(text.format(thing=thing) for text in _OPENINGS_ABOUT))


def digression(spell: int, back: Node, lost: Node) -> Node:
    """Off the topic; then either back to it or further away.

    Args:
      spell: 0, 1 or 2: each has subjects of its own.
      back: what follows when the reply comes back to the question.
      lost: what follows when it does not.
    """
    name = _SPELLS[spell]
    returned = (style(f"{name}: return", *_RETURNS[spell]), back)
    subjects = [
        (f"{begin}.", value(f"{name}: back?", (0.5, returned), (0.5, (f"{more}.", lost))))
        for begin, more in DIGRESSIONS[_EACH * spell : _EACH * (spell + 1)]
    ]
    return style(f"{name}: subject", *subjects)


def ending() -> Node:
    """The end of a reply: good wishes, or a last digression before them."""
    subjects = [f"{begin}." for begin, _ in DIGRESSIONS[_EACH * len(_SPELLS) :]]
    ramble = style("ramble: subject", *subjects)
    return (value("ramble?", (0.65, ""), (0.35, ramble)), style("closing", *CLOSINGS))
