"""A plan for people: counts, rarity and pairs as lines of a terminal, and as a picture."""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from eval.planning.rarity import ItemRarity, missing_pairs, rarest_pairs, rarity_of_each_item
from eval.planning.traits import TraitRules
from stylegate.words import counted

BAR = 24  # characters of the longest bar in a terminal
OWN = 3  # values that no other item has, which a terminal names of an item
SHOWN = 12  # values of a trait that a terminal shows, and pairs
IN_PICTURE = 16  # values of a trait in the picture
WIDTH, LINE, NAME, MARGIN = 420, 16, 170, 14  # pixels: of a column, a line, the names in it, around
INK, SOFT, BLUE = "#1f2430", "#8a90a0", "#4a6fd0"

Items = Sequence[Mapping[str, str]]


def value_counts(items: Items) -> dict[str, list[tuple[str, int]]]:
    """For each trait its values with the number of items that have each, the most frequent first."""
    names = dict.fromkeys(name for item in items for name in item)
    return {name: Counter(item[name] for item in items if name in item).most_common() for name in names}


def counts_and_rarity_in_words(
    items: Items, is_ruled_out: Callable[[Mapping[str, str]], bool], names: Sequence[str] = ()
) -> list[str]:
    """Lines for the terminal: the count of each value, the spread of rarity, the rarest items and pairs of values, and
    pairs that never come though `is_ruled_out` does not say so of them.

    `names` say what people call each item ("line 4"); without them an item is a slot with its number.
    """
    lines = []
    for trait, counts in value_counts(items).items():
        lines.append(f"{trait} ({counted(len(counts), 'value')})")
        most, width = counts[0][1], max(len(value) for value, _ in counts[:SHOWN])
        for value, count in counts[:SHOWN]:
            bar = "█" * max(1, round(BAR * count / most))
            lines.append(f"  {value:<{width}} {count:>6} {count / len(items):>6.1%} {bar}")
        if len(counts) > SHOWN:
            rest = sum(count for _, count in counts[SHOWN:])
            lines.append(f"  {f'{len(counts) - SHOWN} more':<{width}} {rest:>6} {rest / len(items):>6.1%}")
    found = rarity_of_each_item(items)
    scores = sorted(rarity.score for rarity in found)
    lines.append(
        f"rarity (OpenRarity's score): {scores[0]:.2f} to {scores[-1]:.2f}, middle {scores[len(scores) // 2]:.2f}"
    )
    lines.append("the rank goes by how many values an item alone has, then by the score")
    rarest = sorted(range(len(items)), key=lambda i: (found[i].rank, i))[:3]
    lines += [
        f"  rank {found[i].rank}: {names[i] if names else f'slot {i}'} ({item_rarity_in_words(found[i])}) "
        f"{', '.join(items[i].values())}"
        for i in rarest
    ]
    lines.append("rarest pairs (how many there are; how many if the traits were independent)")
    lines += [f"  {' with '.join(p.values)}: {p.count}; {p.expected:.1f}" for p in rarest_pairs(items, 5)]
    if missing := missing_pairs(items, 5, is_ruled_out):
        lines.append("pairs that never come (forbid them if that is meant)")
        lines += [f"  {' with '.join(p.values)}: 0 of {p.expected:.1f} expected" for p in missing]
    return lines


def item_rarity_in_words(found: ItemRarity) -> str:
    """What gives an item its rank, in words: the values that it alone has, if any, and its score."""
    named = [*found.own[:OWN], *([f"{len(found.own) - OWN} more"] if len(found.own) > OWN else [])]
    return f"of its own: {', '.join(named)}; {found.score:.2f}" if named else f"{found.score:.2f}"


def one_of_ones_in_words(called: Sequence[str], shown: int = SHOWN) -> list[str]:
    """Lines that name the items that have a name, by their slots; none where there are none."""
    named = [f"slot {number}: {name}" for number, name in enumerate(called) if name]
    more = [f"and {len(named) - shown} more"] if len(named) > shown else []
    return [f"one-of-ones ({len(named)})", *(f"  {line}" for line in [*named[:shown], *more])] if named else []


