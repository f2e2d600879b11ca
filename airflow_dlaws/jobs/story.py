"""What a task's log says when its job moves on: a sentence for each state, so that who waits knows for what.

States that come and go between two looks are not seen; how often spot instances were taken away is in the result.
"""

from __future__ import annotations

from airflow_dlaws.jobs.failure import INTERRUPTED
from airflow_dlaws.jobs.reference import JobStatus

#: SageMaker's SecondaryStatus, where its one word leaves open what is going on.
_MEANING = {
    "Starting": "waiting for instances",
    "Pending": "waiting for instances, of which there are none yet",
    "Downloading": "copying the data to the instances",
    "Uploading": "training has ended, the model is being stored",
    "Stopping": "it was told to end, and has two minutes for it",
    INTERRUPTED: "the spot instances were taken away; AWS looks for others and goes on from the last checkpoint",
    "Restarting": "AWS had an internal error and begins the job anew, from its last checkpoint",
}


class JobStory:
    """Remembers which state was told last."""

    def __init__(self) -> None:
        self._told = ""

    def take(self, status: JobStatus | None) -> str | None:
        """Return the sentence about a state that is new; None where nothing has changed, or the end is near anyway."""
        if status is None or status.terminal or not status.detail or status.detail == self._told:
            return None
        self._told = status.detail
        meaning = _MEANING.get(status.detail)
        return f"Job: {status.detail}" + (f" ({meaning})" if meaning else "")
