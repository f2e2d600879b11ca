"""The base of this package's operators. What they share with the sensors stands in hooks/task.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_dlaws._compat import BaseOperator, without_null_outputs
from airflow_dlaws.hooks.task import AwsConnected, Deferring, airflow_errors, held_back, identity_of, run_of

__all__ = ["DlawsOperator", "airflow_errors", "held_back", "identity_of", "run_of"]


class DlawsOperator(AwsConnected, Deferring, BaseOperator):
    """An operator that talks to AWS.

    :param aws_conn_id: Airflow connection; None uses boto3's own credential chain.
    :param region_name: AWS region; None takes it from the connection or the environment.
    :param verify: TLS verification, as for boto3.
    :param botocore_config: arguments of botocore's `Config`.
    :param multiple_outputs: keep each field of the result as an XCom too, so that `train.output["artifact_uri"]` works.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: Mapping[str, Any] | None = None,
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **without_null_outputs(kwargs))
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
