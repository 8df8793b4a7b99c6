"""The MNIST family: MNIST (LeCun et al., 1998), Fashion-MNIST (Xiao et al., 2017, arXiv:1708.07747), KMNIST
(Clanuwat et al., 2018, arXiv:1812.01718) and EMNIST (Cohen et al., 2017, arXiv:1702.05373), in IDX files."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harmonia.data.tables import Row, Rows
from harmonia.datasets.reading import (
    READ_ERRORS,
    Records,
    dataset_folder,
    dataset_record,
    embedded_part,
    listed,
    reason_of,
    require,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    verify,
)
from harmonia.types import HarmoniaError, Record

HOW_TO_GET = (
    "load train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two t10k-*.gz (12 to 31 MB) from "
    "the dataset's home: yann.lecun.com/exdb/mnist, zalandoresearch/fashion-mnist or rois-codh/kmnist on "
    "GitHub; EMNIST (gzip.zip, 560 MB) from nist.gov/itl/products-and-services/emnist-dataset"
)

CLASSES: dict[str, tuple[str, ...]] = {
    "mnist": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "fashion": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
        "ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}  # fmt: skip
"""Names of the labels; EMNIST has them in its mapping file."""

CHECKSUMS: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "kmnist": {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    },
}
"""MD5 of the files as they are published (the values torchvision checks too). EMNIST publishes none."""


def mnist(folder: str | Path | None = None, split: str = "train", *, family: str = "mnist") -> Records:
    """Records of a picture of 28 x 28 pixels, as PNG files in the cache folder.

    ``family``: mnist, fashion, kmnist, or emnist-SUBSET (byclass, bymerge, balanced, letters, digits, mnist).
    Files: ``{train,t10k}-images-idx3-ubyte`` and ``-labels-idx1-ubyte``, with ``.gz`` or without; EMNIST has
    ``emnist-SUBSET-{train,test}-`` before ``images``, and its pictures, which lie on their side, are turned
    upright. For mnist also ``digits.npz`` (arrays x and y, taken as train). ``split``: train, test or all.

    Metadata: dataset, split, name, path, index (in the file), label (a number) and label_name.
    """
    home, names = _locate(folder, split, family)
    return chain.from_iterable(_read(home, name, family) for name in names)


def mnist_arrays(
    folder: str | Path | None = None, split: str = "train", *, family: str = "mnist"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All pictures, uint8 ``(n, 28, 28)``, and their labels, int64 ``(n,)``; for training. The arguments are
    those of :func:`mnist`; a damaged file is a HarmoniaError."""
    home, names = _locate(folder, split, family)
    pictures, labels = [], []
    for name in names:
        image_file, label_file = _files(home, name, family)
        try:
            if image_file.suffix == ".npz":
                pictures.append(_npz(image_file)[0])
                labels.append(_npz(image_file)[1])
            else:
                pictures.append(_upright(np.stack(list(_idx(image_file, 3))), family))
                labels.append(np.array([int(one) for one in _idx(label_file, 1)], dtype=np.int64))
        except READ_ERRORS as error:
            raise HarmoniaError(f"{image_file} is damaged: {reason_of(error)}; load it again") from error
        if len(pictures[-1]) != len(labels[-1]):
            raise HarmoniaError(
                f"{image_file.name} and {label_file.name} in {home} differ in length; load both again"
            )
    return np.concatenate(pictures), np.concatenate(labels)


def mnist_verify(folder: str | Path | None = None, *, family: str = "mnist") -> tuple[list[str], list[str]]:
    """Compare the ``.gz`` files there are with :data:`CHECKSUMS`; returns the names verified and those
    without a checksum. A HarmoniaError when one is damaged or of another family."""
    home = dataset_folder(folder, family, family, HOW_TO_GET)
    return verify(home, sorted(path.name for path in home.glob("*ubyte.gz")), CHECKSUMS.get(family))


