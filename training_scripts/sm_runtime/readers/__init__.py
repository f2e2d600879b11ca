"""Data as it lies, for training: npy, npz, .pth, Parquet, CSV, TFRecord, RecordIO, HDF5, LMDB, N5, image folders.

    data = readers.open_dataset("/opt/ml/input/data/train")     # the format is told by the files
    data.batch(numpy.array([3, 1, 2]))                          # {"image": uint8[3, 32, 32, 3], "label": int64[3]}
    sampler = Sampler(len(data), 256, 1, order=data.order(seed=0))

docs/data_formats.md says what is checked in which format, and which to choose.
"""

from sm_runtime.readers.dataset import Dataset, ShardInfo
from sm_runtime.readers.errors import DataCorrupt, DataRefused, LibraryMissing, ReaderError
from sm_runtime.readers.fields import Batch, Field, strings
from sm_runtime.readers.images import image_decoder
from sm_runtime.readers.loader import Loader
from sm_runtime.readers.opening import FORMATS, open_dataset
from sm_runtime.readers.order import shuffled_windows

__all__ = [
    "FORMATS",
    "Batch",
    "DataCorrupt",
    "DataRefused",
    "Dataset",
    "Field",
    "LibraryMissing",
    "Loader",
    "ReaderError",
    "ShardInfo",
    "image_decoder",
    "open_dataset",
    "shuffled_windows",
    "strings",
]
