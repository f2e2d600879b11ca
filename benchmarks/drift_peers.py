"""The detectors that ours stands beside: in virtual environments of their own, or a few lines here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from drift_data import ROOT

#: What each virtual environment gets, step by step. Evidently 0.7.23 does not import with pandas 3. torch comes before
#: alibi-detect and alone: it decides which numpy that may pin.
PEERS = {
    "evidently": [["evidently==0.7.23", "pandas<3", "pyarrow"]],
    "river": [["river==0.26.1"]],
    "polars": [["polars==2.1.0", "pyarrow"]],
    "alibi": [["torch==2.13.0"], ["alibi-detect==0.13.0", "numpy<2"]],
}
#: What an empty bin counts as in a population stability index: the usual choice.
LEAST_SHARE = 1e-4


def environment(peer: str) -> Path:
    """Return the home of a peer's virtual environment, made where it is missing."""
    home = ROOT / ".dlaws" / "bench-venvs" / peer
    if not (home / "freeze.txt").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        for packages in PEERS[peer]:
            subprocess.run([home / "bin" / "pip", "install", "--quiet", *packages], check=True)
        (home / "freeze.txt").touch()
    return home


def site_packages(peer: str) -> Path:
    """Return where the peer's packages lie."""
    (found,) = (environment(peer) / "lib").glob("python3*/site-packages")
    return found


def start(peer: str, script: str, source: Path, target: Path) -> subprocess.Popen[str]:
    """Start a script of this folder in the peer's environment; its output goes beside the target."""
    command = [environment(peer) / "bin" / "python", Path(__file__).parent / script, source, target]
    with target.with_suffix(".log").open("w") as log:
        return subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, text=True)


def bbsd(reference: np.ndarray, current: np.ndarray, alpha: float = 0.05) -> bool:
    """Tell whether BBSDs sees drift: a KS test on each softmax output with Bonferroni, as in Failing Loudly.

    It gets all reference rows; the paper's code gives it as many as the batch has.
    """
    tests = [stats.ks_2samp(reference[:, k], current[:, k]).pvalue for k in range(reference.shape[1])]
    return min(tests) <= alpha / len(tests)


@dataclass(frozen=True, kw_only=True)
class Psi:
    """Population stability index by column, in up to ten bins of the reference."""

    edges: tuple[np.ndarray, ...]
    shares: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray) -> Psi:
        """Cut the reference (rows x columns) at its deciles; columns that do not vary are left out by their shares."""
        edges = tuple(np.unique(np.quantile(column, np.arange(1, 10) / 10)) for column in reference.T)
        return cls(edges=edges, shares=cls._counts(edges, reference) / len(reference))

    @staticmethod
    def _counts(edges: tuple[np.ndarray, ...], rows: np.ndarray) -> np.ndarray:
        bins = [np.bincount(np.digitize(column, cut), minlength=10) for column, cut in zip(rows.T, edges, strict=True)]
        return np.array(bins)

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """Return how many rows lie in each bin (columns x 10)."""
        return self._counts(self.edges, rows)

    def most(self, counts: np.ndarray) -> np.ndarray:
        """Return the greatest index over the columns, for counts (... x columns x 10)."""
        current = np.maximum(counts / counts[..., :1, :].sum(-1, keepdims=True), LEAST_SHARE)
        reference = np.maximum(self.shares, LEAST_SHARE)
        return ((current - reference) * np.log(current / reference)).sum(-1).max(-1)
