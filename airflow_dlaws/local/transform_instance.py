"""One instance of a transform job: a serving container, the objects that are its share, and the requests between them.

Several requests are at work at once, also of different objects; their answers are put together in the order of the
input. An object is stored when all of it has been answered: "it creates an .out file only if the transform job succeeds
on the entire file" (TransformOutput).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_dlaws.local.batch_job import BatchJob
from airflow_dlaws.local.context import LocalContext
from airflow_dlaws.local.data_processing import RowFault
from airflow_dlaws.local.http_pool import ContainerAnswer
from airflow_dlaws.local.job_logs import LogStream
from airflow_dlaws.local.models import ServingContainer
from airflow_dlaws.local.serving_process import ServingProcess, ServingRole
from airflow_dlaws.local.training_input import InputObjects
from airflow_dlaws.local.transform_records import Batch, batches
from airflow_dlaws.local.transform_request import TransformPlan
from airflow_dlaws.storage import S3Uri

LOG_GROUP = "/aws/sagemaker/TransformJobs"
#: Before the first retry of a request, doubled for each further one. AWS names no figure.
_RETRY_SECONDS = 1.0
#: How long a container may take over /execution-parameters; it is asked like a ping.
_PARAMETERS_SECONDS = 2.0


class RequestFault(Exception):
    """A request has failed for good. `at_fault` is who AWS blames: ClientError or AlgorithmError."""

    def __init__(self, at_fault: str, headline: str, text: str = "") -> None:
        super().__init__(headline)
        self.at_fault, self.headline, self.text = at_fault, headline, text


class _Stopped(Exception):
    """The job is to stop: nothing is wrong with the request."""


@dataclass(eq=False)
class _Output:
    """The answers to one input object, on their way to S3."""

    source: S3Uri
    name: str
    path: Path
    #: Who is to blame where it failed.
    fault: str = ""

    @property
    def input_path(self) -> Path:
        """Where the input object was copied to."""
        return self.path.with_suffix(".in")


class TransformInstance:
    """One of a job's instances."""

    def __init__(
        self, context: LocalContext, region: str, job: BatchJob, container: ServingContainer, plan: TransformPlan
    ) -> None:
        self._context, self._job, self._plan = context, job, plan
        self._s3 = context.client("s3", region)
        self._target = S3Uri.parse(job.request["TransformOutput"]["S3OutputPath"].rstrip("/"))
        stream = f"{job.name}/i-{uuid.uuid4().hex[:17]}-{int(time.time())}"
        self._data_log = LogStream(context.client("logs", region), LOG_GROUP, f"{stream}/data-log")
        role = ServingRole(owner=job.name, title="The container", log_group=LOG_GROUP, log_stream=stream)
        self._process = ServingProcess(context, region, container, role)

    def start(self) -> None:
        """Start the container and ask it for its parameters.

        :raises ServingFailed: it does not come up.
        """
        self._process.start()
        self._plan = self._plan.completed(self._execution_parameters())
        strategy = "SINGLE_RECORD" if self._plan.single_record else "MULTI_RECORD"
        self._note(
            f"MaxConcurrentTransforms={self._plan.concurrent}, MaxPayloadInMB={self._plan.payload_mb}, "
            f"BatchStrategy={strategy}"
        )

    def stop(self) -> None:
        """End the container; requests at work fail."""
        self._process.stop()

    def transform(self, objects: Sequence[tuple[S3Uri, str]], inputs: InputObjects, folder: Path) -> list[str]:
        """Transform these objects; return who is to blame for each one that failed.

        :raises InputFault: an object is not there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        outputs = [_Output(uri, name, folder / f"{number}.out") for number, (uri, name) in enumerate(objects)]
        with ThreadPoolExecutor(self._plan.concurrent) as pool:
            window: deque[tuple[_Output, Batch | None, Future[bytes] | None]] = deque()
            for output, batch in self._work(outputs, inputs):
                window.append((output, batch, pool.submit(self._send, output, batch) if batch else None))
                while len(window) > 2 * self._plan.concurrent:
                    self._take(*window.popleft())
            while window:
                self._take(*window.popleft())
        return [output.fault for output in outputs if output.fault]

    @property
    def _stopping(self) -> bool:
        return self._job.stop_requested.is_set() or self._context.closing.is_set()

    def _work(self, outputs: Sequence[_Output], inputs: InputObjects) -> Iterator[tuple[_Output, Batch | None]]:
        """Yield what is to be sent, object by object, and (object, None) behind the last request of each."""
        for output in outputs:
            if self._stopping:
                return
            inputs.copy(output.source, output.input_path)
            output.path.touch()
            try:
                for batch in batches(output.input_path, self._plan):
                    if output.fault or self._stopping:
                        break
                    yield output, batch
            except (RowFault, OSError, EOFError) as error:  # OSError, EOFError: what is no gzip file
                self._fail(output, RequestFault("ClientError", str(error)))
            yield output, None

    def _take(self, output: _Output, batch: Batch | None, answer: Future[bytes] | None) -> None:
        """Put the next answer where it belongs; store the object behind its last one."""
        if answer is not None and batch is not None:
            try:
                content = answer.result()
            except _Stopped:
                return
            except RequestFault as fault:
                self._fail(output, fault)
            else:
                with output.path.open("ab") as file:
                    file.write(content)
            return
        if not output.fault and not self._stopping:
            target = self._target / f"{output.name}.out"
            self._s3.upload_file(str(output.path), target.bucket, target.key)
        output.path.unlink(missing_ok=True)
        output.input_path.unlink(missing_ok=True)

    def _send(self, output: _Output, batch: Batch) -> bytes:
        """Send one request, again where it fails; return what is to be stored.

        :raises RequestFault: it failed for good.
        :raises _Stopped: the job is to stop, or the object has failed meanwhile.
        """
        try:
            body = batch.body(self._plan)
            for attempt in range(self._plan.retries + 1):
                if self._stopping or output.fault:
                    raise _Stopped
                if attempt:
                    self._job.stop_requested.wait(self._context.scaled(_RETRY_SECONDS * 2 ** (attempt - 1)))
                try:
                    return batch.stored(self._plan, self._invoke(body).body)
                except RequestFault:
                    if attempt == self._plan.retries:
                        raise
        except RowFault as error:
            raise RequestFault("ClientError", str(error)) from error
        raise AssertionError("the last attempt returns or raises")

    def _invoke(self, body: bytes) -> ContainerAnswer:
        try:
            answer = self._process.request(
                "POST", "/invocations", timeout=self._plan.timeout, body=body, headers=self._plan.headers
            )
        except TimeoutError as error:
            raise RequestFault("AlgorithmError", "Model server did not respond in time") from error
        except (OSError, http.client.HTTPException) as error:
            raise RequestFault("AlgorithmError", "Unable to get response from algorithm") from error
        if 200 <= answer.status < 300:
            return answer
        text = answer.body.decode(errors="replace")
        if 400 <= answer.status < 500:
            raise RequestFault("ClientError", f"ClientError: {answer.status}", text)
        raise RequestFault("AlgorithmError", f"Bad HTTP status received from algorithm: {answer.status}", text)

    def _execution_parameters(self) -> dict[str, Any]:
        """Ask the container how it wants its requests; it need not know."""
        if not self._plan.open_questions:
            return {}
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            answer = self._process.request("GET", "/execution-parameters", timeout=_PARAMETERS_SECONDS, headers={})
            if answer.status == 200:
                return dict(json.loads(answer.body))
        return {}

    def _fail(self, output: _Output, fault: RequestFault) -> None:
        """Note the fault in the words and the form of AWS's data log."""
        if output.fault:
            return
        output.fault = fault.at_fault
        place = f"{output.source.bucket}/{output.source.key}"
        message = ["", "Message:", *fault.text.splitlines()] if fault.text else []
        for line in [fault.headline, *message]:
            self._note(f"{place}: {line}")

    def _note(self, line: str) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        # Logs are best effort, on AWS too; a server that is going down takes no more of them.
        with contextlib.suppress(BotoCoreError, ClientError):
            self._data_log.put([f"{stamp}:[sagemaker logs]: {line}"])
