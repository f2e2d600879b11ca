"""Our drift verdict as the benchmark asks for it: the only place that calls airflow_dlaws.drift."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from airflow_dlaws.drift import build
from airflow_dlaws.drift.columns import count_columns
from airflow_dlaws.drift.counts import TrafficCounts
from airflow_dlaws.drift.outputs import answer_columns
from airflow_dlaws.drift.profile import ReferenceProfile
from airflow_dlaws.drift.representation import COLUMNS, Matrix, PcaProfile
from airflow_dlaws.drift.sequence import Evidence, advance
from airflow_dlaws.drift.settings import DriftSettings
from airflow_dlaws.drift.verdict import DriftOutcome, assess
from drift_shifts import Bank

#: The settings as they are shipped, but for the least number of rows: the batches here are as small as 10.
SHIPPED = DriftSettings(min_rows=10)
#: A pure test, as the peers' are: any change that is significant is drift, however small.
ANY_EFFECT = DriftSettings(min_rows=10, min_effect=0.0, min_tail=0.0, min_spread=0.0)

COMPONENTS = 20
#: Pixels at the border are hardly ever inked.
LEAST_SCALE = 0.1
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look said."""

    drift: bool
    inconclusive: bool
    #: Families of the tests that found drift.
    kinds: tuple[str, ...]
    #: Columns, outputs and representations that drifted.
    drifted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A profile and the settings."""

    profile: ReferenceProfile
    settings: DriftSettings = SHIPPED
    bank: Bank | None = None

    @classmethod
    def of(cls, bank: Bank, reference: np.ndarray) -> Watch:
        """Profile the images at these places: pixels, softmax, predicted label, reconstruction error.

        The principal components are fitted on the training rows, so the reference rows are all held out for the error.
        """
        pixels, softmax = bank.images.pixels[reference], bank.model.softmax(bank.images.pixels[reference])
        classes = [str(digit) for digit in range(softmax.shape[1])]
        profile = build.build_profile(
            _columns(pixels),
            created=_CREATED,
            answers=softmax,
            classes=classes,
            labels=[str(label) for label in bank.images.labels[reference]],
        )
        pca = _pca(bank.images.pixels[bank.model.trained].astype(float), pixels.astype(float), tuple(_columns(pixels)))
        return cls(profile=dataclasses.replace(profile, representation=(pca,)), bank=bank)

    @classmethod
    def of_table(
        cls, columns: Mapping[str, Sequence[Any]], scores: np.ndarray, classes: Sequence[str], text: Collection[str]
    ) -> Watch:
        """Profile a table of columns and the model's scores of its rows."""
        profile = build.build_profile(columns, created=_CREATED, categorical=text, answers=scores, classes=classes)
        return cls(profile=profile)

    def but(self, settings: DriftSettings) -> Watch:
        """Return this with other settings."""
        return dataclasses.replace(self, settings=settings)

    def counts(self, pixels: np.ndarray, answers: np.ndarray | None = None) -> TrafficCounts:
        """Count images and the model's answers, which are asked for unless they are given."""
        assert self.bank is not None
        return self.table_counts(_columns(pixels), self.bank.model.softmax(pixels) if answers is None else answers)

    def table_counts(self, columns: Mapping[str, Sequence[Any]], answers: np.ndarray) -> TrafficCounts:
        """Count columns and answers."""
        return count_columns(self.profile, columns, answer_columns(answers, self.profile.classes))

    def look(self, counts: TrafficCounts) -> Look:
        """Judge one batch."""
        verdict = assess(self.profile, counts, self.settings)
        kinds = sorted({str(each.family) for each in verdict.comparisons if each.drifted})
        inconclusive = verdict.outcome is DriftOutcome.INCONCLUSIVE
        return Look(drift=verdict.is_drift, inconclusive=inconclusive, kinds=tuple(kinds), drifted=verdict.drifted)

    def start(self) -> Evidence:
        """Return what there is to know before the first of many looks."""
        return Evidence()

    def advance(self, evidence: Evidence, counts: TrafficCounts) -> tuple[Evidence, bool]:
        """Judge one more window of a stream; return the evidence after it, and whether there is an alarm."""
        after, verdict = advance(self.profile, evidence, counts, self.settings)
        return after, verdict.is_drift


def _columns(pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {f"p{at}": column for at, column in enumerate(pixels.T)}


def _pca(trained: np.ndarray, reference: np.ndarray, names: tuple[str, ...]) -> PcaProfile:
    mean, scale, axes = build.fit_components(trained, COMPONENTS, least_scale=LEAST_SCALE)
    components = Matrix.of(axes)
    errors = build.reconstruction_error(reference, mean, scale, components.array())
    return PcaProfile(
        source=COLUMNS,
        columns=names,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        components=components,
        error=build.numeric_profile("pca", errors),
    )
