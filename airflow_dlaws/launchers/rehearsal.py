"""Throw-away endpoints: one instance with the model of a rollout, asked the sample requests, and deleted again.

AWS deletes no endpoint that is being created (that ends within about half an hour): `remove_endpoint` says so, and who
calls it keeps the name until it is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.launchers.aws_errors import error_code, error_text, service_errors, translated
from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.job_tags import job_tags
from airflow_dlaws.rollout.order import RolloutNames, RolloutOrder
from airflow_dlaws.rollout.rehearsal import MOST_REQUESTS, Answers, RehearsalVerdict
from airflow_dlaws.rollout.state import EndpointStatus
from airflow_dlaws.storage import ObjectStore, S3Uri

log = logging.getLogger(__name__)

#: By which a throw-away endpoint is recognised, and what stands in its name.
ROLE_TAG, ROLE = "dlaws:role", "rehearsal"
#: The endpoint is in some movement: it can be neither asked nor deleted.
MOVING = frozenset(
    {EndpointStatus.CREATING, EndpointStatus.UPDATING, EndpointStatus.SYSTEM_UPDATING, EndpointStatus.ROLLING_BACK}
)
#: The runtime's "later"; every other refusal is about this request or this model.
_PASSING = frozenset({"ThrottlingException", "Throttling", "InternalFailure", "ModelNotReadyException"})


class RehearsalPort:
    """The throw-away endpoint of one rollout. `client` gives the boto3 client of a service; `clock`, epoch seconds."""

    def __init__(
        self, client: Callable[[str], Any], order: RolloutOrder, names: RolloutNames, *, clock: Callable[[], float]
    ) -> None:
        self._client, self._order, self._names, self._clock = client, order, names, clock
        self._sagemaker = client("sagemaker")
        self._endpoint = EndpointPort(self._sagemaker)

    def moves(self) -> bool:
        """Tell whether the endpoint is in some movement: it can be neither asked nor deleted, nor made anew."""
        live = self._endpoint.describe(self._names.rehearsal_name)
        return live is not None and (live.status in MOVING or live.status is EndpointStatus.DELETING)

    def go_on(self, *, until: float) -> tuple[RehearsalVerdict, str]:
        """Create the endpoint where there is none; ask it where it serves; return the verdict, and why.

        :param until: when the task's time is up, epoch seconds: who answers so slowly has failed.
        :raises DlawsError: AWS cannot be asked now, or refuses to create it.
        """
        name = self._names.rehearsal_name
        live = self._endpoint.describe(name)
        if live is None:
            self._begin()
            return RehearsalVerdict.PENDING, f"endpoint {name} starts with one {self._order.instance_type}"
        if live.status in MOVING or live.status is EndpointStatus.DELETING:
            return RehearsalVerdict.PENDING, f"endpoint {name} is {live.status.value}"
        if live.status is not EndpointStatus.IN_SERVICE:
            why = f"{live.status.value} ({live.failure_reason or 'AWS gives no reason'})"
            return RehearsalVerdict.FAILED, f"the model does not come up: endpoint {name} is {why}"
        answers = self._ask(until)
        verdict = RehearsalVerdict.FAILED if answers.failure else RehearsalVerdict.PASSED
        return verdict, answers.sentence

    def _begin(self) -> None:
        self._samples()  # a mistake in them costs no instance
        name, instance = self._names.rehearsal_name, self._order.instance_type
        self._endpoint.ensure_rehearsal_config(self._order, self._names)
        log.info("rehearsal: endpoint %s starts with one %s, which is paid for until it is deleted", name, instance)
        self._endpoint.create(name, name, tags=self._tags())

    def _tags(self) -> list[dict[str, str]]:
        """Return the tags of the endpoint: like a job's, so that it is found should its task be gone for good."""
        names, own = self._names, {ROLE_TAG: ROLE, "dlaws:machine": self._order.instance_type}
        if names.task is None:
            return self._endpoint.tags(names)
        return job_tags({**own, "dlaws:owner": names.owner}, names.task, names.digest, attempt=1)

    def _samples(self) -> list[bytes]:
        """Return the requests, one for each line.

        :raises SpecificationError: there are none.
        """
        uri = S3Uri.parse(str(self._order.sample_requests))
        store = ObjectStore(self._client("s3"))
        with service_errors(f"read the sample requests {uri}"):
            lines = store.read(uri).splitlines() if store.exists(uri) else []
        requests = [line for line in lines if line.strip()]
        if not requests:
            raise SpecificationError(f"sample_requests={str(uri)!r} is no object with one request on each line")
        return requests[:MOST_REQUESTS]

    def _ask(self, until: float) -> Answers:
        runtime, slowest = self._client("sagemaker-runtime"), 0.0
        requests = self._samples()
        for number, body in enumerate(requests, 1):
            if self._clock() >= until:
                why = f"it was not sent, for this task's time is up: the slowest of those before took {slowest:.3g} s"
                return Answers(sent=number, failure=f"{why}; send fewer, or raise timeout")
            began = time.perf_counter()
            try:
                with service_errors(f"send sample request {number}"):
                    self._send(runtime, body)
            except _Refused as refusal:
                return Answers(sent=number, failure=str(refusal))
            slowest = max(slowest, time.perf_counter() - began)
        return Answers(sent=len(requests), slowest=slowest)

    def _send(self, runtime: Any, body: bytes) -> None:
        name, kind = self._names.rehearsal_name, self._order.sample_content_type
        try:
            answer = runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType=kind)
        except ClientError as error:
            if error_code(error) in _PASSING:
                raise
            status = error.response.get("OriginalStatusCode")
            text = error.response.get("OriginalMessage") or error_text(error)
            raise _Refused(f"the model answered {status}: {text}" if status else text) from error
        answer["Body"].read()


def remove_endpoint(sagemaker: Any, name: str) -> bool:
    """Delete a throw-away endpoint and its configuration; return False where AWS cannot do it yet.

    :param sagemaker: a boto3 client.
    """
    port = EndpointPort(sagemaker)
    live = port.describe(name)
    if live and live.status in MOVING:
        return False
    if live and live.status is not EndpointStatus.DELETING:
        try:
            sagemaker.delete_endpoint(EndpointName=name)
        except ClientError as error:
            if "Could not find" not in error_text(error):
                raise translated(f"delete endpoint {name}", error) from error
    port.delete_config(name)
    return True


class _Refused(Exception):
    """The model, or the runtime in its place, refused one sample request."""
