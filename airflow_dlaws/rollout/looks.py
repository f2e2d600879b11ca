"""One line of a rollout's report: what one look saw, and what was decided."""

from __future__ import annotations

from airflow_dlaws.rollout.machine import Decision
from airflow_dlaws.rollout.report import RolloutRecord
from airflow_dlaws.rollout.state import Look, Observation

#: Looks are many; the state keeps the whole reason of the last.
_LONGEST_REASON = 800


def look_of(record: RolloutRecord, observation: Observation, decision: Decision, now: float) -> Look:
    """Return the line. `record` is what was known before; `now` is in epoch seconds."""
    endpoint, evidence = observation.endpoint, decision.state.evidence
    before = record.state.evidence
    green = evidence.green_requests - before.green_requests
    served = green + evidence.blue_requests - before.blue_requests
    return Look(
        at=now,
        step=decision.state.step,
        status=endpoint.status.value if endpoint else "none",
        config_name=endpoint.config_name if endpoint else "",
        pending_config_name=endpoint.pending_config_name if endpoint else "",
        green_share=green / served if served > 0 else None,
        message=endpoint.message if endpoint else "",
        green_requests=evidence.green_requests,
        green_errors=evidence.green_errors,
        blue_requests=evidence.blue_requests,
        blue_errors=evidence.blue_errors,
        log_evidence=evidence.log_evidence,
        log_error_evidence=evidence.log_error_evidence,
        log_latency_evidence=evidence.log_latency_evidence,
        log_prediction_evidence=evidence.predictions.log_evidence if evidence.predictions else None,
        log_business_evidence=evidence.business.log_evidence if evidence.business else None,
        prediction_distance=evidence.predictions.distance if evidence.predictions else None,
        verdict=evidence.verdict.value,
        action=decision.action.value,
        reason=decision.reason[:_LONGEST_REASON],
    )
