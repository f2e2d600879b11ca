"""The parameters of DriftCheckOperator as the check takes them, and the time that a run is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.drift.labels import LabelPlan
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.launchers.drift_data import Source
from airflow_dlaws.registry.champion import live_model
from airflow_dlaws.storage import S3Uri

_LABEL_KEYS = frozenset({"data", "format", "id_column", "label_column", "row_id_column"})


def interval_of(context: Context, window: timedelta) -> tuple[datetime, datetime]:
    """Return the data interval of the run; without one (a person's run, an asset's) the `window` before its moment."""
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start and end and start < end:
        return start, end
    moment = end or context.get("logical_date") or getattr(context["dag_run"], "start_date", None) or datetime.now(UTC)
    return moment - window, moment


def reference_of(
    client: Callable[[str], Any], given: str | None, endpoint_name: str | None, variant_name: str, *, needed: bool
) -> tuple[S3Uri | None, str]:
    """Return where the reference is, and what names the model: the endpoint is asked only where none is given.

    :raises SpecificationError: it is needed, and neither is given; or there is no such endpoint.
    """
    if given:
        return S3Uri.parse(given), "given"
    if not needed:
        return None, ""
    if not endpoint_name:
        raise SpecificationError("give reference_s3_uri, or the endpoint_name whose model has one beside it")
    live = live_model(client("sagemaker"), endpoint_name, variant_name=variant_name)
    if live is None:
        raise SpecificationError(f"there is no endpoint {endpoint_name!r}: deploy a model, or give reference_s3_uri")
    return S3Uri.parse(live.artifact_uri).parent / "drift_reference.json", live.endpoint_config_name


def label_source(labels: Mapping[str, Any]) -> Source:
    """Return where the labels are.

    :raises SpecificationError: the mapping has other keys, or no `data`.
    """
    unknown = sorted(set(labels) - _LABEL_KEYS)
    data = labels.get("data")
    if unknown or not data:
        raise SpecificationError(f"labels={dict(labels)!r} needs `data`, and may have only {sorted(_LABEL_KEYS)}")
    return Source(locations=(data,) if isinstance(data, str) else tuple(data))


def label_plan(labels: Mapping[str, Any]) -> LabelPlan:
    """Return how the labels are read and joined."""
    return LabelPlan(**{key: str(value) for key, value in labels.items() if key in _LABEL_KEYS - {"data"}})


def text_map(name: str, value: Mapping[str, str] | None) -> dict[str, str]:
    """Read a mapping of texts.

    :raises SpecificationError: it is none.
    """
    if value is not None and not isinstance(value, Mapping):
        raise SpecificationError(f"{name}={value!r} must be a mapping, {{name in the reference: name in the data}}")
    return {str(key): str(item) for key, item in (value or {}).items()}
