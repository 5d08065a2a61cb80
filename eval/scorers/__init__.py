"""The table of scores. It needs no model, no torch, no scipy: the gate, the policy and the reports read it.

A new score is a file in this folder and an entry here. The entry's place is its column's place in scores.parquet, and
the order in which scores are computed: `distinct` reads `style` and `aesthetic`, which stand before it.
"""

from eval.scorers.entry import (
    HEAD,
    PATCHES,
    PLAN,
    REFERENCES,
    TEXTS,
    TRAINING,
    LazilyImportedFeatureScorer,
    LazilyImportedFunction,
    ScoreEntry,
)

BETTER_BASE = "a better base, or more denoising steps (generate.num_inference_steps)"

SCORES: dict[str, ScoreEntry] = {
    "brand": ScoreEntry(
        description="How surely the picture is in this brand's style and not in another one.",
        training="train longer (train.max_steps)",
        kind="encoder",
        lowest=-40,
        highest=40,
        resolution=0.05,
        compute=LazilyImportedFunction("brand", "column"),
        leave_one_out=LazilyImportedFunction("brand", "references_column"),
        needs=frozenset({REFERENCES}),
    ),
    "style": ScoreEntry(
        description="How close palette and technique are to the references.",
        training="train longer (train.max_steps)",
        kind="encoder",
        lowest=-1,
        highest=1,
        resolution=0.005,
        compute=LazilyImportedFeatureScorer("style", "embeddings"),
        leave_one_out=LazilyImportedFunction("style", "references_column"),
        needs=frozenset({REFERENCES}),
    ),
    "style_nearest": ScoreEntry(
        description="How close the picture is to the three references most like it, compared with other styles.",
        kind="encoder",
        lowest=-4,
        highest=4,
        resolution=0.01,
        compute=LazilyImportedFunction("style", "style_nearest_column"),
        leave_one_out=LazilyImportedFunction("style", "style_nearest_column_of_references"),
        needs=frozenset({REFERENCES}),
    ),
    "drawing": ScoreEntry(
        description="How well each part of the picture could be put together from parts of the references.",
        training="train longer",
        remedy="ask for less in one prompt",
        kind="encoder",
        lowest=-10,
        highest=0,
        resolution=0.02,
        compute=LazilyImportedFeatureScorer("drawing", "patches"),
        leave_one_out=LazilyImportedFeatureScorer("drawing", "patches", alone=True),
        needs=frozenset({REFERENCES, PATCHES}),
    ),
    "palette": ScoreEntry(
        description="How usual the colours of its flat areas are among the references.",
        training="train longer; until then colours of the base show",
        kind="pixels",
        lowest=-11.5,
        highest=0,
        resolution=0.05,
        compute=LazilyImportedFeatureScorer("palette", "signatures"),
        leave_one_out=LazilyImportedFeatureScorer("palette", "signatures", alone=True),
        needs=frozenset({REFERENCES}),
    ),
    "coherence": ScoreEntry(
        description="Whether the picture is drawn as clearly as the references (0), or has melted (-1).",
        training="train longer: early in training pictures melt",
        remedy="ask for less in one prompt",
        kind="pixels",
        lowest=-4,
        highest=4,
        resolution=0.05,
        compute=LazilyImportedFeatureScorer("coherence", "signatures"),
        leave_one_out=LazilyImportedFeatureScorer("coherence", "signatures", alone=True),
        needs=frozenset({REFERENCES}),
    ),
    "prompt": ScoreEntry(
        description="How well the picture matches the words of its prompt.",
        kind="encoder",
        lowest=-1,
        highest=1,
        resolution=0.01,
        compute=LazilyImportedFunction("prompt", "prompt_column"),
        needs=frozenset({PLAN, TEXTS}),
    ),
    "traits": ScoreEntry(
        description="How surely every planned trait is there, of those that the encoder can read.",
        remedy="other words for the trait in the traits file, or more training pictures that show it",
        kind="encoder",
        lowest=-40,
        highest=50,
        resolution=0.1,
        compute=LazilyImportedFunction("prompt", "traits_column"),
        leave_one_out=LazilyImportedFunction("prompt", "traits_references_column"),
        needs=frozenset({PLAN, TEXTS}),
    ),
    "aesthetic": ScoreEntry(
        description="What a small model of people's taste thinks of the picture.",
        kind="encoder",
        lowest=-40,
        highest=40,
        resolution=0.01,
        compute=LazilyImportedFunction("aesthetic", "column"),
        needs=frozenset({HEAD}),
    ),
    "consistency": ScoreEntry(
        description="How much the picture is like the rest of its batch.",
        kind="encoder",
        lowest=-1,
        highest=1,
        resolution=0.01,
        compute=LazilyImportedFunction("consistency", "column"),
    ),
    "distinct": ScoreEntry(
        description="How far the picture is from the nearest better one of its batch, or one that was exported before.",
        remedy="prompts or traits that differ more",
        kind="pixels",
        lowest=-6.9,
        highest=0.7,
        resolution=0.02,
        compute=LazilyImportedFunction("duplicates", "distinct_column"),
        leave_one_out=LazilyImportedFunction("duplicates", "distinct_column_of_references"),
    ),
    "novelty": ScoreEntry(
        description="How far the picture is from the nearest training picture.",
        remedy="prompts other than the captions of the training pictures or, where they are others, fewer steps or "
        "more pictures to learn from",
        kind="pixels",
        lowest=-6.9,
        highest=0.7,
        resolution=0.02,
        compute=LazilyImportedFunction("duplicates", "novelty_column"),
        leave_one_out=LazilyImportedFunction("duplicates", "novelty_column_of_references"),
        needs=frozenset({TRAINING}),
    ),
}


