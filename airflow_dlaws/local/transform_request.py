"""What CreateTransformJob refuses beyond the service model: the rules of AWS's prose, and what this machine cannot do.

Accepted without effect: encryption keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_dlaws.local.data_processing import DataProcessing
from airflow_dlaws.local.errors import unsupported, validation_error
from airflow_dlaws.local.training_request import check_input_bucket, check_output_bucket

#: "The value of MaxPayloadInMB cannot be greater than 100 MB", nor may that of all concurrent requests together.
LARGEST_PAYLOAD_MB = 100
_CSV = "text/csv"


@dataclass(frozen=True, kw_only=True)
class TransformPlan:
    """How the records of a transform job reach the container; the defaults are AWS's."""

    concurrent: int = 1
    payload_mb: int = 6
    single_record: bool = False
    split_lines: bool = False
    gzip: bool = False
    assemble_lines: bool = False
    timeout: float = 600.0
    retries: int = 3
    headers: Mapping[str, str]
    processing: DataProcessing | None = None
    #: What the request has left to the container's execution parameters.
    open_questions: frozenset[str] = frozenset()

    def completed(self, answer: Mapping[str, Any]) -> TransformPlan:
        """Return the plan with what the container says under /execution-parameters, where the request says nothing."""
        wanted = {name: value for name, value in answer.items() if name in self.open_questions}
        return replace(
            self,
            concurrent=int(wanted.get("MaxConcurrentTransforms", self.concurrent)) or self.concurrent,
            payload_mb=int(wanted.get("MaxPayloadInMB", self.payload_mb)) or self.payload_mb,
            single_record=wanted.get("BatchStrategy", "") == "SINGLE_RECORD" or self.single_record,
        )


def check(request: Mapping[str, Any], role: str, s3: Any, region: str) -> None:
    """Refuse what AWS refuses at creation, and what cannot be done here.

    :param role: of the model: a transform job has none of its own.
    :param s3: a client to look for the buckets with.
    :raises ServiceError: ValidationException.
    """
    for member in ("DataCaptureConfig", "ExperimentConfig"):
        if member in request:
            raise unsupported(f"{member} in CreateTransformJob")
    if "TransformAmiVersion" in request["TransformResources"]:
        raise unsupported("TransformAmiVersion")
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] not in {"S3Prefix", "ManifestFile"}:
        raise validation_error(f"S3DataType {source['S3DataType']} is not valid here; use S3Prefix or ManifestFile.")
    if request["TransformInput"].get("SplitType") in {"RecordIO", "TFRecord"}:
        raise unsupported(f"SplitType {request['TransformInput']['SplitType']}; use None or Line")
    _check_payload(request)
    _check_processing(request)
    check_input_bucket(source["S3Uri"], s3, region, role)
    check_output_bucket("TransformOutput.S3OutputPath", request["TransformOutput"]["S3OutputPath"], s3, region)


def read_plan(request: Mapping[str, Any]) -> TransformPlan:
    """Read a request that has passed `check`."""
    source, output = request["TransformInput"], request["TransformOutput"]
    client = request.get("ModelClientConfig", {})
    headers = {"Content-Type": source.get("ContentType"), "Accept": output.get("Accept")}
    plan = TransformPlan(
        split_lines=source.get("SplitType", "None") == "Line",
        gzip=source.get("CompressionType", "None") == "Gzip",
        assemble_lines=output.get("AssembleWith", "None") == "Line",
        single_record=request.get("BatchStrategy") == "SingleRecord",
        headers={name: value for name, value in headers.items() if value},
        processing=DataProcessing.read(request),
        open_questions=frozenset(
            member
            for member in ("MaxConcurrentTransforms", "MaxPayloadInMB", "BatchStrategy")
            if not request.get(member)
        ),
    )
    return replace(
        plan,
        concurrent=request.get("MaxConcurrentTransforms") or plan.concurrent,
        payload_mb=request.get("MaxPayloadInMB") or plan.payload_mb,
        timeout=client.get("InvocationsTimeoutInSeconds", plan.timeout),
        retries=client.get("InvocationsMaxRetries", plan.retries),
    )


def _check_payload(request: Mapping[str, Any]) -> None:
    payload, concurrent = request.get("MaxPayloadInMB"), request.get("MaxConcurrentTransforms", 0)
    if payload == 0:
        raise unsupported("MaxPayloadInMB 0 (chunked encoding); give the largest payload in MB")
    if payload is not None and payload > LARGEST_PAYLOAD_MB:
        raise validation_error(f"MaxPayloadInMB {payload} cannot be greater than {LARGEST_PAYLOAD_MB}.")
    if payload is not None and payload * concurrent > LARGEST_PAYLOAD_MB:
        raise validation_error(
            f"MaxConcurrentTransforms * MaxPayloadInMB ({concurrent} * {payload}) cannot exceed {LARGEST_PAYLOAD_MB}."
        )


def _check_processing(request: Mapping[str, Any]) -> None:
    """AWS takes CSV and JSON; that joining needs the same line on both sides is the developer guide's."""
    try:
        processing = DataProcessing.read(request)
    except ValueError as error:
        raise unsupported(f"this DataProcessing: {error}") from error
    if processing is None:
        return
    kind = request["TransformInput"].get("ContentType", "").partition(";")[0].strip()
    if kind != _CSV:
        raise unsupported(f"DataProcessing on the content type {kind!r}; use {_CSV}")
    if request["TransformInput"].get("SplitType") != "Line" or request["TransformOutput"].get("AssembleWith") != "Line":
        raise unsupported("DataProcessing without SplitType Line and AssembleWith Line")
