"""AddTags, ListTags and DeleteTags, for every resource that registered itself in the tag store."""

from __future__ import annotations

from typing import Any

from airflow_dlaws.local.context import Handler, LocalContext, RequestContext
from airflow_dlaws.local.errors import limit_exceeded, validation_error
from airflow_dlaws.local.tag_store import TAG_LIMIT, check_tags


class Tagging:
    """The operations on tags."""

    def __init__(self, context: LocalContext) -> None:
        self._tags = context.tags

    def operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {"AddTags": self._add, "ListTags": self._list, "DeleteTags": self._delete}

    def runtime_operations(self) -> dict[str, Handler]:
        """See `Resource`."""
        return {}

    def close(self) -> None:
        """See `Resource`."""

    def _add(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        arn = self._existing(parameters)
        check_tags(parameters["Tags"])
        count = self._tags.add(arn, parameters["Tags"])
        if count > TAG_LIMIT:
            raise limit_exceeded(f"{arn} would have {count} tags; a resource has at most {TAG_LIMIT}.")
        return {"Tags": self._tags.of(arn)}

    def _list(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        return {"Tags": self._tags.of(self._existing(parameters))}

    def _delete(self, parameters: dict[str, Any], request: RequestContext) -> dict[str, Any]:
        self._tags.remove(self._existing(parameters), parameters["TagKeys"])
        return {}

    def _existing(self, parameters: dict[str, Any]) -> str:
        arn = str(parameters["ResourceArn"])
        if not self._tags.known(arn):
            raise validation_error(f'Could not find resource "{arn}".')
        return arn
