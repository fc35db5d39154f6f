"""Word tables of the family *helpful*: under what circumstances something is done, and a tip for each.

Every circumstance goes with every activity, so a request can be new although both of its halves are known.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Circumstance:
    """When, where or with whom it is done, and what to mind then."""

    name: str
    """After the activity."""
    tip: str

    @property
    def key(self) -> str:
        """Part of a prompt's id."""
        return self.name.replace(" ", "-")


CIRCUMSTANCES = (
    Circumstance("on a rainy day", "keep a dry towel and a warm coat at hand"),
    Circumstance("with two small children", "give each child one easy task"),
    Circumstance("with very little money", "borrow what is missing from a friend"),
    Circumstance("in a great hurry", "lay out all your things before you begin"),
    Circumstance("for the first time", "do not worry if it looks odd at first"),
    Circumstance("with my grandfather", "leave a comfortable chair nearby for him"),
    Circumstance("late at night", "switch on a bright lamp"),
    Circumstance("on my birthday", "invite your guests to join in"),
    Circumstance("with a sore arm", "let somebody else do the heavy lifting"),
    Circumstance("without making a mess", "spread an old sheet under your work"),
    Circumstance("without waking the baby", "close the door softly and whisper"),
    Circumstance("on a hot afternoon", "stay in the shade and drink plenty"),
)
