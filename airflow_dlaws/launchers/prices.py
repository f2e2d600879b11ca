"""What an hour of an instance costs on demand, as the AWS Price List tells it. No price is built in.

Source: AWS Price List Query API, GetProducts, service AmazonSageMaker. Each product is a JSON document: attributes
(`regionCode`, `instanceName` such as "ml.g5.xlarge", `component` such as "Training") and terms. The API has endpoints
in a few regions only, which all tell the prices of every region: https://docs.aws.amazon.com/awsaccountbilling/
latest/aboutv2/using-price-list-query-api.html
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_dlaws.errors import DlawsError
from airflow_dlaws.jobs.cost import Price
from airflow_dlaws.launchers.aws_errors import service_errors

log = logging.getLogger(__name__)

PRICING_REGION = "us-east-1"
_COMPONENT = "training"
_KNOWN: dict[tuple[str, str, str], Price] = {}
_LOCK = threading.Lock()


def training_price(pricing: Any, *, region: str, instance_type: str) -> Price:
    """Return the on-demand price of an instance that trains; asked for once in each process.

    That it cannot be had fails nothing: the price is None, the source says why, and the log says so once.

    :param pricing: a boto3 client of the service `pricing`.
    """
    key = (str(pricing.meta.endpoint_url), region, instance_type)
    with _LOCK:
        if key not in _KNOWN:
            _KNOWN[key] = _ask(pricing, region, instance_type)
        return _KNOWN[key]


def _ask(pricing: Any, region: str, instance_type: str) -> Price:
    try:
        prices = set(_hourly_prices(_products(pricing, region, instance_type)))
        if len(prices) == 1:
            return Price(usd_per_hour=prices.pop(), source=f"AWS Price List, on demand, {region}")
        found = f"{len(prices)} different prices" if prices else "no price"
        why = f"the AWS Price List has {found} for training on {instance_type} in {region}"
    except DlawsError as error:
        why = str(error)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"the answer of the AWS Price List for {instance_type} cannot be read: {error!r}"
    log.warning("The cost of jobs on %s is not estimated: %s. Set price_per_hour to have it", instance_type, why)
    return Price(usd_per_hour=None, source=why)


def _products(pricing: Any, region: str, instance_type: str) -> list[Mapping[str, Any]]:
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in (("regionCode", region), ("instanceName", instance_type))
    ]
    found: list[Mapping[str, Any]] = []
    with service_errors(f"ask the AWS Price List for {instance_type}"):
        for page in pricing.get_paginator("get_products").paginate(ServiceCode="AmazonSageMaker", Filters=filters):
            found += [json.loads(document) for document in page["PriceList"]]
    return found


def _hourly_prices(products: Iterable[Mapping[str, Any]]) -> Iterable[float]:
    """Yield the prices of training; notebooks, endpoints and warm pools on the same instance are other products."""
    for product in products:
        if str(product["product"]["attributes"].get("component", "")).strip().lower() != _COMPONENT:
            continue
        for term in product["terms"].get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                price = float(dimension["pricePerUnit"]["USD"])
                if dimension["unit"] in ("Hrs", "Hour", "Hours") and price > 0:
                    yield price
