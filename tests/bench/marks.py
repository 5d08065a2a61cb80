"""Marks on pictures: how many a second are signed and read back, what they add, and what outlives an attack.

    python -m tests.bench.marks        about half a minute on two cores

Pictures are noise in blocks of eight pixels, as PNG and, for the attacks, as JPEG and WebP too. Rates are of wall time,
serial and with a thread for each core: signing, and reading back with the comparison of all pixels.
"""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from PIL import Image

from eval.marks import ATTACKS, image_file_bytes
from eval.package.credentials import (
    C2paPictureSigner,
    c2pa_context,
    c2pa_manifest_to_sign,
    read_c2pa_credentials_of_picture,
)
from eval.package.marking import AI_MADE, decodes_to_same_picture
from eval.package.signing_certificate import C2paCertificateAndKey, new_key_and_test_certificate_pem
from eval.package.xmp import SOURCE_TYPES, picture_file_with_source_type, source_types_in_file
from stylegate.pictures import CORES

COUNTS = {64: 600, 1024: 60}  # pictures by their side
ATTACKED = 32  # pictures of each format
MANIFEST = c2pa_manifest_to_sign(SOURCE_TYPES + AI_MADE, True, {"judged_sha256": "0" * 64, "seed": 0})


def main() -> int:
    pem = new_key_and_test_certificate_pem()
    key = serialization.load_pem_private_key(pem, None)
    signer, context = (
        C2paPictureSigner(C2paCertificateAndKey(x509.load_pem_x509_certificates(pem), key)),
        c2pa_context({}),
    )

    def sign(content: bytes) -> bytes:
        return signer.signed_picture_bytes(picture_file_with_source_type(content, AI_MADE, drawn_here=True), MANIFEST)

    def proven(pair: tuple[bytes, bytes]) -> bool:
        return read_c2pa_credentials_of_picture(pair[1], context).is_picture_as_signed and decodes_to_same_picture(
            *pair
        )

    print(f"| side, pixels | KB | KB added | signed a second: serial, {CORES} threads | proven a second: the same |")
    print("|---|---|---|---|---|")
    for side, count in COUNTS.items():
        before = [content_of(side, number, "PNG") for number in range(count)]
        signed, rates = timed(sign, before)
        good, back = timed(proven, list(zip(before, signed, strict=True)))
        assert all(good)
        kilobytes = sum(map(len, before)) / count / 1024, (sum(map(len, signed)) - sum(map(len, before))) / count / 1024
        print(f"| {side} | {kilobytes[0]:.0f} | {kilobytes[1]:.1f} | {rates} | {back} |")
    print("\n| attack | format | say their source type | whole credentials |\n|---|---|---|---|")
    for kind in ("PNG", "JPEG", "WEBP"):
        marked = [sign(content_of(64, number, kind)) for number in range(ATTACKED)]
        for name, change in ATTACKS.items():
            left = [change(Image.open(io.BytesIO(content))) for content in marked]
            typed = sum(bool(source_types_in_file(content)) for content in left)
            whole = sum(read_c2pa_credentials_of_picture(content, context).is_picture_as_signed for content in left)
            print(f"| {name} | {kind} | {typed} of {ATTACKED} | {whole} of {ATTACKED} |")
    return 0


def content_of(side: int, seed: int, kind: str) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    return image_file_bytes(Image.fromarray(small).resize((side, side), Image.Resampling.NEAREST), kind)


def timed(work: Callable, given: list) -> tuple[list, str]:
    """What `work` makes of each, and how many a second: one after the other, and in threads."""
    start = time.monotonic()
    found = [work(one) for one in given]
    serial_s = time.monotonic() - start
    with ThreadPoolExecutor(CORES) as pool:
        start = time.monotonic()
        list(pool.map(work, given))
        threads_s = time.monotonic() - start
    return found, f"{len(given) / serial_s:.0f}, {len(given) / threads_s:.0f}"


if __name__ == "__main__":
    raise SystemExit(main())
