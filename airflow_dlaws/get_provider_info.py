"""What Airflow asks a provider package about itself (`airflow providers list`)."""

from __future__ import annotations

from typing import Any

from airflow_dlaws import __version__

_INTEGRATION = "Amazon SageMaker deep learning"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as Airflow's provider schema asks for it."""
    return {
        "package-name": "airflow-dlaws",
        "name": "Deep learning on AWS",
        "description": "Train, validate, evaluate, roll out and watch deep-learning models on AWS. Green means done.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://pypi.org/project/airflow-dlaws/",
                "tags": ["aws"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_dlaws.operators.data",
                    "airflow_dlaws.operators.validation",
                    "airflow_dlaws.operators.training",
                    "airflow_dlaws.operators.slurm",
                    "airflow_dlaws.operators.sweep",
                    "airflow_dlaws.operators.evaluation",
                    "airflow_dlaws.operators.registry",
                    "airflow_dlaws.operators.approval",
                    "airflow_dlaws.operators.rollout",
                    "airflow_dlaws.operators.batch_inference",
                    "airflow_dlaws.operators.drift",
                ],
            }
        ],
        "sensors": [{"integration-name": _INTEGRATION, "python-modules": ["airflow_dlaws.sensors.drift"]}],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": ["airflow_dlaws.hooks.aws"]}],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_dlaws.triggers.job",
                    "airflow_dlaws.triggers.pause",
                    "airflow_dlaws.triggers.approval",
                    "airflow_dlaws.triggers.rollout",
                    "airflow_dlaws.triggers.drift",
                ],
            }
        ],
        "bundles": [{"integration-name": _INTEGRATION, "python-modules": ["airflow_dlaws.bundles"]}],
        "extra-links": [
            "airflow_dlaws.links.aws.ConsoleLink",
            "airflow_dlaws.links.aws.LogsLink",
            "airflow_dlaws.links.aws.ProgressLink",
            "airflow_dlaws.links.aws.ReportLink",
        ],
    }