def rules_in_words(rules: TraitRules, items: Items) -> list[str]:
    """Lines that name the rules of a traits file, which all of its items keep, with the count where a rule limits it;
    none where there are no rules.
    """

    def condition_in_words(condition: Mapping[str, Sequence[str]], joint: str = " with ") -> str:
        return joint.join(f"{trait}: {' or '.join(names)}" for trait, names in condition.items())

    def count_items_having(condition: Mapping[str, Sequence[str]]) -> int:
        return sum(all(item.get(trait) in names for trait, names in condition.items()) for item in items)

    lines = [f"never {condition_in_words(condition)}" for condition in rules.forbid]
    lines += [
        f"where {condition_in_words(rule.when)}, {condition_in_words(rule.then, ' and ')}" for rule in rules.require
    ]
    for limit in rules.limit:
        most = "" if limit.at_most is None else f", at most {limit.at_most}"
        lines.append(f"{condition_in_words(limit.of)}: {count_items_having(limit.of)}; at least {limit.at_least}{most}")
    lines += [f"{trait} is how many of {', '.join(names)} are not none" for trait, names in rules.tally.items()]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"rules ({len(lines)}), all kept", *(f"  {line}" for line in [*lines[:SHOWN], *more])] if lines else []


def counts_and_rarity_as_png(items: Items, called: Sequence[str] = ()) -> bytes:
    """A PNG of a plan: bars with the count of each value, a histogram of the items' rarity, and the one-of-ones by what
    they are `called`, for each item a name or "".
    """
    tables = list(value_counts(items).items())
    heights = [LINE * (min(len(counts), IN_PICTURE) + (len(counts) > IN_PICTURE) + 2) for _, counts in tables]
    lines = one_of_ones_in_words(called, IN_PICTURE)
    columns = min(3, len(tables) + 1)
    used = [MARGIN] * columns
    placed = []
    for height in [*heights, LINE * 12, LINE * (len(lines) + 1)]:
        column = used.index(min(used))
        placed.append((MARGIN + column * WIDTH, used[column]))
        used[column] += height
    image = Image.new("RGB", (columns * WIDTH + MARGIN, max(used) + MARGIN), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=11)
    for (trait, counts), (left, top) in zip(tables, placed[:-2], strict=True):
        draw.text((left, top), trait, INK, font)
        shown = counts[:IN_PICTURE]
        for i, (value, count) in enumerate(shown, start=1):
            y = top + i * LINE
            draw.text((left, y), value[:26], SOFT, font)
            length = round((WIDTH - NAME - 70) * count / counts[0][1])
            draw.rectangle((left + NAME, y + 2, left + NAME + max(1, length), y + LINE - 3), BLUE)
            draw.text((left + NAME + length + 5, y), str(count), INK, font)
        if len(counts) > IN_PICTURE:
            draw.text((left, top + (len(shown) + 1) * LINE), f"and {len(counts) - IN_PICTURE} more", SOFT, font)
    for i, line in enumerate(lines):
        draw.text((placed[-1][0], placed[-1][1] + i * LINE), line[:60], SOFT if i else INK, font)
    draw_rarity_histogram(draw, placed[-2], [rarity.score for rarity in rarity_of_each_item(items)], font)
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def draw_rarity_histogram(draw: ImageDraw.ImageDraw, corner: tuple[int, int], scores: list[float], font) -> None:
    """Draw a histogram of rarity scores at a corner of the picture."""
    left, top = corner
    low, high, bins = min(scores), max(scores), 30
    where = Counter(min(bins - 1, int((score - low) / ((high - low) or 1) * bins)) for score in scores)
    draw.text((left, top), f"rarity score: items from {low:.2f} to {high:.2f}", INK, font)
    floor, width = top + 10 * LINE, (WIDTH - 40) // bins
    for i, count in where.items():
        height = round(8 * LINE * count / max(where.values()))
        draw.rectangle((left + i * width, floor - max(1, height), left + (i + 1) * width - 2, floor), BLUE)
