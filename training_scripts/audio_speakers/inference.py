"""The speaker model's handler: what the network is, and how a request is answered.

train.py copies this file into the model, beside the weights as code/inference.py, and uses the same Network itself, so
what is served is what was trained. Anything that serves the model needs two names:

    load(model_dir) -> model
    predict(model, body, content_type) -> (body, content_type)

An utterance is a list of 1 to 200 frames, a frame 12 LPC cepstrum coefficients. A request is application/json:

    {"instances": [[[1.86, -0.21, ...], ...], ...]}
    {"instances": [{"frames": [[1.86, ...], ...], "features": {"length": 20, "cepstrum_1": 1.54, ...}}, ...]}

`features` are what a drift sensor watches: the number of frames and the mean of each cepstrum, as describe() has them.
They are optional, and checked where they are sent. The answer is {"predictions": [{"speaker": 3, "probability": 0.98,
"probabilities": [p0, ..., p8]}, ...]}, speakers counted from 0. ValueError means that the request is at fault; the
message names the utterance.
"""

import json
import pathlib

import numpy as np
import torch

CEPSTRA, SPEAKERS, LONGEST = 12, 9, 200
#: Utterances that go through the network together: all of a large request would take gigabytes.
CHUNK = 250
#: A stated feature may differ from ours by what a client's rounding makes of it.
ROUNDING = 1e-3
NAMES = [str(speaker) for speaker in range(SPEAKERS)]
#: Of a probability in an answer.
DECIMALS = 6
FEATURES = ["length", *(f"cepstrum_{number}" for number in range(1, CEPSTRA + 1))]


class Network(torch.nn.Module):
    """A GRU that reads the frames in both directions; the mean and the maximum of its states decide."""

    def __init__(self, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        # Mean and standard deviation of each cepstrum over the training frames: part of the weights, never learned.
        self.scale = torch.nn.Parameter(torch.stack([torch.zeros(CEPSTRA), torch.ones(CEPSTRA)]), requires_grad=False)
        self.gru = torch.nn.GRU(
            CEPSTRA, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(4 * hidden, SPEAKERS)

    def learn_scale(self, frames: np.ndarray) -> None:
        """Take mean and standard deviation from the training frames (n x 12)."""
        spread = frames.std(axis=0)
        self.scale.data.copy_(torch.from_numpy(np.stack([frames.mean(axis=0), np.where(spread > 0, spread, 1)])))

    def forward(self, frames: torch.Tensor, lengths: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
        """Frames (n x longest x 12, anything after the end) and lengths (int64[n]) to logits (n x 9).

        :param noise: added to the standardized frames, as a standard deviation.
        """
        frames = (frames - self.scale[0]) / self.scale[1]
        if noise:
            frames = frames + noise * torch.randn_like(frames)
        packed = torch.nn.utils.rnn.pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        beyond = (torch.arange(states.shape[1], device=states.device) >= lengths.to(states.device)[:, None])[..., None]
        mean = states.masked_fill(beyond, 0).sum(dim=1) / lengths.to(states.device)[:, None]
        highest = states.masked_fill(beyond, -torch.inf).amax(dim=1)
        return self.head(self.dropout(torch.cat([mean, highest], dim=1)))


@torch.inference_mode()
def logits(network: Network, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Ask the network about any number of utterances; leave it in the mode it was in."""
    training = network.training
    network.eval()
    chunks = zip(frames.split(CHUNK), lengths.split(CHUNK), strict=True)
    answer = torch.cat([network(part[:, : int(ends.max())], ends).double() for part, ends in chunks])
    network.train(training)
    return answer


def load(model_dir: str) -> Network:
    """Load the model; every file that is needed must be there and fit."""
    folder = pathlib.Path(model_dir)
    network = Network(**json.loads((folder / "network.json").read_text()))
    network.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    return network.eval()


def predict(model: Network, body: bytes, content_type: str) -> tuple[bytes, str]:
    """Answer one request. Raises ValueError if the request is at fault."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ValueError(f"content type {content_type!r} is unknown: send application/json")
    utterances = [to_frames(number, item) for number, item in enumerate(read_json(body), start=1)]
    lengths = torch.tensor([len(frames) for frames in utterances])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(frames) for frames in utterances], batch_first=True)
    chances = logits(model, padded, lengths).softmax(dim=1).numpy().round(DECIMALS)
    answers = zip(chances.argmax(axis=1).tolist(), chances.tolist(), strict=True)
    predictions = [{"speaker": place, "probability": each[place], "probabilities": each} for place, each in answers]
    return json.dumps({"predictions": predictions}).encode(), kind


def read_json(body: bytes) -> list:
    """Return the utterances of a JSON body as they came."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    instances = document.get("instances") if isinstance(document, dict) else document
    if not isinstance(instances, list) or not instances:
        raise ValueError(f'expected {{"instances": [[[{CEPSTRA} numbers], ...], ...]}}, at least one utterance')
    return instances


def to_frames(number: int, item: object) -> np.ndarray:
    """Return the frames of an utterance (length x 12), after a look at what the client says of it."""
    frames = item.get("frames") if isinstance(item, dict) else item
    try:
        array = np.array(frames, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"utterance {number} is no list of frames with {CEPSTRA} numbers each") from None
    if array.ndim != 2 or array.shape[1] != CEPSTRA or not 1 <= len(array) <= LONGEST:
        raise ValueError(f"utterance {number} is {list(array.shape)}; send 1 to {LONGEST} frames of {CEPSTRA} numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"utterance {number} holds a value that is no finite number")
    if isinstance(item, dict):
        check_features(number, item.get("features", {}), describe(array))
    return array


def describe(frames: np.ndarray) -> dict[str, float]:
    """Return what a drift sensor watches of an utterance (length x 12)."""
    return dict(zip(FEATURES, [float(len(frames)), *frames.mean(axis=0).round(6).tolist()], strict=True))


def check_features(number: int, stated: object, true: dict[str, float]) -> None:
    """Refuse features that are not the utterance's: a sensor would watch what the model never saw."""
    if not isinstance(stated, dict) or (stated and set(stated) != set(true)):
        raise ValueError(f"utterance {number}: features must be an object with {list(true)}, or left out")
    for name, value in stated.items():
        near = true[name] - ROUNDING <= value <= true[name] + ROUNDING if isinstance(value, int | float) else False
        if isinstance(value, bool) or not near:  # NaN is near to nothing
            raise ValueError(f"utterance {number}: {name} is stated as {value!r}, and is {true[name]:g}")
