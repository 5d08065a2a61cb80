"""batch.json: what the pictures of a planned batch depend on, as a file with a schema."""

from stylegate.records import Record


class ModelFamilyFacts(Record):
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


class DrawingSettings(Record):
    """Steps, guidance and batch size that pictures are drawn with, and when hopeless ones end."""

    num_inference_steps: int
    """Denoising steps of one picture."""
    guidance_scale: float
    """Scale of classifier-free guidance; 1 is none."""
    batch_size: int
    """Pictures that are drawn together, which can change their last bits."""
    stop_early_at: float | None = None
    """The share of the steps after which hopeless pictures end; left out where none does."""


class SamplerSetting(Record):
    """How much work a picture takes."""

    num_inference_steps: int
    """Denoising steps of one picture."""
    guidance_scale: float
    """Scale of classifier-free guidance; 1 is none."""

    def sampler_setting_in_words(self) -> str:
        """The setting in words, such as "20 steps, guidance 5"."""
        return f"{self.num_inference_steps} steps, guidance {self.guidance_scale:g}"


class TriedSamplerSetting(Record):
    """How pictures drawn with one sampler setting (steps, guidance) were judged.

    The same slots and seeds were drawn with the configured setting, which stands first.
    """

    setting: SamplerSetting
    work: float
    """Passes of the denoiser for one picture, as a share of the first setting's."""
    accepted: int
    """Number of accepted pictures."""
    accepted_share_at_least: float
    """The share of pictures, 0 to 1, that are accepted at least; with a confidence of 90 %, beside the first."""
    margin_change: float
    """Mean change of the margin, in spreads, of pictures that this setting and the first accept; below 0 is worse."""
    holds: bool
    """Whether the pictures are as good as the first setting's, so that it may be chosen."""


class SamplerTrial(Record):
    """data/batches/trials/<digest>.json: the settings that were tried for a base and a LoRA."""

    pictures: int
    """Number of slots that were drawn at each setting."""
    policy_sha256: str
    """sha256 of the policy that judged them."""
    tried: list[TriedSamplerSetting]
    """In the order in which they were tried; the first is the configured one."""
    chosen: SamplerSetting
    """The setting that batches of this base and LoRA are drawn with."""


class BatchFacts(Record):
    """Digests and settings that the pictures depend on. Other facts make another batch."""

    brand: str | None
    """Digest of the brand set; null where no brand is named."""
    base: str
    """Digest of the base model's weights, as they are drawn with."""
    lora: str | None
    """sha256 of the LoRA's file; null where the base draws alone."""
    family: ModelFamilyFacts
    plan: PlanFacts
    generate: DrawingSettings
    training_base: str = ""
    """Digest of the weights of the base that the LoRA was trained on, where another one draws (draw_base=)."""
    watermark: str = ""
    """sha256 of the weights of the watermark that drawn pictures carry; left out where they carry none."""


class BatchConfigValues(Record):
    """The configuration values that planned the batch, from which later verbs find brand and training run again."""

    brand: str | None
    """The brand, as a name or a path; null for none."""
    base: str
    """The base model that draws, as a name, a path or a hub id."""
    training_base: str = ""
    """The base model that the LoRA was trained on, where another one draws; left out where it is the same."""
    run: str | None
    """Name of the folder of the training run; null where a LoRA file was named."""
    traits: str = ""
    """The traits file, as a name or a path; left out where there is none, and in files of older versions."""
    nf4: bool = False
    """The base draws in 4 bits (hardware.nf4); left out where it does not."""


class BatchRecord(Record):
    """The content of batch.json."""

    facts: BatchFacts
    words: BatchConfigValues
    wanted: int
    """Number of slots that must have an accepted picture."""
    max_attempts: int | None = None
    """Drawings of a slot after which a person decides; left out in files of older versions."""
    precision: str | None = None
    """Number format in which the batch is drawn, as fp32 or bf16; left out before the first picture."""
    size: int | None = None
    """Side of the drawn pictures in pixels; left out before the first picture."""
