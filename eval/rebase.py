"""Metadata of a package with the address that its pictures have got, for minting. The package itself stays as it is.

    stylegate rebase data/exports/acme-v1 ipfs://bafy.../images ./acme-metadata

The address of the pictures is not known at export: on IPFS it follows from their content.
"""

import json
from pathlib import Path
from typing import Any

import rfc8785

from eval.package.items import PROFILES
from eval.package.layout import IMAGES, is_bag
from eval.package.proof import CHANGED, package_problems
from stylegate import files
from stylegate.errors import ConfigError, DataError

USAGE = "stylegate rebase PACKAGE ADDRESS OUT, such as data/exports/acme-v1 ipfs://CID/images ./acme-metadata"
RELATIVE = f"../../{IMAGES}/"


def rebase(words: list[str]) -> int:
    """Write erc721/, erc1155/, metaplex/ and SHA256SUMS into a new folder. Returns 0.

    Raises DataError for a package that does not hold, ConfigError for words of another kind.
    """
    if len(words) != 3 or "://" not in words[1]:
        raise ConfigError("rebase takes a package, the address of its pictures, and a new folder", next_step=USAGE)
    package, address, out = Path(words[0]), words[1].rstrip("/") + "/", Path(words[2]).expanduser()
    if out.exists():
        raise ConfigError(f"{out} exists", next_step="name a new folder.")
    problems = package_problems(package) if is_bag(package) else [f"{package} is no bag: export it again"]
    if problems:
        raise DataError(f"{package} does not hold:", problems, CHANGED)

    def write_rebased_metadata(partial: Path) -> None:
        sums = []
        for folder in PROFILES:
            for path in sorted((package / "data" / "metadata" / folder).iterdir()):
                content = rfc8785.dumps(with_address_before_picture_paths(json.loads(path.read_bytes()), address))
                target = partial / folder / path.name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content)
                sums.append(f"{files.sha256_of_file(target)}  {folder}/{path.name}\n")
        (partial / "SHA256SUMS").write_text("".join(sums))

    files.write_folder_atomically(out.absolute(), write_rebased_metadata)
    print(f"rebase: {files.display_path(out.absolute())}")
    return 0


def with_address_before_picture_paths(value: Any, address: str) -> Any:
    """The JSON data with `address` put before every text that is the relative path of a picture."""
    if isinstance(value, dict):
        return {key: with_address_before_picture_paths(part, address) for key, part in value.items()}
    if isinstance(value, list):
        return [with_address_before_picture_paths(part, address) for part in value]
    if isinstance(value, str) and value.startswith(RELATIVE):
        return address + value.removeprefix(RELATIVE)
    return value
