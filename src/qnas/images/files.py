"""Reads photographs as uint8 RGB, whatever their mode, and writes PNG files."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from qnas.errors import ImageError, OutputError
from qnas.files import atomic_write, made_folder, open_input
from qnas.images.jpeg import has_more_scans


def _newer_formats() -> tuple[str, ...]:
    """AVIF and JPEG XL ("JXL"), where this Pillow can read them, by itself or with a plugin."""
    found = []
    for module, name in (("PIL.AvifImagePlugin", "AVIF"), ("pillow_jxl", "JXL")):
        with suppress(ImportError):
            if getattr(import_module(module), "SUPPORTED", True):
                found.append(name)
    return tuple(found)


NEWER = _newer_formats()
# Named, because others of Pillow's readers start programs (EPS runs ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF", *NEWER)
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif",
    *(f".{name.lower()}" for name in NEWER),
)  # fmt: skip
OTHER_SUFFIXES = frozenset({  # of images that are not read
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf",
    ".psd", ".raw", ".rw2", ".svg", ".tga",
}) - {*SUFFIXES}  # fmt: skip
NAMED = 3  # folders in a sentence
MOST_PIXELS = 1 << 25  # 7680x4320 is less; to read it takes less than 1 GiB, however few bytes say so
MOST_SCANS = 100  # of a progressive JPEG file: ten are usual, and each takes time however few bytes say so
DIRECT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3] RGB; a transparent image keeps its colours and loses its alpha.

    Reads gray, palette, 16-bit gray (v / 257, rounded), CMYK and YCbCr, and of several frames the first;
    applies the EXIF orientation. Raises ImageError for a file that is missing, damaged, too large, or of
    32-bit pixels.
    """
    return read_image_with_alpha(path)[0]


def read_image_with_alpha(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return uint8 [H, W, 3] RGB and uint8 [H, W] alpha, None if opaque; otherwise as `read_image`."""
    if not path.is_file():
        raise ImageError(f"{path} is not a file: name an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:  # Pillow has read the head alone
                    raise Image.DecompressionBombError
                _check_work(image, path)
                ImageOps.exif_transpose(image, in_place=True)
                return _to_rgb_and_alpha(image, image.format, path)
    except ImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} has more than {MOST_PIXELS} pixels and may be a decompression bomb: cut it into parts"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is not an image that can be read: use one of {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ImageError(f"{path} is damaged ({error}): replace the file") from error


def _check_work(image: Image.Image, path: Path) -> None:
    """Before pixels are decoded: what takes more than their number says. Raises ImageError."""
    if isinstance(image, JpegImageFile) and has_more_scans(path, MOST_SCANS):
        raise ImageError(f"{path} has more than {MOST_SCANS} scans: save it again as PNG")
    if isinstance(image, TiffImageFile):  # a tile may be larger than the image, and is decoded as a whole
        tile = [image.tag_v2.get(tag) for tag in (TILEWIDTH, TILELENGTH)]
        width, height = (each if isinstance(each, int) else 0 for each in tile)
        if width * height > MOST_PIXELS:
            raise ImageError(f"{path} has tiles of more than {MOST_PIXELS} pixels: save it again as PNG")


def _to_rgb_and_alpha(
    image: Image.Image, file_format: str | None, path: Path
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    if image.mode.startswith("I;16") or (
        image.mode == "I" and file_format == "PPM"
    ):  # PPM: scaled to 16 bits
        gray16 = np.asarray(image).astype(np.uint32)
        gray = ((gray16 + 128) // 257).astype(np.uint8)  # 257 is odd: no ties
        transparent = image.info.get("transparency")
        alpha = None if transparent is None else np.where(gray16 == transparent, 0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2), alpha
    if image.mode not in DIRECT_MODES:
        raise ImageError(f"{path} has pixels of mode {image.mode}: convert it to 8-bit RGB or gray first")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow has no direct way from premultiplied gray to RGBA
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), None
    pixels = np.array(image.convert("RGBA"))
    return np.ascontiguousarray(pixels[:, :, :3]), np.ascontiguousarray(pixels[:, :, 3])


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, by suffix, sorted by name, hidden ones left out.

    Raises ImageError when the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder: name a folder of images")
    files = (file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    found = sorted(file for file in files if not file.name.startswith("."))
    if not found:
        more = "".join(f"; {sentence}" for sentence in passed_over(folder))
        raise ImageError(f"{folder} holds no image: put files of type {' '.join(SUFFIXES)} there{more}")
    return found


def passed_over(folder: Path) -> tuple[str, ...]:
    """What may be images in `folder` and `list_images` leaves out, a sentence each: folders, other types."""
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    folders = [path.name for path in visible if path.is_dir()]
    types = Counter(path.suffix.lower() for path in visible if path.is_file())
    others = {suffix: count for suffix, count in types.items() if suffix in OTHER_SUFFIXES}
    said = []
    if folders:
        named = ", ".join(folders[:NAMED]) + (", ..." if len(folders) > NAMED else "")
        said.append(
            f"folders inside {folder} are not read, and there are {len(folders)} ({named}): name them too"
        )
    if others:
        counted = ", ".join(f"{count} {suffix}" for suffix, count in others.items())
        said.append(f"images in {folder} are of types that are not read ({counted}): save them as PNG")
    return tuple(said)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises ImageError when it cannot be read."""
    try:
        with open_input(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}): check the file") from error


def images_in(places: Iterable[Path | None]) -> Iterator[Path]:
    """The images that files and folders of them stand for; None, and a folder without any, for none."""
    for place in places:
        if place is not None and not place.is_dir():
            yield place
        elif place is not None:
            with suppress(ImageError):
                yield from list_images(place)


def pngs_in(folder: Path, images: Iterable[Path]) -> list[Path]:
    """A PNG file in `folder`, which is made, for each of `images`, by its name. Raises OutputError."""
    made = made_folder(folder)
    return [made / f"{image.stem}.png" for image in images]


def write_png(
    path: Path, image: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None, force: bool = False
) -> None:
    """Write uint8 [H, W, 3] RGB, with uint8 [H, W] alpha if given, as a PNG, whole or not at all.

    Raises OutputError when `path` does not end in .png, exists without `force`, or cannot be written.
    """
    check_png_name(path)
    pixels = image if alpha is None else np.dstack([image, alpha])
    with atomic_write(path, force) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def check_png_name(path: Path) -> None:
    """Raise OutputError unless `path` ends in .png: the bytes and the name should agree."""
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} would be a PNG file: let its name end in .png")


def crop_to_multiple(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Return `image` [H, W, ...] cut at the right and bottom so that `multiple` divides H and W.

    Raises ImageError when nothing would be left.
    """
    height, width = (size - size % multiple for size in image.shape[:2])
    if height == 0 or width == 0:
        raise ImageError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels is smaller than {multiple}: "
            "use a larger one"
        )
    return image[:height, :width]


def full_range_luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB [H, W, 3] -> 0.299 R + 0.587 G + 0.114 B, uint8 [H, W, 1], in Pillow's fixed point."""
    weighted: NDArray[np.int64] = image.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighted + 32768) >> 16).astype(np.uint8)[:, :, None]


def planar(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] as it is, [H, W, 1] as [H, W]."""
    return image[:, :, 0] if image.shape[2] == 1 else image
