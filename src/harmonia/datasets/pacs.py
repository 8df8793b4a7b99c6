"""PACS: seven classes as photos, art paintings, cartoons and sketches (Li et al., 2017, arXiv:1710.03077)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harmonia.data.tables import Row, Rows
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    embedded_part,
    media_part,
    need,
    require,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    table_rows,
    text_lines,
)
from harmonia.types import HarmoniaError, Record

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")

HOW_TO_GET = (
    "load PACS.zip (about 180 MB: kfold/DOMAIN/CLASS/*.jpg, lists DOMAIN_{train,crossval,test}_kfold.txt) "
    "from the project page Deeper, Broader and Artier Domain Generalization, and unpack it there"
)
_LISTS = {"train": "train", "val": "crossval", "test": "test"}


def pacs(folder: str | Path | None = None, split: str = "train", *, domains: Sequence[str] = ()) -> Records:
    """Records of one picture, with its domain and class in the metadata.

    Files: ``{domain}/{class}/*.jpg`` or ``.png``, in the folder or in ``kfold/`` there, and for a split the
    lists ``{domain}_{train,crossval,test}_kfold.txt`` (``test`` is the whole domain, ``all`` needs no list);
    or the table ``images.parquet``, where val (dev) is every tenth row and train the others.
    ``domains``: art_painting, cartoon, photo, sketch; those there are when empty.
    Metadata: dataset, split, name, path, domain, label, file.
    """
    home = dataset_folder(folder, "pacs", "PACS", HOW_TO_GET)
    if unknown := [domain for domain in domains if domain not in DOMAINS]:
        raise HarmoniaError(f"PACS has no domain {unknown[0]!r}; name some of {', '.join(DOMAINS)}")
    if (home / "images.parquet").exists():
        require_split(split, ("train", "val"), "this PACS table")
        return _table(home / "images.parquet", split, domains or DOMAINS)
    require_split(split, _LISTS, "PACS")
    pictures = home / "kfold" if (home / "kfold").is_dir() else home
    present = tuple(domains) or tuple(domain for domain in DOMAINS if (pictures / domain).is_dir())
    require(pictures, present or DOMAINS, "PACS", HOW_TO_GET)
    if split == "all":
        return rows_to_records(pictures, _walk(pictures, present), lambda row: _record(row, pictures))
    lists = [
        (name, require_one(home, _places(domain, file), "the split of PACS", HOW_TO_GET))
        for name, file in _LISTS.items()
        for domain in present
        if split_filter(split)(name)
    ]
    return (
        record
        for name, path in lists
        for record in rows_to_records(path, _lines(path, name), lambda row: _record(row, pictures))
    )


def _places(domain: str, part: str) -> tuple[str, ...]:
    file = f"{domain}_{part}_kfold.txt"
    return (file, f"kfold/{file}", f"splits/{file}", f"pacs_label/{file}")


def _walk(pictures: Path, domains: Sequence[str]) -> Rows:
    files = (
        path
        for domain in domains
        for place in sorted((pictures / domain).iterdir())
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    for number, path in enumerate(files, start=1):
        yield number, {"file": path.relative_to(pictures).as_posix(), "split": "all"}


def _lines(path: Path, split: str) -> Rows:
    """``domain/class/picture.jpg 3``; the number repeats the class."""
    for number, line in text_lines(path):
        file = line.rpartition(" ")[0] or line
        yield (
            number,
            {"file": file, "split": split} if file.count("/") == 2 else "this is not domain/class/file",
        )


def _record(row: Row, pictures: Path) -> Record:
    domain, label, name = str(row["file"]).split("/")
    facts = {"domain": domain, "label": label, "file": name}
    picture = media_part("image", pictures / row["file"])
    return dataset_record("pacs", row["split"], Path(name).stem, [picture], **facts)


def _table(table: Path, split: str, domains: Sequence[str]) -> Records:
    wanted = split_filter(split)

    def rows() -> Iterator[tuple[int, Row | str]]:
        for number, row in table_rows(table):
            yield number, row if isinstance(row, str) else {**row, "split": "train" if number % 10 else "val"}

    def make(row: Row) -> Record | None:
        facts = {key: need(row, key, str) for key in ("domain", "label", "file")}
        if facts["domain"] not in domains or not wanted(row["split"]):
            return None
        picture = embedded_part("image", row.get("jpeg"))
        return dataset_record("pacs", row["split"], Path(facts["file"]).stem, [picture], **facts)

    return rows_to_records(table, rows(), make)
