"""CloudWatch's alarms for one rollout: they watch green alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_dlaws.errors import ServiceUnavailable
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.rollout.order import RolloutOrder
from airflow_dlaws.rollout.plan import RolloutPlan
from airflow_dlaws.rollout.state import AlarmView

#: SageMaker publishes the metrics of endpoints by the minute.
_MINUTE = 60
#: The shortest period of an alarm, on a metric of high resolution: AWS hears our no within seconds.
_VERDICT_PERIOD = 10
#: Two minutes in a row, so that one failed request in a quiet minute is no alarm.
_ERROR_PERIODS = 2
VERDICT_NAMESPACE = "airflow-dlaws"
VERDICT_METRIC = "RolloutVerdictNo"


class RolloutAlarms:
    """The two alarms of one rollout: green's 5xx rate, and our own verdict. `client` is a boto3 CloudWatch client."""

    def __init__(self, client: Any, *, endpoint_name: str, config_name: str, variant_name: str) -> None:
        self._client = client
        self._endpoint, self._config, self._variant = endpoint_name, config_name, variant_name

    @property
    def error_alarm(self) -> str:
        """Name of the alarm on green's 5xx rate."""
        return f"{self._config}-5xx"

    @property
    def verdict_alarm(self) -> str:
        """Name of the alarm that we trip."""
        return f"{self._config}-verdict"

    @property
    def names(self) -> tuple[str, str]:
        """Both names."""
        return (self.error_alarm, self.verdict_alarm)

    def ensure(self, plan: RolloutPlan) -> None:
        """Create or update both alarms."""
        common = {
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            # A fleet without requests is not a broken one; too few requests are judged elsewhere.
            "TreatMissingData": "notBreaching",
        }
        with service_errors(f"create the alarms of the rollout on {self._endpoint}"):
            self._client.put_metric_alarm(
                AlarmName=self.error_alarm,
                AlarmDescription=f"5xx rate of {self._config}, new on endpoint {self._endpoint}",
                Namespace="AWS/SageMaker",
                MetricName="Invocation5XXErrors",
                Dimensions=dimensions(
                    EndpointName=self._endpoint, VariantName=self._variant, EndpointConfigName=self._config
                ),
                # One sample of 0 or 1 for each request: the average is the error rate.
                Statistic="Average",
                Period=_MINUTE,
                EvaluationPeriods=_ERROR_PERIODS,
                DatapointsToAlarm=_ERROR_PERIODS,
                Threshold=plan.alarm_error_rate,
                **common,
            )
            self._client.put_metric_alarm(
                AlarmName=self.verdict_alarm,
                AlarmDescription=f"airflow-dlaws has found {self._config} on endpoint {self._endpoint} unfit",
                Namespace=VERDICT_NAMESPACE,
                MetricName=VERDICT_METRIC,
                Dimensions=self._verdict_dimensions(),
                Statistic="Maximum",
                Period=_VERDICT_PERIOD,
                EvaluationPeriods=1,
                Threshold=1,
                **common,
            )

    def views(self) -> tuple[AlarmView, ...]:
        """Return what CloudWatch says of the alarms that exist."""
        with service_errors(f"describe the alarms of the rollout on {self._endpoint}"):
            answer = self._client.describe_alarms(AlarmNames=list(self.names))
        return tuple(
            AlarmView(name=alarm["AlarmName"], state=alarm["StateValue"], reason=alarm.get("StateReason", ""))
            for alarm in answer["MetricAlarms"]
        )

    def check_quiet(self) -> None:
        """Refuse to begin under an alarm that is on.

        :raises ServiceUnavailable: one is.
        """
        loud = [view for view in self.views() if view.state == "ALARM"]
        if loud:
            raise ServiceUnavailable(
                f"alarm {loud[0].name} is in ALARM already ({loud[0].reason}): AWS would roll back at once. "
                "Try again when it is quiet"
            )

    def trip(self, reason: str, now: float) -> None:
        """Put the verdict alarm on: at once, and by the metric, so that the next evaluation keeps it on."""
        with service_errors(f"trip alarm {self.verdict_alarm}"):
            self._client.put_metric_data(
                Namespace=VERDICT_NAMESPACE,
                MetricData=[
                    {
                        "MetricName": VERDICT_METRIC,
                        "Dimensions": self._verdict_dimensions(),
                        "Timestamp": datetime.fromtimestamp(now, UTC),
                        "Value": 1.0,
                        "StorageResolution": 1,
                    }
                ],
            )
            # 1023 is the longest StateReason.
            self._client.set_alarm_state(
                AlarmName=self.verdict_alarm, StateValue="ALARM", StateReason=reason[:1023] or "rollout stopped"
            )

    def remove(self) -> None:
        """Delete both alarms; those that are gone are no error."""
        there = [view.name for view in self.views()]
        if there:
            with service_errors(f"delete the alarms {there}"):
                self._client.delete_alarms(AlarmNames=there)

    def _verdict_dimensions(self) -> list[dict[str, str]]:
        return dimensions(EndpointName=self._endpoint, EndpointConfigName=self._config)


def dimensions(**values: str) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in values.items()]


def alarms_of(client: Callable[[str], Any], order: RolloutOrder, config_name: str) -> RolloutAlarms:
    """Return the alarms of a rollout to `config_name` on the order's endpoint."""
    return RolloutAlarms(
        client("cloudwatch"),
        endpoint_name=order.endpoint_name,
        config_name=config_name,
        variant_name=order.variant_name,
    )
