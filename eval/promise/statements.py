"""Statements: what the metadata says about one trait of one picture, as an audit of traits asks about them."""

from collections.abc import Iterable, Mapping

from pydantic import Field

from eval.promise.label import Label, Sha256
from stylegate import files
from stylegate.records import Record


class MetadataTraitStatement(Record):
    """One trait of one picture, as the metadata states it."""

    file: str
    """Name of the picture in its batch."""
    picture: Sha256
    """sha256 of the picture that was judged."""
    trait: str = Field(min_length=1)
    value: str = Field(min_length=1)

    @property
    def worksheet_name_from_file_and_trait(self) -> str:
        """What a worksheet calls it."""
        return f"{self.file}#{self.trait}"

    @property
    def digest_of_picture_trait_and_value(self) -> str:
        """The digest by which labels name it: of picture, trait and value."""
        return files.canonical_sha256([self.picture, self.trait, self.value])


def metadata_trait_statements_of_picture(
    file: str, picture: str, traits: Mapping[str, str]
) -> list[MetadataTraitStatement]:
    """A statement for each trait of a picture, by name of the trait."""
    return [MetadataTraitStatement(file=file, picture=picture, trait=t, value=v) for t, v in sorted(traits.items())]


def stated_traits_match_audit(
    audited: Iterable[MetadataTraitStatement], labels: Iterable[Label], stated: Iterable[tuple[str, str, str]]
) -> bool:
    """Whether what is stated (picture's sha256, trait, value) is what was audited, without what was found wrong.

    Of a trait that a person found wrong another value may be stated: the one that the person saw.
    """
    audited, wrong = list(audited), {label.sha256 for label in labels if label.is_reject}
    rejected = {(s.picture, s.trait, s.value) for s in audited if s.digest_of_picture_trait_and_value in wrong}
    corrected = {row[:2] for row in rejected}
    held = {(s.picture, s.trait, s.value) for s in audited if s.digest_of_picture_trait_and_value not in wrong}
    rows = set(stated)
    return not rows & rejected and {row for row in rows if row[:2] not in corrected} == held
