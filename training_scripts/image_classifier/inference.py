"""The image classifier's handler: how images become inputs, what the network is, how a request is answered.

train.py copies this file into the model, beside the weights as code/inference.py, and uses the same Network itself, so
what is served is what was trained. Anything that serves the model needs two names:

    load(model_dir) -> model
    predict(model, body, content_type) -> (body, content_type)

An image is 784 numbers from 0 (paper) to 255 (ink), row by row from the top left. A request is

    text/csv           an image a line, no header, no label
    application/json   {"instances": [[...], ...]}
    application/x-npy  an array (numpy.save) of n x 784 or n x 28 x 28; reading it costs nothing beside text

The answer to CSV is `digit,probability,p0,...,p9` a line, to the others {"predictions": [{"digit": 7, "probability":
0.98, "probabilities": [p0, ..., p9]}, ...]}: the digit, its probability, and that of each digit, which a drift sensor
watches. ValueError means that the request is at fault; the message names the row.
"""

import io
import json
import pathlib

import numpy as np
import torch

SIDE, DIGITS = 28, 10
PIXELS = SIDE * SIDE
NAMES = [str(digit) for digit in range(DIGITS)]
#: Of a probability in an answer.
DECIMALS = 6
#: Images that go through the network together: all of a large request would take gigabytes.
CHUNK = 250
#: Mean and standard deviation of the training images' pixels, which the network sees as 0 and 1.
MEAN, SPREAD = 33.5, 78.7


class Network(torch.nn.Module):
    """Two convolutions, each followed by pooling, and a linear layer; gives ten logits an image."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(width, 2 * width, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Flatten(), torch.nn.Dropout(dropout),
            torch.nn.Linear(2 * width * (SIDE // 4) ** 2, DIGITS),
        )  # fmt: skip

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (n x 28 x 28, any number type, 0 to 255) to logits (n x 10)."""
        return self.layers((pixels[:, None].float() - MEAN) / SPREAD)


@torch.inference_mode()
def logits(network: Network, pixels: torch.Tensor) -> torch.Tensor:
    """Ask the network about any number of images; leave it in the mode it was in."""
    training = network.training
    network.eval()
    answer = torch.cat([network(chunk).double() for chunk in pixels.split(CHUNK)])
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
    readers = {"text/csv": read_csv, "application/json": read_json, "application/x-npy": read_npy}
    if kind not in readers:
        raise ValueError(f"content type {content_type!r} is unknown: send {', '.join(readers)}")
    pixels = check_range(readers[kind](body))
    chances = logits(model, torch.from_numpy(pixels.reshape(-1, SIDE, SIDE))).softmax(dim=1).numpy().round(DECIMALS)
    answers = list(zip(chances.argmax(axis=1).tolist(), chances.tolist(), strict=True))
    if kind == "text/csv":
        rows = [f"{digit},{','.join(f'{p:.{DECIMALS}f}' for p in [each[digit], *each])}\n" for digit, each in answers]
        return "".join(rows).encode(), kind
    predictions = [{"digit": digit, "probability": each[digit], "probabilities": each} for digit, each in answers]
    return json.dumps({"predictions": predictions}).encode(), "application/json"


def read_csv(body: bytes) -> np.ndarray:
    """Return the images of a CSV body, n x 784."""
    try:
        lines = [line for line in body.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8 text: {error}") from None
    return to_array([line.split(",") for line in lines])


def read_json(body: bytes) -> np.ndarray:
    """Return the images of a JSON body, n x 784."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    instances = document.get("instances") if isinstance(document, dict) else document
    if not isinstance(instances, list) or not all(isinstance(row, list) for row in instances):
        raise ValueError(f'expected {{"instances": [[...], ...]}} with {PIXELS} numbers an image')
    return to_array(instances)


def read_npy(body: bytes) -> np.ndarray:
    """Return the images of a numpy.save body, n x 784."""
    try:
        array = np.load(io.BytesIO(body), allow_pickle=False)
    except Exception as error:  # numpy's reader of headers raises what tokenize does, and zipfile has errors of its own
        raise ValueError(f"the body is no array as numpy.save writes it: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
        raise ValueError("the body must be one array of numbers: send what numpy.save writes")
    if len(array.shape) < 2 or array.shape[1:] not in {(PIXELS,), (SIDE, SIDE)} or not len(array):
        raise ValueError(f"the array is {list(array.shape)}; send n x {PIXELS} or n x {SIDE} x {SIDE}, n at least 1")
    return array.reshape(len(array), PIXELS).astype(np.float32)


def to_array(rows: list[list]) -> np.ndarray:
    """Return rows of numbers or their texts as an array, n x 784."""
    if not rows:
        raise ValueError("the request has no rows")
    return np.array([to_pixels(number, row) for number, row in enumerate(rows, start=1)], dtype=np.float32)


def to_pixels(number: int, row: list) -> list[float]:
    if len(row) != PIXELS:
        raise ValueError(f"row {number} has {len(row)} values, not the {PIXELS} pixels of an image")
    values = []
    for place, value in enumerate(row, start=1):
        try:
            values.append(float(value))
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"row {number}, value {place} is {value!r}, which is no number from 0 to 255") from None
    return values


def check_range(pixels: np.ndarray) -> np.ndarray:
    """Return the images (n x 784) unless a pixel is missing, or neither paper nor ink."""
    wrong = ~((pixels >= 0) & (pixels <= 255))  # NaN is neither
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        value = pixels[row, place]
        raise ValueError(f"row {row + 1}, value {place + 1} is {value:g}, which is no number from 0 to 255")
    return pixels
