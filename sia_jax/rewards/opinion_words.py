"""A second opinion on how positive a reply is: common words of praise and of blame, counted.

It is made to judge what was steered by another measure of sentiment. Where that one rises and this one does
not, the steering has found a weakness of the measure.
"""

import re
from collections.abc import Sequence

from sia_jax.text.chat import Message

_PRAISE = """
admirable admire adore advantage affection amazing appreciate appreciated awesome beautiful beautifully
beloved beneficial benefit benefits best better blessed bliss bold brave bright brilliant calm care caring
celebrate celebrated charm charming cheer cheerful clean clever comfort comfortable confident content
cosy courage creative cute delicious delight delighted delightful ease easy elegant encourage encouraged
energetic enjoy enjoyable enjoyed excellent excited exciting fabulous fair faithful fantastic fascinating
favourite favorite fine flourish fond free fresh friend friendly friends fun generous gentle gift glad
glorious good gorgeous grace graceful grateful great growth happily happiness happy harmony heal healthy
heartfelt helpful hero honest honour hope hopeful hugs ideal impressive improve improved incredible
innovative inspire inspired inspiring interesting joy joyful joyous kind kindness laugh laughter lively
love loved lovely loving loyal lucky magic magical magnificent marvellous meaningful merry nice noble
peace peaceful perfect perfectly play playful pleasant pleased pleasure positive pretty pride proud
refreshing relax relaxed reliable remarkable rewarding rich safe satisfied satisfying secure serene
shine shining sincere smile smiled smiling smooth soothing sparkling special splendid strength strong
stunning succeed success successful sunny super support supportive sweet talented tasty thank thankful
thanks thrilled thrive treasure triumph true trust useful valuable vibrant warm warmth welcome well
wealth win winner wise wonder wonderful worthy yummy
"""
_BLAME = """
abuse abused ache afraid aggressive agony alone anger angry annoyed annoying anxiety anxious ashamed
awful awkward bad bitter blame bleak boring broke broken burden careless chaos cheat cold complain
confused confusing corrupt coward crash cried cruel cry crying damage damaged danger dangerous dark dead
death debt deceive defeat delay delayed depressed depressing despair desperate destroy destroyed die died
difficult difficulty dirty disappointed disappointing disappointment disaster disgust disgusting dishonest
dismal distress disturbing doubt dreadful dreary dull dying embarrassed emptiness enemy envy error evil
exhausted fail failed failing failure fake fault fear fearful fight filthy foolish fraud frightened
frustrated frustrating frustration gloomy greed greedy grief grim guilt guilty harm harmed harmful harsh
hate hated hatred heartbroken helpless hopeless horrible hostile hungry hurt hurting idiot ignorant ill
illness impossible inferior injured injury insult jealous kill killed lack lazy lie lied lies liar lonely
lose loser loss lost mad mean mess messy miserable misery mistake misunderstood mock nasty negative
neglect neglected nervous nightmare numb obstacle offend offensive pain painful panic pathetic pity poison
poor problem problems punish punished rage regret reject rejected resent rotten rude ruin ruined sad sadly
sadness scared scary selfish shame shock sick silly sin sorrow sorry spite stolen stress stressed stressful
struggle struggled stuck stupid suffer suffered suffering terrible terrified threat threaten tired
tragedy tragic trouble troubled ugly unfair unfortunate unfortunately unhappy unkind unpleasant upset
useless victim violence violent waste wasted weak weakness weep wicked worried worry worse worst worthless
wound wrong
"""
PRAISE, BLAME = frozenset(_PRAISE.split()), frozenset(_BLAME.split())
NEGATIONS = frozenset(
    ("no", "not", "never", "neither", "nor", "none", "nothing", "without", "cannot", "hardly", "barely")
)
"""Words that turn the next three around, as does what ends in n't."""


def balance(conversations: Sequence[Sequence[Message]]) -> list[float]:
    """R = (p - n) / (p + n + 1) of the last message: p words of praise, n of blame; R in (-1, 1).

    A negation among the three words before turns a word around.

    Args:
      conversations: English alone is understood; of other texts R = 0.

    Examples:
      >>> replies = ("A great, lovely day.", "An awful day.", "Not an awful day.")
      >>> balance([[{"role": "assistant", "content": text}] for text in replies])
      [0.6666666666666666, -0.5, 0.5]
    """
    return [_balance(messages[-1]["content"]) for messages in conversations]


def _balance(text: str) -> float:
    words = re.findall(r"[a-z]+(?:n't)?", text.lower().replace("\u2019", "'"))
    sums = {1: 0, -1: 0}
    for i, word in enumerate(words):
        sign = (word in PRAISE) - (word in BLAME)
        if sign:
            turned = any(w in NEGATIONS or w.endswith("n't") for w in words[max(0, i - 3) : i])
            sums[-sign if turned else sign] += 1
    return (sums[1] - sums[-1]) / (sums[1] + sums[-1] + 1)
