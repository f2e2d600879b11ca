"""Tuning jobs launch real training jobs, judge them by what they print, and end as AWS's do."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError
from trainer import Trainer
from tuner import Tuner, categorical, continuous


def test_random_search_runs_real_training_jobs_and_names_the_best(tuner: Tuner, trainer: Trainer) -> None:
    tags = [{"Key": "team", "Value": "vision"}]
    job = tuner.run(jobs=4, static={"epochs": "2"}, Tags=tags)
    name = job["HyperParameterTuningJobName"]
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"] == {
        "Completed": 4, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0, "Stopped": 0,
    }  # fmt: skip
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 4, "Pending": 0, "Failed": 0}
    children = tuner.children(name)
    numbers = [re.fullmatch(rf"{name}-(\d{{3}})-[0-9a-f]{{8}}", child["TrainingJobName"]) for child in children]
    assert [number and number[1] for number in numbers] == ["001", "002", "003", "004"]
    best = min(children, key=lambda child: float(child["TunedHyperParameters"]["x"]))
    assert job["BestTrainingJob"] == best
    metric = best["FinalHyperParameterTuningJobObjectiveMetric"]
    assert (metric["Type"], metric["MetricName"]) == ("Minimize", "loss")
    assert metric["Value"] == pytest.approx(float(best["TunedHyperParameters"]["x"]) + 0.5)
    assert job["HyperParameterTuningEndTime"] >= job["CreationTime"]
    assert job["ConsumedResources"]["RuntimeInSeconds"] >= 0
    assert "OverallBestTrainingJob" not in job

    described = trainer.describe(best["TrainingJobName"])
    assert described["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert described["HyperParameters"] == {
        "_tuning_objective_metric": "loss", "epochs": "2", "x": best["TunedHyperParameters"]["x"],
    }  # fmt: skip
    assert described["ModelArtifacts"]["S3ModelArtifacts"].endswith(f"{best['TrainingJobName']}/output/model.tar.gz")
    assert trainer.sagemaker.list_tags(ResourceArn=best["TrainingJobArn"])["Tags"] == tags
    assert any("epoch 2 loss=" in line for line in trainer.logs(best["TrainingJobName"])["algo-1"])
    listed = trainer.sagemaker.list_training_jobs(NameContains=name)["TrainingJobSummaries"]
    assert len(listed) == 4


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_the_same_seed_tries_the_same_values(tuner: Tuner, strategy: str) -> None:
    first, second = (tuner.run(strategy=strategy, jobs=3, parallel=1)["HyperParameterTuningJobName"] for _ in range(2))
    assert tuner.tried(first) == tuner.tried(second)
    assert len({values["x"] for values in tuner.tried(first)}) == 3


def test_grid_tries_every_combination_once(tuner: Tuner) -> None:
    ranges = categorical(x=["1", "2", "3"], optimizer=["adam", "sgd"])
    job = tuner.run(strategy="Grid", ranges=ranges, jobs=None, parallel=3)
    tried = [(values["x"], values["optimizer"]) for values in tuner.tried(job["HyperParameterTuningJobName"])]
    assert tried == list(itertools.product(["1", "2", "3"], ["adam", "sgd"]))
    assert job["BestTrainingJob"]["TunedHyperParameters"]["x"] == "1"


def test_no_more_jobs_run_at_once_than_allowed(tuner: Tuner) -> None:
    name = tuner.start(jobs=5, parallel=2, static={"seconds": "0.3"})
    most = 0
    while (job := tuner.describe(name))["HyperParameterTuningJobStatus"] == "InProgress":
        most = max(most, job["TrainingJobStatusCounters"]["InProgress"])
    assert most == 2
    assert job["TrainingJobStatusCounters"]["Completed"] == 5


def test_the_median_rule_stops_what_is_worse_than_the_jobs_before_it(tuner: Tuner, trainer: Trainer) -> None:
    values = ["0.1", "0.2", "0.3", "5"]
    name = tuner.start(
        strategy="Grid", ranges=categorical(x=values), jobs=None, parallel=1,
        config={"TrainingJobEarlyStoppingType": "Auto"}, static={"epochs": "4", "seconds": "0.3"},
    )  # fmt: skip
    job = tuner.wait(name)
    stopped = [child for child in tuner.children(name) if child["TrainingJobStatus"] == "Stopped"]
    assert [child["TunedHyperParameters"]["x"] for child in stopped] == ["5"]
    epochs = [line for line in trainer.logs(stopped[0]["TrainingJobName"])["algo-1"] if "loss=" in line]
    assert 1 <= len(epochs) < 4
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["BestTrainingJob"]["TunedHyperParameters"]["x"] == "0.1"


def test_hyperband_stops_the_bad_early_and_the_good_at_the_most_resource(tuner: Tuner, trainer: Trainer) -> None:
    name = tuner.start(
        strategy="Hyperband", jobs=7, parallel=3, static={"epochs": "20", "seconds": "0.25"},
        config={"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 5}}},
    )  # fmt: skip
    job = tuner.wait(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    epochs = {
        child["TunedHyperParameters"]["x"]: sum(
            "loss=" in line for line in trainer.logs(child["TrainingJobName"])["algo-1"]
        )
        for child in tuner.children(name)
    }
    assert job["TrainingJobStatusCounters"]["Stopped"] == 7  # none runs its twenty epochs
    assert max(epochs.values()) < 20
    assert min(epochs.values()) < 5
    assert job["BestTrainingJob"]["TunedHyperParameters"]["x"] in {x for x, count in epochs.items() if count >= 5}


def test_a_target_ends_the_tuning_job_and_its_running_children(tuner: Tuner) -> None:
    name = tuner.start(
        strategy="Grid", ranges=categorical(x=["0.2", "0.1", "9", "8"]), jobs=None, parallel=1,
        config={"TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 1.15}},
    )  # fmt: skip
    job = tuner.wait(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert [values["x"] for values in tuner.tried(name)] == ["0.2", "0.1"]


def test_it_ends_when_nothing_gets_better(tuner: Tuner) -> None:
    criteria = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    name = tuner.start(
        strategy="Grid", ranges=categorical(x=["5", "1", "2", "3", "4", "6", "7"]), jobs=None, parallel=1,
        config={"TuningJobCompletionCriteria": criteria},
    )  # fmt: skip
    job = tuner.wait(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TuningJobCompletionDetails"]["NumberOfTrainingJobsObjectiveNotImproving"] == 3
    assert len(tuner.tried(name)) == 5


def test_stopping_stops_the_children(tuner: Tuner, trainer: Trainer) -> None:
    name = tuner.start(jobs=6, parallel=2, static={"wait": "60"})
    tuner.wait(name, lambda job: job["TrainingJobStatusCounters"]["InProgress"] == 2)
    running = [child["TrainingJobName"] for child in tuner.children(name)]
    for child in running:
        trainer.wait(child, lambda job: job["SecondaryStatus"] == "Training")
    tuner.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert tuner.describe(name)["HyperParameterTuningJobStatus"] in {"Stopping", "Stopped"}
    job = tuner.wait(name)
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert [child["TrainingJobName"] for child in tuner.children(name)] == running
    assert {trainer.describe(child)["TrainingJobStatus"] for child in running} == {"Stopped"}
    with pytest.raises(ClientError, match="is in status Stopped"):
        tuner.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


def test_a_child_that_is_stopped_by_hand_does_not_end_the_tuning_job(tuner: Tuner) -> None:
    name = tuner.start(strategy="Grid", ranges=categorical(x=["1", "2"], wait=["60", "0"]), jobs=None, parallel=4)
    tuner.wait(name, lambda job: job["TrainingJobStatusCounters"]["InProgress"] == 2 and len(tuner.children(name)) == 4)
    for child in tuner.children(name, StatusEquals="InProgress"):
        tuner.sagemaker.stop_training_job(TrainingJobName=child["TrainingJobName"])
    job = tuner.wait(name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Completed"] == job["TrainingJobStatusCounters"]["Stopped"] == 2


@pytest.mark.parametrize(
    ("jobs", "static", "reason"),
    [
        (7, {"fail_above": "-1"}, "No training job succeeded after 5 attempts."),
        (2, {"fail_above": "-1"}, "All training jobs failed."),
        (2, {"silent_above": "-1"}, "No objective metrics found after running 2 training jobs."),
    ],
)
def test_it_fails_where_no_job_succeeds(tuner: Tuner, jobs: int, static: dict[str, str], reason: str) -> None:
    job = tuner.run(jobs=jobs, parallel=1, static=static)
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(reason)
    assert "BestTrainingJob" not in job
    children = tuner.children(job["HyperParameterTuningJobName"])
    assert len(children) == min(jobs, 5)
    assert {child["ObjectiveStatus"] for child in children} == {"Failed"}


def test_a_failed_job_is_counted_and_the_others_go_on(tuner: Tuner) -> None:
    ranges = categorical(x=["1", "2", "9"])
    job = tuner.run(strategy="Grid", ranges=ranges, jobs=None, static={"fail_above": "5"})
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["NonRetryableError"] == 1
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 2, "Pending": 0, "Failed": 1}
    failed = tuner.children(job["HyperParameterTuningJobName"], StatusEquals="Failed")
    assert [child["FailureReason"] for child in failed] == ["AlgorithmError: x=9.0 does not work, exit code: 3"]


def test_an_objective_that_is_no_number_does_not_win(tuner: Tuner) -> None:
    job = tuner.run(strategy="Grid", ranges=categorical(x=["1", "9"]), jobs=None, static={"nan_above": "5"})
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "1"}
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 1, "Pending": 0, "Failed": 1}


def test_children_are_listed_by_objective(tuner: Tuner) -> None:
    ranges = categorical(x=["3", "1", "9", "2"])
    name = tuner.run(strategy="Grid", ranges=ranges, jobs=None, static={"fail_above": "5"})[
        "HyperParameterTuningJobName"
    ]
    by_objective = tuner.children(name, SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    assert [child["TunedHyperParameters"]["x"] for child in by_objective] == ["3", "2", "1"]
    listed = tuner.sagemaker.list_hyper_parameter_tuning_jobs(NameContains=name)["HyperParameterTuningJobSummaries"]
    assert [(row["HyperParameterTuningJobName"], row["Strategy"]) for row in listed] == [(name, "Grid")]


def test_a_name_is_taken_for_ever(tuner: Tuner) -> None:
    request = tuner.request(jobs=1, parallel=1)
    tuner.sagemaker.create_hyper_parameter_tuning_job(**request)
    with pytest.raises(ClientError) as refused:
        tuner.sagemaker.create_hyper_parameter_tuning_job(**request)
    assert refused.value.response["Error"]["Code"] == "ResourceInUse"


def test_a_name_that_does_not_exist_is_not_found(tuner: Tuner) -> None:
    for operation in ("describe_hyper_parameter_tuning_job", "stop_hyper_parameter_tuning_job"):
        with pytest.raises(ClientError, match="can't find a tuning job with the name nowhere") as refused:
            getattr(tuner.sagemaker, operation)(HyperParameterTuningJobName="nowhere")
        assert refused.value.response["Error"]["Code"] == "ResourceNotFound"


CRITERIA = "TuningJobCompletionCriteria"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"HyperParameterTuningJobName": "a" * 33}, "length less than or equal to 32"),
    ({"HyperParameterTuningJobName": "no_underscore"}, "regular expression pattern"),
    ({"WarmStartConfig": {"ParentHyperParameterTuningJobs": [{}], "WarmStartType": "TransferLearning"}}, "WarmStart"),
    ({"Autotune": {"Mode": "Enabled"}}, "Autotune"),
    ({"config": {CRITERIA: {"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}}}, "ConvergenceDetected"),
    (
        {"config": {"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "f1"}}},
        "A metric is required",
    ),
    ({"ranges": continuous("x", "1", "0")}, "MinValue 1.0 is greater"),
    ({"ranges": continuous("x", "0", "1", "Logarithmic")}, "only values greater than 0"),
    ({"ranges": continuous("x", "0", "1", "ReverseLogarithmic")}, "reverse logarithmic"),
    ({"ranges": continuous("x", "zero", "1")}, "'zero' is not a number"),
    ({"ranges": categorical(x=["1", "2"]), "jobs": 10}, r"enough combinations .* \[2.0\] .* \[10\]"),
    ({"static": {"x": "1"}}, "named once"),
    ({"jobs": 2, "parallel": 3}, "must not be greater than MaxNumberOfTrainingJobs"),
    ({"jobs": 751, "strategy": "Bayesian"}, "limit of 750"),
    ({"jobs": None}, "MaxNumberOfTrainingJobs or MaxRuntimeInSeconds"),
    ({"strategy": "Grid"}, "categorical hyperparameters only"),
    ({"strategy": "Grid", "ranges": categorical(x=["1", "2", "3"])}, "number of combinations, 3"),
    ({"strategy": "Hyperband"}, "MaxResource, which cannot be inferred"),
    (
        {"strategy": "Hyperband", "static": {"epochs": "9"}, "config": {"TrainingJobEarlyStoppingType": "Auto"}},
        "must be OFF to use Hyperband",
    ),
    ({"definition": {"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket-anywhere/x"}}}, "does not exist"),
    ({"definition": {"AlgorithmSpecification": {"TrainingInputMode": "File"}}}, "A metric is required"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_aws_or_this_machine_would_not_do_is_refused(tuner: Tuner, changes: dict[str, Any], message: str) -> None:
    request = tuner.request(**changes)
    with pytest.raises(ClientError, match=message):
        tuner.sagemaker.create_hyper_parameter_tuning_job(**request)
