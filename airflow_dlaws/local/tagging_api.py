"""The Resource Groups Tagging API for the resources of the local SageMaker: GetResources, by ARN, by type, by tag.

AWS's index lags behind the services by some seconds (AWS does not say by how many); this one does not.
Source: https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/API_GetResources.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from werkzeug.wrappers import Request, Response

from airflow_dlaws.local import cbor, model_codec, protocol, service_model
from airflow_dlaws.local.errors import ServiceError, throttled, unsupported_operation
from airflow_dlaws.local.faults import FaultOrders
from airflow_dlaws.local.tag_store import TagStore

_OPERATION = "GetResources"
#: What AWS answers where ResourcesPerPage is not given; also the most it takes.
_PAGE = 100


class TaggingApi:
    """Answers requests signed for `tagging`."""

    def __init__(self, tags: TagStore, faults: FaultOrders) -> None:
        self._tags, self._faults = tags, faults

    def answer(self, request: Request, region: str) -> Response:
        """Answer in the protocol of the request: RPC v2 with CBOR (new botocores), or JSON with a target header."""
        target = request.headers.get("X-Amz-Target")
        name = target.rpartition(".")[2] if target else request.path.rpartition("/")[2]
        try:
            if name != _OPERATION:
                raise unsupported_operation(name, [_OPERATION])
            operation = service_model.load("resourcegroupstaggingapi").operation_model(_OPERATION)
            document = protocol.json_body(request) if target else cbor.read(request.get_data())
            self._strike()
            parameters = model_codec.decode(operation.input_shape, document) or {}
            service_model.check(operation.input_shape, parameters)
            found = self._get_resources(parameters, region)
            return protocol.json_answer(operation, found) if target else cbor.answer(operation, found)
        except ServiceError as error:
            return protocol.json_error(error) if target else cbor.error(error)

    def _strike(self) -> None:
        if self._faults.take("throttle", _OPERATION):
            raise throttled()
        if fault := self._faults.take("error", _OPERATION):
            raise ServiceError(fault.code, fault.message, status=fault.status)

    def _get_resources(self, parameters: Mapping[str, Any], region: str) -> dict[str, Any]:
        _check(parameters)
        found = sorted(self._matching(parameters, region), key=lambda row: str(row["ResourceARN"]))
        start = int(parameters.get("PaginationToken") or 0)
        end = start + int(parameters.get("ResourcesPerPage", _PAGE))
        token = str(end) if end < len(found) else ""  # AWS gives an empty token with the last page
        return {"ResourceTagMappingList": found[start:end], "PaginationToken": token}

    def _matching(self, parameters: Mapping[str, Any], region: str) -> Iterator[dict[str, Any]]:
        asked, types = parameters.get("ResourceARNList"), parameters.get("ResourceTypeFilters") or []
        filters = parameters.get("TagFilters") or []
        for arn in self._tags.arns() if asked is None else asked:
            tags = self._tags.of(arn)
            known = {tag["Key"]: tag["Value"] for tag in tags}
            fits = all(
                tag["Key"] in known and (not tag.get("Values") or known[tag["Key"]] in tag["Values"]) for tag in filters
            )
            if tags and fits and f":{region}:" in arn and (not types or _type_of(arn) & set(types)):
                yield {"ResourceARN": arn, "Tags": tags}


def _check(parameters: Mapping[str, Any]) -> None:
    """Refuse what AWS documents as refused."""
    others = parameters.keys() & {"TagFilters", "ResourceTypeFilters", "ResourcesPerPage", "PaginationToken"}
    if "ResourceARNList" in parameters and others:
        raise ServiceError(
            "InvalidParameterException", f"ResourceARNList cannot be given together with {', '.join(sorted(others))}"
        )
    if not 1 <= int(parameters.get("ResourcesPerPage", _PAGE)) <= _PAGE:
        raise ServiceError("InvalidParameterException", f"ResourcesPerPage must be from 1 to {_PAGE}")
    if not str(parameters.get("PaginationToken") or "0").isdigit():
        raise ServiceError("PaginationTokenExpiredException", "the PaginationToken is none of ours")


def _type_of(arn: str) -> set[str]:
    """Return the filters that an ARN answers to: "sagemaker" and "sagemaker:training-job"."""
    parts = arn.split(":", 5)
    return {parts[2], f"{parts[2]}:{parts[5].partition('/')[0]}"}
