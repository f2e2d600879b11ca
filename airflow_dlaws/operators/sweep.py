"""`HyperparameterSweepOperator`: many training jobs, early-stopped, within a budget; the best one is handed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_dlaws._compat import Context
from airflow_dlaws.errors import DlawsError, JobFailed, SpecificationError
from airflow_dlaws.jobs.limits import is_template
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.reference import JobReference, JobStatus, Submission, TrainingResult
from airflow_dlaws.jobs.wire import from_json, to_json
from airflow_dlaws.launchers.artifact import holds_files
from airflow_dlaws.launchers.sagemaker import SageMakerLauncher
from airflow_dlaws.launchers.sweep import ENGINE as OPTUNA
from airflow_dlaws.launchers.sweep import SweepLauncher
from airflow_dlaws.launchers.sweep_store import SweepStore
from airflow_dlaws.launchers.tuning import ENGINE as TUNER
from airflow_dlaws.launchers.tuning_journal import journal_of
from airflow_dlaws.links.aws import ReportLink, report_url
from airflow_dlaws.operators.base import identity_of
from airflow_dlaws.operators.job import JobOutcome
from airflow_dlaws.operators.training import DistributedTrainingOperator
from airflow_dlaws.operators.training_fields import integer, read
from airflow_dlaws.registry.manifest import FILE_NAME
from airflow_dlaws.storage import ObjectStore, S3Uri
from airflow_dlaws.sweeps.decide import summary
from airflow_dlaws.sweeps.journal import SweepJournal, TrialState
from airflow_dlaws.sweeps.leaderboard import SweepResult
from airflow_dlaws.sweeps.space import parse_space
from airflow_dlaws.sweeps.spec import FIELD_CHECKS, Direction, Halving, Search, SweepSpec, check_together
from airflow_dlaws.sweeps.tuner import MEDIAN, TRAINING_CHECKS, TUNER_CHECKS, TunerSpec

_INTEGERS = ("max_trials", "parallel_trials", "max_billable_seconds", "seed", "max_failed_trials")
_CHOICES = {"direction": Direction, "search": Search}
#: Fields that can be right by themselves and wrong together.
_TOGETHER = ("space", "hyperparameters", "initial_trials", "max_trials")
#: Who searches, and the launcher that runs the sweep.
_ENGINES = {"optuna": OPTUNA, "sagemaker": TUNER}


class HyperparameterSweepOperator(DistributedTrainingOperator):
    """Looks for the best hyperparameters with many training jobs, and returns a `SweepResult` as JSON.

    The next trial's parameters are proposed by Optuna; a trial whose objective is not among the best at a rung of
    successive halving has its job stopped. The journal of the sweep is in S3: a retry and a restarted triggerer go on
    with it and pay for no trial twice; a cleared task begins another sweep; a killed one has all its jobs stopped. The
    task is green only if a trial has completed and left its model.

    The parameters of one trial's job are those of :class:`DistributedTrainingOperator`; `hyperparameters` are shared by
    all trials. The script reports its objective, and what counts up beside it, on metric lines:
    `{"dlaws_metrics": {"epoch": 3, "validation:error": 0.031}}`.

    :param space: hyperparameter -> `{"low": 1e-4, "high": 0.1, "log": True}`, `{"low": 1, "high": 8, "integer": True}`,
        or a list of choices.
    :param objective: the metric to improve; its last value in a completed trial counts.
    :param direction: "minimize" or "maximize".
    :param max_trials: trials in all. A trial that finds no machine is run again, and counts once.
    :param parallel_trials: trials at the same time.
    :param max_billable_seconds: instance-seconds after which nothing new is started and what runs is stopped; the sweep
        then ends with the best completed trial.
    :param search: "tpe" or "random".
    :param early_stopping: "halving" for :class:`~airflow_dlaws.sweeps.spec.Halving` as it is, its fields as a mapping
        or such an object for another one; "none" or None lets every trial run to its end.
    :param tolerance: differences of the objective that are noise, such as its standard error: no trial is stopped for
        being behind by less.
    :param seed: of the search.
    :param max_failed_trials: failed trials that are borne; one more ends the sweep, red.
    :param initial_trials: parameters to try first, such as those of the model in service.
    :param engine: "optuna", or "sagemaker": SageMaker's own tuner, as one tuning job. It takes no
        `max_billable_seconds`, `initial_trials`, `tolerance` or checkpoints; `search="tpe"` is its Bayesian search,
        `early_stopping` its Hyperband (with `max_resource`) or "median", its own rule; `max_failed_trials` is judged
        when it has ended; and a retry after a kill begins another tuning job. Its jobs run the image's program `train`.
    """

    template_fields: Sequence[str] = (
        *DistributedTrainingOperator.template_fields,
        "space",
        "objective",
        "direction",
        "search",
        "early_stopping",
        "initial_trials",
        "tolerance",
        *_INTEGERS,
    )
    template_fields_renderers = {
        **DistributedTrainingOperator.template_fields_renderers,
        "space": "json",
        "early_stopping": "json",
        "initial_trials": "json",
    }
    operator_extra_links = (*DistributedTrainingOperator.operator_extra_links, ReportLink())  # type: ignore[assignment]
    ui_color = "#e3dcf5"

    def __init__(
        self,
        *,
        space: Mapping[str, Any],
        objective: str,
        direction: str = "minimize",
        max_trials: int | str = 16,
        parallel_trials: int | str = 4,
        max_billable_seconds: int | str | None = None,
        search: str = "tpe",
        early_stopping: Halving | Mapping[str, Any] | str | None = None,
        tolerance: float | str = 0.0,
        seed: int | str = 0,
        max_failed_trials: int | str = 3,
        initial_trials: Sequence[Mapping[str, Any]] = (),
        engine: str = "optuna",
        **kwargs: Any,
    ) -> None:
        if engine not in _ENGINES:
            raise SpecificationError(f"engine={engine!r} must be one of {sorted(_ENGINES)}")
        self.engine = _ENGINES[engine]
        self.space = space
        self.objective = objective
        self.direction = direction
        self.max_trials = max_trials
        self.parallel_trials = parallel_trials
        self.max_billable_seconds = max_billable_seconds
        self.search = search
        self.early_stopping = early_stopping
        self.tolerance = tolerance
        self.seed = seed
        self.max_failed_trials = max_failed_trials
        self.initial_trials = initial_trials
        #: A tuning job that has ended, told as a sweep of ours.
        self._tuned: SweepJournal | None = None
        super().__init__(**kwargs)

    def specification(self, context: Context) -> SweepSpec | TunerSpec:  # type: ignore[override]
        """Return the whole specification; by now nothing is a template any more."""
        sweep = self._sweep(context)
        median = self.early_stopping == MEDIAN
        return TunerSpec(sweep=sweep, median_stopping=median) if self.engine == TUNER else sweep

    def _sweep(self, context: Context) -> SweepSpec:
        return SweepSpec(
            training=super().specification(context),
            space=parse_space(self.space),
            objective=self.objective,
            direction=self._choice("direction"),
            search=self._choice("search"),
            early_stopping=self._halving(),
            initial_trials=tuple(self.initial_trials),
            **{name: self._number(name) for name in (*_INTEGERS, "tolerance")},
        )

    def result(self, context: Context, outcome: JobOutcome) -> dict[str, Any]:
        """Return the SweepResult as JSON.

        :raises JobFailed: no trial has completed, too many have failed, or the best one has left no model behind.
        """
        files = self._files(outcome.reference)
        journal = self._tuned or SweepLauncher(self.aws.client).journal(outcome.reference)
        self._check_trials(journal)
        best = journal.best
        assert best is not None
        assert best.job is not None
        assert best.value is not None
        if not best.artifact_uri or not holds_files(self.aws.client("s3"), S3Uri.parse(best.artifact_uri)):
            raise JobFailed(
                f"trial {best.number} is the best, but its job {best.job.name} has left no model file at "
                f"{best.artifact_uri or self.output_s3_uri}: the script must write it to the folder of SM_MODEL_DIR"
            )
        status = SageMakerLauncher(self.aws.client).describe(best.job)
        model = self._model(best.job, status, best.artifact_uri)
        self._write_manifest(context, best.job, model)
        result = SweepResult(
            sweep=journal.name,
            best_trial=best.number,
            best_value=best.value,
            best_parameters=best.parameters,
            objective=journal.spec.objective,
            job_name=best.job.name,
            job_arn=best.job.arn,
            artifact_uri=best.artifact_uri,
            output_uri=model.output_uri,
            metrics={**status.metrics, journal.spec.objective: best.value},
            manifest_uri=str(model.manifest_uri),
            billable_seconds=journal.cost,
            trials=Counter(str(trial.state) for trial in journal.trials),
            ending=str(journal.ending),
            leaderboard_uri=str(files.leaderboard_uri),
            report_uri=str(files.page_uri),
        )
        self.log.info("Sweep %s: %s", journal.name, to_json(result))
        return dict(to_json(result))

    def _model(self, job: JobReference, status: JobStatus, artifact_uri: str) -> TrainingResult:
        """Return the best trial as the result of a training of its own."""
        return TrainingResult(
            job_name=job.name,
            job_arn=job.arn,
            artifact_uri=artifact_uri,
            output_uri=status.output_uri or "",
            metrics=status.metrics,
            billable_seconds=status.billable_seconds,
            **self._machines(status),
            manifest_uri=str(S3Uri.parse(artifact_uri).parent / FILE_NAME),
        )

    def _announce(self, context: Context, submission: Submission) -> None:
        super()._announce(context, submission)
        if self.engine == OPTUNA:  # the tuner's leaderboard is not there before its end
            self._link_report(context, submission.reference)

    def _finish(self, context: Context, submission: Submission, status: JobStatus) -> Any:
        """Publish the leaderboard of a tuning job, however it has ended; a sweep of ours has published its own."""
        if self.engine == TUNER:
            try:
                self._publish(context, submission.reference, status)
            except DlawsError as trouble:
                if status.phase is JobPhase.SUCCEEDED:
                    raise
                # Why the sweep has failed must not be lost.
                self.log.error("The leaderboard of %s could not be written: %s", submission.reference.name, trouble)
        return super()._finish(context, submission, status)

    def _publish(self, context: Context, reference: JobReference, status: JobStatus) -> None:
        self._tuned = journal_of(self.aws.client, reference, status, self._sweep(context), identity_of(context))
        self._files(reference).publish(self._tuned, engine="sagemaker")
        self._link_report(context, reference)

    def _link_report(self, context: Context, reference: JobReference) -> None:
        ReportLink.store(context, report_url(self.aws.client("s3"), self._files(reference).page_uri))

    def _files(self, reference: JobReference) -> SweepStore:
        if self.engine == OPTUNA:
            return SweepLauncher(self.aws.client).files(reference)
        return SweepStore(
            ObjectStore(self.aws.client("s3")), S3Uri.parse(self.output_s3_uri) / "sweeps" / reference.name
        )

    def _check_trials(self, journal: SweepJournal) -> None:
        """Refuse what a sweep of ours would have ended at, and SageMaker's tuner calls completed."""
        failed = [trial for trial in journal.trials if trial.state is TrialState.FAILED]
        if len(failed) > int(self.max_failed_trials):
            raise JobFailed(
                f"sweep {journal.name}: {len(failed)} trials have failed, more than "
                f"max_failed_trials={self.max_failed_trials}; the first one: {failed[0].reason}"
            )
        if journal.best is None:
            raise JobFailed(f"sweep {journal.name}: {summary(journal)}. A trial that was stopped early cannot win")

    def _check_what_is_known(self) -> None:
        """Check, when the DAG is parsed, every value that holds no template."""
        if self.job_queue:
            raise SpecificationError(
                f"job_queue={self.job_queue!r}: the trials of a sweep are started by the sweep and cannot wait in a "
                "queue of AWS Batch: leave it out; parallel_trials says how many run at a time"
            )
        super()._check_what_is_known()
        if self.early_stopping is not None and not is_template(self.early_stopping):
            self._halving()
        for name, check in FIELD_CHECKS.items():
            value = getattr(self, name)
            if not is_template(value):
                check(name, value if name == "objective" else self._number(name))
        for name in _CHOICES:
            if not is_template(getattr(self, name)):
                self._choice(name)
        if not is_template(self.space):
            parse_space(self.space)
        if not any(is_template(getattr(self, name)) for name in _TOGETHER):
            space, trials = parse_space(self.space), integer("max_trials", self.max_trials) or 0
            check_together(space, self.hyperparameters or {}, self.initial_trials, trials)
        if self.engine == TUNER:
            self._check_what_the_tuner_takes()

    def _check_what_the_tuner_takes(self) -> None:
        narrowed: dict[str, Callable[[], Any]] = {
            "space": lambda: parse_space(self.space),
            "early_stopping": self._halving,
            "max_billable_seconds": lambda: integer("max_billable_seconds", self.max_billable_seconds),
            "initial_trials": lambda: self.initial_trials,
            "tolerance": lambda: self._number("tolerance"),
            "checkpoint_s3_uri": lambda: self.checkpoint_s3_uri,
        }
        for name, value in narrowed.items():
            if not is_template(getattr(self, name)):
                TUNER_CHECKS[name](name, value())
        for name, refuse in TRAINING_CHECKS.items():
            if not is_template(getattr(self, name)):
                refuse(name, read(name, getattr(self, name)))

    def _number(self, name: str) -> Any:
        """Return a number that may have come from a template as text."""
        value = getattr(self, name)
        if name in _INTEGERS:
            return integer(name, value)
        try:
            return float(value)
        except ValueError:
            raise SpecificationError(f"{name}={value!r} must be a number") from None

    def _choice(self, name: str) -> Any:
        value, kind = getattr(self, name), _CHOICES[name]
        try:
            return kind(value)
        except ValueError:
            raise SpecificationError(f"{name}={value!r} must be one of {[str(member) for member in kind]}") from None

    def _halving(self) -> Halving | None:
        value = self.early_stopping
        if value is None or value == "none" or (value == MEDIAN and self.engine == TUNER):
            return None
        if value == "halving":
            return Halving()
        if isinstance(value, Mapping):
            return from_json(Halving, value)
        if not isinstance(value, Halving):
            raise SpecificationError(
                f"early_stopping={value!r} must be 'halving', 'none', the fields of a Halving, or {MEDIAN!r} with "
                "engine='sagemaker'"
            )
        return value
