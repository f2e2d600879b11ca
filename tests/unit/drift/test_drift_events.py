import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dlaws.drift import events
from airflow_dlaws.drift.events import EventLedger, event_number, line_number_in_file, sampled

HOUR = "2026/03/01/11"


@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from([HOUR, "2026/03/01/12"]), st.integers(0, 2**64 - 1)))),
    pending=st.integers(1, 5),
)
def test_each_request_is_claimed_once_however_the_ledger_is_kept_between(batches, pending):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_PENDING", pending)
        kept, claimed = {}, []
        for batch in batches:
            ledger = EventLedger(lambda hour: kept.get(hour, b""))
            claimed += [item for item in batch + batch if ledger.claim(*item)]
            kept.update(ledger.changed())
        wanted = {item for batch in batches for item in batch}
        assert len(claimed) == len(wanted)
        assert set(claimed) == wanted
        assert sum(map(len, kept.values())) == 8 * len(wanted)


def test_only_hours_with_new_requests_are_written_again():
    ledger = EventLedger()
    ledger.claim(HOUR, 5)
    kept = ledger.changed()
    again = EventLedger(lambda hour: kept[hour])
    assert not again.claim(HOUR, 5)
    assert again.changed() == {}


def test_a_line_without_an_id_is_known_by_its_place_and_its_content():
    numbers = {line_number_in_file(line, place) for line in (b"a", b"b") for place in (1, 2)}
    assert len(numbers) == 4
    assert line_number_in_file(b"a", 1) in numbers


def test_a_sample_is_the_share_asked_for_and_always_the_same():
    numbers = [event_number(f"event-{count}") for count in range(20_000)]
    third = [sampled(number, 1 / 3) for number in numbers]
    assert sum(third) / len(third) == pytest.approx(1 / 3, abs=0.015)
    assert third == [sampled(event_number(f"event-{count}"), 1 / 3) for count in range(20_000)]
    assert all(sampled(number, 1) for number in numbers)
    # A larger sample holds the smaller one: raising the share never loses what was counted.
    assert all(sampled(number, 0.5) for number, chosen in zip(numbers, third, strict=True) if chosen)


def test_an_id_that_utf8_cannot_write_is_an_id():
    assert event_number("\ud800") != event_number("\ud801")
