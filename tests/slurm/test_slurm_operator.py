"""SlurmTrainingOperator on a real Slurm: two nodes train together, a retry adopts, a kill stops."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from running_task import RunningTask, aws_environment, resumed
from slurm_cluster import SlurmCluster

from airflow_dlaws.data.snapshot import ChosenData
from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.reference import TrainingResult
from airflow_dlaws.jobs.wire import from_json
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.operators.data import ChooseDataOperator
from airflow_dlaws.operators.slurm import SlurmTrainingOperator
from airflow_dlaws.triggers.job import JobTrigger

TRAIN = """\
import json, os, pathlib, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
data = sum(int(path.read_text()) for path in pathlib.Path(os.environ["SM_CHANNEL_TRAIN"]).rglob("*") if path.is_file())
if dist.get_rank() == 0:
    metrics = {"total": total.item(), "data": data, "hosts": dist.get_world_size()}
    print(json.dumps({"dlaws_metrics": metrics}), flush=True)
    torch.save({"total": total}, pathlib.Path(os.environ["SM_MODEL_DIR"], "model.pt"))
dist.destroy_process_group()
"""


#: Counts its lives in the checkpoints; the first one waits to be ended.
LIVES = """\
import json, os, pathlib, time
count = pathlib.Path(os.environ["SM_CHECKPOINT_DIR"], "lives")
lives = int(count.read_text()) + 1 if count.exists() else 1
count.with_suffix(".new").write_text(str(lives))
count.with_suffix(".new").replace(count)
print(f"life {lives}", flush=True)
if lives == 1:
    time.sleep(600)
