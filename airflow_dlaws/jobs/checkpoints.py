"""Where the checkpoints of one task lie: its retries find them, nobody else does.

SageMaker restores whatever lies under CheckpointConfig.S3Uri before a job starts. Many runs of a DAG name the same
`checkpoint_s3_uri` (a backfill of ten months runs ten at once), so each task gets a folder of its own under it:

    <checkpoint_s3_uri>/<dag>-<task>-<16 digits of a hash>

The hash is over the task instance (deployment, DAG, run, task, map index), how often it was cleared, and what is being
trained: image, program, hyperparameters, channels, environment. So

- a retry, an adopted job, a job after missing capacity, an interruption or AWS's own fault goes on from the last
  checkpoint, also on other machines or with other limits;
- another run, another mapped instance and a cleared task begin at zero (`resume_on_clear` lets a cleared task go on);
- a retry whose code, data or hyperparameters were edited begins at zero: its model is of one specification.
"""

from __future__ import annotations

import dataclasses

from airflow_dlaws.jobs.identity import TaskIdentity, digest_of
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.jobs.wire import to_json

#: What makes a training another training; machines, limits, keys, tags and tracked metrics do not.
_WHAT_IS_TRAINED = (
    "image", "framework", "framework_version", "entry_point", "arguments", "hyperparameters", "channels", "environment",
    "extra_request",
)  # fmt: skip


def with_own_checkpoints(spec: TrainingSpec, identity: TaskIdentity, code: str) -> TrainingSpec:
    """Return the specification with the task's own folder in place of the root of all checkpoints, if it has any.

    :param code: digest of the user's code: an upgrade of this package, whose program starts it, trains the same model.
    """
    if spec.checkpoint_s3_uri is None:
        return spec
    trained = {"code": code, **{name: to_json(getattr(spec, name)) for name in _WHAT_IS_TRAINED}}
    life = identity.of_all_lives if spec.resume_on_clear else identity
    folder = life.name(digest_of(trained), role="checkpoints")
    return dataclasses.replace(spec, checkpoint_s3_uri=f"{spec.checkpoint_s3_uri.rstrip('/')}/{folder}")
