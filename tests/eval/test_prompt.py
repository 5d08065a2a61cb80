"""The prompt's cosine, and the trait score: readers against slow ones, asked only where references prove them."""

import numpy as np
import pytest

from eval.scorers import prompt


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def test_prompt_is_the_cosine() -> None:
    random = np.random.default_rng(0)
    a, b = (unit(random.normal(size=(6, 16))) for _ in range(2))
    assert prompt.cosine_to_prompt(a, b) == pytest.approx([float(x @ y) for x, y in zip(a, b, strict=True)], abs=1e-6)


COLOURS = ["blue", "red", "green"]
VALUES = {"body": COLOURS, "hat": ["cap", "none"], "only": ["one"]}
PHRASES = {text: i for i, text in enumerate(["blue body", "red body", "green body", "cap hat", "no hat"])}


def phrases(texts: list[str]) -> np.ndarray:
    """Unit rows of 24 numbers that are nearly those of pictures of the value."""
    return unit(np.eye(24)[[PHRASES[text] for text in texts]] + 0.02)


def seen_of(truth: list[dict[str, str]], noise: float) -> np.ndarray:
    """Pictures that show their body, pulled towards red by the style; hats do not show at all."""
    random = np.random.default_rng(12)
    bodies = np.eye(24)[[COLOURS.index(row["body"]) for row in truth]]
    return unit(0.4 * bodies + 0.7 * np.eye(24)[1] + noise * random.normal(size=(len(truth), 24)))


def rows_of(count: int) -> list[dict[str, str]]:
    random = np.random.default_rng(3)
    return [{"body": COLOURS[i % 3], "hat": str(random.choice(["cap", "none"]))} for i in range(count)]


def rows(embeddings: np.ndarray) -> prompt.PictureEmbeddings:
    """With patches that are a fixed mixture of the embedding: as much to go by, in other directions."""
    mixing = np.random.default_rng(8).normal(size=(embeddings.shape[1], 10))
    return prompt.PictureEmbeddings(embeddings, unit(embeddings @ mixing).astype(np.float16))


def test_a_trait_is_asked_only_where_held_out_references_prove_it() -> None:
    """34 numbers fit 40 hats at random if a reader is judged on what it was fitted on: it must not be."""
    truth = rows_of(40)
    readable, areas = prompt.fit_trait_classifiers(rows(seen_of(truth, 0.05)), truth, VALUES, phrases)
    assert set(readable) == {"body"} and areas["body"] > 0.99 and areas["hat"] < 0.75
    others = rows_of(12)[::-1]
    seen = prompt.predicted_trait_values_of_pictures(rows(seen_of(others, 0.05)), readable)
    assert seen == [{"body": row["body"]} for row in others], "what is there, whatever was planned"
    assert prompt.fit_trait_classifiers(rows(seen_of(truth, 0.05)), [{}] * 40, VALUES, phrases) == ({}, {})


@pytest.mark.parametrize("beside", [0, 24])
def test_trait_log_odds_equal_a_slow_reader(beside: int) -> None:
    """Ridge regression in its primal form around a common multiple of the phrases; others are never held out."""
    truth, more_truth = rows_of(30), rows_of(beside)
    references, more = rows(seen_of(truth, 0.05)), rows(seen_of(more_truth, 0.3).reshape(-1, 24))
    given = (more, more_truth) if beside else None
    reading = prompt.fit_trait_classifiers(references, truth, VALUES, phrases, given)[0]["body"]
    texts = phrases([f"{c} body" for c in COLOURS]).astype(float)
    numbers, of_more = ([COLOURS.index(row["body"]) for row in some] for some in (truth, more_truth))

    def both(some: prompt.PictureEmbeddings) -> np.ndarray:
        return np.hstack([some.embeddings.astype(float), some.patches.astype(float)])

    def slow(known: list[int], picture: np.ndarray) -> np.ndarray:
        x = np.vstack([both(references)[known], both(more)])
        y = np.eye(3)[[numbers[i] for i in known] + of_more]
        mean, y, t = x.mean(0), y - y.mean(0), texts - texts.mean(0)
        x = x - mean
        said = x[:, :24] @ t.T
        common = np.vdot(said, y) / np.vdot(said, said)
        penalty = prompt.RIDGE * np.mean((x**2).sum(1)) * np.eye(x.shape[1])
        weights = np.linalg.inv(x.T @ x + penalty) @ x.T @ (y - common * said)
        weights[:24] += common * t.T
        return (picture - mean) @ weights

    def margin(response: np.ndarray, number: int) -> float:
        return response[number] - max(response[k] for k in range(3) if k != number)

    held_out = [slow([j for j in range(30) if j % 10 != i % 10], both(references)[i]) for i in range(30)]
    right = np.array([margin(r, n) for r, n in zip(held_out, numbers, strict=True)])
    assert reading.own == pytest.approx(reading.slope * right + reading.offset, abs=1e-6)
    wrong = np.array([margin(r, (n + k) % 3) for r, n in zip(held_out, numbers, strict=True) for k in (1, 2)])
    assert reading.slope > 0 and np.mean(reading.slope * wrong + reading.offset < 0) > 0.9 < np.mean(reading.own > 0)
    other = rows(seen_of(rows_of(9), 0.2))
    wanted = [reading.slope * margin(slow(list(range(30)), picture), 1) + reading.offset for picture in both(other)]
    assert reading.log_odds_of_planned_value(other, ["red"] * 9) == pytest.approx(wanted, abs=1e-6)


