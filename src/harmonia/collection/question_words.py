"""The words of which questions are made: they ask, and say nothing about what is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from harmonia.encoders.descriptors.text import COMMON, tokens

# English, German, French and Czech, accents folded.
ASKING_WORDS = (
    "about again all also any anyone anything been can could did do does done dont ever find for get give "
    "got had has have hello help here hi how i if image images just know let like list look looking many "
    "me mean much my need not now of one ones our photo photos picture pictures please question really "
    "recall remember remind said same say search see seen shall should show shown so some somebody "
    "someone something such take talk tell than thank thanks them then there these thing things think "
    "this those us very want wants was were what whats when where whether which who whom whose why will "
    "with without would yes you your wer wie wo wann warum welche welcher welches gibt es mir mich mein "
    "meine du dein bitte zeig zeige weisst kennst kennt siehst bild foto habe hast haben kann kannst uber "
    "etwas suche finde nach alles que quoi qui quel quelle quels quelles est ce il elle je tu moi mon ma "
    "mes ton ta tes montre co kdo kde kdy jak jaky jaka jake mi muj moje ukaz obrazek fotka mam mas vis "
    "neco"
)
ASKING = frozenset(ASKING_WORDS.split())


def meant(words: Sequence[str]) -> list[str]:
    """Those of the words (folded, as the text descriptor's ``tokens``) that say what is asked for."""
    return [word for word in words if word not in COMMON and word not in ASKING]


def without_question_words(text: str) -> str:
    """What a question asks for; a text that does not chiefly ask comes back as it is.

    "What do you know about the rocket?" asks for "rocket". Spelling is compared by this: a code of all its
    words would be nearest to the text with the most of the small ones.
    """
    words = tokens(text)
    asked = meant(words)
    asking = sum(word in ASKING for word in words)
    return " ".join(asked) if asked and asking >= len(asked) else text
