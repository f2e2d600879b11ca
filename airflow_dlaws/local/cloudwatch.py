"""CloudWatch: metrics by exact dimensions and alarms that are evaluated, in the place of moto's.

moto keeps the protocol (and dashboards). Its own metrics match dimensions by subset and read every datapoint for every
query, and its alarms are never evaluated. Time here is never scaled.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import moto.cloudwatch.urls
from moto.cloudwatch.exceptions import InvalidFormat, ResourceNotFound, ValidationError
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.sns.models import sns_backends

from airflow_dlaws.local import metric_queries
from airflow_dlaws.local.alarm_book import Alarm, AlarmBook
from airflow_dlaws.local.alarms import AlarmState
from airflow_dlaws.local.context import ACCOUNT, Handler
from airflow_dlaws.local.metric_queries import BadQuery, epoch
from airflow_dlaws.local.metric_store import STANDARD_RESOLUTION, MetricName, MetricStore, dimensions_of

#: DescribeAlarms answers 50 alarms unless asked for up to 100.
DEFAULT_RECORDS = 50


class CloudWatchRegion:
    """Metrics and alarms of one account and region."""

    def __init__(self, account: str, region: str) -> None:
        self.metrics = MetricStore()
        self.alarms = AlarmBook(account, region, self.metrics, _publisher(account))


_regions: dict[tuple[str, str], CloudWatchRegion] = {}
_lock = threading.Lock()


def cloudwatch_region(region: str, account: str = ACCOUNT) -> CloudWatchRegion:
    """Return the metrics and alarms of a region."""
    found = _regions.get((account, region))
    if found is not None:
        return found
    with _lock:
        return _regions.setdefault((account, region), CloudWatchRegion(account, region))


def metric_store(region: str, account: str = ACCOUNT) -> MetricStore:
    """Return the metrics of a region, to record in without a request."""
    return cloudwatch_region(region, account).metrics


def install() -> None:
    """Let moto answer CloudWatch by this module. A seam: moto reads the table when it makes the application."""
    moto.cloudwatch.urls.url_paths = {"{0}/$": LocalCloudWatch.dispatch}


class AlarmWatch:
    """The thread that evaluates the alarms of all regions each second."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """See `Resource`."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            for region in list(_regions.values()):
                try:
                    region.alarms.evaluate_due(datetime.now(UTC))
                except Exception:
                    traceback.print_exc()  # one broken alarm must not end the watch over all others


def _publisher(account: str) -> Callable[[str, str, str], None]:
    def publish(topic: str, subject: str, message: str) -> None:
        sns_backends[account][topic.split(":")[3]].publish(message=message, arn=topic, subject=subject)

    return publish


class LocalCloudWatch(CloudWatchResponse):
    """The operations of CloudWatch that are ours."""

    @property
    def _here(self) -> CloudWatchRegion:
        return cloudwatch_region(self.region, self.current_account)

    def put_metric_data(self) -> ActionResult:
        """PutMetricData."""
        request = self._get_params()
        _guarded(lambda: _record_all(self._here.metrics, request))
        return EmptyResult()

    def get_metric_statistics(self) -> ActionResult:
        """GetMetricStatistics."""
        request = self._get_params()
        datapoints = _guarded(lambda: metric_queries.statistics(self._here.metrics, request))
        return ActionResult({"Label": request["MetricName"], "Datapoints": datapoints})

    def get_metric_data(self) -> ActionResult:
        """GetMetricData."""
        request = self._get_params()
        results = _guarded(lambda: metric_queries.metric_data(self._here.metrics, request))
        return ActionResult({"MetricDataResults": results, "Messages": []})

    def list_metrics(self) -> ActionResult:
        """ListMetrics; dimensions filter by subset here, as on AWS."""
        request = self._get_params()
        found = [name for name in self._here.metrics.names() if _listed(name, request)]
        page, token = _page(sorted(found, key=lambda name: (name.namespace, name.name, name.dimensions)), request, 500)
        metrics = [
            {
                "Namespace": name.namespace,
                "MetricName": name.name,
                "Dimensions": [{"Name": key, "Value": value} for key, value in name.dimensions],
            }
            for name in page
        ]
        return ActionResult({"Metrics": metrics, "NextToken": token})

    def put_metric_alarm(self) -> ActionResult:
        """PutMetricAlarm."""
        request = dict(self._get_params())
        arn = _guarded(lambda: self._here.alarms.put(request, datetime.now(UTC)))
        if request.get("Tags"):
            self.cloudwatch_backend.tagger.tag_resource(arn, request["Tags"])
        return EmptyResult()

    def put_composite_alarm(self) -> ActionResult:
        """PutCompositeAlarm: refused."""
        raise ValidationError("The local AWS does not support composite alarms.")

    def describe_alarms(self) -> ActionResult:
        """DescribeAlarms."""
        request = self._get_params()
        alarms = self._here.alarms.matching(lambda alarm: _described(alarm, request))
        page, token = _page(alarms, request, int(request.get("MaxRecords") or DEFAULT_RECORDS))
        return ActionResult({"MetricAlarms": page, "CompositeAlarms": [], "NextToken": token})

    def describe_alarms_for_metric(self) -> ActionResult:
        """DescribeAlarmsForMetric."""
        request = self._get_params()
        metric = MetricName(request["Namespace"], request["MetricName"], dimensions_of(request.get("Dimensions") or ()))
        return ActionResult({"MetricAlarms": self._here.alarms.matching(lambda alarm: alarm.metric == metric)})

    def describe_alarm_history(self) -> ActionResult:
        """DescribeAlarmHistory."""
        request = self._get_params()
        items = self._here.alarms.history(lambda item: _told(item, request))
        if request.get("ScanBy") == "TimestampAscending":
            items.reverse()
        page, token = _page(items, request, int(request.get("MaxRecords") or DEFAULT_RECORDS))
        return ActionResult({"AlarmHistoryItems": page, "NextToken": token})

    def delete_alarms(self) -> ActionResult:
        """DeleteAlarms."""
        self._here.alarms.delete(self._get_params().get("AlarmNames") or ())
        return EmptyResult()

    def enable_alarm_actions(self) -> ActionResult:
        """EnableAlarmActions."""
        self._here.alarms.enable_actions(self._get_params()["AlarmNames"], True)
        return EmptyResult()

    def disable_alarm_actions(self) -> ActionResult:
        """DisableAlarmActions."""
        self._here.alarms.enable_actions(self._get_params()["AlarmNames"], False)
        return EmptyResult()

    def set_alarm_state(self) -> ActionResult:
        """SetAlarmState."""
        request = self._get_params()
        state, data = request["StateValue"], request.get("StateReasonData")
        if state not in set(AlarmState):
            raise ValidationError(
                f"1 validation error detected: Value '{state}' at 'stateValue' failed to satisfy constraint: "
                "Member must satisfy enum value set: [INSUFFICIENT_DATA, ALARM, OK]"
            )
        if data is not None and not _is_json(data):
            raise InvalidFormat("StateReasonData is not valid JSON")
        moved = self._here.alarms.set_state(
            request["AlarmName"], state, request["StateReason"], data, datetime.now(UTC)
        )
        if not moved:
            raise ResourceNotFound(f"No alarm is named {request['AlarmName']}")
        return EmptyResult()


