"""Phases: which are final, and what SageMaker's words mean."""

from __future__ import annotations

import pytest

from airflow_dlaws.jobs.phase import SAGEMAKER_PHASES, JobPhase, is_terminal


@pytest.mark.parametrize(
    ("phase", "final"),
    [
        (JobPhase.PENDING, False),
        (JobPhase.RUNNING, False),
        (JobPhase.STOPPING, False),
        (JobPhase.SUCCEEDED, True),
        (JobPhase.FAILED, True),
        (JobPhase.STOPPED, True),
    ],
)
def test_a_job_is_final_once_it_cannot_change(phase: JobPhase, final: bool) -> None:
    assert is_terminal(phase) is final


def test_only_completed_is_success() -> None:
    assert [word for word, phase in SAGEMAKER_PHASES.items() if phase is JobPhase.SUCCEEDED] == ["Completed"]


def test_every_status_of_the_service_has_a_phase() -> None:
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    assert set(model.shape_for("TrainingJobStatus").enum) <= set(SAGEMAKER_PHASES)
