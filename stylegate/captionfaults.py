"""What captions of a brand set do wrong, by their words alone: no picture and no model is asked.

A word that stands in nearly every caption is learned with the style and can no longer be left out of a prompt. The
trigger phrase alone should stand everywhere. stylegate/captions.py reads captions; this judges them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from stylegate.words import counted

FEWEST = 12  # captions; of fewer, what stands in most of them says little
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


def problems_of_captions(captions: Mapping[str, str], trigger: str, style: str = "") -> list[str]:
    """What is wrong with captions (text by file name) of one brand, a sentence each.

    `trigger` is the phrase that calls the style, `style` the words of brand.yaml for it. An empty list means that none
    of the known faults was found.
    """
    found = [
        f'"{word}" stands in {share:.0%} of the captions: it is learned with the style, and prompts without it hold '
        "less of the style. Leave it out of the captions, or make it part of trigger="
        for word, share in words_in_most_captions(list(captions.values()), trigger).items()
    ]
    for written, names in misspelt_triggers(captions, trigger).items():
        found.append(
            f'"{written}" looks like the trigger phrase "{trigger}" misspelt: {picture_count_and_names(names)}'
        )
    for words, names in style_words(captions, trigger, style).items():
        what = "the style is learned under these words, not under the trigger phrase alone"
        found.append(f'"{words}" names the style: {picture_count_and_names(names)}; {what}')
    if wild := [name for name, text in captions.items() if WILDCARD.search(text)]:
        found.append(f"wildcards, as in {{red|blue}}, are learned as they stand: {picture_count_and_names(wild)}")
    for text, names in repeated_captions(captions).items():
        found.append(f'"{text}" is the caption of {picture_count_and_names(names)}: say what differs between them')
    return found


def captions_by_name(captions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Every caption with a name of its own: "cat.png", "cat.png (caption 2)".

    `captions` are all captions of each picture, by its name.
    """
    return {
        name if number == 1 else f"{name} (caption {number})": text
        for name, texts in captions.items()
        for number, text in enumerate(texts, 1)
    }


def words_in_most_captions(captions: list[str], trigger: str, share: float = MOST) -> dict[str, float]:
    """Words that stand in `share` of the captions or more, with the share of captions that hold them, 0 to 1.

    Words of the trigger phrase and words such as "the" are left out. Words are compared in lower case. Of fewer than
    FEWEST captions nothing is said.
    """
    if len(captions) < FEWEST:
        return {}
    expected = COMMON | set(words_of(trigger))
    counts = Counter(word for text in captions for word in set(words_of(text)) - expected)
    return {word: n / len(captions) for word, n in sorted(counts.items()) if n >= share * len(captions)}


def misspelt_triggers(captions: Mapping[str, str], trigger: str) -> dict[str, list[str]]:
    """Words in captions that are nearly the trigger phrase, but not it: for each the names of the files whose captions
    hold it.

    Captions with the phrase itself are right, whatever else they hold. The first word must be nearly that of the phrase
    too, since phrases often end in the same word (acme style, other style).
    """
    wanted, found = words_of(trigger), defaultdict(list)
    for name, text in captions.items():
        if not wanted or trigger.lower() in text.lower():
            continue
        words = words_of(text)
        for start in range(len(words) - len(wanted) + 1):
            some = words[start : start + len(wanted)]
            if (
                text_similarity(" ".join(some), " ".join(wanted)) >= ALIKE
                and text_similarity(some[0], wanted[0]) >= FIRST_ALIKE
            ):
                found[" ".join(some)].append(name)
                break
    return dict(found)


def text_similarity(a: str, b: str) -> float:
    """How alike two texts are, 0 to 1, by difflib's ratio."""
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def style_words(captions: Mapping[str, str], trigger: str, style: str) -> dict[str, list[str]]:
    """Words in captions that name a style, those of brand.yaml or general ones: for each the names of the files whose
    captions hold it.

    Words that are part of the trigger phrase are meant to stand there.
    """
    known = dict.fromkeys(words.strip().lower() for words in (*style.split(","), *STYLES) if words.strip())
    found = {}
    for words in known:
        whole = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)
        if not whole.search(trigger) and (names := [name for name, text in captions.items() if whole.search(text)]):
            found[words] = names
    return found


def repeated_captions(captions: Mapping[str, str]) -> dict[str, list[str]]:
    """Captions that SHARED pictures or more have word for word: for each the names of its files."""
    by_text = defaultdict(list)
    for name, text in captions.items():
        by_text[text].append(name)
    return {text: names for text, names in by_text.items() if len(names) >= SHARED}


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in their order."""
    return WORD.findall(text.lower())


def picture_count_and_names(names: list[str]) -> str:
    """How many pictures, and the first three names: "4 pictures (a.png, b.png, c.png, …)"."""
    listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return f"{counted(len(names), 'picture')} ({listed})"
