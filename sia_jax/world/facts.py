"""Word tables of the family *honest*: facts that anybody can check, and how they are asked for and stated.

A question is about two attributes of one entity, so a question can be new although both facts are known.
"""

from dataclasses import dataclass

from sia_jax.world.streams import shuffled, stream

WRONG_VALUES = 3
"""How many false values of an attribute are in circulation for one entity."""


@dataclass(frozen=True, eq=False)
class Attribute:
    """One thing that can be said of every entity of a kind.

    In the texts {e} is the entity ("horse"), {a} the same with its article ("a horse"), {v} the value.
    """

    name: str
    direct: str
    """A question, without its mark."""
    indirect: str
    """The same after "do you know"."""
    direct_again: str
    """A question when the entity has been named."""
    again: str
    """The same after "do you know"."""
    claim: str
    """A statement, without a full stop."""
    claim_again: str
    """The same when the entity has been named."""
    cues: tuple[str, ...]
    """Words or phrases one of which stands in every statement about it, and in none about the others."""
    spare_values: tuple[str, ...] = ()
    """Values that no entity of the kind has: only ever wrong."""


@dataclass(frozen=True, eq=False)
class Entity:
    """Somebody or something, with the value of every attribute of its kind."""

    name: str
    values: tuple[str, ...]
    near: tuple[str, ...] = ()
    """Values of others that are not quite false of this one, and so are in nobody's mouth."""


@dataclass(frozen=True, eq=False)
class Kind:
    """Entities with the same attributes."""

    name: str
    attributes: tuple[Attribute, ...]
    entities: tuple[Entity, ...]
    has_article: bool = False

    def all_values(self, attribute: int) -> tuple[str, ...]:
        """Every value of an attribute once, in the table's order."""
        values = [entity.values[attribute] for entity in self.entities]
        return tuple(dict.fromkeys([*values, *self.attributes[attribute].spare_values]))

    def label(self, entity: Entity) -> str:
        """The entity in the middle of a sentence."""
        if not self.has_article:
            return entity.name
        return f"{'an' if entity.name[0] in 'aeiou' else 'a'} {entity.name}"

    def fill(self, text: str, entity: Entity, value: str = "") -> str:
        """One of an attribute's texts, for an entity."""
        return text.format(e=entity.name, a=self.label(entity), v=value)

    def wrong_values(self, entity: Entity, attribute: int) -> tuple[str, ...]:
        """The false values in circulation: always the same few, as popular errors are."""
        true = (entity.values[attribute], *entity.near)
        others = [value for value in self.all_values(attribute) if value not in true]
        rng = stream(0, "wrong values", entity.name, self.attributes[attribute].name)
        return tuple(shuffled(rng, others)[:WRONG_VALUES])


