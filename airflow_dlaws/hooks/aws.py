"""boto3 clients from an Airflow connection, and shells on the machines that jobs of other engines are run from.

`AwsConnection` is what operators hand to triggers; `AwsClients` makes the clients, on a worker or in a triggerer's
thread. Composes the Amazon provider's `AwsBaseHook`; imports it late, so that parsing a DAG does not pay for it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from airflow_dlaws.hooks.ssh import SshShell
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.launchers.prices import PRICING_REGION
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.launchers.ssm_shell import SsmShell

#: Adaptive mode slows down when throttled instead of failing; 10 attempts outlast a minute of throttling.
_RETRIES = {"mode": "adaptive", "max_attempts": 10}
#: Prices are good to have and nothing waits for them: a network without a way to this service must not hold up a task.
_HASTE = {"connect_timeout": 3, "read_timeout": 10, "retries": {"mode": "standard", "total_max_attempts": 2}}


@dataclass(frozen=True, kw_only=True)
class AwsConnection:
    """Which AWS account and region to talk to, and how; the Amazon provider's parameter names."""

    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: Mapping[str, Any] | None = None


class AwsClients:
    """Hands out one boto3 client a service, and one shell an address. They are thread-safe; this object is too."""

    def __init__(self, connection: AwsConnection) -> None:
        self.connection = connection
        # Not functools.cache: that would keep every instance alive, and with it some megabytes for each client.
        self._clients: dict[str, Any] = {}
        self._shells: dict[str, Shell] = {}
        self._lock = threading.Lock()

    def client(self, service: str) -> Any:
        """Return the client of a service ("sagemaker", "s3", "cloudwatch", ...)."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._hook(service).conn
            return self._clients[service]

    def shell(self, address: str) -> Shell:
        """Return a shell: at `ssh://CONNECTION`, an Airflow connection, or at `ssm://[USER@]INSTANCE`."""
        kind, _, host = address.partition("://")
        made = SshShell(host) if kind == "ssh" else SsmShell(self.client("ssm"), host)
        with self._lock:
            return self._shells.setdefault(address, made)

    @cached_property
    def region(self) -> str:
        """The region that calls go to."""
        return str(self.client("sagemaker").meta.region_name)

    def _hook(self, service: str) -> Any:
        from botocore.config import Config

        from airflow_dlaws.hooks.sessions import hook_class

        connection = self.connection
        options = {"retries": _RETRIES, **(connection.botocore_config or {})}
        if service == "pricing":
            options |= _HASTE
        return hook_class()(
            aws_conn_id=connection.aws_conn_id,
            client_type=service,
            region_name=PRICING_REGION if service == "pricing" else connection.region_name,
            verify=connection.verify,
            config=Config(**options),
        )


_SHARED: dict[str, AwsClients] = {}
_SHARED_LOCK = threading.Lock()


def shared_clients(connection: AwsConnection) -> AwsClients:
    """Return the clients that all triggers of this process share for one connection.

    Making a client costs 58 ms of CPU and 1.9 MB: a triggerer with a thousand waiting tasks makes one set.
    """
    key = json.dumps(to_json(connection), sort_keys=True, default=str)
    with _SHARED_LOCK:
        return _SHARED.setdefault(key, AwsClients(connection))


def forget_clients(connection: AwsConnection) -> None:
    """Drop the shared clients of a connection, so that changed or expired credentials are read anew."""
    key = json.dumps(to_json(connection), sort_keys=True, default=str)
    with _SHARED_LOCK:
        _SHARED.pop(key, None)
