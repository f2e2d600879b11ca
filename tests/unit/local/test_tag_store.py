"""Tags of resources."""

from __future__ import annotations

from airflow_dlaws.local.tag_store import TAG_LIMIT, TagStore

ARN = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"


def test_tags_given_at_creation_are_listed_and_later_ones_replace_them() -> None:
    tags = TagStore()
    tags.create(ARN, [{"Key": "a", "Value": "1"}])
    tags.add(ARN, [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    assert tags.of(ARN) == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
    tags.remove(ARN, ["a", "never-there"])
    assert tags.of(ARN) == [{"Key": "b", "Value": "3"}]


def test_too_many_tags_are_added_not_at_all() -> None:
    tags = TagStore()
    tags.create(ARN, [{"Key": "a", "Value": "1"}])
    count = tags.add(ARN, [{"Key": str(number), "Value": ""} for number in range(TAG_LIMIT)])
    assert count == TAG_LIMIT + 1
    assert tags.of(ARN) == [{"Key": "a", "Value": "1"}]


def test_a_forgotten_resource_is_not_known() -> None:
    tags = TagStore()
    tags.create(ARN, None)
    assert tags.known(ARN)
    tags.forget(ARN)
    assert not tags.known(ARN)
