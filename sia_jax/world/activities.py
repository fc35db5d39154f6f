"""Word tables of the family *helpful*: everyday activities and how they are done."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Activity:
    """Something that people do, and how: each step is an order to the reader, without a full stop."""

    name: str
    """After "how to"."""
    first: str
    second: str
    third: str

    @property
    def steps(self) -> tuple[str, str, str]:
        """In their order."""
        return (self.first, self.second, self.third)

    @property
    def key(self) -> str:
        """Part of a prompt's id."""
        return self.name.replace(" ", "-")


# Neighbours in the table are confused with each other by a careless reply: related work stands together.
ACTIVITIES = (
    Activity(
        "bake bread",
        "mix flour, yeast and warm water",
        "knead the dough and let it rise",
        "bake the loaf until it sounds hollow",
    ),
    Activity(
        "cook vegetable soup",
        "chop some carrots, onions and potatoes",
        "cover them with water and let them simmer",
        "season the soup with salt and fresh herbs",
    ),
    Activity(
        "make pancakes",
        "beat eggs, milk and flour together",
        "melt some butter in a hot pan",
        "turn each pancake when the top is dry",
    ),
    Activity(
        "make strawberry jam",
        "wash the strawberries and crush them",
        "boil the fruit with sugar and stir all the time",
        "pour the hot jam into clean jars",
    ),
    Activity(
        "brew a pot of tea",
        "boil fresh water and warm the pot",
        "add one spoon of tea leaves for each cup",
        "let the pot stand for four minutes",
    ),
    Activity(
        "bake an apple pie",
        "roll out the dough on a table",
        "cover the dough with apples and sugar",
        "bake the pie until it is golden",
    ),
    Activity(
        "boil eggs",
        "lower the eggs gently into boiling water",
        "wait six minutes for a soft yolk",
        "cool the eggs in cold water",
    ),
    Activity(
        "make lemonade",
        "press six lemons into a jug",
        "add some sugar and stir it well",
        "fill the jug with cold water",
    ),
    Activity(
        "roast potatoes",
        "cut the potatoes into even pieces",
        "roll the pieces in oil and herbs",
        "roast them in the oven until they are dark",
    ),
    Activity(
        "make a salad",
        "wash the lettuce and shake it dry",
        "cut two tomatoes into small pieces",
        "season the salad with oil and salt",
    ),
    Activity(
        "cook rice",
        "wash the rice until the water is clear",
        "simmer the rice in twice as much water",
        "loosen the rice with a fork",
    ),
    Activity(
        "bake biscuits",
        "rub butter into flour and sugar",
        "cut out round shapes with a glass",
        "bake the biscuits on a tray for ten minutes",
    ),
    Activity(
        "plant tomatoes",
        "choose a sunny spot with rich soil",
        "set each plant deep in the earth",
        "tie the stems to tall sticks",
    ),
    Activity(
        "grow sunflowers",
        "push the seeds into soft ground",
        "water the young sunflowers every morning",
        "support the tall flowers with a cane",
    ),
    Activity(
        "make compost",
        "collect leaves and old fruit in a heap",
        "keep the heap wet and well mixed",
        "wait until the compost is dark and soft",
    ),
    Activity(
        "trim a hedge",
        "stretch a rope along the hedge",
        "cut the twigs above the rope",
        "collect the twigs in a basket",
    ),
    Activity(
        "sow carrots",
        "loosen the soil and remove the stones",
        "sow the seeds thinly in a straight row",
        "pull out every second plant after three weeks",
    ),
    Activity(
        "prune roses",
        "put on a coat and thick gloves",
        "cut out all the dead wood",
        "shorten the long twigs by half",
    ),
    Activity(
        "mow the lawn",
        "pick up sticks and toys from the grass",
        "check the blade of the mower",
        "walk up and down in straight lines",
    ),
    Activity(
        "grow herbs",
        "fill small pots with light earth",
        "scatter the seeds on top of the earth",
        "place the pots by a sunny window",
    ),
    Activity(
        "dig a pond",
        "mark the shape of the pond with a rope",
        "dig a deep hole with a flat bottom",
        "fill the pond with rainwater",
    ),
    Activity(
        "pick cherries",
        "lean the ladder firmly against the tree",
        "pull the cherries off with their stalks",
        "lay the fruit in a flat basket",
    ),
    Activity(
        "fix a flat tyre",
        "take off the wheel and pull out the tube",
        "find the hole in a bucket of water",
        "glue a patch over the hole",
    ),
    Activity(
        "paint a wall",
        "cover the floor with newspaper",
        "roll on a thin coat of paint",
        "add a second coat when the first is dry",
    ),
    Activity(
        "sharpen a knife",
        "wet the sharpening stone",
        "hold the blade at a low angle",
        "draw the knife over the stone ten times",
    ),
    Activity(
        "hang a picture",
        "mark the height on the wall with a pencil",
        "hammer a strong nail into the wall",
        "check that the frame is straight",
    ),
    Activity(
        "repair a chair",
        "pull the loose parts apart",
        "brush fresh glue on both parts",
        "press the parts together overnight",
    ),
    Activity(
        "clean windows",
        "add some soap to warm water",
        "wipe the glass from top to bottom",
        "polish the windows with a dry towel",
    ),
    Activity(
        "sew on a button",
        "thread a needle and tie a knot",
        "push the needle through the button four times",
        "cut the thread under the button",
    ),
    Activity(
        "wash a wool jumper",
        "soak the jumper in cool soapy water",
        "press the water out gently",
        "dry the jumper flat on a towel",
    ),
    Activity(
        "unblock a sink",
        "take out the old water with a cup",
        "work the plunger up and down",
        "rinse the sink with hot soapy water",
    ),
    Activity(
        "build a shelf",
        "saw the boards to the same length",
        "screw the boards together",
        "rub the shelf smooth with sand",
    ),
    Activity(
        "write a thank-you letter",
        "name the gift that you received",
        "say how you will use the gift",
        "end with warm wishes and your name",
    ),
    Activity(
        "write a poem",
        "pick one picture that you like",
        "read the lines aloud three times",
        "strike out every word that you do not need",
    ),
    Activity(
        "learn a language",
        "write ten new words on cards",
        "test yourself with the cards each morning",
        "use the words in short sentences",
    ),
    Activity(
        "prepare a speech",
        "note the three main points on paper",
        "practise before a mirror with a clock",
        "speak slowly and look at your listeners",
    ),
    Activity(
        "study for an exam",
        "make a plan for every subject",
        "solve the exam papers of last year",
        "sleep well on the night before the exam",
    ),
    Activity(
        "keep a diary",
        "buy a notebook that you like",
        "write five lines every evening",
        "read the old pages once a month",
    ),
    Activity(
        "write a story",
        "invent a hero who has a wish",
        "put something in the way of the hero",
        "let the ending surprise the reader",
    ),
    Activity(
        "solve a crossword",
        "fill in the short answers first",
        "use their letters for the long answers",
        "leave the hard questions for later",
    ),
    Activity(
        "read a map",
        "turn the map until north is on top",
        "find two landmarks around you",
        "follow the path with your finger",
    ),
    Activity(
        "pack a suitcase",
        "make a list of the clothes for each day",
        "roll the shirts to save space",
        "put the shoes at the bottom",
    ),
    Activity(
        "plan a train journey",
        "compare the trains in the timetable",
        "reserve a seat by the window",
        "be at the station ten minutes early",
    ),
    Activity(
        "put up a tent",
        "clear the ground of stones and twigs",
        "join the poles and raise the roof",
        "fix the ropes with strong pegs",
    ),
    Activity(
        "light a campfire",
        "build a ring of large stones",
        "stack dry twigs over some bark",
        "light the bark and add bigger logs",
    ),
    Activity(
        "ride a bicycle",
        "set the saddle to the right height",
        "look ahead and push off firmly",
        "keep moving and steer gently",
    ),
    Activity(
        "row a boat",
        "sit with your back to the bow",
        "dip both oars at the same time",
        "lean back and pull with straight arms",
    ),
    Activity(
        "train a puppy",
        "show the puppy a small treat",
        "lift the treat until the puppy sits down",
        "praise the puppy and repeat it every day",
    ),
    Activity(
        "bathe a dog",
        "brush the knots out of the fur",
        "wash the fur with mild soap",
        "rinse the dog well and rub it with a towel",
    ),
    Activity(
        "look after a kitten",
        "set up a quiet corner with a blanket",
        "offer small meals four times a day",
        "play with the kitten and a ball of wool",
    ),
    Activity(
        "keep goldfish",
        "let the tap water rest for a day",
        "add stones and green plants to the tank",
        "feed the goldfish only once a day",
    ),
    Activity(
        "feed wild birds",
        "hang a feeder out of reach of cats",
        "fill the feeder with seeds and nuts",
        "clean the feeder once a week",
    ),
    Activity(
        "groom a horse",
        "tie the horse loosely to a tree",
        "brush the horse from neck to tail",
        "pick the stones out of each hoof",
    ),
    Activity(
        "keep rabbits",
        "build a large hutch with straw",
        "give the rabbits hay and carrots",
        "let the rabbits run about in the yard",
    ),
    Activity(
        "play chess",
        "move your middle pawns first",
        "bring out your knights and bishops",
        "castle early to guard the king",
    ),
    Activity(
        "fly a kite",
        "stand with your back to the wind",
        "let a friend hold the kite up high",
        "release the line bit by bit",
    ),
    Activity(
        "knit a scarf",
        "cast on thirty stitches",
        "knit until the scarf is long enough",
        "hide the loose ends with a needle",
    ),
    Activity(
        "fold a paper boat",
        "fold the sheet of paper in half twice",
        "turn up both edges to form a hat",
        "pull the corners of the hat apart",
    ),
    Activity(
        "play the guitar",
        "tune the strings from low to high",
        "press the strings with three fingers",
        "play slowly to a steady beat",
    ),
    Activity(
        "draw a portrait",
        "sketch a light oval for the face",
        "place the eyes halfway down the oval",
        "shade the side away from the light",
    ),
)
