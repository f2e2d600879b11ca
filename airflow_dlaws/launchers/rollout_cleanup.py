"""What former rollouts on an endpoint left: configurations and models that nobody will go back to.

Only after a promotion that was read back, and only what the state files name: what somebody else made stays. The
configuration in service and the ones before it, as many as are to be kept, stay: an endpoint whose configuration is
deleted can neither be updated nor rolled back.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow_dlaws.launchers.endpoint import EndpointPort
from airflow_dlaws.launchers.model import delete_model
from airflow_dlaws.launchers.rollout_store import RolloutFolder
from airflow_dlaws.rollout.state import RolloutState, is_final

log = logging.getLogger(__name__)


def former_rollouts(folder: RolloutFolder, promoted: RolloutState, keep: int) -> list[RolloutState]:
    """Return the rollouts whose configuration and model may go, the oldest first.

    :param promoted: the rollout that has just ended well.
    :param keep: how many former configurations stay, `previous_config` included.
    """
    others = [record.state for record in folder.records() if record.state.requested_config != promoted.requested_config]
    ended = [state for state in others if is_final(state.step) and state.requested_config != promoted.previous_config]
    stays = keep - 1
    return [state for state in (ended[:-stays] if stays else ended) if not folder.is_cleaned(state.requested_config)]


def clean_up(sagemaker: Any, folder: RolloutFolder, promoted: RolloutState, keep: int) -> list[str]:
    """Delete configurations and models of former rollouts; return the names of the configurations.

    :param sagemaker: a boto3 client.
    :raises DlawsError: SageMaker refused; what is left is tried again after the next promotion.
    """
    gone = []
    for state in former_rollouts(folder, promoted, keep):
        EndpointPort(sagemaker).delete_config(state.requested_config)
        delete_model(sagemaker, state.model_name)
        folder.mark_cleaned(state.requested_config)
        gone.append(state.requested_config)
    if gone:
        log.info("deleted former configurations and their models: %s", ", ".join(gone))
    return gone
