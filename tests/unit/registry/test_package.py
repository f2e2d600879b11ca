"""What is sent to the model registry, and what is refused before."""

from __future__ import annotations

import botocore.session
import pytest
import regex
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.errors import SpecificationError
from airflow_dlaws.jobs import wire
from airflow_dlaws.operators.registry import RegisterModelOperator
from airflow_dlaws.registry.manifest import AirflowRun, ModelManifest
from airflow_dlaws.registry.package import (
    PackageResult,
    PackageSpec,
    creation_request,
    fit_metadata,
    quality_document,
)
from airflow_dlaws.storage import ObjectVersion

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
ARTIFACT = "s3://bucket/job/output/model.tar.gz"
SAGEMAKER = botocore.session.get_session().get_service_model("sagemaker")
CREATION = SAGEMAKER.operation_model("CreateModelPackage").input_shape


def spec(**changes) -> PackageSpec:
    return PackageSpec(**({"group": "flights", "image": IMAGE, "artifact_uri": ARTIFACT} | changes))


def test_a_full_request_is_one_that_the_service_model_takes():
    request = creation_request(
        spec(
            environment={"A": "1"},
            instance_types=("ml.m5.large",),
            approval_status="Approved",
            description="x" * 2000,
            metrics_s3_uri="s3://bucket/m.json",
            monitor_statistics_s3_uri="s3://bucket/s.json",
            monitor_constraints_s3_uri="s3://bucket/c.json",
            metadata={"run_id": "scheduled__2013-01-01T00:00:00+00:00"},
            generated_by="arn:aws:sagemaker:us-east-1:123456789012:training-job/j",
            commit_id="abc",
        )
    )

    assert ParamValidator().validate(request, CREATION).generate_report() == ""
    baselines = request["DriftCheckBaselines"]["ModelDataQuality"]
    assert [baselines[name]["S3Uri"] for name in ("Statistics", "Constraints")] == [
        "s3://bucket/s.json",
        "s3://bucket/c.json",
    ]
    assert request["CustomerMetadataProperties"] == {"run_id": "scheduled__2013-01-01T00:00:00+00:00"}


def test_what_is_not_known_is_left_out_of_the_request():
    assert set(creation_request(spec())) == {"ModelPackageGroupName", "InferenceSpecification", "ModelApprovalStatus"}


@given(st.dictionaries(st.text(max_size=200), st.text(max_size=400), max_size=70))
def test_any_facts_become_metadata_that_the_service_takes(facts):
    fitted = fit_metadata(facts)

    # The model's pattern reads "(...)${1,128}": the sign is a typing error of AWS's, the characters are meant.
    allowed = regex.compile(r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*")
    assert len(fitted) <= 50
    assert all(allowed.fullmatch(text) for pair in fitted.items() for text in pair)
    assert all(1 <= len(key) <= 128 and 1 <= len(value) <= 256 for key, value in fitted.items())


def test_metrics_take_the_shape_of_the_console_and_leave_out_what_could_not_be_measured():
    assert quality_document({"auc": None, "log_loss": 0.3}) == {
        "binary_classification_metrics": {"log_loss": {"value": 0.3, "standard_deviation": "NaN"}}
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_package_group": "my_group"}, "model_package_group='my_group' is no valid name"),
        ({"approval_status": "Yes"}, r"approval_status='Yes' is none of \['Approved', 'PendingManualApproval'"),
        ({"artifact_uri": "model.tar.gz"}, "'model.tar.gz' is no S3 location"),
        ({"artifact_uri": None}, "give artifact_uri, or training"),
        ({"image": "my image"}, "image='my image'"),
        ({"content_types": []}, "at least one type"),
    ],
)
def test_arguments_that_cannot_work_are_refused_when_the_dag_is_parsed(changes, message):
    options = {"model_package_group": "flights", "image": IMAGE, "artifact_uri": ARTIFACT, **changes}

    with pytest.raises(SpecificationError, match=message):
        RegisterModelOperator(task_id="register", **options)


def test_templates_are_left_for_the_task():
    RegisterModelOperator(
        task_id="register",
        model_package_group="{{ params.group }}",
        image="{{ params.image }}",
        artifact_uri="{{ ti.xcom_pull('train')['artifact_uri'] }}",
        approval_status="{{ params.approval }}",
    )


def test_manifest_and_result_survive_json():
    manifest = ModelManifest(
        artifact=ObjectVersion(uri=ARTIFACT, etag="e", size=10),
        image=IMAGE,
        model_package_group="flights",
        training={"job_name": "j", "metrics": {"validation:log_loss": 0.3}},
        data_uris=("s3://bucket/train.manifest",),
        lineage={"commit_id": "abc", "parameters": {"epochs": 3}},
        airflow=AirflowRun(dag_id="d", run_id="r", task_id="t"),
    )
    result = PackageResult(
        package_arn="arn",
        group="flights",
        version=3,
        approval_status="Approved",
        artifact_uri=ARTIFACT,
        image=IMAGE,
        manifest_uri="s3://bucket/manifest.json",
    )

    assert wire.from_json(ModelManifest, wire.to_json(manifest)) == manifest
    assert wire.from_json(PackageResult, wire.to_json(result)) == result
