"""Two hosts, one process each, torchrun and gloo: what a training job on AWS does, on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from trainer import IMAGE, Trainer, channel

from airflow_dlaws.jobs import container_entry
from airflow_dlaws.local.process import LocalAws

SCRIPT = """
import os, socket
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Linear(2, 1))
loss = model(torch.full((4, 2), float(dist.get_rank() + 1))).pow(2).mean()
loss.backward()
gradient = model.module.weight.grad.sum().item()
sums = [torch.zeros(1) for _ in range(dist.get_world_size())]
dist.all_gather(sums, torch.tensor([gradient]))
print("world", dist.get_world_size(), "rank", dist.get_rank(), "same gradient", len({s.item() for s in sums}) == 1)
if dist.get_rank() == 0:
    torch.save(model.module.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pt"))
dist.destroy_process_group()
"""


@pytest.fixture(params=["auto", "env"])
def own_trainer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trainer]:
    """Training jobs with namespaces, and without."""
    environment = {"DLAWS_LOCAL_ISOLATION": request.param}
    with LocalAws(tmp_path / "state", time_scale=0.05, environment=environment) as aws:
        aws.client("s3").create_bucket(Bucket="distributed")
        yield Trainer(aws, "distributed")


@pytest.mark.slow
def test_two_hosts_train_one_model(own_trainer: Trainer) -> None:
    own_trainer.put("code/train.py", SCRIPT)
    own_trainer.put("code/dlaws_entry.py", Path(container_entry.__file__).read_text())
    job = own_trainer.run(
        instances=2,
        InputDataConfig=[channel("code", "s3://distributed/code/")],
        AlgorithmSpecification={
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/dlaws_entry.py"],
            "ContainerArguments": ["--nproc-per-node", "1", "train.py"],
        },
    )
    logs = own_trainer.logs(job["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), logs)
    for rank, host in enumerate(("algo-1", "algo-2")):
        assert f"world 2 rank {rank} same gradient True" in logs[host]
    archive = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://distributed/")
    assert own_trainer.s3.head_object(Bucket="distributed", Key=archive)["ContentLength"] > 500