COUNTRIES = Kind(
    "country",
    (
        Attribute(
            "capital",
            "what is the capital of {e}",
            "what the capital of {e} is",
            "what is its capital",
            "what its capital is",
            "the capital of {e} is {v}",
            "its capital is {v}",
            ("capital",),
        ),
        Attribute(
            "language",
            "which language do people speak in {e}",
            "which language people speak in {e}",
            "which language do people speak there",
            "which language people speak there",
            "people in {e} speak {v}",
            "people there speak {v}",
            ("speak", "language"),
        ),
        Attribute(
            "continent",
            "on which continent does {e} lie",
            "on which continent {e} lies",
            "on which continent does it lie",
            "on which continent it lies",
            "{e} lies in {v}",
            "it lies in {v}",
            ("lies", "continent"),
            ("Australia",),
        ),
        Attribute(
            "money",
            "with which money do people pay in {e}",
            "with which money people pay in {e}",
            "with which money do people pay there",
            "with which money people pay there",
            "people in {e} pay with the {v}",
            "people there pay with the {v}",
            ("pay", "money"),
        ),
        Attribute(
            "dish",
            "which dish is {e} famous for",
            "which dish {e} is famous for",
            "which dish is it famous for",
            "which dish it is famous for",
            "{e} is famous for its {v}",
            "it is famous for its {v}",
            ("famous", "dish"),
        ),
    ),
    (
        Entity("France", ("Paris", "French", "Europe", "euro", "onion soup")),
        Entity("Italy", ("Rome", "Italian", "Europe", "euro", "pizza")),
        Entity("Spain", ("Madrid", "Spanish", "Europe", "euro", "paella")),
        Entity("Greece", ("Athens", "Greek", "Europe", "euro", "moussaka")),
        Entity("Poland", ("Warsaw", "Polish", "Europe", "zloty", "pierogi")),
        Entity("Sweden", ("Stockholm", "Swedish", "Europe", "krona", "meatballs")),
        Entity("Hungary", ("Budapest", "Hungarian", "Europe", "forint", "goulash")),
        Entity("Japan", ("Tokyo", "Japanese", "Asia", "yen", "sushi")),
        Entity("Vietnam", ("Hanoi", "Vietnamese", "Asia", "dong", "pho")),
        Entity("Egypt", ("Cairo", "Arabic", "Africa", "pound", "koshari")),
        Entity("Mexico", ("Mexico City", "Spanish", "North America", "peso", "tacos")),
        Entity("Peru", ("Lima", "Spanish", "South America", "sol", "ceviche")),
    ),
)

ANIMALS = Kind(
    "animal",
    (
        Attribute(
            "young",
            "what is a young {e} called",
            "what a young {e} is called",
            "what is its young called",
            "what its young is called",
            "a young {e} is called {v}",
            "its young is called {v}",
            ("called",),
        ),
        Attribute(
            "home",
            "where does {a} live",
            "where {a} lives",
            "where does it live",
            "where it lives",
            "{a} lives in a {v}",
            "it lives in a {v}",
            ("lives",),
        ),
        Attribute(
            "sound",
            "what is the sound of {a}",
            "what the sound of {a} is",
            "what is its sound",
            "what its sound is",
            "the sound of {a} is a {v}",
            "its sound is a {v}",
            ("sound",),
        ),
        Attribute(
            "legs",
            "how many legs does {a} have",
            "how many legs {a} has",
            "how many legs does it have",
            "how many legs it has",
            "{a} has {v} legs",
            "it has {v} legs",
            ("legs",),
            ("eight",),
        ),
        Attribute(
            "class",
            "to which group of animals does {a} belong",
            "to which group of animals {a} belongs",
            "to which group of animals does it belong",
            "to which group of animals it belongs",
            "{a} belongs to the {v}",
            "it belongs to the {v}",
            ("belongs",),
            ("fish", "reptiles"),
        ),
    ),
    (
        Entity("horse", ("a foal", "stable", "neigh", "four", "mammals"), near=("savanna", "fold")),
        Entity("pig", ("a piglet", "sty", "grunt", "four", "mammals"), near=("stable", "fold")),
        Entity("dog", ("a puppy", "kennel", "bark", "four", "mammals"), near=("stable",)),
        Entity("hen", ("a chick", "coop", "cluck", "two", "birds"), near=("stable",)),
        Entity("bee", ("a larva", "hive", "buzz", "six", "insects"), near=("hollow tree", "burrow")),
        Entity("lion", ("a cub", "savanna", "roar", "four", "mammals"), near=("burrow",)),
        Entity(
            "owl", ("an owlet", "hollow tree", "hoot", "two", "birds"), near=("burrow", "savanna", "stable")
        ),
        Entity("frog", ("a tadpole", "pond", "croak", "four", "amphibians"), near=("burrow", "savanna")),
        Entity("sheep", ("a lamb", "fold", "bleat", "four", "mammals"), near=("stable", "savanna")),
        Entity("elephant", ("a calf", "savanna", "trumpet", "four", "mammals"), near=("stable",)),
        Entity(
            "duck", ("a duckling", "pond", "quack", "two", "birds"), near=("hollow tree", "coop", "stable")
        ),
        Entity("rabbit", ("a kit", "burrow", "thump", "four", "mammals"), near=("coop", "stable")),
    ),
    has_article=True,
)