def _locate(folder: str | Path | None, split: str, family: str) -> tuple[Path, list[str]]:
    if family not in CLASSES and not family.startswith("emnist-"):
        raise HarmoniaError(f"there is no family {family!r}; name one of {', '.join(CLASSES)}, emnist-SUBSET")
    home = dataset_folder(folder, family, family, HOW_TO_GET)
    known = ("train",) if family == "mnist" and (home / "digits.npz").exists() else ("train", "test")
    require_split(split, known, family)
    names = list(filter(split_filter(split), known))
    for name in names:
        _files(home, name, family)
    return home, names


def _files(home: Path, split: str, family: str) -> tuple[Path, Path]:
    """The files of pictures and of labels."""
    if family == "mnist" and (home / "digits.npz").exists():
        return home / "digits.npz", home / "digits.npz"
    start = f"{family}-{split}" if family.startswith("emnist") else {"train": "train", "test": "t10k"}[split]
    pictures, labels = f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte"
    return (
        require_one(home, (f"{pictures}.gz", pictures), family, HOW_TO_GET),
        require_one(home, (f"{labels}.gz", labels), family, HOW_TO_GET),
    )


def _read(home: Path, split: str, family: str) -> Records:
    image_file, label_file = _files(home, split, family)
    class_names = dict(enumerate(CLASSES.get(family, ()))) or _mapping(home, family)

    def rows() -> Rows:
        npz = image_file.suffix == ".npz"
        pictures, labels = _npz(image_file) if npz else (_idx(image_file, 3), _idx(label_file, 1))
        for number, (pixels, label) in enumerate(zip_longest(pictures, labels), start=1):
            if pixels is None or label is None:
                raise ValueError("the numbers of pictures and labels differ")
            yield number, {"index": number - 1, "pixels": _upright(pixels, family), "label": int(label)}

    def make(row: Row) -> Record:
        picture = embedded_part("image", _png(row["pixels"]))
        facts = {"index": row["index"], "label": row["label"], "label_name": class_names.get(row["label"])}
        return dataset_record(family, split, f"{family}-{split}-{row['index']}", [picture], **facts)

    yield from rows_to_records(image_file, rows(), make)


def _mapping(home: Path, family: str) -> dict[int, str]:
    """EMNIST's ``emnist-SUBSET-mapping.txt``: a label and the character codes it stands for."""
    path = home / f"{family}-mapping.txt"
    require(home, [path.name], family, HOW_TO_GET)
    try:
        lines = [[int(number) for number in line.split()] for line in listed(path)]
        return {label: chr(codes[0]) for label, *codes in lines}
    except (ValueError, IndexError) as error:
        raise HarmoniaError(f"{path} is damaged: {error}; load it again") from error


def _idx(path: Path, dimensions: int) -> Iterator[NDArray[np.uint8]]:
    """The items of an IDX file of unsigned bytes: two zero bytes, the type 8, the number of dimensions, their
    sizes as big-endian 32-bit numbers, the data. A ValueError when it is another file or ends early."""
    with _opened(path) as file:
        head = file.read(4 + 4 * dimensions)
        if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < 4 + 4 * dimensions:
            raise ValueError(f"{path.name} is no IDX file of bytes in {dimensions} dimensions")
        count, *shape = (int(size) for size in np.frombuffer(head[4:], ">u4"))
        size = int(np.prod(shape, dtype=np.int64))
        for index in range(count):
            data = file.read(size)
            if len(data) < size:
                raise ValueError(f"{path.name} ends after {index} of {count} items")
            yield np.frombuffer(data, np.uint8).reshape(shape)


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _npz(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with np.load(path) as arrays:
            return arrays["x"].astype(np.uint8), arrays["y"].astype(np.int64)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} has no arrays x and y: {error}") from error


def _upright(pixels: NDArray[np.uint8], family: str) -> NDArray[np.uint8]:
    return pixels.swapaxes(-2, -1) if family.startswith("emnist") else pixels


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()
