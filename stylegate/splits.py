"""How many pictures the splits validation/ and test/ of a brand set need, what fewer cannot do, and which are held out.

A word of the captions that stands in no caption of train/ is not learned: a set of which every house was held out gives
a LoRA that cannot draw one. So pictures are held out evenly over the words of their captions.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from stylegate.captionfaults import COMMON, words_of
from stylegate.words import counted

FEWEST_REFERENCES = 8  # with fewer the gate does not judge style
FOR_LINE = 16  # references that give a usable threshold; 30 give a more exact one
FOR_CHECKPOINTS = 8  # pictures that choose a checkpoint without help of train/
NAMED = 8  # words that a sentence names


def remarks_on_splits(validation: int, test: int) -> list[str]:
    """What splits of these sizes (pictures) cannot do, a sentence each; an empty list if both are large enough."""
    remarks = []
    if test < FEWEST_REFERENCES:
        what = f"the gate judges style from {FEWEST_REFERENCES} references up"
        remarks.append(f"{counted(test, 'picture')} in test/; {what}")
    elif test < FOR_LINE:
        remarks.append(f"{test} pictures in test/ give a rough threshold for the style; {FOR_LINE} or more are better")
    if validation < FOR_CHECKPOINTS:
        what = f"fewer than {FOR_CHECKPOINTS}: train/ helps to choose the checkpoint"
        remarks.append(f"{counted(validation, 'picture')} in validation/, {what}")
    return remarks


def choose_held_out_pictures(free: Sequence[str], captions: Mapping[str, str], count: int) -> list[str]:
    """The names of `count` of the `free` pictures to hold out, so that train/ keeps the words of the captions.

    `captions` are the texts of all pictures of the set, by name. Each next picture is the one that takes the fewest
    words out of train/; of equal ones the one whose rarest word is left on the largest share of its pictures; of
    equal ones the first in `free`. Words on a single picture do not count.
    """
    words = {name: content_words(captions[name]) for name in captions}
    total = Counter(word for found in words.values() for word in found)
    left = Counter({word: count for word, count in total.items() if count > 1})

    def words_lost_by_holding_out_picture(name: str) -> tuple[int, float]:
        """How many words train/ would lose with the picture, and minus the smallest share of its pictures that a word
        keeps.
        """
        shares = [(left[word] - 1) / total[word] for word in words.get(name, ()) if word in left]
        return sum(share == 0 for share in shares), -min(shares, default=1.0)

    waiting = [(words_lost_by_holding_out_picture(name), place) for place, name in enumerate(free)]
    heapq.heapify(waiting)
    taken: list[str] = []
    while waiting and len(taken) < count:
        known, place = waiting[0]
        if (
            now := words_lost_by_holding_out_picture(free[place])
        ) != known:  # it only rises, so a cheaper one cannot be behind
            heapq.heapreplace(waiting, (now, place))
            continue
        heapq.heappop(waiting)
        taken.append(free[place])
        left.subtract(word for word in words.get(free[place], ()) if word in left)
    return taken


def remarks_on_words_missing_in_training(learned: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """A sentence that names the words on several captions of pictures `held_out` that no `learned` caption has; an
    empty list if there are none.
    """
    known = {word for text in learned for word in content_words(text)}
    counts = Counter(word for text in held_out for word in content_words(text) - known)
    lacking = sorted(word for word, count in counts.items() if count > 1)
    if not lacking:
        return []
    names = ", ".join(lacking[:NAMED]) + (f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else "")
    return [
        f"no caption of train/ has {names}: the LoRA does not learn it, and validation/ and test/ show it; more such "
        "pictures, or fewer in test= and validation=, leave some in train/"
    ]


def content_words(text: str) -> set[str]:
    """The words of a caption in lower case, without such as "the" and "with"."""
    return set(words_of(text)) - COMMON
