"""DistributedTrainingOperator against the local AWS: execute, defer, trigger, resume, by hand and across processes."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferralError
from botocore.exceptions import ReadTimeoutError
from training_task import Training, cancelled_after, event_of, trigger_of, wait_until

from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.process import LocalAws

#: No retries inside boto: what the service says is what the operator sees.
NO_RETRIES = {"retries": {"mode": "standard", "total_max_attempts": 1}}


def test_a_task_trains_in_one_job_and_returns_a_small_result(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    result = training.train(hyperparameters={"epochs": 2}, metrics=["rows"])
    assert training.jobs() == ["Completed"]
    assert result.metrics == {"rows": 1.0}
    assert result.artifact_uri == f"s3://{training.bucket}/models/{result.job_name}/output/model.tar.gz"
    assert result.output_uri == f"s3://{training.bucket}/models/{result.job_name}/output/output.tar.gz"
    assert (result.instance_count, result.instance_type) == (1, "ml.m5.large")
    assert (result.adopted, result.attempts) == (False, 1)
    assert "[algo-1] arguments ['--epochs', '2']" in capsys.readouterr().out
    links = [value for key, value in training.pushed.items() if "link" in key.lower()]
    assert any(result.job_name in link for link in links), training.pushed


def test_waiting_in_the_worker_gives_the_same_result(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    result = training.operator(deferrable=False).execute(training.task().context)
    assert training.jobs() == [("Completed")]
    assert result["job_name"]
    assert "[algo-1] arguments" in capsys.readouterr().out


def test_a_retry_adopts_the_running_job(training: Training) -> None:
    first = training.defer("forever.py")
    second = training.defer("forever.py", task=training.task(try_number=2))
    assert second.trigger.reference == first.trigger.reference
    assert second.kwargs["submission"]["adopted"] is True
    assert training.jobs() == ["InProgress"]
    training.sagemaker.stop_training_job(TrainingJobName=first.trigger.reference.name)


def test_a_retry_that_finds_the_job_finished_does_not_wait(training: Training) -> None:
    training.train()
    result = training.operator().execute(training.task(try_number=2).context)
    assert result["adopted"] is True
    assert training.jobs() == ["Completed"]


def test_a_cleared_task_trains_anew(training: Training) -> None:
    first = training.train()
    cleared = training.train(task=training.task(try_number=2, max_tries=3))
    assert first.job_name != cleared.job_name
    assert training.jobs() == ["Completed", "Completed"]


def test_a_run_that_was_deleted_and_made_again_with_its_id_trains_anew(training: Training) -> None:
    former, run = (training.task(run_began=datetime(2026, 11, day, tzinfo=UTC)) for day in (29, 30))
    left = training.defer("forever.py", task=former).trigger.reference
    again = training.defer("forever.py", task=run).trigger.reference
    assert again != left
    training.wait_for_jobs("InProgress", "Stopped")
    training.sagemaker.stop_training_job(TrainingJobName=again.name)


def test_a_script_that_raises_fails_the_task_for_good_with_its_reason_and_its_last_lines(training: Training) -> None:
    deferred = training.defer("raises.py")
    with pytest.raises(AirflowFailException) as failed:
        training.resume(deferred, "raises.py")
    message = str(failed.value)
    assert "ValueError: label column is empty" in message
    assert "[algo-1] reading labels" in message
    assert "https://us-east-1.console.aws.amazon.com/cloudwatch" in message
    with pytest.raises(AirflowFailException, match="not run again"):
        training.operator("raises.py").execute(training.task(try_number=2).context)
    assert training.jobs() == ["Failed"]


def test_missing_capacity_is_retried_with_another_job(training: Training, local_aws: LocalAws) -> None:
    local_aws.order_fault(kind="capacity", target="CreateTrainingJob", times=1)
    try:
        with pytest.raises(AirflowException, match="capacity") as failed:
            training.resume(training.defer())
    finally:
        local_aws.clear_faults()
    assert not isinstance(failed.value, AirflowFailException)
    assert training.train(task=training.task(try_number=2)).attempts == 2
    assert sorted(training.jobs()) == ["Completed", "Failed"]


def test_a_job_stopped_in_the_console_is_a_failure(training: Training) -> None:
    deferred = training.defer("forever.py")
    training.sagemaker.stop_training_job(TrainingJobName=deferred.trigger.reference.name)
    with pytest.raises(AirflowFailException, match="was stopped before it had finished"):
        training.resume(deferred, "forever.py")


def test_a_job_over_its_own_limit_is_a_failure_that_names_the_limit(training: Training) -> None:
    deferred = training.defer("forever.py", max_runtime_s=1)
    with pytest.raises(AirflowFailException, match=r"MaxRuntimeExceeded.*max_runtime_s"):
        training.resume(deferred, "forever.py")


def test_the_deadline_stops_the_job_and_fails_the_deferred_task(training: Training) -> None:
    deferred = training.defer("forever.py", timeout=timedelta(seconds=1))
    with pytest.raises(AirflowFailException, match="had not ended at its deadline"):
        training.resume(deferred, "forever.py")
    training.wait_for_jobs("Stopped")


def test_the_deadline_stops_the_job_and_fails_the_waiting_task(training: Training) -> None:
    operator = training.operator("forever.py", timeout=timedelta(seconds=1), deferrable=False)
    with pytest.raises(AirflowFailException, match="had not ended at its deadline"):
        operator.execute(training.task().context)
    training.wait_for_jobs("Stopped")


def test_the_deadline_counts_from_the_creation_of_the_job_for_a_retry_too(training: Training) -> None:
    timeout = timedelta(hours=1)
    first = training.defer("forever.py", timeout=timeout).trigger
    second = training.defer("forever.py", timeout=timeout, task=training.task(try_number=2)).trigger
    assert second.deadline == pytest.approx(first.deadline, abs=2)
    training.sagemaker.stop_training_job(TrainingJobName=first.reference.name)


def test_marking_a_deferred_task_stops_its_job(training: Training) -> None:
    deferred = training.defer("forever.py")
    asyncio.run(cancelled_after(trigger_of(deferred), 0.5, by_user=True))
    training.wait_for_jobs("Stopped")


def test_a_job_can_be_asked_to_outlive_its_task(training: Training) -> None:
    deferred = training.defer("forever.py", stop_on_kill=False)
    asyncio.run(cancelled_after(trigger_of(deferred), 0.5, by_user=True))
    assert training.jobs() == ["InProgress"]
    training.sagemaker.stop_training_job(TrainingJobName=deferred.trigger.reference.name)


def test_a_triggerer_that_restarts_goes_on_with_the_same_job(training: Training) -> None:
    deferred = training.defer()
    asyncio.run(cancelled_after(trigger_of(deferred), 0.2, by_user=False))
    result = from_json(TrainingResult, training.resume(deferred))
    assert result.job_name == deferred.trigger.reference.name
    assert training.jobs() == ["Completed"]


def test_a_task_that_is_resumed_by_dag_test_finds_its_job(training: Training) -> None:
    deferred = training.defer()
    payload = asyncio.run(event_of(trigger_of(deferred)))
    # dag.test() hands on the event alone.
    result = training.operator().resume_execution(deferred.method_name, {"event": payload}, training.task().context)
    assert from_json(TrainingResult, result).job_name == deferred.trigger.reference.name
    assert training.jobs() == ["Completed"]


def test_throttling_slows_the_trigger_down_and_fails_nothing(
    training: Training, local_aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    deferred = training.defer(botocore_config=NO_RETRIES)
    local_aws.order_fault(kind="throttle", target="DescribeTrainingJob", times=3)
    try:
        result = training.resume(deferred, botocore_config=NO_RETRIES)
    finally:
        local_aws.clear_faults()
    assert result["job_name"] == deferred.trigger.reference.name
    assert "ThrottlingException" in capsys.readouterr().out


def test_a_job_that_cannot_be_observed_is_left_to_the_retry(training: Training, local_aws: LocalAws) -> None:
    deferred = training.defer("forever.py")
    fault = {"kind": "error", "code": "AccessDeniedException", "message": "not today"}
    local_aws.order_fault(target="DescribeTrainingJob", **fault)
    payload = asyncio.run(event_of(trigger_of(deferred)))
    local_aws.clear_faults()
    assert payload["kind"] == "lost"
    with pytest.raises(AirflowException, match="not today") as failed:
        training.go_on(deferred, payload, "forever.py")
    assert not isinstance(failed.value, AirflowFailException)
    assert training.jobs() == ["InProgress"]
    retry = training.defer("forever.py", task=training.task(try_number=2))
    assert retry.trigger.reference == deferred.trigger.reference
    training.sagemaker.stop_training_job(TrainingJobName=deferred.trigger.reference.name)


def fail_by_airflow(training: Training, error: str, **task: Any) -> None:
    """Resume as Airflow does when a trigger has timed out or crashed."""
    details = {"error": error, "traceback": ["ImportError: no module"]}
    training.operator("forever.py").resume_execution("__fail__", details, training.task(**task).context)


def test_a_crashed_trigger_leaves_the_job_to_the_retry(training: Training) -> None:
    deferred = training.defer("forever.py")
    with pytest.raises(AirflowException, match="no module"):
        fail_by_airflow(training, "Trigger failure", try_number=1)
    assert training.jobs() == ["InProgress"]
    training.sagemaker.stop_training_job(TrainingJobName=deferred.trigger.reference.name)


def test_a_crashed_trigger_on_the_last_try_stops_the_job(training: Training) -> None:
    training.defer("forever.py")
    with pytest.raises(AirflowException, match="no module"):
        fail_by_airflow(training, "Trigger failure", try_number=3)
    training.wait_for_jobs("Stopped")


def test_a_timed_out_deferral_stops_the_job(training: Training) -> None:
    training.defer("forever.py")
    with pytest.raises(AirflowFailException, match="deadline"):
        fail_by_airflow(training, "Trigger timeout", try_number=1)
    training.wait_for_jobs("Stopped")


def test_a_lost_event_of_a_job_that_ended_well_is_made_good(training: Training) -> None:
    training.defer()
    training.wait_for_jobs("Completed")
    operator = training.operator()
    result = operator.resume_execution("__fail__", {"error": "Trigger timeout"}, training.task().context)
    assert result["artifact_uri"].endswith("model.tar.gz")


def test_a_failed_trigger_of_a_task_that_knows_no_job_is_airflows_own_error(training: Training) -> None:
    with pytest.raises(TaskDeferralError):
        fail_by_airflow(training, "Trigger failure")
    assert training.jobs() == []


def test_killing_the_waiting_worker_stops_the_job_and_the_retry_trains_again(training: Training) -> None:
    operator = training.operator("forever.py", deferrable=False)
    errors: list[BaseException] = []

    def execute() -> None:
        try:
            operator.execute(training.task().context)
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=execute)
    worker.start()
    training.wait_for_jobs("InProgress")
    wait_until(lambda: "dlaws_job" in training.pushed, lambda: "not submitted")
    operator.on_kill()
    worker.join(timeout=30)
    training.wait_for_jobs("Stopped")
    assert "was killed" in str(errors[0])
    assert not isinstance(errors[0], AirflowFailException)
    retry = training.defer("forever.py", task=training.task(try_number=2))
    assert sorted(training.jobs()) == ["InProgress", "Stopped"]
    training.sagemaker.stop_training_job(TrainingJobName=retry.trigger.reference.name)


def test_a_killed_try_leaves_the_job_to_the_later_try_that_has_adopted_it(training: Training) -> None:
    """The scheduler was gone for too long: the task is given to another worker, then the first one is killed."""
    former = training.operator("forever.py", deferrable=False, poll_interval=0.2)
    errors: list[BaseException] = []

    def execute() -> None:
        try:
            former.execute(training.task().context)
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=execute)
    worker.start()
    training.wait_for_jobs("InProgress")
    wait_until(lambda: "dlaws_job" in training.pushed, lambda: "not submitted")
    later = training.defer("forever.py", task=training.task(try_number=2)).trigger
    former.on_kill()
    worker.join(timeout=30)
    assert "was killed" in str(errors[0])
    assert training.jobs() == ["InProgress"]
    training.sagemaker.stop_training_job(TrainingJobName=later.reference.name)


@pytest.mark.parametrize("moment", ["before-call", "after-call"])
def test_a_task_killed_while_its_job_is_being_created_leaves_none_running(training: Training, moment: str) -> None:
    operator, killed = training.operator("forever.py"), []

    def kill(**_: Any) -> None:
        killed.append(moment)
        operator.on_kill()  # as Airflow's signal handler does, in the middle of this call

    operator.aws.client("sagemaker").meta.events.register(f"{moment}.sagemaker.CreateTrainingJob", kill)
    with pytest.raises(AirflowException, match="was killed while it started job"):
        operator.execute(training.task().context)
    assert killed
    training.wait_for_jobs("Stopped")


def test_a_killed_task_asks_airflow_for_nothing_in_its_signal_handler(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may have been interrupted in the middle of a question: another one would wait for ever."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws"}))
    operator, task = training.operator("forever.py", aws_conn_id="aws_default", deferrable=False), training.task()

    def push(key: str, value: Any) -> None:
        task.pushed[key] = value
        if key == "dlaws_job":
            with monkeypatch.context() as silent:
                silent.setattr(AwsBaseHook, "get_connection", lambda *_: pytest.fail("Airflow was asked"))
                operator.on_kill()

    monkeypatch.setattr(task, "xcom_push", push)
    with pytest.raises(AirflowException, match="was killed"):
        operator.execute(task.context)
    training.wait_for_jobs("Stopped")


def test_on_the_last_try_a_job_whose_creation_was_not_answered_is_stopped(training: Training) -> None:
    operator = training.operator("forever.py")

    def lose_the_answer(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="https://api.sagemaker", error="timed out")

    events = operator.aws.client("sagemaker").meta.events
    events.register("after-call.sagemaker.CreateTrainingJob", lose_the_answer)
    with pytest.raises(AirflowException, match="Read timeout"):
        operator.execute(training.task(try_number=3).context)
    training.wait_for_jobs("Stopped")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, {"kind": "error", "target": "ListTags", "code": "AccessDeniedException", "message": "no", "times": 1}),
        ({"entry_point": "gone.py"}, None),
        ({"role_arn": "{{ role }}"}, None),
    ],
    ids=["it may not be recognised", "its code is gone", "its specification has turned bad"],
)
def test_a_retry_that_fails_for_good_before_it_finds_its_job_stops_it(
    training: Training, local_aws: LocalAws, change: dict[str, Any], fault: dict[str, Any] | None
) -> None:
    training.defer("forever.py")
    training.wait_for_jobs("InProgress")
    operator = training.operator("forever.py", **{"botocore_config": NO_RETRIES, **change})
    if fault:
        local_aws.order_fault(**fault)
    try:
        with pytest.raises(AirflowFailException):
            operator.execute(training.task(try_number=2).context)
    finally:
        local_aws.clear_faults()
    training.wait_for_jobs("Stopped")


def test_a_job_that_leaves_no_model_is_a_failure(training: Training) -> None:
    (training.source / "nothing.py").write_text("print('nothing to see')\n")
    deferred = training.defer("nothing.py")
    with pytest.raises(AirflowFailException, match=r"there is no model file at .*SM_MODEL_DIR"):
        training.resume(deferred, "nothing.py")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output_s3_uri": "s3://no-such-bucket/models"}, ["bucket 'no-such-bucket' does not exist"]),
        ({"channels": {"train": "s3://no-such-bucket/x"}}, ["channel 'train'", "bucket 'no-such-bucket'"]),
        ({"channels": {"train": "s3://BUCKET/empty/"}}, ["channel 'train'", "has no objects"]),
        ({"instance_type": "ml.m5.lagre"}, ["instance_type='ml.m5.lagre'", "ml.m5.large"]),
        ({"entry_point": "missing.py"}, ["entry_point='missing.py'", "'good.py'"]),
        ({"source": "/no/such/folder"}, ["source='/no/such/folder'", "no folder"]),
    ],
)
def test_bad_input_fails_with_one_clear_message_before_a_job_is_made(
    training: Training, change: dict[str, Any], words: list[str]
) -> None:
    change = json.loads(json.dumps(change).replace("BUCKET", training.bucket))
    with pytest.raises(AirflowFailException) as failed:
        training.operator(**change).execute(training.task().context)
    for word in words:
        assert word in str(failed.value)
    assert training.jobs() == []


def test_a_value_that_turns_out_bad_once_rendered_fails_before_a_job_is_made(training: Training) -> None:
    operator = training.operator(role_arn="{{ role }}", instance_count="{{ hosts }}")
    operator.render_template_fields({"role": "dlaws", "hosts": 2})
    with pytest.raises(AirflowFailException, match="role_arn='dlaws' is no role ARN"):
        operator.execute(training.task().context)
    assert training.jobs() == []
