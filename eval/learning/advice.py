"""What people can do next, beside learning: captions, traits, references."""

from collections import Counter
from pathlib import Path

import numpy as np

from eval.lot.comparison import ComparisonPictures
from eval.measuring.decided import DecidedPictures
from eval.measuring.scores import LotScores
from eval.policy.model import score_spread
from stylegate import brandset
from stylegate.captionfaults import words_in_most_captions
from stylegate.words import counted

NEARLY_ALL = 0.97  # share of the captions: a word that stands in so many tells the LoRA nothing
FAR_BELOW = 4.0  # spreads below the median of the references: such a reference disagrees with the others
FEW = 3  # words, traits and references that a sentence names


def advice_on_captions_traits_references(
    compared: ComparisonPictures, decided: DecidedPictures, scores: LotScores
) -> list[str]:
    """Sentences on what would help beside learning: words in nearly all captions, traits that fail, references that
    disagree with the others.
    """
    return [
        *advice_on_captions(compared),
        *advice_on_failing_traits(decided),
        *advice_on_odd_references(scores, compared),
    ]


def advice_on_captions(compared: ComparisonPictures) -> list[str]:
    """A list of one sentence on words, beside the trigger, that stand in nearly all captions of the training pictures;
    empty if there are none.
    """
    if not compared.training or not compared.trigger:
        return []
    name, path = compared.training[0]  # the name is the path inside the brand set
    folder = path.parents[len(Path(name).parts) - 1]
    texts = [item.all_captions_of_picture() for item in brandset.read_brand_set(folder).splits["train"]]
    shares = words_in_most_captions(texts, compared.trigger, NEARLY_ALL)
    found = [f"{word!r} ({share:.0%})" for word, share in list(shares.items())[:FEW]]
    if not found:
        return []
    return [
        f"captions: {', '.join(found)} stand in nearly all of them, so that a prompt without these words draws what "
        "they mean all the same; leave them to the trigger, or add pictures without"
    ]


def advice_on_failing_traits(decided: DecidedPictures) -> list[str]:
    """A list of one sentence on the traits that people most often found otherwise than planned; empty if there are
    none.
    """
    wrong = Counter(t for picture in decided.record.pictures if not picture.accepted for t in picture.traits)
    listed = ", ".join(f"{trait} ({counted(count, 'picture')})" for trait, count in wrong.most_common(FEW))
    return (
        [f"traits that fail most: {listed}; other words in the traits file, or more pictures of them"] if wrong else []
    )


def advice_on_odd_references(scores: LotScores, compared: ComparisonPictures) -> list[str]:
    """A list of one sentence on the references that the brand's reader finds least like the others; empty if there are
    none.
    """
    own = scores.references.get("brand")
    if own is None or len(own) != len(compared.references):
        return []
    low = np.median(own) - FAR_BELOW * score_spread("brand", own)
    odd = [compared.references[i][0] for i in np.argsort(own) if own[i] < low]
    if not odd:
        return []
    named = ", ".join(odd[:FEW]) + (f" and {len(odd) - FEW} more" if len(odd) > FEW else "")
    return [f"references that disagree with the others: {named}; take them out where they are not the brand"]
