"""The template DAGs as a DAG bundle: Airflow runs them as they are installed, without a copy. For Airflow 3.0.6 and up.

    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST='[
        {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
        {"name": "dlaws-templates", "classpath": "airflow_dlaws.bundles.TemplateBundle", "kwargs": {}}
    ]'

The environment variables at the top of each DAG say what it works on. A copy in another bundle would have the same DAG
ids: use the bundle, or `dlaws templates copy`.
"""

from __future__ import annotations

from typing import Any

from airflow.dag_processing.bundles.local import LocalDagBundle

from airflow_dlaws.template_files import templates_folder


class TemplateBundle(LocalDagBundle):
    """The folder with this version's template DAGs; their training scripts lie beside it.

    :param kwargs: what Airflow gives every bundle: `name`, `refresh_interval` in seconds, `version`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(path=str(templates_folder("dags")), **kwargs)
