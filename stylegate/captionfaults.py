"""What captions of a brand set do wrong, by their words alone: no picture and no model is asked.

A word that stands in nearly every caption is learned with the style and can no longer be left out of a prompt. The
trigger phrase alone should stand everywhere. stylegate/captions.py reads captions; this judges them.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from stylegate.words import counted

FEWEST = 12  # pictures; of fewer, what stands in most captions says little
MOST = 0.9  # share of captions from which on a word is learned with the style
ALIKE = 0.85  # similarity from which on words are taken for a misspelt trigger phrase
FIRST_ALIKE = 0.7  # and of its first word: two letters of four that changed places have .75
SHARED = 4  # pictures that have one caption word for word
NAMED = 3  # files that a sentence names
WORD = re.compile(r"[^\W\d_]{2,}")  # two letters and more, of any script
WILDCARD = re.compile(r"\{[^{}]*\|[^{}]*\}|__\w+__")  # what other trainers replace at each step
# Words that stand in most captions of any set, and say nothing without the words beside them.
COMMON = {
    "an",
    "the",
    "of",
    "with",
    "and",
    "or",
    "in",
    "on",
    "at",
    "to",
    "by",
    "for",
    "from",
    "as",
    "no",
    "into",
    "over",
}
COMMON |= {"under", "is", "are", "its", "his", "her", "their", "background", "wearing", "holding"}
STYLES = ("watercolor", "watercolour", "illustration", "cartoon", "anime", "3d render", "vector art", "flat design")
STYLES += ("pixel art", "oil painting", "line art", "sketch", "digital art", "concept art", "in the style of")


def problems_of_captions(captions: Mapping[str, Sequence[str]], trigger: str, style: str = "") -> list[str]:
    """What is wrong with captions (all of each picture, by file name) of one brand, a sentence each.

    A picture counts once, however many captions it has. `trigger` is the phrase that calls the style, `style` the words
    of brand.yaml for it. An empty list means that none of the known faults was found.
    """
    found = [
        f'"{word}" stands in {share:.0%} of the captions: it is learned with the style, and prompts without it hold '
        "less of the style. Say in captions only what differs from picture to picture, or make the word part of "
        "trigger="
        for word, share in words_in_most_captions([*captions.values()], trigger).items()
    ]
    for written, names in picture_names_by_misspelt_trigger(captions, trigger).items():
        found.append(
            f'"{written}" looks like the trigger phrase "{trigger}" misspelt: {picture_count_and_names(names)}'
        )
    for words, names in picture_names_by_style_word(captions, trigger, style).items():
        what = "the style is learned under these words, not under the trigger phrase alone"
        found.append(f'"{words}" names the style: {picture_count_and_names(names)}; {what}')
    if wild := [name for name, texts in captions.items() if any(map(WILDCARD.search, texts))]:
        found.append(f"wildcards, as in {{red|blue}}, are learned as they stand: {picture_count_and_names(wild)}")
    for text, names in picture_names_by_repeated_caption(captions).items():
        found.append(f'"{text}" is the caption of {picture_count_and_names(names)}: say what differs between them')
    return found


def words_in_most_captions(captions: Sequence[Sequence[str]], trigger: str, share: float = MOST) -> dict[str, float]:
    """Words that stand in `share` of the captions or more, with the share of captions that hold them, 0 to 1.

    `captions` are all captions of each picture. Each picture counts once, as it is trained: of three captions each
    counts a third. Words of the trigger phrase and words such as "the" are left out. Words are compared in lower case.
    Of fewer than FEWEST pictures nothing is said.
    """
    if len(captions) < FEWEST:
        return {}
    expected = COMMON | set(words_of(trigger))
    counts: defaultdict[str, float] = defaultdict(float)
    for texts in captions:
        for text in texts:
            for word in set(words_of(text)) - expected:
                counts[word] += 1 / len(texts)
    return {word: n / len(captions) for word, n in sorted(counts.items()) if n >= share * len(captions)}


def picture_names_by_misspelt_trigger(captions: Mapping[str, Sequence[str]], trigger: str) -> dict[str, list[str]]:
    """Words in captions that are nearly the trigger phrase, but not it: for each the names of the files whose captions
    hold it.

    Captions with the phrase itself are right, whatever else they hold.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, texts in captions.items():
        for written in dict.fromkeys(misspelt_trigger(text, trigger) for text in texts):
            if written:
                found[written].append(name)
    return dict(found)


def misspelt_trigger(text: str, trigger: str) -> str | None:
    """The first words of a caption that are nearly the trigger phrase; None if there are none, or if it holds the
    phrase.

    The first word must be nearly that of the phrase too, since phrases often end in the same word (acme style, other
    style).
    """
    wanted, words = words_of(trigger), words_of(text)
    if not wanted or trigger.lower() in text.lower():
        return None
    for start in range(len(words) - len(wanted) + 1):
        some = words[start : start + len(wanted)]
        if (
            text_similarity(" ".join(some), " ".join(wanted)) >= ALIKE
            and text_similarity(some[0], wanted[0]) >= FIRST_ALIKE
        ):
            return " ".join(some)
    return None


def text_similarity(a: str, b: str) -> float:
    """How alike two texts are, 0 to 1, by difflib's ratio."""
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def picture_names_by_style_word(
    captions: Mapping[str, Sequence[str]], trigger: str, style: str
) -> dict[str, list[str]]:
    """Words in captions that name a style, those of brand.yaml or general ones: for each the names of the files whose
    captions hold it.

    Words that are part of the trigger phrase are meant to stand there.
    """
    known = dict.fromkeys(words.strip().lower() for words in (*style.split(","), *STYLES) if words.strip())
    found = {}
    for words in known:
        whole = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)
        names = [name for name, texts in captions.items() if any(map(whole.search, texts))]
        if names and not whole.search(trigger):
            found[words] = names
    return found


def picture_names_by_repeated_caption(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Captions that SHARED pictures or more have word for word: for each the names of its files."""
    by_text = defaultdict(list)
    for name, texts in captions.items():
        for text in dict.fromkeys(texts):
            by_text[text].append(name)
    return {text: names for text, names in by_text.items() if len(names) >= SHARED}


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in their order."""
    return WORD.findall(text.lower())


def picture_count_and_names(names: list[str]) -> str:
    """How many pictures, and the first three names: "4 pictures (a.png, b.png, c.png, …)"."""
    listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return f"{counted(len(names), 'picture')} ({listed})"
