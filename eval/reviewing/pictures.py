"""The bytes of a picture for a browser: exactly those that were judged, or nothing."""

import hashlib
import io

from eval.reviewing.queues import ReviewPicture
from stylegate import pictures
from stylegate.pictures import PictureError

# What every browser shows by itself, by the first bytes of the file. Other formats are sent as PNG. A picture that is
# text (SVG) is never sent.
BROWSER_FORMATS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


def picture_bytes_and_media_type(picture: ReviewPicture) -> tuple[bytes, str] | None:
    """(bytes, media type) of a picture as a browser can show it: the file as it is if it is PNG, JPEG, GIF or WebP, any
    other format converted to PNG. None if the file is gone, cannot be converted, or its sha256 is not the judged one.
    """
    try:
        content = pictures.read_picture_file_bytes(picture.path)
    except (OSError, PictureError):
        return None
    if hashlib.sha256(content).hexdigest() != picture.sha256:
        return None
    for start, media_type in BROWSER_FORMATS:
        if content.startswith(start):
            return content, media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return content, "image/webp"
    try:
        image = pictures.decode_picture(content).image
    except PictureError:
        return None
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=1)
    return sink.getvalue(), "image/png"
