"""README and docs: their length, their links and their pictures. Their commands are checked in test_architecture.py."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stylegate import files

PAGES = [files.ROOT / "README.md", files.ROOT / "CONTRIBUTING.md", *sorted((files.ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings: lower case, no punctuation, - for each space."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:", target):
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            if not found.exists() or (anchor and anchor not in anchors(found)):
                missing.append(target)
    assert not missing


def test_the_readme_fits_its_length_and_names_every_page() -> None:
    text = PAGES[0].read_text()
    assert 150 <= len(text.splitlines()) <= 220
    linked = {name for page in PAGES for name in re.findall(r"([\w-]+\.md)", page.read_text())}
    assert {page.name for page in PAGES} - {"README.md"} <= linked


def test_the_drawing_of_the_road_is_plain_and_names_commands() -> None:
    """It is shown as it is on GitHub: no script, nothing from outside; a title for who cannot see it."""
    root = ElementTree.parse(files.ROOT / "docs" / "road.svg").getroot()
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert "title" in names and not {"script", "image", "foreignObject"} & set(names)
    verbs = {element.text for element in root.iter() if element.get("class") == "verb"}
    assert verbs == {"brand", "train", "plan", "generate", "gate", "certify", "export", "verify"}
