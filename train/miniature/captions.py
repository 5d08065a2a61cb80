"""What people would say of a collectible: many wordings of the same truth, whole and in part."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

PHRASES = {
    "eyes": {
        "round": ["round eyes", "big round eyes", "wide eyes"],
        "sleepy": ["sleepy eyes", "closed eyes", "tired eyes"],
        "sunglasses": ["sunglasses", "dark sunglasses", "cool shades"],
        "angry": ["angry eyes", "an angry look", "fierce eyes"],
    },
    "mouth": {
        "smile": ["smile", "a smile", "smiling mouth"],
        "open": ["open mouth", "an open mouth", "mouth wide open"],
        "flat": ["flat mouth", "a straight mouth", "serious mouth"],
    },
    "headwear": {
        "none": ["no headwear", "no hat", "nothing on its head"],
        "crown": ["crown", "a golden crown", "a crown"],
        "cap": ["cap", "a blue cap", "a baseball cap"],
        "wizard": ["wizard hat", "a wizard hat", "a pointed wizard hat"],
        "flower": ["flower", "a pink flower", "a flower on its head"],
        "horns": ["horns", "two horns", "a pair of horns"],
    },
    "item": {
        "none": ["no item", "empty hands", "nothing in its hand"],
        "sword": ["sword", "a sword", "a silver sword"],
        "balloon": ["balloon", "a red balloon", "a balloon"],
        "book": ["book", "a book", "an old book"],
    },
}
KINDS = ["", "a ", "a cute ", "a picture of a ", "collectible of a ", "drawing of a ", "one "]


QUALITY = ["clean", "blurry", "noisy", "covered", "melted", "half missing"]


class CaptionWithMentions(NamedTuple):
    """A caption, and which attributes of the picture can be told from it."""

    text: str
    says: frozenset[str]  # traits, "style", "quality"; a headwear or item of "none" also by silence


def random_trait_phrase(trait: str, value: str, r: Random) -> str:
    """Words for one trait alone, in a wording at random: "a wizard hat", "red body", "a cute cat"."""
    if trait == "background":
        return r.choice([f"{value} background", f"on {value} background", f"a {value} background", f"{value} backdrop"])
    if trait == "body":
        return r.choice([f"{value} body", f"a {value} body", f"{value} fur", f"{value} body"])
    if trait == "species":
        return r.choice([f"{value} species", f"a {value}", f"{value}", f"a cute {value}"])
    named = f"no {trait}" if value == "none" else f"{value} {trait}"  # as trait tables name them
    return r.choice([*PHRASES[trait][value], named])


def caption_of_all_traits(traits: dict[str, str], r: Random) -> str:
    """A caption of all traits, in one of several orders at random; a headwear or an item of "none" is told by its
    silence.

    The first order is that of data/traits/collectible.yaml.
    """
    spoken = {trait: "" if traits[trait] == "none" else r.choice(PHRASES[trait][traits[trait]]) for trait in PHRASES}
    eyes, mouth, hat, held = (spoken[trait] for trait in ("eyes", "mouth", "headwear", "item"))
    who, ground, kind = f"{traits['body']} {traits['species']}", f"{traits['background']} background", r.choice(KINDS)

    def phrase_with_prefix_or_empty(word: str, thing: str) -> str:
        return f"{word}{thing}" if thing else ""

    form = r.randrange(5)
    if form <= 1:
        hat_and = f"{hat} and " if hat else ""
        return f"{who} with {hat_and}{eyes} and {mouth}{phrase_with_prefix_or_empty(' and ', held)} on {ground}"
    if form == 2:
        worn, carried = phrase_with_prefix_or_empty(", wearing ", hat), phrase_with_prefix_or_empty(", holding ", held)
        return f"{kind}{who}{worn}, {eyes}, {mouth}{carried}, {ground}"
    if form == 3:
        worn, carried = phrase_with_prefix_or_empty(" in ", hat), phrase_with_prefix_or_empty(" with ", held)
        return f"{ground}, {kind}{who}{worn}{carried}, {mouth} and {eyes}"
    parts = [part for part in (hat, eyes, mouth, held, ground) if part]
    return ", ".join([f"{kind}{who}", *r.sample(parts, len(parts))])


def random_caption(
    traits: dict[str, str], style: str, r: Random, share_full: float, style_share: float, first: Sequence[str] = ()
) -> CaptionWithMentions:
    """A caption of all traits (with probability `share_full`), of one to three of them, or of the style alone; the
    style stands before or behind the traits with probability `style_share`.

    Of the traits in `first` at least one is always spoken of.
    """
    whole = r.random() < share_full
    named = list(traits) if whole else r.sample(list(traits), r.randint(1, 3))
    if first and not set(named) & set(first):
        named[0] = r.choice(first)
    text = (
        caption_of_all_traits(traits, r)
        if whole
        else ", ".join(random_trait_phrase(trait, traits[trait], r) for trait in named)
    )
    if not whole and not first and r.random() < 0.15:
        return CaptionWithMentions(f"{style} style", frozenset(["style"]))
    if r.random() >= style_share:
        return CaptionWithMentions(text, frozenset(named))
    text = f"{style} style, {text}" if r.random() < 0.75 else f"{text}, {style} style"
    return CaptionWithMentions(text, frozenset([*named, "style"]))