def test_a_reader_sees_what_only_the_patches_show() -> None:
    truth = rows_of(40)
    seen = seen_of(truth, 0.05)
    blind = prompt.PictureEmbeddings(unit(np.random.default_rng(4).normal(size=seen.shape)), seen.astype(np.float16))
    assert "body" in prompt.fit_trait_classifiers(blind, truth, VALUES, phrases)[0]
    assert (
        "body"
        not in prompt.fit_trait_classifiers(
            prompt.PictureEmbeddings(blind.embeddings, seen[:, :0]), truth, VALUES, phrases
        )[0]
    )


def test_the_trait_score_is_the_log_odds_that_all_are_there() -> None:
    truth = rows_of(40)
    reading = prompt.fit_trait_classifiers(rows(seen_of(truth, 0.05)), truth, VALUES, phrases)[0]["body"]
    doubtful = reading._replace(offset=reading.offset - 1)
    pictures_seen = rows(seen_of(truth, 0.05))
    planned = [*truth[:38], {"body": "blue" if truth[38]["body"] != "blue" else "red"}, {}]
    found = prompt.log_odds_of_all_planned_traits(pictures_seen, planned, {"body": reading, "again": doubtful})
    shown = prompt.embeddings_and_patches_at(pictures_seen, np.arange(39))
    assert found[:39] == pytest.approx(
        reading.log_odds_of_planned_value(shown, [r["body"] for r in planned[:39]]), abs=1e-4
    )
    assert (
        found[39] == prompt.NOTHING_ASKED
        and found[38] < 0
        and found[38] < prompt.log_odds_of_references_traits({"body": reading}).min()
    )
    asked = [row | {"again": row["body"]} if row else row for row in planned]
    unknown = prompt.log_odds_of_all_planned_traits(
        pictures_seen, [{"body": "a value of no picture"}] * len(planned), {"body": reading}
    )
    assert (unknown == prompt.NOTHING_ASKED).all()
    both = prompt.log_odds_of_all_planned_traits(pictures_seen, asked, {"body": reading, "again": doubtful})
    odds = [-np.log(np.exp(-a) + np.exp(-(a - 1))) for a in found[:39].astype(float)]
    assert both[:39] == pytest.approx(odds, abs=1e-3)


def test_references_that_are_all_the_same_are_not_read() -> None:
    truth = rows_of(30)
    assert (
        prompt.fit_trait_classifiers(rows(np.repeat(seen_of(truth[:1], 0.1), 30, axis=0)), truth, VALUES, phrases)[0]
        == {}
    )


def test_a_reader_of_many_pictures_learns_from_some_and_keeps_the_rare_values() -> None:
    numbers = np.repeat([0, 1, 2], [5000, 3, 900])
    learned = prompt.indexes_of_balanced_subsample(numbers, 1003)
    assert np.bincount(numbers[learned]).tolist() == [500, 3, 500] and len(np.unique(learned)) == 1003
    assert np.abs(np.diff(learned[:500]) - 10).max() <= 1  # evenly spread over the rows of their value
    assert prompt.indexes_of_balanced_subsample(numbers[:100], 1003).tolist() == list(range(100))
