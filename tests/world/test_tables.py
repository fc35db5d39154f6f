import calendar

import pytest

from sia_jax.world.activities import ACTIVITIES
from sia_jax.world.circumstances import CIRCUMSTANCES
from sia_jax.world.facts import COUNTRIES, KINDS, MONTHS, PLANETS, WRONG_VALUES
from sia_jax.world.mischief import DEEDS, VICTIMS
from sia_jax.world.phrases import DIGRESSIONS
from sia_jax.world.reading import SAID, Phrasebook, Sentence, content_words, read_sentences

PHRASES = [
    *(step for activity in ACTIVITIES for step in activity.steps),
    *(circumstance.tip for circumstance in CIRCUMSTANCES),
    *(deed.instead.format(v="") for deed in DEEDS),
    *(part for digression in DIGRESSIONS for part in digression),
]
FACTS = [(kind, entity, i) for kind in KINDS for entity in kind.entities for i in range(len(kind.attributes))]


def test_the_tables_are_as_large_as_a_world_needs():
    assert (len(ACTIVITIES), len(CIRCUMSTANCES), len(DEEDS), len(VICTIMS)) == (60, 12, 40, 12)
    assert len(FACTS) == 196
    for names in (
        [a.key for a in ACTIVITIES],
        [d.key for d in DEEDS],
        [e.name.lower() for k in KINDS for e in k.entities],
    ):
        assert len(set(names)) == len(names)


def test_every_phrase_is_read_as_itself_and_as_nothing_else():
    assert len(set(PHRASES)) == len(PHRASES)
    contents = [content_words(phrase) for phrase in PHRASES]
    for i, phrase in enumerate(PHRASES):
        assert len(contents[i]) >= 2, phrase
        for j, other in enumerate(PHRASES):
            if i != j:
                assert len(contents[i] & contents[j]) / len(contents[j]) < SAID, (phrase, other)
    book = Phrasebook(enumerate(PHRASES))
    for i, phrase in enumerate(PHRASES):
        assert book.find(Sentence(f"Well, {phrase}.")) == i


def test_no_wrong_value_is_true_and_each_fact_has_its_own_few():
    for kind, entity, i in FACTS:
        wrong = kind.wrong_values(entity, i)
        assert len(set(wrong)) == WRONG_VALUES
        assert entity.values[i] not in wrong
        assert set(wrong) <= set(kind.all_values(i))
        assert not set(wrong) & set(entity.near)


def test_what_is_nearly_true_of_an_entity_is_a_value_of_another():
    for kind in KINDS:
        values = {value for i in range(len(kind.attributes)) for value in kind.all_values(i)}
        for entity in kind.entities:
            assert set(entity.near) <= values - set(entity.values)


def test_no_statement_has_a_cue_of_another_attribute():
    for kind, entity, i in FACTS:
        texts = kind.attributes[i]
        for text in (texts.claim, texts.claim_again, texts.indirect, texts.again):
            sentence = Sentence(kind.fill(text, entity, entity.values[i]))
            found = [other.name for other in kind.attributes if sentence.has_any(other.cues)]
            assert found == [texts.name], sentence.text


def test_the_months_are_those_of_the_calendar():
    ordinals = ("first", "second", "third", "fourth", "fifth", "sixth")
    ordinals += ("seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth")
    lengths = {28: "twenty-eight", 30: "thirty", 31: "thirty-one"}
    seasons = dict.fromkeys((12, 1, 2), "winter") | dict.fromkeys((3, 4, 5), "spring")
    seasons |= dict.fromkeys((6, 7, 8), "summer") | dict.fromkeys((9, 10, 11), "autumn")
    for number, entity in enumerate(MONTHS.entities, start=1):
        days = calendar.monthrange(2023, number)[1]
        expected = (
            ordinals[number - 1],
            lengths[days],
            calendar.month_name[number % 12 + 1],
            seasons[number],
        )
        assert (entity.name, entity.values) == (calendar.month_name[number], expected)


def test_some_facts_that_everybody_knows():
    assert [e.values[0] for e in COUNTRIES.entities][:5] == ["Paris", "Rome", "Madrid", "Athens", "Warsaw"]
    ordinals = [e.values[0] for e in PLANETS.entities]
    assert ordinals == ["first", "second", "fourth", "fifth", "sixth", "seventh", "eighth"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" . ", ["."]),
        ("One. Two!  Three?", ["One.", "Two!", "Three?"]),
        ("One... and two", ["One...", "and two"]),
    ],
)
def test_a_text_is_read_as_sentences(text, sentences):
    assert [s.text for s in read_sentences(text)] == sentences


def test_a_sentence_says_one_phrase_at_most():
    book = Phrasebook([(1, "knead the dough and let it rise"), (2, "bake the loaf until it sounds hollow")])
    assert book.find(Sentence("Knead dough, rise, bake loaf, sounds hollow.")) == 1
    assert book.find(Sentence("The dough is hollow.")) is None
