"""A file of products for the price list, as the user names it. No price is built in.

A JSON list of products, each as GetProducts gives them, or the whole answer of `aws pricing get-products`:
{"PriceList": ["{...}", ...]}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow_dlaws.errors import SpecificationError


def read_products(path: Path) -> list[dict[str, Any]]:
    """Read a file of products.

    :raises SpecificationError: it is not there, or is no list of products.
    """
    try:
        document = json.loads(path.read_text())
        rows = document["PriceList"] if isinstance(document, dict) else document
        products = [json.loads(row) if isinstance(row, str) else row for row in rows]
        for product in products:
            dict(product["product"]["attributes"]), dict(product["terms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecificationError(
            f"{path} is no list of products as `aws pricing get-products` gives them: {error!r}"
        ) from error
    return products
