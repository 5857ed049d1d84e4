"""What `prepare` arranges, seen from processes of their own."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from train import host

ROOT = Path(__file__).parents[2]
SETTINGS = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
CLEAN = {name: value for name, value in os.environ.items() if name not in SETTINGS}


def told(script, **env):
    """What a fresh process prints, as JSON."""
    start = f"import json, os, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom train import host\n"
    done = subprocess.run(
        [sys.executable, "-c", start + script],
        env=CLEAN | {"JAX_PLATFORMS": "cpu"} | {name: str(value) for name, value in env.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- devices

COUNT = "host.prepare({}); import jax; print(len(jax.devices()))"
FLAG = "--xla_force_host_platform_device_count=3"


@pytest.mark.parametrize(
    "devices, env, want",
    [
        (0, {}, host.cores()),
        pytest.param(3, {}, 3, marks=pytest.mark.slow),
        (0, {"XLA_FLAGS": FLAG}, 3),
        pytest.param(0, {"JAX_NUM_CPU_DEVICES": 3}, 3, marks=pytest.mark.slow),
        pytest.param(1, {"XLA_FLAGS": FLAG}, 1, marks=pytest.mark.slow),
    ],
    ids=["one-per-core", "as-many-as-asked", "as-XLA_FLAGS-say", "as-jax-was-told", "asked-before-told"],
)
def test_jax_sees_as_many_devices_as(devices, env, want, tmp_path):
    assert told(COUNT.format(devices), XDG_CACHE_HOME=tmp_path, **env) == want


def test_the_users_flags_stay_as_they_are(tmp_path):
    flags = "--xla_cpu_enable_fast_math=false"
    script = "host.prepare(); import jax; jax.devices(); print(json.dumps(os.environ['XLA_FLAGS']))"
    assert told(script, XLA_FLAGS=flags, XDG_CACHE_HOME=tmp_path) == flags


# --- memory

RESIDENT = """
import numpy as np
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
host.prepare(1, {!r})
before = resident()
array = np.ones(200_000_000, np.uint8)
del array
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
@pytest.mark.parametrize("allocator, kept", [("kept", True), ("default", False)])
def test_freed_memory_stays_with_the_process_only_if_it_shall(allocator, kept, tmp_path):
    assert (told(RESIDENT.format(allocator), XDG_CACHE_HOME=tmp_path) > 100_000_000) == kept


# --- compiled programs

COMPILE = """
host.prepare(1)
import jax
hits = []
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event.endswith("cache_hits")))
jax.jit(lambda x: x @ x)(jax.numpy.ones((3, 3)))
print(sum(hits))
"""


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_programs_are_kept_where_the_user_says_and_found_there_again(tmp_path):
    env = {"JAX_COMPILATION_CACHE_DIR": tmp_path / "mine", "XDG_CACHE_HOME": tmp_path / "other"}
    assert told(COMPILE, **env) == 0
    kept = files(tmp_path)
    assert kept and all(file.startswith("mine/") for file in kept)
    assert told(COMPILE, **env) > 0
    assert files(tmp_path) == kept


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the folder has another name")
def test_programs_are_kept_in_the_users_cache_by_default(tmp_path):
    assert told(COMPILE, XDG_CACHE_HOME=tmp_path) == 0
    assert any(file.startswith("recurrent-cells/compiled/") for file in files(tmp_path))


def test_an_empty_name_turns_the_cache_off(tmp_path):
    env = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": tmp_path}
    assert (
        told(COMPILE.replace("sum(hits)", "json.dumps(jax.config.jax_compilation_cache_dir)"), **env) is None
    )
    assert not files(tmp_path)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    assert told(COMPILE, XDG_CACHE_HOME=tmp_path / "file") == 0


# --- memory maps

CROWD = """
import mmap
kept = [mmap.mmap(-1, 4096, prot=mmap.PROT_READ | (i % 2) * mmap.PROT_WRITE) for i in range({})]
print(json.dumps(host.crowded()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("part, want", [(0, False), (0.55, True)])
def test_a_process_knows_when_it_runs_out_of_memory_maps(part, want):
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 200_000:
        pytest.skip("a limit too high to reach here")
    assert told(CROWD.format(int(part * limit))) is want


def test_a_crowded_process_forgets_its_programs(monkeypatch):
    from train import compile

    class Cached:
        cleared = 0

        def cache_clear(self):
            self.cleared += 1

    made = Cached()
    monkeypatch.setattr(compile, "_CACHES", [made])
    monkeypatch.setattr("jax.clear_caches", made.cache_clear)  # those of the other tests stay
    for crowded, want in [(False, 0), (True, 2)]:
        monkeypatch.setattr(host, "crowded", lambda crowded=crowded: crowded)
        compile.make_room()
        assert made.cleared == want