def _guarded(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except BadQuery as error:
        raise ValidationError(str(error)) from error


def _record_all(store: MetricStore, request: Mapping[str, Any]) -> None:
    for datum in request.get("MetricData") or ():
        _record(store, request["Namespace"], datum)


def _record(store: MetricStore, namespace: str, datum: Mapping[str, Any]) -> None:
    name = MetricName(namespace, datum["MetricName"], dimensions_of(datum.get("Dimensions") or ()))
    second = epoch(datum["Timestamp"]) if datum.get("Timestamp") else int(time.time())
    resolution = int(datum.get("StorageResolution") or STANDARD_RESOLUTION)
    if resolution not in (1, STANDARD_RESOLUTION):
        raise BadQuery(f"StorageResolution must be 1 or 60, not {resolution}.")
    unit = datum.get("Unit")
    if datum.get("StatisticValues"):
        store.record_set(name, datum["StatisticValues"], second, resolution, unit)
    elif datum.get("Values"):
        counts = datum.get("Counts") or [1] * len(datum["Values"])
        pairs = zip(datum["Values"], counts, strict=True)
        store.record(
            [(name, float(value), unit) for value, count in pairs for _ in range(int(count))], second, resolution
        )
    elif datum.get("Value") is not None:
        store.record([(name, float(datum["Value"]), unit)], second, resolution)
    else:
        raise BadQuery(
            f"At least one of the parameters must be specified for {name.name}: Value, Values, StatisticValues."
        )


def _listed(name: MetricName, request: Mapping[str, Any]) -> bool:
    own = dict(name.dimensions)
    return (
        request.get("Namespace") in (None, name.namespace)
        and request.get("MetricName") in (None, name.name)
        and all(
            one["Name"] in own and one.get("Value") in (None, own[one["Name"]])
            for one in request.get("Dimensions") or ()
        )
    )


def _described(alarm: Alarm, request: Mapping[str, Any]) -> bool:
    actions = [*alarm.request.get("AlarmActions", ()), *alarm.request.get("OKActions", ())]
    names, prefix = request.get("AlarmNames"), request.get("ActionPrefix")
    return (
        "MetricAlarm" in (request.get("AlarmTypes") or ["MetricAlarm"])
        and (not names or alarm.name in names)
        and alarm.name.startswith(request.get("AlarmNamePrefix") or "")
        and request.get("StateValue") in (None, alarm.state.value)
        and (not prefix or any(action.startswith(prefix) for action in actions))
    )


def _told(item: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    start, end = request.get("StartDate"), request.get("EndDate")
    return (
        request.get("AlarmName") in (None, item["AlarmName"])
        and request.get("HistoryItemType") in (None, item["HistoryItemType"])
        and (start is None or epoch(item["Timestamp"]) >= epoch(start))
        and (end is None or epoch(item["Timestamp"]) <= epoch(end))
    )


def _page(items: list[Any], request: Mapping[str, Any], size: int) -> tuple[list[Any], str | None]:
    start = int(request.get("NextToken") or 0)
    return items[start : start + size], str(start + size) if start + size < len(items) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
