"""The only module that knows one Airflow version from another (3.0.6 to 3.3)."""

from __future__ import annotations

from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, Context, Param
from airflow.sdk.bases.sensor import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

try:  # 3.1 and later
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
except ImportError:  # 3.0
    from airflow.exceptions import (  # type: ignore[attr-defined, no-redef]
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
    )

#: Airflow 3.3 calls `BaseTrigger.on_kill` when a user acts on a deferred task; older versions only cancel the trigger.
TRIGGER_HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")

__all__ = [
    "TRIGGER_HAS_ON_KILL",
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "BaseTrigger",
    "Context",
    "Param",
    "TriggerEvent",
]
