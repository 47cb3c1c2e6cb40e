"""Small valid images of every kind that qnas reads."""

from functools import cache

import numpy as np
from PIL import Image

from qnas.testing.image_mutations import many_scans, saved
from qnas.testing.seed_files import Seeds
from qnas.testing.small_networks import pixels


@cache
def image_files() -> Seeds:
    """Of 20x24 pixels; "large" has few bytes for many, "scans" has 50 scans of 64x64 pixels."""
    rgb = Image.fromarray(pixels(24, 20)[0].transpose(1, 2, 0).astype(np.uint8))
    gray = rgb.convert("L")
    exif = Image.Exif()
    exif[274] = 6  # turned
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    profile = {"icc_profile": bytes(200), "exif": exif}
    return {
        "png": saved(rgb, "PNG", **profile),
        "png alpha": saved(rgb.convert("RGBA"), "PNG"),
        "png palette": saved(rgb.convert("P"), "PNG", transparency=3),
        "png large": saved(Image.new("P", (2048, 1536)), "PNG"),
        "png 16 bits": saved(deep, "PNG"),
        "png 1 bit": saved(gray.convert("1"), "PNG"),
        "jpeg": saved(rgb, "JPEG", **profile),
        "jpeg progressive": saved(rgb, "JPEG", progressive=True, subsampling=0),
        "jpeg cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        "scans": many_scans(64, 1300),
        "bmp": saved(rgb, "BMP"),
        "bmp palette": saved(rgb.convert("P"), "BMP"),
        "gif": saved(rgb, "GIF"),
        "gif frames": saved(rgb, "GIF", save_all=True, append_images=[gray.convert("RGB")]),
        "webp": saved(rgb, "WEBP"),
        "webp lossless": saved(rgb.convert("RGBA"), "WEBP", lossless=True),
        "tiff": saved(rgb, "TIFF"),
        "tiff cmyk": saved(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(deep, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tiff fax": saved(gray.convert("1"), "TIFF", compression="group4"),
        "ppm": saved(rgb, "PPM"),
        "pgm": saved(deep, "PPM"),
        "plain": b"P3 2 1 255 1 2 3 4 5 6",
    }
