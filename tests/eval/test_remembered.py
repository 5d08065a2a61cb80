"""What a process remembers of a brand: never for other pictures, and never more than it may hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.measuring import foreign
from eval.measuring.measured import EncodedPictures
from eval.measuring.remembered import RememberedResults
from eval.scorers import brand, coherence, duplicates
from stylegate import files
from tests.lots import forget_what_was_learned

ONES = np.ones((2, 3), np.float32)
ENCODED = EncodedPictures(ONES, ONES.astype(np.float16), ONES.astype(np.uint8))
DIFFERENT: list[Any] = [
    *[None, True, 1, 1.0, "1", "True", (), [1, 2], [[1], 2], [1, [2]], ["ab", "c"], ["a", "bc"]],
    *[ONES, ONES.T, ONES.astype(np.float64), 2 * ONES, np.ones(6, np.float32), ONES[:0], [ONES, ONES], [ONES]],
    *[ENCODED, ENCODED._replace(others=((ONES, ONES),)), (ENCODED, None), (ENCODED, ONES)],
]


def test_whatever_differs_is_computed_anew() -> None:
    found: RememberedResults[int] = RememberedResults(len(DIFFERENT))
    for _ in range(2):
        assert [found.result_for([one], lambda i=i: i) for i, one in enumerate(DIFFERENT)] == [*range(len(DIFFERENT))]
    assert found.result_for([np.asfortranarray(ONES)], lambda: -1) == 12, (
        "the same numbers, as they lie in memory or not"
    )
    with pytest.raises(TypeError, match="a set cannot be part of what a result is remembered under"):
        found.result_for([{1}], lambda: 0)


def test_what_was_asked_for_longest_ago_is_forgotten_first() -> None:
    found: RememberedResults[str] = RememberedResults(2)
    computed: list[str] = []

    def ask(name: str) -> str:
        return found.result_for([name], lambda: computed.append(name) or name)

    assert [ask(name) for name in "abacab"] == list("abacab")
    assert computed == ["a", "b", "c", "b"], "a was asked for again before c came"


def test_a_second_gate_learns_nothing_and_says_the_same(
    run, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one with other references learns all of them."""
    learned: list[str] = []
    for module, name in (
        (foreign, "shipped_foreign_sets_from_cache"),
        (brand, "learn_brand_classifier_anew"),
        (coherence, "learn_coherence_model_anew"),
        (duplicates, "log_distances_to_copies_altered_anew"),
    ):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, real=real: learned.append(n) or real(*a))
    forget_what_was_learned()
    words = [f"images={judged}", "references=neon"]
    run("gate", *words, f"out={tmp_path / 'first'}")
    assert sorted(learned) == sorted(set(learned)) and len(learned) == 4, "the lot and the references ask in turn"
    run("gate", *words, f"out={tmp_path / 'second'}")
    assert len(learned) == 4
    for name in ("scores.parquet", "references.parquet", "verdicts.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    run("gate", f"images={judged}", "references=pixel", f"out={tmp_path / 'pixel'}")
    assert sorted(learned[4:]) == sorted(learned[:4])
    others = tmp_path / "others.parquet"
    table = pq.read_table(files.FOREIGN)
    pq.write_table(table.slice(0, len(table) // 2), others)
    monkeypatch.setattr(files, "FOREIGN", others)
    run("gate", *words, f"out={tmp_path / 'others'}")
    assert learned[8:] == ["shipped_foreign_sets_from_cache", "learn_brand_classifier_anew"]
