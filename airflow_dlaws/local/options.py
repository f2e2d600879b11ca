"""What the server of the local AWS can be told, for its own command line and for `dlaws local up`."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.local.price_file import read_products

#: Inside the folder one works in, so that nothing is written elsewhere.
STATE_DIR = Path(".dlaws/local")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR, help=f"folder for all files ({STATE_DIR})")
    parser.add_argument(
        "--time-scale", type=_scale, default=1.0, help="multiplies the waits that AWS makes, such as grace periods (1)"
    )
    parser.add_argument(
        "--spot-price", type=_share, default=0.3, help="what spot costs, as a share of the price on demand (0.3)"
    )
    parser.add_argument("--prices", type=_products, metavar="FILE", help="products that the price list answers with")
    parser.add_argument(
        "--file-system",
        type=_file_system,
        action="append",
        default=[],
        metavar="ID=FOLDER",
        help="let this folder stand for a file system of FSx for Lustre or EFS",
    )
    parser.add_argument(
        "--image",
        type=_image,
        action="append",
        default=[],
        metavar="PATTERN=FOLDER",
        help="let images whose URI matches run the programs in this folder",
    )


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give 0 (any free one) to 65535")
    return int(text)


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 0 <= scale < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time scale; give a number of at least 0")
    return scale


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of a price; give a number over 0 and up to 1")
    return share


def _products(text: str) -> Path:
    try:
        read_products(Path(text))
    except SpecificationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def _file_system(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not re.fullmatch("fs-[0-9a-f]{8,18}", name) or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no ID=FOLDER with an id such as fs-0123abcd and a folder")
    return name, Path(folder).resolve()


def _image(text: str) -> tuple[str, str]:
    pattern, separator, folder = text.partition("=")
    if not separator or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no PATTERN=FOLDER with an existing folder")
    return pattern, folder
