"""The sentiment model's handler: how text becomes numbers, what the network is, how a request is answered.

train.py copies this file into the model, beside the weights as code/inference.py, and uses the same words() and Network
itself, so what is served is what was trained. Anything that serves the model needs two names:

    load(model_dir) -> model
    predict(model, body, content_type) -> (body, content_type)

A request is

    text/csv           a text a line, in quotes where it holds a comma; no header
    application/json   {"instances": ["text", {"text": "text", "features": {"length": 40, ...}}, ...]}

`features` are what a drift sensor watches: characters, words, and the share of words that training has not seen, as
describe() gives them. They are optional, and checked where they are sent. The answer to CSV is a rating a line, to JSON
{"predictions": [0.81, ...]}: from -4 (as negative as can be) to 4. A JSON request with "embedding": true beside the
instances is answered {"predictions": [{"score": 0.81, "embedding": [...]}, ...]}: what the network made of each text,
which a drift sensor watches, too. ValueError means that the request is at fault.
"""

import csv
import io
import json
import pathlib
import re

import torch

#: Words, or signs of mood: runs of ! and ?, and faces such as :-) and <3. The rest carries little.
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[!?]+|[:;=8][-o*']?[)(\[\]dp/\\|]+|<3")
#: What stands for words that are not in the vocabulary; 0 fills up behind the end of a text.
UNKNOWN = 1
#: The longest text that is read: 99.9 % of the training texts are shorter. What comes after does not count.
LONGEST = 64
LONGEST_TEXT = 10_000
SCALE = 4.0
CHUNK = 500
ROUNDING = 1e-3
#: Of a rating in an answer.
DECIMALS = 6
FEATURES = ["length", "words", "unknown"]


def words(text: str) -> list[str]:
    """Split a text into words in lower case and signs of mood; at least one."""
    return WORD.findall(text.lower())[:LONGEST] or ["?"]


def numbers(vocabulary: dict[str, int], text: str) -> list[int]:
    """Return the places of the text's words in the vocabulary."""
    return [vocabulary.get(word, UNKNOWN) for word in words(text)]


def describe(vocabulary: dict[str, int], text: str) -> dict[str, float]:
    """Return what a drift sensor watches of a text."""
    found = numbers(vocabulary, text)
    unknown = round(found.count(UNKNOWN) / len(found), 6)
    return dict(zip(FEATURES, [float(len(text)), float(len(found)), unknown], strict=True))


class Network(torch.nn.Module):
    """Embedded words, a GRU in both directions, the mean and the maximum of its states, one number from -4 to 4."""

    def __init__(self, vocabulary: int, embed: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, embed, padding_idx=0)
        torch.nn.init.normal_(self.embedding.weight, std=0.1)
        self.gru = torch.nn.GRU(embed, hidden, batch_first=True, bidirectional=True)
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(4 * hidden, 1)

    def forward(
        self, places: torch.Tensor, lengths: torch.Tensor, *, vectors: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Places in the vocabulary (int64, n x longest) and lengths (int64[n]) to ratings (n).

        :param vectors: also return what the ratings are read from, n x 4 hidden.
        """
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.dropout(self.embedding(places)), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        beyond = (torch.arange(states.shape[1], device=states.device) >= lengths.to(states.device)[:, None])[..., None]
        mean = states.masked_fill(beyond, 0).sum(dim=1) / lengths.to(states.device)[:, None]
        highest = states.masked_fill(beyond, -torch.inf).amax(dim=1)
        found = torch.cat([mean, highest], dim=1)
        rated = SCALE * torch.tanh(self.head(self.dropout(found)).squeeze(1))
        return (rated, found) if vectors else rated


@torch.inference_mode()
def answers(network: Network, places: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ask the network about any number of texts; leave it in the mode it was in. Return ratings and vectors."""
    training = network.training
    network.eval()
    chunks = zip(places.split(CHUNK), lengths.split(CHUNK), strict=True)
    parts = [network(part[:, : int(ends.max())], ends, vectors=True) for part, ends in chunks]
    network.train(training)
    rated, found = (torch.cat(each) for each in zip(*parts, strict=True))
    return rated.double(), found


def ratings(network: Network, places: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Ask the network to rate any number of texts."""
    return answers(network, places, lengths)[0]


class Model:
    """What load() returns: vocabulary and network."""

    def __init__(self, vocabulary: list[str], shape: dict) -> None:
        self.vocabulary = {word: place for place, word in enumerate(vocabulary, start=UNKNOWN + 1)}
        self.network = Network(len(vocabulary) + UNKNOWN + 1, **shape)


def load(model_dir: str) -> Model:
    """Load the model; every file that is needed must be there and fit."""
    folder = pathlib.Path(model_dir)
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    model = Model(vocabulary, json.loads((folder / "network.json").read_text()))
    model.network.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    model.network.eval()
    return model


def predict(model: Model, body: bytes, content_type: str) -> tuple[bytes, str]:
    """Answer one request. Raises ValueError if the request is at fault."""
    kind = content_type.partition(";")[0].strip().lower()
    readers = {"text/csv": read_csv, "application/json": read_json}
    if kind not in readers:
        raise ValueError(f"content type {content_type!r} is unknown: send {' or '.join(readers)}")
    items, embedding = readers[kind](body)
    texts = [check(model, number, item) for number, item in enumerate(items, start=1)]
    if not texts:
        raise ValueError("the request has no texts")
    found = [torch.tensor(numbers(model.vocabulary, text)) for text in texts]
    lengths = torch.tensor([len(places) for places in found])
    rated, vectors = answers(model.network, torch.nn.utils.rnn.pad_sequence(found, batch_first=True), lengths)
    values = [round(value, DECIMALS) for value in rated.tolist()]
    if kind == "text/csv":
        return "".join(f"{value:.{DECIMALS}f}\n" for value in values).encode(), kind
    rounded = vectors.double().numpy().round(DECIMALS).tolist()
    both = [{"score": value, "embedding": vector} for value, vector in zip(values, rounded, strict=True)]
    return json.dumps({"predictions": both if embedding else values}).encode(), kind


def read_csv(body: bytes) -> tuple[list, bool]:
    """Return the texts of a CSV body; nobody asks for vectors there."""
    try:
        # Not splitlines(): a value in quotes may have lines of its own, and Unicode has more line ends than CSV.
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row]
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8 text: {error}") from None
    except csv.Error as error:
        raise ValueError(f"the body is not CSV: {error}") from None
    for number, row in enumerate(rows, start=1):
        if len(row) != 1:
            raise ValueError(f"row {number} has {len(row)} values: send one text a line, in quotes if it has a comma")
    return [row[0] for row in rows], False


def read_json(body: bytes) -> tuple[list, bool]:
    """Return the texts of a JSON body as they came, and whether their vectors are asked for."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    instances = document.get("instances") if isinstance(document, dict) else document
    if not isinstance(instances, list):
        raise ValueError('expected {"instances": ["text", ...]}')
    embedding = isinstance(document, dict) and document.get("embedding", False)
    if not isinstance(embedding, bool):
        raise ValueError(f"embedding is {embedding!r}; send true or false, or leave it out")
    return instances, embedding


def check(model: Model, number: int, item: object) -> str:
    """Return the text of an instance, after a look at what the client says of it."""
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise ValueError(f"text {number} must be a text of at most {LONGEST_TEXT} characters")
    if isinstance(item, dict):
        check_features(number, item.get("features", {}), describe(model.vocabulary, text))
    return text


def check_features(number: int, stated: object, true: dict[str, float]) -> None:
    """Refuse features that are not the text's: a sensor would watch what the model never saw."""
    if not isinstance(stated, dict) or (stated and set(stated) != set(true)):
        raise ValueError(f"text {number}: features must be an object with {list(true)}, or left out")
    for name, value in stated.items():
        near = true[name] - ROUNDING <= value <= true[name] + ROUNDING if isinstance(value, int | float) else False
        if isinstance(value, bool) or not near:  # NaN is near to nothing
            raise ValueError(f"text {number}: {name} is stated as {value!r}, and is {true[name]:g}")
