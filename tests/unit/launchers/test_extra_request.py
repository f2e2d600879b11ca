"""Further members reach the request unchanged, change nothing of ours, and are judged by the installed botocore."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import botocore
import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs.identity import digest_of
from airflow_dlaws.jobs.spec import TrainingSpec
from airflow_dlaws.launchers.extra_request import OWNED, check_extra, merged
from airflow_dlaws.launchers.sagemaker_request import training_request
from airflow_dlaws.storage import S3Uri

CODE = S3Uri("bucket", "models/code/0123/")
SPEC = TrainingSpec(
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1",
    source="/code",
    entry_point="train.py",
    output_s3_uri="s3://bucket/models",
    role_arn="arn:aws:iam::123456789012:role/dlaws",
    instance_type="ml.m5.large",
)
REQUEST = training_request(SPEC, CODE)
SHAPE = botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape


def test_members_without_a_parameter_are_merged_deeply() -> None:
    extra = {
        "AlgorithmSpecification": {"EnableSageMakerMetricsTimeSeries": True},
        "ExperimentConfig": {"ExperimentName": "flights"},
        "ResourceConfig": {"InstancePlacementConfig": {"EnableMultipleJobs": True}},
    }
    made = training_request(dataclasses.replace(SPEC, extra_request=extra), CODE)
    assert made["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] is True
    assert made["ResourceConfig"]["InstancePlacementConfig"] == {"EnableMultipleJobs": True}
    assert made["ExperimentConfig"] == {"ExperimentName": "flights"}
    assert dict(_walk(made)) == {**dict(_walk(REQUEST)), **dict(_walk(extra))}


def test_they_count_in_the_identity_of_the_job() -> None:
    changed = dataclasses.replace(SPEC, extra_request={"ExperimentConfig": {"ExperimentName": "flights"}})
    assert digest_of(training_request(changed, CODE)) != digest_of(REQUEST)


def test_channels_are_put_together_by_name() -> None:
    extra = {
        "InputDataConfig": [
            {"ChannelName": "code", "ShuffleConfig": {"Seed": 7}},
            {"ChannelName": "more", "DataSource": {"S3DataSource": {"S3DataType": "Converse", "S3Uri": "s3://b/x"}}},
        ]
    }
    code, more = merged(REQUEST, extra)["InputDataConfig"]
    assert code == {**REQUEST["InputDataConfig"][0], "ShuffleConfig": {"Seed": 7}}
    assert more["ChannelName"] == "more"
    with pytest.raises(SpecificationError, match=r"channel 'code'\.InputMode is set already, to 'File'"):
        merged(REQUEST, {"InputDataConfig": [{"ChannelName": "code", "InputMode": "FastFile"}]})


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"RoleArn": "x"}, "RoleArn is set by the parameter role_arn"),
        ({"Tags": []}, "Tags is set by the parameter tags"),
        ({"AlgorithmSpecification": {"TrainingImage": "x"}}, "TrainingImage is set by the parameter image"),
        ({"ResourceConfig": {"KeepAlivePeriodInSeconds": 60}}, "is set by the parameter keep_alive_s"),
        ({"VpcConfig": {"Subnets": ["subnet-1"]}}, "VpcConfig is set by the parameter subnets and security_group_ids"),
        ({"RetryStrategy": {"MaximumRetryAttempts": 3}}, "RetryStrategy is set by the parameter max_retry_attempts"),
        ({"ExperimentConfg": {}}, "ExperimentConfg is no member of CreateTrainingJob; did you mean ExperimentConfig"),
        (
            {"ExperimentConfig": {"ExperimentNames": "x"}},
            "ExperimentConfig.ExperimentNames is no member of ExperimentConfig; did you mean ExperimentName",
        ),
        ({"ExperimentConfig": {"ExperimentName": 3}}, "ExperimentConfig.ExperimentName=3 must be a string"),
        ({"ExperimentConfig": {"ExperimentName": "x" * 121}}, "x' must have 1 to 120 characters"),
        ({"ExperimentConfig": {"ExperimentName": "my flights"}}, "ExperimentName='my flights' must match"),
        ({"ProfilerConfig": {"ProfilingParameters": {f"p{n}": "" for n in range(21)}}}, "21 entries, at most 20"),
        (
            {"ResourceConfig": {"InstancePlacementConfig": {"PlacementSpecifications": [{"InstanceCount": -1}]}}},
            r"PlacementSpecifications\[0\].InstanceCount=-1 must be at least 0",
        ),
        (
            {"InputDataConfig": [{"ChannelName": "x", "CompressionType": "Zip"}]},
            r"InputDataConfig\[0\].CompressionType='Zip' is none of its values; there are Gzip, None",
        ),
        ({"Quantum": {}}, r"Quantum is no member of CreateTrainingJob; there are .*If it is new, upgrade botocore"),
    ],
)
def test_a_member_that_is_ours_or_nobodys_is_refused(extra: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check_extra(extra)


def test_the_message_names_the_version_of_botocore() -> None:
    with pytest.raises(SpecificationError, match=rf"botocore {botocore.__version__}"):
        check_extra({"Quantum": {}})


def test_what_only_the_whole_request_shows_is_refused_too() -> None:
    with pytest.raises(SpecificationError, match=r"Missing required parameter.*DataSource"):
        merged(REQUEST, {"InputDataConfig": [{"ChannelName": "more"}]})


def test_every_member_said_to_be_ours_is_one_of_the_model() -> None:
    for path in OWNED:
        shape = SHAPE
        for name in path.split("."):
            shape = shape.members[name]


def test_whatever_the_request_sets_is_said_to_be_ours() -> None:
    """Nothing that this package writes can be overridden: each leaf is owned, or a channel's."""
    whole = training_request(
        dataclasses.replace(
            SPEC, spot=True, max_wait_s=90_000, checkpoint_s3_uri="s3://bucket/c", kms_key_id="k", remote_debug=True
        ),
        CODE,
    )
    leaves = [path for path, _ in _walk(whole) if not path.startswith("InputDataConfig")]
    assert [path for path in leaves if not any(path == own or path.startswith(f"{own}.") for own in OWNED)] == []


_NAMES = st.sampled_from(["a", "b", "c", "d"])
_TREES = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(_NAMES, inner, min_size=1, max_size=3), max_leaves=8
)


@given(ours=st.dictionaries(_NAMES, _TREES, max_size=4), theirs=st.dictionaries(_NAMES, _TREES, max_size=4))
def test_merging_adds_all_of_theirs_and_loses_nothing_of_ours(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    from airflow_dlaws.launchers.extra_request import _merge

    before = copy.deepcopy((ours, theirs))
    try:
        whole = _merge(ours, theirs, "")
    except SpecificationError:
        mine, others = dict(_walk(ours)), dict(_walk(theirs))
        assert any(
            path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")
            for path in mine
            for other in others
        )
        return
    assert (ours, theirs) == before
    assert dict(_walk(whole)) == {**dict(_walk(ours)), **dict(_walk(theirs))}
    assert not dict(_walk(ours)).keys() & dict(_walk(theirs)).keys()


def _walk(tree: Any, above: str = "") -> list[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return [(above, tree)]
    return [leaf for name, item in tree.items() for leaf in _walk(item, f"{above}.{name}".strip("."))]
