"""Sheets of pictures for people: what does not fit is cut."""

from stylegate.sheets import font, truncate_text_to_pixel_width


def test_a_caption_is_cut_to_its_width_or_left_out() -> None:
    for width in (400, 60, 20, 3, 0, -6):
        cut = truncate_text_to_pixel_width("a red robot", width)
        assert cut in ("", "a red robot") or (cut.endswith("…") and "a red robot".startswith(cut[:-1]))
        assert not cut or font(12).getlength(cut) <= width
    assert truncate_text_to_pixel_width("a red robot", 400) == "a red robot" and truncate_text_to_pixel_width(
        "a red robot", 60
    )
