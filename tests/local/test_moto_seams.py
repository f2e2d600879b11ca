"""Every place where the local AWS touches moto's insides. When moto changes one, this says which."""

from __future__ import annotations

import inspect

import moto
from botocore.session import get_session
from moto.moto_server import werkzeug_app

from airflow_dlaws.local import moto_seams


def test_the_pinned_moto_has_the_seams_we_use() -> None:
    assert moto.__version__.startswith("5.2.")
    application = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
    assert callable(application)
    assert list(inspect.signature(werkzeug_app.create_backend_app).parameters) == ["service"]
    assert issubclass(moto_seams.QuietRequestHandler, werkzeug_app.MotoRequestHandler)
    assert "log_request" in dir(werkzeug_app.MotoRequestHandler)


def test_the_services_left_to_moto_are_signed_with_the_names_we_route_by() -> None:
    session = get_session()
    services = ("s3", "cloudwatch", "logs", "sns", "sts", "iam", "dynamodb", "application-autoscaling")
    names = {session.get_service_model(service).signing_name for service in services}
    assert names == moto_seams.MOTO_SERVICES
