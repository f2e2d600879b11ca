"""The base of this package's sensors. What they share with the operators stands in hooks/task.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_dlaws._compat import BaseSensorOperator
from airflow_dlaws.hooks.task import AwsConnected, Deferring


class DlawsSensor(AwsConnected, Deferring, BaseSensorOperator):
    """A sensor that talks to AWS.

    :param aws_conn_id: Airflow connection; None uses boto3's own credential chain.
    :param region_name: AWS region; None takes it from the connection or the environment.
    :param verify: TLS verification, as for boto3.
    :param botocore_config: arguments of botocore's `Config`.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
