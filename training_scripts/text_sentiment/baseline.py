"""What the network has to beat: ridge regression on the set of words that a text has, order and number left out."""

import torch

#: Strengths of the penalty that the validation texts choose from.
PENALTIES = (3.0, 10.0, 30.0)
#: Of conjugate gradients, which find the weights: enough that the correlation stands still to four digits.
STEPS = 60


def correlations(
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    words: int,
) -> dict[str, float]:
    """Fit on train, choose the penalty on validation; return Pearson's correlation on validation and test.

    :param train: places of the words (n x longest, 0 where there is none) and ratings (n); so the others.
    :param words: how many places there are.
    """
    bags = {name: bag(part[0], words) for name, part in (("train", train), ("validation", validation), ("test", test))}
    mean = train[1].double().mean()
    found = []
    for penalty in PENALTIES:
        weights = ridge(bags["train"], train[1].double() - mean, penalty)
        scores = {name: bags[name] @ weights for name in ("validation", "test")}
        found.append((correlation(scores["validation"], validation[1]), correlation(scores["test"], test[1])))
    best = max(found)
    return {"validation": best[0], "test": best[1]}


def bag(places: torch.Tensor, words: int) -> torch.Tensor:
    """Return a sparse matrix, n x words: 1 where a text has a word."""
    rows = torch.arange(len(places))[:, None].expand_as(places)[places > 0]
    pairs = torch.unique(torch.stack([rows, places[places > 0]]), dim=1)
    ones = torch.ones(pairs.shape[1], dtype=torch.float64)
    return torch.sparse_coo_tensor(pairs, ones, (len(places), words)).coalesce().to_sparse_csr()


def ridge(inputs: torch.Tensor, targets: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the weights w that solve (X'X + penalty) w = X'y, by conjugate gradients (Hestenes and Stiefel, 1952)."""
    transposed = inputs.to_sparse_coo().t().coalesce().to_sparse_csr()
    weights = torch.zeros(inputs.shape[1], dtype=torch.float64)
    residual = transposed @ targets
    direction, size = residual.clone(), residual @ residual
    for _ in range(STEPS):
        image = transposed @ (inputs @ direction) + penalty * direction
        step = size / (direction @ image)
        weights += step * direction
        residual -= step * image
        size, before = residual @ residual, size
        direction = residual + size / before * direction
    return weights


def correlation(scores: torch.Tensor, ratings: torch.Tensor) -> float:
    """Return Pearson's correlation."""
    return torch.corrcoef(torch.stack([scores.double(), ratings.double()]))[0, 1].item()
