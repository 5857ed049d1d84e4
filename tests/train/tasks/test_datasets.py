"""Laws of `train.tasks.datasets`: whatever is read is the right content, or one line says what to do."""

import gzip
import hashlib
import http.server
import io
import logging
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest

from train.tasks import datasets

CONTENT = b"label and words\n" * 50
SHARED = os.environ.get(datasets.VARIABLE) or Path(__file__).parents[3].parent / "shared" / "data"
CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("words.all", content)
    return file.getvalue()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No folder in the environment, an empty cache, and one made-up file in the table."""
    monkeypatch.delenv(datasets.VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(datasets.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    table(monkeypatch, f"{CLOSED}/words.all")


def table(monkeypatch, *urls, **kwargs):
    file = datasets.File("sentence", sha256(CONTENT), urls, **kwargs)
    monkeypatch.setattr(datasets, "FILES", {"words.all": file})


@pytest.fixture
def server():
    """A web server: `server.files` maps paths to contents, `server.asked` lists what was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            content = self.server.files.get(self.path)
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.asked = {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def put(folder, path, content):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# --- folders


def test_an_archive_is_checked_and_given_as_it_is(tmp_path, monkeypatch):
    packed = gzip.compress(CONTENT)
    monkeypatch.setattr(datasets, "FILES", {"set.tar.gz": datasets.File("set", sha256(packed), ())})
    put(tmp_path, "set/set.tar.gz", packed)
    assert datasets.read("set.tar.gz", tmp_path) == packed


@pytest.mark.parametrize("subfolder", ["", "sentence/"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zip"])
@pytest.mark.parametrize("way", ["argument", "variable"])
def test_a_folder_holds_a_file_flat_or_by_set_plain_or_packed(tmp_path, monkeypatch, subfolder, suffix, way):
    packed = {"": lambda content: content, ".gz": gzip.compress, ".zip": zipped}[suffix]
    put(tmp_path, f"{subfolder}words.all{suffix}", packed(CONTENT))
    if way == "variable":
        monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    assert datasets.read("words.all", tmp_path if way == "argument" else None) == CONTENT


def test_the_argument_comes_before_the_variable_and_the_variable_before_the_cache(tmp_path, monkeypatch):
    put(tmp_path, "one/words.all", CONTENT)
    put(tmp_path, "two/words.all", b"wrong")
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path / "two"))
    assert datasets.read("words.all", tmp_path / "one") == CONTENT
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path / "one"))
    (tmp_path / "empty").mkdir()
    assert datasets.read("words.all", tmp_path / "empty") == CONTENT


def test_a_wrong_file_is_refused_even_where_a_right_one_follows(tmp_path, monkeypatch):
    path = put(tmp_path, "one/words.all", b"wrong")
    put(tmp_path, "two/words.all", CONTENT)
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path / "two"))
    with pytest.raises(datasets.DataError) as error:
        datasets.read("words.all", tmp_path / "one")
    text = one_line(error)
    assert str(path) in text and sha256(b"wrong") in text and sha256(CONTENT) in text


@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped"])
def test_a_damaged_gzip_is_refused_by_name(tmp_path, damage):
    good = gzip.compress(CONTENT)
    flipped = bytes([*good[:-6], good[-6] ^ 1, *good[-5:]])  # in the checksum at the end
    content = {"truncated": good[:-9], "garbage": CONTENT, "flipped": flipped}[damage]
    path = put(tmp_path, "words.all.gz", content)
    with pytest.raises(datasets.DataError, match="cannot be read") as error:
        datasets.read("words.all", tmp_path)
    assert str(path) in one_line(error)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'words.all'"):
        datasets.read("word.all")


# --- downloads


def test_a_download_is_verified_and_kept(server, monkeypatch):
    server.files["/words.all"] = CONTENT
    table(monkeypatch, f"{server.url}/words.all")
    assert datasets.read("words.all") == CONTENT
    assert datasets.read("words.all") == CONTENT
    assert server.asked == ["/words.all"]


def test_a_gzipped_download_is_unpacked(server, monkeypatch):
    server.files["/words.all.gz"] = packed = gzip.compress(CONTENT)
    table(monkeypatch, f"{server.url}/words.all.gz", sha256_packed=sha256(packed))
    assert datasets.read("words.all") == CONTENT


def test_the_next_url_is_tried(server, monkeypatch):
    server.files |= {"/wrong/words.all": b"a login page", "/right/words.all": CONTENT}
    urls = [f"{server.url}/{folder}/words.all" for folder in ("missing", "wrong", "right")]
    table(monkeypatch, f"{CLOSED}/words.all", *urls)
    assert datasets.read("words.all") == CONTENT
    assert server.asked == ["/missing/words.all", "/wrong/words.all", "/right/words.all"]


def test_a_wrong_download_is_refused_and_not_kept(server, monkeypatch, tmp_path):
    server.files["/words.all"] = b"a login page"
    table(monkeypatch, f"{server.url}/words.all")
    with pytest.raises(datasets.DataError, match="hash|SHA256") as error:
        datasets.read("words.all")
    one_line(error)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_cache_is_downloaded_again(server, monkeypatch, tmp_path):
    server.files["/words.all"] = CONTENT
    table(monkeypatch, f"{server.url}/words.all")
    datasets.read("words.all")
    (cached,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    cached.write_bytes(b"damaged")
    assert datasets.read("words.all") == CONTENT


def test_a_folder_that_does_not_exist_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    put(tmp_path, "words.all", CONTENT)
    with pytest.raises(datasets.DataError, match="no such folder: .*nowhere"):
        datasets.read("words.all", tmp_path / "nowhere")


def test_nothing_to_be_had_is_quick_quiet_and_says_both_ways(tmp_path, capfd, caplog):
    (tmp_path / "empty").mkdir()
    start = time.monotonic()
    with caplog.at_level(logging.INFO), pytest.raises(datasets.DataError) as error:
        datasets.read("words.all", tmp_path / "empty")
    assert time.monotonic() - start < 5
    text = one_line(error)
    for part in ("--data_dir", datasets.VARIABLE, "sentence/words.all", f"{CLOSED}/words.all", "refused"):
        assert part in text
    assert str(tmp_path / "empty") in text
    assert capfd.readouterr() == ("", "")


# --- the table


def test_the_table_is_whole():
    for name, file in TABLE.items():
        assert file.urls and all(url.startswith("https://") or name == "enwik8" for url in file.urls)
        packed = any(url.endswith((".gz", ".zip")) for url in file.urls)
        assert packed or file.sha256_packed is None
        assert len(file.sha256) == 64 or file.sha256.startswith("sha1:") and len(file.sha256) == 45


@pytest.mark.skipif(not Path(SHARED).is_dir(), reason=f"set {datasets.VARIABLE} to a folder of data")
def test_the_real_files_are_the_ones_in_the_table(monkeypatch):
    monkeypatch.setattr(datasets, "FILES", TABLE)
    for name, file in TABLE.items():
        if name in ELSEWHERE:
            continue
        assert datasets.read(name, SHARED)
        stored = Path(SHARED) / file.folder / f"{name}.gz"
        if file.sha256_packed and stored.is_file():
            assert sha256(stored.read_bytes()) == file.sha256_packed


ELSEWHERE = ("enwik8", "cifar-10-binary.tar.gz")  # too large for the folder
TABLE = datasets.FILES  # the real one, from before any test replaces it
