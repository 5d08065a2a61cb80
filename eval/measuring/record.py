"""score.json: what the scores of a lot were made of, as a file with a schema."""

from math import floor
from typing import Literal

from pydantic import AliasChoices, Field

from stylegate.records import Record
from stylegate.words import counted

OF_BASE = "the base's own pictures"  # name of the foreign set that they are
READ_BY_HEAD = ("brand", "style", "style_nearest", "drawing", "palette", "coherence", "traits")
"""The scores that the aesthetic head reads beside the picture, where it learns from decided pictures."""


class ReferencesUsed(Record):
    """The references that the lot was compared with."""

    name: str = Field(validation_alias=AliasChoices("from", "name"), serialization_alias="from")
    """A brand's name or the folder that was given; empty for none."""
    given: int
    """References that were given."""
    count: int
    """References that could be used."""
    sha256: str
    """Digest of the contents of those that were used."""


class SeparationFromForeignSet(Record):
    """How surely the references are told from one foreign set: area under the ROC curve, 0.5 (not at all) to 1."""

    area: float
    low: float
    """Lower bound of the area, with 95 % confidence."""

    def separation_in_words(self) -> str:
        """How often the references are distinguished from the set, in comparisons of one picture of each."""
        area, low = (floor(share * 100 + 1e-6) for share in (self.area, self.low))  # what is too low never looks enough
        return f"right in {area} of 100 comparisons, in at least {low}"


class StyleReadability(Record):
    """Whether the brand's style can be told from foreign pictures. Where it cannot, nothing is accepted."""

    readable: bool
    different_references: int
    """References that are no copies of one another."""
    needed: float
    """What the lower bound must reach for the nearest set."""
    nearest: str
    """The foreign set that the references are told from least surely."""
    separations: dict[str, SeparationFromForeignSet]
    """By foreign set."""
    reads: list[Literal["encoder", "pixels"]]
    """What the reader sees of a picture."""
    shipped: int = 0
    """Foreign sets that come with stylegate; 0 in files of older versions."""

    def readability_in_words(self) -> str:
        """Whether the style can be told from foreign pictures, and from which set least surely."""
        others = counted(len(self.separations), "other style")
        if self.shipped == len(self.separations):
            others += " that come with stylegate"
        elif self.shipped:
            others += f", {self.shipped} of which come with stylegate"
        found = self.separations[self.nearest].separation_in_words()
        base = self.separations.get(OF_BASE) if self.nearest != OF_BASE else None  # it is said once
        beside = f"; {OF_BASE}: {base.separation_in_words()}" if base else ""
        return (
            f"the style {'can' if self.readable else 'can NOT'} be read: of {others}, {self.nearest} is the hardest to "
            f"distinguish from the references ({found}; the lower number must reach {self.needed * 100:.0f}, and 50 is "
            f"guessing){beside}"
        )


class ScoreTableDigests(Record):
    """Digests of the two tables beside score.json."""

    scores: str
    """sha256 of scores.parquet; empty where there is no such file."""
    references: str
    """sha256 of references.parquet; empty where there is no such file."""


class EncodingConditions(Record):
    """How the pictures were encoded."""

    precision: str
    """Number format of the encoder."""
    device: str
    """Kind of device, as cpu or cuda."""
    threads: int
    """Threads of the processor that torch was given."""


class BatchMeanStyleScore(Record):
    """The whitened cosine of the pictures to the centre of the references, -1 to 1."""

    mean: float
    """Mean over the pictures."""
    low: float
    """Lower end of the mean's 95 % interval."""
    high: float
    """Upper end of the mean's 95 % interval."""
    references: float
    """Mean over the references, each scored by the others."""


class BatchMeasures(Record):
    """Numbers of the batch, not of a picture. All are left out where the batch or the references are too few."""

    style: BatchMeanStyleScore | None = None
    mmd2: float | None = None
    """Squared maximum mean discrepancy (MMD²) between pictures and references; 0 on average for the same kind."""
    mmd2_p: float | None = None
    """Chance, 0 to 1, of an MMD² as large among pictures of one kind."""
    kid: float | None = None
    """Distance of pictures to references with the cubic kernel of the Kernel Inception Distance."""
    vendi: float | None = None
    """Effective number of different pictures (Vendi score) among `vendi_of` of the lot."""
    vendi_of: int | None = None
    """Pictures that each of the two Vendi scores is of."""
    vendi_references: float | None = None
    """Effective number of different pictures among `vendi_of` references."""


class LotScoringRecord(Record):
    """The content of score.json: what the scores of a lot were made of, and what is said of the lot as a whole."""

    key: str
    """Digest of all that the scores depend on: pictures, references, encoder, settings."""
    tables: ScoreTableDigests
    encoder: str
    """The encoder, as it was named."""
    encoder_sha256: str
    """Digest of the encoder's weights and preprocessing."""
    computed: EncodingConditions
    references: ReferencesUsed
    foreign: dict[str, list[float]]
    """By score: percentiles 0 to 100 of known pictures in other styles, against these references."""
    readability: StyleReadability | None = None
    """How surely the style can be told from foreign pictures; null where there are too few references."""
    copies: dict[str, list[float]]
    """By score: percentiles 0 to 100 of altered copies of the references."""
    traits_read: dict[str, float]
    """By trait: how well it can be read, as an area under the ROC curve, 0.5 (not at all) to 1."""
    batch: BatchMeasures
    summary: list[str]
    """Sentences on the batch as a whole, for people."""
    notes: list[str]
    """Sentences on what was left out or is rough, for people."""