print(json.dumps({"dlaws_metrics": {"lives": lives}}), flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("done")
"""


def operator(cluster: SlurmCluster, folder: Path, bucket: str, script: str, **changes: Any) -> SlurmTrainingOperator:
    work_dir = cluster.shared / folder.name
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code/train.py").write_text(TRAIN)
    (folder / "code/lives.py").write_text(LIVES)
    (folder / "code/wait.py").write_text("import time\nprint('waiting', flush=True)\ntime.sleep(600)\n")
    fields: dict[str, Any] = {
        "task_id": "train",
        "aws_conn_id": None,
        "poll_interval": 0.2,
        "cluster": {
            "address": "ssh://slurm_head", "work_dir": str(work_dir), "python": sys.executable, "grace_s": 5,
            "partition": "train",
        },
        "source": str(folder / "code"),
        "entry_point": script,
        "output_s3_uri": f"s3://{bucket}/models",
        "instance_count": 2,
        "max_runtime_s": 120,
        "metrics": ("total", "data", "hosts"),
        "price_per_hour": 36,
    }  # fmt: skip
    return SlurmTrainingOperator(**{**fields, **changes})


async def event_of(trigger: JobTrigger) -> Any:
    (event,) = [event async for event in trigger.run()]
    return json.loads(json.dumps(event.payload))


def trigger_of(deferred: TaskDeferred) -> JobTrigger:
    return JobTrigger(**json.loads(json.dumps(deferred.trigger.serialize()[1])))


@pytest.mark.slow
def test_two_nodes_train_one_model_and_a_retry_adopts_the_job(
    cluster: SlurmCluster, local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_environment(monkeypatch, local_aws)
    local_aws.client("s3").put_object(Bucket=bucket, Key="data/part", Body=b"7")
    changes = {"channels": {"train": f"s3://{bucket}/data/"}, "environment": {"OMP_NUM_THREADS": "1"}}
    task = RunningTask("train", run_id=uuid.uuid4().hex, max_tries=1)
    with pytest.raises(TaskDeferred):
        operator(cluster, tmp_path, bucket, "train.py", **changes).execute(task.context)
    with pytest.raises(TaskDeferred) as deferred:
        operator(cluster, tmp_path, bucket, "train.py", **changes).execute(task.context)
    event = asyncio.run(event_of(trigger_of(deferred.value)))
    last = operator(cluster, tmp_path, bucket, "train.py", **changes)
    answer = resumed(last, deferred.value, event, task.context)
    result = from_json(TrainingResult, answer)
    assert result.metrics == {"total": 3.0, "data": 7.0, "hosts": 2.0}
    assert (result.adopted, result.instance_count, result.instance_type) == (True, 2, "train")
    assert len(cluster.jobs(result.job_name)) == 1
    assert result.billable_seconds > 0
    assert result.cost_usd == pytest.approx(2 * result.billable_seconds * 36 / 3600)
    assert "2 x " in result.cost_basis
    manifest = json.loads(
        local_aws.client("s3")
        .get_object(Bucket=bucket, Key=str(result.manifest_uri).removeprefix(f"s3://{bucket}/"))["Body"]
        .read()
    )
    assert manifest["request"]["nodes"] == 2
    assert "environment" not in manifest["request"]


def test_a_killed_task_leaves_no_job_running(
    cluster: SlurmCluster, local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_environment(monkeypatch, local_aws)
    task = RunningTask("train", run_id=uuid.uuid4().hex)
    with pytest.raises(TaskDeferred) as deferred:
        operator(cluster, tmp_path, bucket, "wait.py").execute(task.context)
    trigger = trigger_of(deferred.value)
    name = trigger.reference.name
    cluster.wait_until(lambda: [row[1] for row in cluster.jobs(name)] == ["RUNNING"])
    asyncio.run(trigger.on_kill())
    cluster.wait_until(lambda: cluster.jobs(name)[0][1] in {"FAILED", "CANCELLED"})


def finish(task: RunningTask, deferred: TaskDeferred, made: SlurmTrainingOperator) -> TrainingResult:
    event = asyncio.run(event_of(trigger_of(deferred)))
    return from_json(TrainingResult, resumed(made, deferred, event, task.context))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["requeued", "preempted"])
def test_a_job_that_slurm_queues_again_goes_on_from_its_checkpoints_and_the_task_waits(
    cluster: SlurmCluster, local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    aws_environment(monkeypatch, local_aws)
    task, changes = RunningTask("train", run_id=uuid.uuid4().hex), {"instance_count": 1, "metrics": ("lives",)}
    with pytest.raises(TaskDeferred) as deferred:
        operator(cluster, tmp_path, bucket, "lives.py", **changes).execute(task.context)
    name = trigger_of(deferred.value).reference.name
    cluster.wait_until(lambda: "life 1" in printed(cluster, tmp_path, name))
    (job_id, _), *_ = cluster.jobs(name)
    if how == "requeued":
        cluster.run("scontrol", "requeue", job_id)
    else:
        whole = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", f"--chdir={cluster.shared}")
        cluster.run("sbatch", *whole, "--wrap=sleep 1")
    result = finish(task, deferred.value, operator(cluster, tmp_path, bucket, "lives.py", **changes))
    assert result.metrics == {"lives": 2.0}
    assert [row[0] for row in cluster.jobs(name)] == [job_id], "it was the same job all the time"
    assert printed(cluster, tmp_path, name).count("life ") == 2


def printed(cluster: SlurmCluster, folder: Path, name: str) -> str:
    log = cluster.shared / folder.name / name / "log"
    return log.read_text() if log.exists() else ""


@pytest.mark.parametrize(("resume_on_clear", "lives"), [(True, 2.0), (False, None)])
def test_a_cleared_task_goes_on_from_its_checkpoints_where_that_is_asked_for(
    cluster: SlurmCluster,
    local_aws: LocalAws,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resume_on_clear: bool,
    lives: float | None,
) -> None:
    aws_environment(monkeypatch, local_aws)
    run_id, changes = uuid.uuid4().hex, {"instance_count": 1, "metrics": ("lives",), "resume_on_clear": resume_on_clear}
    first = RunningTask("train", run_id=run_id)
    with pytest.raises(TaskDeferred) as deferred:
        operator(cluster, tmp_path, bucket, "lives.py", **changes).execute(first.context)
    trigger = trigger_of(deferred.value)
    cluster.wait_until(lambda: "life 1" in printed(cluster, tmp_path, trigger.reference.name))
    asyncio.run(trigger.on_kill())
    cleared = RunningTask("train", run_id=run_id, max_tries=1, try_number=2)
    with pytest.raises(TaskDeferred) as deferred:
        operator(cluster, tmp_path, bucket, "lives.py", **changes).execute(cleared.context)
    again = trigger_of(deferred.value)
    assert again.reference.name != trigger.reference.name
    if lives:
        assert finish(cleared, deferred.value, operator(cluster, tmp_path, bucket, "lives.py", **changes)).metrics == {
            "lives": lives
        }
    else:
        cluster.wait_until(lambda: "life 1" in printed(cluster, tmp_path, again.reference.name))
        asyncio.run(again.on_kill())


def test_numbers_may_be_templates_and_data_that_have_changed_are_refused_before_a_job_is_made(
    cluster: SlurmCluster, local_aws: LocalAws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_environment(monkeypatch, local_aws)
    s3 = local_aws.client("s3")
    for month in ("2013-01", "2013-02"):
        s3.put_object(Bucket=bucket, Key=f"flights/month={month}/a.csv", Body=b"1,2\n")
    data, runs = f"s3://{bucket}/flights/", f"s3://{bucket}/runs"
    choose = ChooseDataOperator(task_id="choose", aws_conn_id=None, data_s3_uri=data, runs_s3_uri=runs)
    chosen = from_json(ChosenData, choose.execute(RunningTask("choose").context))
    numbers = {"instance_count": "{{ nodes }}", "max_runtime_s": "{{ limit }}", "price_per_hour": "{{ price }}"}
    made = operator(cluster, tmp_path, bucket, "wait.py", **numbers, data_snapshot="{{ snapshot }}")
    made.render_template_fields({"nodes": 2, "limit": 90, "price": 1.5, "snapshot": chosen.snapshot})
    task = RunningTask("train", run_id=uuid.uuid4().hex)
    spec = made.specification(task.context)
    assert (spec.instance_count, spec.max_runtime_s) == (2, 90)
    s3.put_object(Bucket=bucket, Key="flights/month=2013-01/a.csv", Body=b"3,4\n")
    with pytest.raises(AirflowException, match="the data have changed since they were chosen, and no job is started"):
        made.execute(task.context)
    assert not list((cluster.shared / tmp_path.name).glob("*/order.json"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cluster": {"address": "head", "work_dir": "/fsx"}}, "must be ssh://CONNECTION"),
        ({"cluster": {"address": "ssh://x", "work_dir": "relative"}}, "absolute path of a folder that all nodes share"),
        ({"cluster": {"address": "ssh://x", "work_dir": "/fsx", "role_arn": "x"}}, "role_arn"),
        ({"cluster": {"address": "ssh://x", "work_dir": "/fsx", "sbatch": {"nodes": "3"}}}, "instance_count"),
        ({"instance_count": 0}, "instance_count=0"),
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(change: dict[str, Any], words: str) -> None:
    fields = {
        "task_id": "train", "source": "x", "entry_point": "train.py", "output_s3_uri": "s3://bucket/x",
        "cluster": {"address": "ssh://x", "work_dir": "/fsx"},
    }  # fmt: skip
    with pytest.raises(SpecificationError, match=words):
        SlurmTrainingOperator(**{**fields, **change})
