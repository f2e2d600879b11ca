"""A human gate before a rollout: `ModelApprovalOperator`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow_dlaws._compat import ASKS_PEOPLE, AirflowSkipException, Answer, Context, Param, answer_of, ask_people
from airflow_dlaws.errors import Inconclusive, OutcomeUnacceptable, SpecificationError
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.wire import to_json
from airflow_dlaws.links.aws import ConsoleLink, ReportLink, report_url, sagemaker_console_url
from airflow_dlaws.operators.base import DlawsOperator, airflow_errors, held_back
from airflow_dlaws.registry.approval import ApprovalResult, ApprovalStatus, approval_of, decide, describe
from airflow_dlaws.registry.evidence import page
from airflow_dlaws.storage import S3Uri

APPROVE, REJECT = "Approve", "Reject"
_ON_REJECTED = ("fail", "skip")
#: The field of the form beside the two options.
_WHY = "why"
#: The trigger's own deadline comes first; this one is for a triggerer that is gone.
_TRIGGER_GRACE = timedelta(minutes=10)


class ModelApprovalOperator(DlawsOperator):
    """Wait, without a worker, until a person has approved a model package; tell the registry who, when and why.

    The word may be given in either place, and the first one counts: in Airflow's UI ("Required actions", or its REST
    API), where the evidence is shown beside the buttons, on Airflow 3.1 and later; or in the model registry, from
    Studio, its console or `aws sagemaker update-model-package`, on every version. A word given in Airflow is written to
    the registry: ModelApprovalStatus, ApprovalDescription. A package that is approved already passes at once, so that a
    retry asks nobody twice, and a DAG that registers as "Approved" needs no other path.

    Returns an :class:`~airflow_dlaws.registry.approval.ApprovalResult` as JSON; of a rejection it is under the XCom key
    `approval_result`. A rejection fails the task at once: the run was to deploy and has not, and green means done. No
    word within `timeout` is inconclusive, and fails too. In a backfill run the task is skipped, unless
    `allow_backfill`: months of the past ask nobody.

    :param model_package_arn: what to decide on, as returned by RegisterModelOperator.
    :param evaluation: XCom of the evaluation task: metrics of challenger and champion.
    :param validation: XCom of the validation task.
    :param details: further rows of the page, name to text, such as the plan of the rollout. Drift that has started the
        run is on it by itself.
    :param approvers: ids of the Airflow users who may answer; with none, everybody who may act on the DAG. Who may
        decide in the registry is told by IAM (sagemaker:UpdateModelPackage).
    :param notifiers: Airflow notifiers, called once the question is there.
    :param on_rejected: "fail", or "skip" what follows.
    :param allow_backfill: ask in backfills and overtaken runs too.
    :param timeout: how long to wait for a word; seconds or timedelta.
    :param poll_interval: seconds between two looks at the registry.
    """

    template_fields: Sequence[str] = (
        "model_package_arn",
        "evaluation",
        "validation",
        "details",
        "approvers",
        "on_rejected",
        "allow_backfill",
    )
    template_fields_renderers = {"evaluation": "json", "validation": "json", "details": "json"}
    operator_extra_links = (ConsoleLink(), ReportLink())
    ui_color = "#f6e3c5"

    def __init__(
        self,
        *,
        model_package_arn: str,
        evaluation: Mapping[str, Any] | None = None,
        validation: Mapping[str, Any] | None = None,
        details: Mapping[str, str] | None = None,
        approvers: Sequence[str] = (),
        notifiers: Sequence[Callable[[Context], Any]] = (),
        on_rejected: str = "fail",
        allow_backfill: bool | str = False,
        timeout: float | timedelta = timedelta(days=7),
        poll_interval: float = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_package_arn = model_package_arn
        self.evaluation, self.validation, self.details = evaluation, validation, details
        self.approvers, self.notifiers = approvers, notifiers
        self.on_rejected, self.allow_backfill = on_rejected, allow_backfill
        self.timeout, self.poll_interval = timeout, poll_interval
        self._check()

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what has been decided already; otherwise ask, and wait."""
        with airflow_errors():
            self._check()
            if held_back(context, self.allow_backfill):
                raise AirflowSkipException(
                    f"nobody is asked about {self.model_package_arn}: a backfill, or an old run of the calendar, "
                    "deploys nothing unless allow_backfill=True"
                )
            package = describe(self.aws.client("sagemaker"), self.model_package_arn)
            self._link(context, package)
            if (decided := approval_of(package)) is not None:
                return self._end(context, decided)
            shown = self._ask(context, package)
        return self._wait(context, shown=shown)

    def resume(
        self, context: Context, event: Mapping[str, Any], package: str | None = None, shown: bool = True
    ) -> dict[str, Any]:
        """Write an answer to the registry, or read the word that was given there.

        :param package: what was asked about: templates are rendered anew, and another version may be registered by now.
        :param shown: whether Airflow shows the question about it; where it does not, its answer is about another one.
        """
        if package not in (None, self.model_package_arn):
            self.log.warning("The question was about %s, so it is asked again: %s", package, self.model_package_arn)
            return self.execute(context)
        answer = answer_of(event)
        if answer is not None and not shown:
            self.log.warning("%s by %s was said of another package: it does not count", answer.option, answer.by)
            return self._wait(context, shown=False)
        with airflow_errors():
            sagemaker = self.aws.client("sagemaker")
            if answer is not None:
                return self._end(context, decide(sagemaker, self._word(answer)))
            decided = approval_of(describe(sagemaker, self.model_package_arn))
        if decided is None and event.get("status") == "decided":
            self.log.warning("The word on %s was taken back: waiting for another", self.model_package_arn)
            return self._wait(context, shown=shown)
        with airflow_errors():
            if decided is None:
                raise Inconclusive(
                    f"nobody has approved or rejected {self.model_package_arn} within {self._seconds:.0f} s. Clear "
                    f"this task to ask again{self._by_hand}"
                )
            return self._end(context, decided)

    def _ask(self, context: Context, package: Mapping[str, Any]) -> bool:
        """Ask; tell whether Airflow shows the question, or cannot show any."""
        shown = True
        body = page(
            package=package,
            evaluation=self.evaluation or {},
            validation=self.validation or {},
            drift=_drift_of(context),
            details=self.details or {},
            link=lambda uri: report_url(self.aws.client("s3"), S3Uri.parse(uri)),
        )
        if ASKS_PEOPLE:
            form = {
                _WHY: Param(
                    None, type=["null", "string"], title="Why", description="Kept in the registry.", format="multiline"
                )
            }
            subject = f"Deploy {package['ModelPackageGroupName']}, version {package['ModelPackageVersion']}?"
            seen = ask_people(
                context, subject=subject, body=body, options=[APPROVE, REJECT], form=form, users=list(self.approvers)
            )
            shown = seen == subject
            if not shown:
                self.log.warning(
                    'Airflow shows what this task asked before it was cleared, "%s", and can show nothing else: an '
                    "answer there does not count. The word on %s can be given in the registry",
                    seen,
                    self.model_package_arn,
                )
        self.log.info("Waiting for a person's word on %s%s\n%s", self.model_package_arn, self._by_hand, body)
        for notifier in self.notifiers:
            notifier(context)
        return shown

    def _wait(self, context: Context, *, shown: bool) -> dict[str, Any]:
        from airflow_dlaws.triggers.approval import ApprovalTrigger

        trigger = ApprovalTrigger(
            connection=to_json(self.connection),
            package_arn=self.model_package_arn,
            asked=str(context["ti"].id) if ASKS_PEOPLE and shown else None,
            poll_interval=self.poll_interval,
            deadline=time.time() + self._seconds,
        )
        timeout = timedelta(seconds=self._seconds) + _TRIGGER_GRACE
        kwargs = self.for_this_life(context, package=self.model_package_arn, shown=shown)
        return self.defer(trigger=trigger, method_name="resume", kwargs=kwargs, timeout=timeout)

    def _end(self, context: Context, decided: ApprovalResult) -> dict[str, Any]:
        document: dict[str, Any] = to_json(decided)
        self.log.info("%s: %s", self.model_package_arn, decided.sentence)
        if decided.status is ApprovalStatus.APPROVED:
            return document
        context["ti"].xcom_push(key="approval_result", value=document)
        message = f"{self.model_package_arn} is not to be deployed. {decided.sentence}"
        if self.on_rejected == "skip":
            raise AirflowSkipException(message)
        raise OutcomeUnacceptable(
            f"{message}. To have it decided anew, set it to {ApprovalStatus.PENDING} and clear this task{self._by_hand}"
        )

    def _word(self, answer: Answer) -> ApprovalResult:
        return ApprovalResult(
            package_arn=self.model_package_arn,
            status=ApprovalStatus.APPROVED if answer.option == APPROVE else ApprovalStatus.REJECTED,
            decided_by=answer.by,
            decided_at=answer.at,
            why=str(answer.form.get(_WHY) or ""),
            through="airflow",
        )

    @property
    def _by_hand(self) -> str:
        return (
            f" (in the registry: aws sagemaker update-model-package --model-package-arn {self.model_package_arn} "
            "--model-approval-status Approved|Rejected|PendingManualApproval --approval-description WHY)"
        )

    @property
    def _seconds(self) -> float:
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else float(self.timeout)

    def _link(self, context: Context, package: Mapping[str, Any]) -> None:
        name = f"model-packages/{package['ModelPackageGroupName']}/{package['ModelPackageVersion']}"
        ConsoleLink.store(context, sagemaker_console_url(self.aws.region, name))
        if report := (self.evaluation or {}).get("page_uri"):
            ReportLink.store(context, report_url(self.aws.client("s3"), S3Uri.parse(report)))

    def _check(self) -> None:
        """Refuse what cannot work: when the DAG is parsed, as far as it is known by then."""
        if not is_template(self.on_rejected) and self.on_rejected not in _ON_REJECTED:
            raise SpecificationError(f"on_rejected={self.on_rejected!r} is none of {list(_ON_REJECTED)}")
        if self._seconds <= 0:
            raise SpecificationError(f"timeout={self.timeout} must be more than 0 seconds")
        if self.approvers and not ASKS_PEOPLE:
            raise SpecificationError(
                f"approvers={self.approvers!r}: this Airflow cannot ask people (3.1 can). The word is given in the "
                "registry, where IAM tells who may (sagemaker:UpdateModelPackage): leave approvers out"
            )


def _drift_of(context: Context) -> list[dict[str, Any]]:
    """Return what the asset events of drift carry that have started this run; other events carry no report."""
    events: Any = context.get("triggering_asset_events") or {}
    found = [event.extra or {} for asset in events.values() for event in asset]
    told = [extra.get("payload") or extra for extra in found]  # an asset watcher wraps what its trigger says
    return [extra for extra in told if "report_html_uri" in extra]
