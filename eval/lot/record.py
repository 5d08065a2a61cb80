"""batch.json: what the pictures of a planned batch depend on, as a file with a schema."""

from stylegate.records import Record


class FamilyFacts(Record):
    """The model family that draws."""

    name: str
    """Name of the family, as in `family=`."""
    resolution: int | None
    """Side of a picture in pixels; null for the side that the base was trained for."""


class PlanFacts(Record):
    """What the slots depend on. The number of slots is left out: a longer plan begins with the shorter one's slots."""

    exclude_training: bool
    """The trait combinations of the training pictures are left out."""
    seed: int
    """The seed of the draw of traits, and of each slot."""
    traits: str | None
    """sha256 of the traits file or of the prompts file; null where the captions of the brand are the prompts."""


class GenerateFacts(Record):
    """How pictures are drawn."""

    num_inference_steps: int
    """Denoising steps of one picture."""
    guidance_scale: float
    """Scale of classifier-free guidance; 1 is none."""
    batch_size: int
    """Pictures that are drawn together, which can change their last bits."""


class BatchFacts(Record):
    """Digests and settings that the pictures depend on. Other facts make another batch."""

    brand: str | None
    """Digest of the brand set; null where no brand is named."""
    base: str
    """Digest of the base model's weights, as they are drawn with."""
    lora: str | None
    """sha256 of the LoRA's file; null where the base draws alone."""
    family: FamilyFacts
    plan: PlanFacts
    generate: GenerateFacts


class BatchWords(Record):
    """The configuration values that planned the batch, from which later verbs find brand and training run again."""

    brand: str | None
    """The brand, as a name or a path; null for none."""
    base: str
    """The base model, as a name, a path or a hub id."""
    run: str | None
    """Name of the folder of the training run; null where a LoRA file was named."""


class BatchRecord(Record):
    """The content of batch.json."""

    facts: BatchFacts
    words: BatchWords
    wanted: int
    """Number of slots that must have an accepted picture."""
    max_attempts: int | None = None
    """Drawings of a slot after which a person decides; left out in files of older versions."""
    precision: str | None = None
    """Number format in which the batch is drawn, as fp32 or bf16; left out before the first picture."""
    size: int | None = None
    """Side of the drawn pictures in pixels; left out before the first picture."""
