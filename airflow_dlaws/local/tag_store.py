"""Tags of all resources, by ARN. Resources put their tags here at creation; the Tags operations read them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from airflow_dlaws.local.errors import validation_error

#: https://docs.aws.amazon.com/general/latest/gr/aws_tagging.html
TAG_LIMIT = 50


def check_tags(tags: Sequence[Mapping[str, str]]) -> None:
    """Refuse tags that AWS refuses beyond its service model. The codes are sure, the texts are assumed.

    :raises ServiceError: ValidationException.
    """
    keys = [tag["Key"] for tag in tags]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise validation_error(f"Duplicate tag keys found: {twice}.")
    if system := [key for key in keys if key.lower().startswith("aws:")]:
        raise validation_error(f"Tag keys that begin with aws: are reserved for AWS: {system}.")


class TagStore:
    """Tags by ARN. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._tags = threading.Lock(), dict[str, dict[str, str]]()

    def create(self, arn: str, tags: Iterable[Mapping[str, str]] | None) -> None:
        """Register a resource with the `Tags` of its create request."""
        with self._lock:
            self._tags[arn] = {tag["Key"]: tag["Value"] for tag in tags or ()}

    def forget(self, arn: str) -> None:
        """Drop a deleted resource."""
        with self._lock:
            self._tags.pop(arn, None)

    def known(self, arn: str) -> bool:
        """Tell whether a resource has been registered under this ARN."""
        with self._lock:
            return arn in self._tags

    def arns(self) -> list[str]:
        """Return all resources that have been registered and not been dropped."""
        with self._lock:
            return list(self._tags)

    def of(self, arn: str) -> list[dict[str, str]]:
        """Return the tags in AWS's form."""
        with self._lock:
            return [{"Key": key, "Value": value} for key, value in self._tags.get(arn, {}).items()]

    def add(self, arn: str, tags: Iterable[Mapping[str, str]]) -> int:
        """Add or replace tags, all or none; return how many there would be (over `TAG_LIMIT`: none was added)."""
        with self._lock:
            merged = self._tags.get(arn, {}) | {tag["Key"]: tag["Value"] for tag in tags}
            if len(merged) <= TAG_LIMIT:
                self._tags[arn] = merged
            return len(merged)

    def remove(self, arn: str, keys: Iterable[str]) -> None:
        """Remove tags; one that is not there is no error."""
        with self._lock:
            for key in keys:
                self._tags.get(arn, {}).pop(key, None)
