"""The embedded world: a small language of everyday requests and replies, and what is good in it.

A policy that has learned this language is to be steered by a value model that has learned what is good in
it, both small enough to be trained on a CPU. There are three families, one for each objective of the paper: a
*helpful* prompt asks how something is done, a *harmless* one for help with a mischief, an *honest* one for
two facts.

- `prompts`: what is asked, and the splits; from the word tables `activities`, `circumstances`, `mischief` and
  `facts`.
- `grammar`: what the base policy replies, from `helpful`, `harmless` and `honest`: text that branches at
  `junctions`. A reply comes to about 15 of them in about 52 words; between them the text is predictable.
  55% of the junctions are matters of style (a greeting, a connective, which of two facts comes first), where
  all branches are worth the same, so that uncertainty alone is not yet value. At the others the reward is
  decided, from the first words of a reply to its last, and most of what goes wrong there can still be mended.
- `gold`: a program that reads the finished text and says how good it is, from -3 to 3. The base policy earns
  about -0.4 on average, the best reply 3.
- `pairs`: noisy preferences between replies, from which a proxy of the gold reward is learned.
- `data`, `stages`, `card`: all of that in tokens, the models that learn from it, and what they score.

Everything is a function of a seed (`streams`); prompts and splits are not even that, they never change.
"""