def register_technical_score(
    name: str, does: str, lowest: float, highest: float, resolution: float, remedy: str = "", training: str = ""
) -> None:
    """Add an entry for a technical score to the table SCORES, when this module is imported: `technical.column` computes
    it by its name.

    `lowest`, `highest` and `resolution` are in the score's own unit; `does`, `remedy` and `training` are words.
    """
    SCORES[name] = ScoreEntry(
        description=does,
        training=training,
        remedy=remedy,
        kind="pixels",
        lowest=lowest,
        highest=highest,
        resolution=resolution,
        compute=LazilyImportedFunction("technical", "column", (name,)),
        leave_one_out=LazilyImportedFunction("technical", "references_column", (name,)),
    )


register_technical_score("contrast", "How much light and dark differ: low in blank pictures.", 0, 127.5, 1.0)
register_technical_score(
    "sharpness", "How strong the edges are: low in blurred pictures.", -2.3, 6.2, 0.05, BETTER_BASE
)
register_technical_score("cleanness", "How free of noise the picture is.", -7.6, -2.1, 0.15, BETTER_BASE)
register_technical_score(
    "uncompressed",
    "How free the picture is of what strong JPEG compression, or a slight blur, leaves.",
    0,
    7.5,
    0.1,
)
register_technical_score("completeness", "How much is drawn in the emptiest half of the picture.", 0, 127.5, 1.0)
register_technical_score(
    "openness", "How small the largest area of one exact colour is: low where a block was pasted.", 0, 1, 0.02
)
register_technical_score(
    "unclipped",
    "How much of the picture is not cut off at black or white: low where wrongly exposed.",
    0,
    1,
    0.02,
    "where the brand has such grounds, give references that show them",
    "train longer, until the white or black ground of the base is gone",
)
register_technical_score("unframed", "How free the picture's edges are of a frame or bars.", -3.9, 0, 0.2)
for name, does, fault, remedy in (
    (
        "size",
        "Whether the picture has the same size as the others.",
        "another size than the others",
        "draw at the references' size (family.resolution)",
    ),
    (
        "alpha",
        "Whether the picture is transparent or opaque, as its brand wants it.",
        "transparent where it should be opaque, or the other way round",
        "alpha: flatten in brand.yaml",
    ),
):
    SCORES[name] = ScoreEntry(
        description=does,
        fault=fault,
        remedy=remedy,
        kind="pixels",
        lowest=0,
        highest=1,
        resolution=0.1,
        graded=False,
        compute=LazilyImportedFunction("technical", f"{name}_column"),
        leave_one_out=LazilyImportedFunction("technical", "ones_for_references"),
    )
