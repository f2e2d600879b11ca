"""Links to the AWS console, to log streams, to reports in S3, and to the progress that Airflow itself shows.

An operator stores the address as soon as it knows it (`XLink.store`), so the link works while the task is deferred and
after it failed; Airflow asks for it again with `get_link` when the task ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow_dlaws._compat import BaseOperatorLink, Context
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.storage import S3Uri

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: The longest that Signature Version 4 allows.
_SIGNED_SECONDS = 7 * 86400


class _StoredLink(BaseOperatorLink):
    """A link whose address the operator has stored as an XCom under the link's own key."""

    name: ClassVar[str] = ""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the stored address, or nothing where the task has not got that far."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(key=self.xcom_key, ti_key=ti_key) or ""

    @classmethod
    def store(cls, context: Context, address: str) -> None:
        """Keep the address for this task instance."""
        context["ti"].xcom_push(key=cls().xcom_key, value=address)


class ConsoleLink(_StoredLink):
    """The job, model package or endpoint in the AWS console."""

    name = "AWS console"


class LogsLink(_StoredLink):
    """The job's log streams in CloudWatch."""

    name = "CloudWatch logs"


class ProgressLink(_StoredLink):
    """Where Airflow's own UI shows the XCom `progress` of a task, which is renewed while it waits."""

    name = "Progress"


class ReportLink(_StoredLink):
    """The report a task wrote to S3."""

    name = "Report"


def progress_url(identity: TaskIdentity) -> str:
    """Return the page of a task instance's XComs in Airflow's UI; empty where the deployment has no address."""
    if not identity.deployment:
        return ""
    steps = ["dags", identity.dag_id, "runs", identity.run_id, "tasks", identity.task_id]
    mapped = ["mapped", str(identity.map_index)] if identity.map_index >= 0 else []
    return "/".join([identity.deployment.rstrip("/"), *(quote(step, safe="") for step in (*steps, *mapped)), "xcom"])


def sagemaker_console_url(region: str, page: str) -> str:
    """Return the console's address of a SageMaker page such as `jobs/NAME` or `endpoints/NAME`."""
    return f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}#/{page}"


def logs_console_url(region: str, group: str, stream_prefix: str) -> str:
    """Return the console's address of the log streams of `group` that start with `stream_prefix`."""

    def twice(text: str) -> str:
        # The console reads its fragment percent-encoded twice, with $ in place of %.
        return quote(quote(text, safe=""), safe="").replace("%", "$")

    base = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
    return f"{base}#logsV2:log-groups/log-group/{twice(group)}$3FlogStreamNameFilter$3D{twice(stream_prefix)}"


def report_url(s3_client: Any, uri: S3Uri) -> str:
    """Return an address of a stored report that a browser opens.

    On a local AWS (a client with its own endpoint on loopback) the object itself, signed, for a browser has no
    credentials; on AWS its console page.
    """
    endpoint = str(s3_client.meta.endpoint_url)
    if "://127.0.0.1" in endpoint or "://localhost" in endpoint:
        place = {"Bucket": uri.bucket, "Key": uri.key}
        return str(s3_client.generate_presigned_url("get_object", Params=place, ExpiresIn=_SIGNED_SECONDS))
    region = s3_client.meta.region_name
    page = f"https://{region}.console.aws.amazon.com/s3/object/{uri.bucket}"
    return f"{page}?region={region}&prefix={quote(uri.key, safe='')}"