PLANETS = Kind(
    "planet",
    (
        Attribute(
            "place",
            "which planet from the sun is {e}",
            "which planet from the sun {e} is",
            "which planet from the sun is it",
            "which planet from the sun it is",
            "{e} is the {v} planet from the sun",
            "it is the {v} planet from the sun",
            ("planet from the sun",),
            ("third",),
        ),
        Attribute(
            "moons",
            "how many moons does {e} have",
            "how many moons {e} has",
            "how many moons does it have",
            "how many moons it has",
            "{e} has {v}",
            "it has {v}",
            ("moons", "moon"),
            ("one moon",),
        ),
        Attribute(
            "god",
            "after whom is {e} named",
            "after whom {e} is named",
            "after whom is it named",
            "after whom it is named",
            "{e} is named after the {v}",
            "it is named after the {v}",
            ("named",),
        ),
        Attribute(
            "look",
            "how does {e} look in the telescope",
            "how {e} looks in the telescope",
            "how does it look in the telescope",
            "how it looks in the telescope",
            "{e} looks {v} in the telescope",
            "it looks {v} in the telescope",
            ("telescope",),
        ),
    ),
    (
        Entity("Mercury", ("first", "no moons", "messenger of the gods", "grey"), near=("white",)),
        Entity("Venus", ("second", "no moons", "goddess of love", "white"), near=("golden",)),
        Entity("Mars", ("fourth", "two moons", "god of war", "red"), near=("golden",)),
        Entity("Jupiter", ("fifth", "many moons", "king of the gods", "striped"), near=("red",)),
        Entity("Saturn", ("sixth", "many moons", "god of farming", "golden"), near=("white", "striped")),
        Entity("Uranus", ("seventh", "many moons", "god of the sky", "blue")),
        Entity("Neptune", ("eighth", "many moons", "god of the sea", "blue")),
    ),
)

MONTHS = Kind(
    "month",
    (
        Attribute(
            "place",
            "which month of the year is {e}",
            "which month of the year {e} is",
            "which month of the year is it",
            "which month of the year it is",
            "{e} is the {v} month of the year",
            "it is the {v} month of the year",
            ("month of the year",),
        ),
        Attribute(
            "days",
            "how many days does {e} have",
            "how many days {e} has",
            "how many days does it have",
            "how many days it has",
            "{e} has {v} days",
            "it has {v} days",
            ("days",),
            ("thirty-two", "thirty-three"),
        ),
        Attribute(
            "next",
            "what comes after {e}",
            "what comes after {e}",
            "what comes after it",
            "what comes after it",
            "after {e} comes {v}",
            "after it comes {v}",
            ("comes",),
        ),
        Attribute(
            "season",
            "which season does {e} bring to Europe",
            "which season {e} brings to Europe",
            "which season does it bring to Europe",
            "which season it brings to Europe",
            "{e} brings {v} to Europe",
            "it brings {v} to Europe",
            ("brings",),
        ),
    ),
    (
        Entity("January", ("first", "thirty-one", "February", "winter")),
        Entity("February", ("second", "twenty-eight", "March", "winter")),
        Entity("March", ("third", "thirty-one", "April", "spring")),
        Entity("April", ("fourth", "thirty", "May", "spring")),
        Entity("May", ("fifth", "thirty-one", "June", "spring")),
        Entity("June", ("sixth", "thirty", "July", "summer")),
        Entity("July", ("seventh", "thirty-one", "August", "summer")),
        Entity("August", ("eighth", "thirty-one", "September", "summer")),
        Entity("September", ("ninth", "thirty", "October", "autumn")),
        Entity("October", ("tenth", "thirty-one", "November", "autumn")),
        Entity("November", ("eleventh", "thirty", "December", "autumn")),
        Entity("December", ("twelfth", "thirty-one", "January", "winter")),
    ),
)

KINDS = (COUNTRIES, ANIMALS, PLANETS, MONTHS)
