"""The AWS Price List (service `pricing`, GetProducts), answered from the file that the user has named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import model_codec, protocol, service_model
from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.errors import ServiceError, throttled, unsupported_operation

_TARGET_PREFIX = "AWSPriceListService."
_OPERATION = "GetProducts"
_PAGE = 100


class Prices:
    """The one operation that is answered."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context

    def answer(self, request: Request) -> Response:
        """Answer a request signed for `pricing`."""
        try:
            return self._answer(request)
        except ServiceError as error:
            return protocol.json_error(error)

    def _answer(self, request: Request) -> Response:
        name = request.headers.get("X-Amz-Target", "").removeprefix(_TARGET_PREFIX)
        if name != _OPERATION:
            raise unsupported_operation(name, [_OPERATION])
        self._strike()
        operation = service_model.load("pricing").operation_model(_OPERATION)
        parameters = model_codec.decode(operation.input_shape, protocol.json_body(request))
        service_model.check(operation.input_shape, parameters)
        return protocol.json_answer(operation, self._get_products(parameters))

    def _strike(self) -> None:
        if self._context.faults.take("throttle", _OPERATION):
            raise throttled()
        if fault := self._context.faults.take("error", _OPERATION):
            raise ServiceError(fault.code, fault.message, status=fault.status)

    def _get_products(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if self._context.products is None:
            raise ServiceError(
                "AccessDeniedException",
                "The local AWS knows no prices: name a file of them with --prices (docs/local_aws.md).",
            )
        if parameters["ServiceCode"] != "AmazonSageMaker":
            raise ServiceError("NotFoundException", f"The service code {parameters['ServiceCode']} was not found.")
        for wanted in parameters.get("Filters", []):
            if wanted["Type"] != "TERM_MATCH":
                raise ServiceError("InvalidParameterException", f"The local AWS has no filter type {wanted['Type']}.")
        found = [product for product in self._context.products if _matches(product, parameters.get("Filters", []))]
        begin = self._page_start(parameters, len(found))
        end = begin + min(_PAGE, parameters.get("MaxResults", _PAGE))
        answer = {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product) for product in found[begin:end]]}
        return {**answer, "NextToken": str(end)} if end < len(found) else answer

    def _page_start(self, parameters: Mapping[str, Any], found: int) -> int:
        token = parameters.get("NextToken", "0")
        if not token.isdigit() or int(token) > found:
            raise ServiceError("InvalidNextTokenException", "The pagination token is invalid. Try again without it.")
        return int(token)


def _matches(product: Mapping[str, Any], filters: list[Mapping[str, str]]) -> bool:
    """All filters must match, as AWS compares them: without regard to case."""
    attributes = {**product["product"]["attributes"], "productFamily": product["product"].get("productFamily", "")}
    return all(str(attributes.get(each["Field"], "")).lower() == each["Value"].lower() for each in filters)
