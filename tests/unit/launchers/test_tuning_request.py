"""A sweep becomes a tuning job that satisfies the service's own model; what the tuner cannot do is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.phase import JobPhase
from airflow_dlaws.jobs.spec import CapacityPreference, InstanceGroup, TrainingSpec, hyperparameter_text
from airflow_dlaws.launchers.tuning_request import tuning_request, tuning_status
from airflow_dlaws.storage import S3Uri
from airflow_dlaws.sweeps.space import parse_space
from airflow_dlaws.sweeps.spec import Direction, Halving, Search, SweepSpec
from airflow_dlaws.sweeps.tuner import Strategy, TunerSpec, typed

CODE = S3Uri("bucket", "models/code/0123/")
TRAINING = TrainingSpec(
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
    source="/code",
    entry_point="train.py",
    output_s3_uri="s3://bucket/models",
    role_arn="arn:aws:iam::123456789012:role/dlaws",
    instance_type="ml.g5.xlarge",
    instance_count=2,
    processes_per_instance=4,
    arguments=("--resume", "a b"),
    hyperparameters={"epochs": "9"},
    environment={"NCCL_DEBUG": "INFO"},
    metrics=("loss",),
    max_runtime_s=600,
)
SPACE = {
    "lr": {"low": 1e-4, "high": 0.3, "log": True},
    "layers": {"low": 1, "high": 3, "integer": True},
    "bias": [True, False],
    "width": [8, 16],
}


def tuner_spec(*, median_stopping: bool = False, training: TrainingSpec = TRAINING, **changes: Any) -> TunerSpec:
    """Return a sweep for the tuner."""
    fields = {"training": training, "space": parse_space(SPACE), "objective": "error", **changes}
    return TunerSpec(sweep=SweepSpec(**fields), median_stopping=median_stopping)


def config(**changes: Any) -> dict[str, Any]:
    """Return HyperParameterTuningJobConfig."""
    made: dict[str, Any] = tuning_request(tuner_spec(**changes), CODE)["HyperParameterTuningJobConfig"]
    return made


@pytest.mark.parametrize("changes", [{}, {"early_stopping": Halving(max_resource=9)}, {"median_stopping": True}])
def test_the_request_satisfies_the_model_of_the_service(changes: dict[str, Any]) -> None:
    request = {"HyperParameterTuningJobName": "a", "Tags": [], **tuning_request(tuner_spec(**changes), CODE)}
    model = botocore.session.get_session().get_service_model("sagemaker")
    report = ParamValidator().validate(request, model.operation_model("CreateHyperParameterTuningJob").input_shape)
    assert not report.has_errors(), report.generate_report()


def test_the_script_and_its_processes_travel_as_variables() -> None:
    definition = tuning_request(tuner_spec(), CODE)["TrainingJobDefinition"]
    variables = definition["Environment"]
    assert variables["NCCL_DEBUG"] == "INFO"
    assert (variables["DLAWS_ENTRY_POINT"], variables["DLAWS_PROCESSES_PER_HOST"]) == ("train.py", "4")
    assert json.loads(variables["DLAWS_ARGUMENTS"]) == ["--resume", "a b"]
    assert set(definition["AlgorithmSpecification"]) == {"TrainingImage", "TrainingInputMode", "MetricDefinitions"}
    assert definition["StaticHyperParameters"] == {"epochs": "9"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "instance_groups",
            {"instance_groups": (InstanceGroup(name="a", instance_type="ml.g5.xlarge"),), "instance_type": None,
             "instance_count": 1, "processes_per_instance": None},
        ),
        (
            "capacity_preferences",
            {"capacity_preferences": (CapacityPreference(instance_type="ml.g5.xlarge"),), "instance_type": None},
        ),
        ("keep_alive_s", {"keep_alive_s": 60}),
        ("infra_check", {"infra_check": True}),
        ("extra_request", {"extra_request": {"ExperimentConfig": {}}}),
    ],
)  # fmt: skip
def test_what_a_tuning_job_has_no_place_for_is_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError, match=f"{name}=.*engine='optuna'"):
        tuner_spec(training=dataclasses.replace(TRAINING, **changes))


def test_what_it_has_a_place_for_is_passed_on() -> None:
    training = dataclasses.replace(
        TRAINING, max_retry_attempts=2, network_isolation=True, encrypt_traffic=True, output_compression="NONE"
    )
    definition = tuning_request(tuner_spec(training=training), CODE)["TrainingJobDefinition"]
    assert definition["RetryStrategy"] == {"MaximumRetryAttempts": 2}
    assert definition["EnableNetworkIsolation"] is True
    assert definition["EnableInterContainerTrafficEncryption"] is True
    assert definition["OutputDataConfig"]["CompressionType"] == "NONE"


def test_the_space_becomes_ranges() -> None:
    ranges = config()["ParameterRanges"]
    assert ranges["ContinuousParameterRanges"] == [
        {"Name": "lr", "MinValue": "0.0001", "MaxValue": "0.3", "ScalingType": "Logarithmic"}
    ]
    assert ranges["IntegerParameterRanges"] == [
        {"Name": "layers", "MinValue": "1", "MaxValue": "3", "ScalingType": "Linear"}
    ]
    assert ranges["CategoricalParameterRanges"] == [
        {"Name": "bias", "Values": ["true", "false"]},
        {"Name": "width", "Values": ["8", "16"]},
    ]


def test_limits_and_direction() -> None:
    made = config(max_trials=5, parallel_trials=9, direction=Direction.MAXIMIZE, seed=3)
    assert made["ResourceLimits"] == {
        "MaxNumberOfTrainingJobs": 5, "MaxParallelTrainingJobs": 5, "MaxRuntimeInSeconds": 1500,
    }  # fmt: skip
    assert made["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "error"}
    assert made["RandomSeed"] == 3
    choices = parse_space({"bias": [True, False]})
    assert config(space=choices)["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 2


@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        ({}, Strategy.BAYESIAN),
        ({"search": Search.RANDOM}, Strategy.RANDOM),
        ({"search": Search.RANDOM, "early_stopping": Halving(max_resource=9)}, Strategy.HYPERBAND),
    ],
)
def test_the_strategy_follows_from_search_and_early_stopping(changes: dict[str, Any], strategy: Strategy) -> None:
    assert config(**changes)["Strategy"] == strategy.value


def test_hyperband_leaves_a_whole_trial_the_time_to_save_its_model() -> None:
    made = config(early_stopping=Halving(min_resource=2, max_resource=9))
    assert made["StrategyConfig"] == {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 10}}
    assert made["TrainingJobEarlyStoppingType"] == "Off"


def test_the_median_rule_is_asked_for_by_its_name() -> None:
    assert config(median_stopping=True)["TrainingJobEarlyStoppingType"] == "Auto"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_billable_seconds": 60}, "cannot be told a budget"),
        ({"max_trials": 751}, "takes 750 at most"),
        ({"early_stopping": Halving(min_resource=0.5, max_resource=3)}, "give a whole number"),
        ({"space": parse_space({"x": list(range(31))})}, "takes 30 choices"),
        ({"space": parse_space({f"x{number}": [1, 2] for number in range(31)})}, "takes 30"),
        ({"training": dataclasses.replace(TRAINING, environment={f"V{n}": "" for n in range(46)})}, "room for 45"),
        ({"training": dataclasses.replace(TRAINING, checkpoint_s3_uri="s3://bucket/c")}, "another's checkpoint"),
        ({"training": dataclasses.replace(TRAINING, hyperparameters={"_tuning_objective_metric": "x"})}, "own"),
    ],
)
def test_what_the_tuner_cannot_do_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        tuner_spec(**changes)


@given(
    lr=st.floats(1e-4, 0.3),
    layers=st.integers(1, 3),
    bias=st.booleans(),
    width=st.sampled_from([8, 16]),
)
def test_values_come_back_as_they_went(**values: Any) -> None:
    texts = {name: hyperparameter_text(value) for name, value in values.items()}
    assert typed(parse_space(SPACE), texts) == values


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("InProgress", JobPhase.RUNNING),
        ("Stopping", JobPhase.STOPPING),
        ("Completed", JobPhase.SUCCEEDED),
        ("Failed", JobPhase.FAILED),
        ("Stopped", JobPhase.STOPPED),
        ("Deleting", JobPhase.STOPPED),
    ],
)
def test_a_stopped_tuning_job_is_no_success(state: str, phase: JobPhase) -> None:
    assert tuning_status({"HyperParameterTuningJobStatus": state}).phase is phase


def test_every_status_of_the_service_has_a_phase() -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    for state in model.shape_for("HyperParameterTuningJobStatus").enum:
        assert tuning_status({"HyperParameterTuningJobStatus": state}).phase
