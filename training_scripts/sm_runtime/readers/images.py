"""Image files, decoded by Pillow, and folders of them: one folder a class, as torchvision's ImageFolder."""

import io
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sm_runtime.readers.errors import DataCorrupt, DataRefused, library
from sm_runtime.readers.fields import Columns
from sm_runtime.readers.shard import Shard

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
PNG = b"\x89PNG\r\n\x1a\n"


def image_decoder(mode: str = "RGB", size: tuple[int, int] | None = None) -> Callable[[bytes], np.ndarray]:
    """Return a function from the bytes of an image file to uint8 [height, width, channels] (mode "L": no channels).

    It raises ValueError where the file is cut off, a checksum of PNG is wrong, or the image has more pixels than
    Pillow's MAX_IMAGE_PIXELS (a decompression bomb), and DataRefused where it has more bits a pixel than the mode.

    :param size: (height, width) to resize to; None: as they are, which then must be the same for all.
    """
    pillow = library("PIL.Image", "pillow", "decoding images")

    def decode(data: bytes) -> np.ndarray:
        check_png(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pillow.DecompressionBombWarning)
                with pillow.open(io.BytesIO(data)) as image:
                    if image.mode[0] in "IF" and mode[0] not in "IF":
                        raise DataRefused(
                            f"its pixels ({image.mode}) have more than 8 bits, and {mode} would cut them off at 255: "
                            f"read it with the mode {image.mode!r}, or save it with 8 bits"
                        )
                    image = image.convert(mode)
                    return np.asarray(image.resize(size[::-1]) if size else image)
        except (OSError, SyntaxError, pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
            raise ValueError(f"the image cannot be decoded: {error}") from error

    return decode


def check_png(data: bytes) -> None:
    """Check the CRC-32 of every chunk of a PNG file (Pillow skips those of the pixels); other files pass."""
    if not data.startswith(PNG):
        return
    at = len(PNG)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        if end > len(data):
            raise ValueError("the PNG file is cut off")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"the checksum of a PNG chunk at byte {at} is wrong (CRC-32)")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    raise ValueError("the PNG file is cut off")


class ImageFolder(Shard):
    """ROOT/CLASS/**/FILE: fields `image` and `label` (int64), the number of the class in the order of names.

    Hidden files (a dot first) are left out.
    """

    def __init__(self, path: Path, mode: str, size: tuple[int, int] | None) -> None:
        self.classes = sorted(child.name for child in path.iterdir() if child.is_dir() and child.name[0] != ".")
        self._files = [
            (file, label)
            for label, name in enumerate(self.classes)
            for file in sorted((path / name).rglob("*"))
            if _is_image(file)
        ]
        if loose := sorted(child.name for child in path.iterdir() if child.is_file() and _is_image(child)):
            raise DataRefused(f"{path} has images outside of the folders of classes: {loose[:3]}; move them into one")
        if not self._files:
            raise DataRefused(f"{path} has no images: a folder for each class is needed, with {sorted(SUFFIXES)}")
        self._decode = image_decoder(mode, size)
        super().__init__(path, len(self._files))

    def rows(self, local: np.ndarray) -> Columns:
        labels = np.array([self._files[number][1] for number in local.tolist()], np.int64)
        return {"image": [self._image(number) for number in local.tolist()], "label": labels}

    def _image(self, number: int) -> np.ndarray:
        path = self._files[number][0]
        try:
            return self._decode(path.read_bytes())
        except ValueError as error:
            raise DataCorrupt(path, str(error), record=number) from error
        except DataRefused as error:
            raise DataRefused(f"{path}: {error}") from error


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
