"""Every place where the local AWS touches moto's insides. When moto changes one, this says which."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import moto
import moto.cloudwatch.urls
import moto.logs.urls
from botocore.session import get_session
from moto.cloudwatch.exceptions import InvalidFormat, ResourceNotFound, ValidationError
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.logs.models import LogGroup, LogsBackend
from moto.logs.responses import LogsResponse
from moto.moto_server import werkzeug_app
from moto.sns.models import sns_backends

from airflow_dlaws.local import cloudwatch, cloudwatch_logs, moto_seams


def test_the_pinned_moto_has_the_seams_we_use() -> None:
    assert moto.__version__.startswith("5.2.")
    application = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
    assert callable(application)
    assert list(inspect.signature(werkzeug_app.create_backend_app).parameters) == ["service"]
    assert issubclass(moto_seams.QuietRequestHandler, werkzeug_app.MotoRequestHandler)
    assert "log_request" in dir(werkzeug_app.MotoRequestHandler)


def test_the_pinned_moto_has_the_seams_of_our_cloudwatch() -> None:
    cloudwatch.install()
    assert moto.cloudwatch.urls.url_paths == {"{0}/$": cloudwatch.LocalCloudWatch.dispatch}
    assert issubclass(cloudwatch.LocalCloudWatch, CloudWatchResponse)
    assert issubclass(EmptyResult, ActionResult)
    for error in (InvalidFormat, ResourceNotFound, ValidationError):
        assert issubclass(error, ServiceException)
    topics = sns_backends["123456789012"]["us-east-1"]
    assert {"message", "arn"} <= set(inspect.signature(topics.publish).parameters)


def test_the_pinned_moto_has_the_seams_of_our_logs() -> None:
    cloudwatch_logs.install()
    assert moto.logs.urls.url_paths == {"{0}/$": cloudwatch_logs.LocalLogs.dispatch}
    assert issubclass(cloudwatch_logs.LocalLogs, LogsResponse)
    assert "groups" in vars(LogsBackend("us-east-1", "123456789012"))
    assert "streams" in vars(LogGroup("123456789012", "us-east-1", "group"))
    asked = ["log_group_name", "log_stream_names", "start_time", "end_time", "limit", "next_token"]
    assert list(inspect.signature(LogsBackend.filter_log_events).parameters)[1:7] == asked


def test_no_other_module_imports_moto() -> None:
    package = Path(moto_seams.__file__).parent.parent
    users = {
        path.name
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) moto\b", path.read_text(), re.MULTILINE)
    }
    assert users == {"moto_seams.py", "cloudwatch.py", "cloudwatch_logs.py"}


def test_the_services_left_to_moto_are_signed_with_the_names_we_route_by() -> None:
    session = get_session()
    services = ("s3", "cloudwatch", "logs", "sns", "sts", "iam", "dynamodb")
    names = {session.get_service_model(service).signing_name for service in services}
    assert names == moto_seams.MOTO_SERVICES
