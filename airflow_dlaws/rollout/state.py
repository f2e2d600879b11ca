"""Where a rollout is, and what was seen of it: what the state machine decides on and the state file keeps."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field

from airflow_dlaws.rollout.analysis import Evidence
from airflow_dlaws.rollout.latency import LatencyReference
from airflow_dlaws.rollout.predictions import PredictionReference
from airflow_dlaws.rollout.rehearsal import Rehearsal
from airflow_dlaws.rollout.scaling import ScalingRecord
from airflow_dlaws.rollout.shadow import ShadowEvidence
from airflow_dlaws.rollout.stakes import Stakes


class Step(enum.StrEnum):
    """Where a rollout is; the last four are final."""

    #: Everything is prepared; the endpoint has not been touched, as far as we know.
    STARTING = "starting"
    #: The endpoint is being created: its first deployment.
    CREATING = "creating"
    #: Green gets copies of the requests, or will as soon as AWS has brought it up; users see blue's answers.
    SHADOWING = "shadowing"
    #: The shadow was good: the old configuration comes back, then traffic is shifted.
    REMOVING_SHADOW = "removing_shadow"
    #: AWS moves traffic from blue to green, and we look.
    SHIFTING = "shifting"
    #: Our verdict alarm is on; AWS takes the traffic back.
    ROLLING_BACK = "rolling_back"
    #: AWS did not take it back; we have asked for the old configuration ourselves.
    RESTORING = "restoring"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"


FINAL = frozenset({Step.PROMOTED, Step.ROLLED_BACK, Step.INCONCLUSIVE, Step.FAILED})


#: In these green is a shadow, or has been until a moment ago.
SHADOW_STEPS = frozenset({Step.SHADOWING, Step.REMOVING_SHADOW})


def is_final(step: Step) -> bool:
    """Tell whether the rollout is over."""
    return step in FINAL


class Cause(enum.StrEnum):
    """Why a rollout goes back."""

    NONE = ""
    #: Measured, and bad.
    HARM = "harm"
    #: As a shadow it failed, was slower or answered otherwise: no user ever saw it.
    SHADOW = "shadow"
    #: As a shadow it gave no verdict.
    SHADOW_UNCLEAR = "shadow_unclear"
    #: Too few requests for a verdict.
    NO_TRAFFIC = "no_traffic"
    #: Metrics could not be read for too long.
    UNMEASURED = "unmeasured"
    #: The task's own time was up.
    TIMEOUT = "timeout"
    #: The task was killed, cleared or failed by a person.
    KILLED = "killed"
    #: AWS rolled back by itself: one of the alarms, its own time limit, or instances that did not start.
    BY_AWS = "by_aws"
    #: Our own process could not go on.
    ERROR = "error"
    #: The model did not come up, or did not answer, on its throw-away endpoint.
    REHEARSAL = "rehearsal"
    #: A person asked for it (`dlaws rollout abort`).
    ABORTED = "aborted"


class WishKind(enum.StrEnum):
    """What a person may ask of a rollout that is under way."""

    #: Go back, whatever was measured.
    ABORT = "abort"
    #: Do not wait for a verdict that traffic does not allow. Proven harm goes back all the same.
    PROMOTE = "promote"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asked for, and who. `at` is in epoch seconds."""

    kind: WishKind
    by: str
    at: float
    why: str = ""

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        because = f": {self.why}" if self.why else ""
        return f"{self.by} asked to {self.kind.value} this rollout{because}"


class EndpointStatus(enum.StrEnum):
    """DescribeEndpoint's EndpointStatus."""

    OUT_OF_SERVICE = "OutOfService"
    CREATING = "Creating"
    UPDATING = "Updating"
    SYSTEM_UPDATING = "SystemUpdating"
    ROLLING_BACK = "RollingBack"
    IN_SERVICE = "InService"
    DELETING = "Deleting"
    FAILED = "Failed"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"


@dataclass(frozen=True, kw_only=True)
class EndpointView:
    """What DescribeEndpoint said."""

    status: EndpointStatus
    config_name: str
    #: PendingDeploymentSummary.EndpointConfigName; empty where nothing is pending.
    pending_config_name: str = ""
    failure_reason: str = ""
    #: Green has traffic: one of its statuses is ActivatingTraffic or Baking.
    on_traffic: bool = False
    #: When the first of these statuses began, epoch seconds.
    traffic_since: float | None = None
    #: Since when green is watched (Baking) on the traffic that it has, epoch seconds; None while something moves.
    baking_since: float | None = None
    #: How many instances green has, and will have, in PendingDeploymentSummary; None where it does not say.
    green_instances: int | None = None
    green_wanted: int | None = None
    #: Its production variants; empty where DescribeEndpoint does not say.
    variants: tuple[str, ...] = ()
    #: How many instances its only variant is to have; None where there are more, or DescribeEndpoint does not say.
    instances: int | None = None
    #: AWS's sentence on the variant, such as "Baking for 180 seconds (TerminationWaitInSeconds) ...".
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class AlarmView:
    """One of this rollout's alarms, as DescribeAlarms said."""

    name: str
    state: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at the endpoint, the metrics and the alarms."""

    #: None where there is no such endpoint.
    endpoint: EndpointView | None
    evidence: Evidence = field(default_factory=Evidence)
    alarms: tuple[AlarmView, ...] = ()
    #: The throw-away endpoint is in some movement: it can be neither asked nor deleted.
    rehearsal_moves: bool = False
    #: Why the metrics could not be read; empty where they could.
    blind: str = ""
    #: What a person has asked for, if anybody has.
    wish: Wish | None = None
    #: What was seen of the shadow at this look; None where there was none to see.
    shadow: ShadowEvidence | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutState:
    """One rollout. Small: it travels in a trigger's arguments as well as in S3. Times are epoch seconds."""

    step: Step = Step.STARTING
    endpoint_name: str
    #: The configuration that must be in service for the rollout to be a success.
    requested_config: str
    model_name: str
    model_package_arn: str
    variant_name: str
    #: What was in service when the update was asked for; empty for a first deployment.
    previous_config: str = ""
    #: How many instances served then; a fleet that autoscaling has grown stays as large.
    instances: int | None = None
    #: How the variant scales; None where it is not registered for autoscaling.
    scaling: ScalingRecord | None = None
    #: The rehearsal on a throw-away endpoint; None where none was asked for, and none is left to be deleted.
    rehearsal: Rehearsal | None = None
    started_at: float
    #: When the task's time is up.
    deadline: float
    #: The configuration in which green is a shadow; empty where the plan has no shadow.
    shadow_config: str = ""
    #: When the shadow was seen in service; None before.
    shadow_since: float | None = None
    #: When the shadow had shown that green may have users; None before.
    shadow_passed_at: float | None = None
    #: What was seen of the shadow.
    shadow: ShadowEvidence | None = None
    #: When the update (to the shadow, then to green) was asked for; None before.
    updated_at: float | None = None
    #: When green first had traffic.
    traffic_since: float | None = None
    #: When the last wait in which blue serves began (rolling); None before, and where that is not told.
    last_wait_since: float | None = None
    #: Since when the metrics cannot be read; None while they can.
    blind_since: float | None = None
    #: When going back must be done.
    rollback_deadline: float | None = None
    #: What blue's answers took before green served, fixed then; None where latency is not judged.
    latency: LatencyReference | None = None
    #: How the bet was laid, from the traffic of the hour before; None where that is not known.
    stakes: Stakes | None = None
    #: What blue answered before green served, fixed then; None where predictions are not judged.
    predictions: PredictionReference | None = None
    #: Where the requests to blue are captured; empty where they are not.
    blue_capture: str = ""
    #: Why predictions are not judged, though the plan asks for it.
    unjudged: str = ""
    #: Who approved the model package, when and why, in a sentence; empty where nobody has.
    approval: str = ""
    #: What the bake can see with the traffic of the hour before; empty where that could not be told.
    forecast: str = ""
    cause: Cause = Cause.NONE
    #: Why the rollout goes back or ended, in a sentence.
    reason: str = ""
    #: What a person has asked for; who, and why.
    wish: Wish | None = None
    #: The killed task's handler ran: nobody waits for the outcome.
    abandoned: bool = False
    evidence: Evidence = field(default_factory=Evidence)
    alarms: tuple[AlarmView, ...] = ()
    #: The SNS topic that events are told to; empty for none.
    topic: str = ""
    #: The events that were told, or given up.
    told: tuple[str, ...] = ()
    #: Why the last event that could not be told was not; empty where all were.
    not_told: str = ""

    def but(self, **changes: object) -> RolloutState:
        """Return this state with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Look:
    """One line of the report: what one look saw and what was decided. `at` is in epoch seconds."""

    at: float
    step: Step
    status: str
    config_name: str
    pending_config_name: str = ""
    #: Green's share of the requests since the look before, as counted; None where there were none.
    green_share: float | None = None
    message: str = ""
    green_requests: int = 0
    green_errors: int = 0
    blue_requests: int = 0
    blue_errors: int = 0
    log_evidence: float = 0.0
    #: The parts of it; None where that kind of harm is not judged.
    log_error_evidence: float | None = None
    log_latency_evidence: float | None = None
    log_prediction_evidence: float | None = None
    log_business_evidence: float | None = None
    #: Total variation distance between the predictions of green and blue so far.
    prediction_distance: float | None = None
    verdict: str = ""
    action: str = ""
    reason: str = ""
