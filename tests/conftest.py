"""What all tests share: quick compilation, and a process with two devices."""

import gc
import importlib.metadata
import os
import sys

import pytest

import commands

# Most of a test's time is compilation, and nothing here asks how fast a program runs. Set before jax starts,
# which crashes on a flag that it does not know; processes that tests start inherit it.
QUICK = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    QUICK.append("--xla_cpu_use_fusion_emitters=false")
told = os.environ.get("XLA_FLAGS", "")
for flag in QUICK:
    if flag.split("=")[0] not in told:
        told = f"{told} {flag}".strip()
os.environ["XLA_FLAGS"] = told
gc.set_threshold(50_000, 20, 20)  # tracing makes many objects that live as long as their program


@pytest.fixture(scope="session")
def on_two_devices():
    """Runs a file's tests marked `two_devices`, all in one process; fails with what that process told.

    Those marked `slow` too only if asked; with more devices where that is asked for.
    """

    def run(file, slow=False, devices=2):
        which = "two_devices" if slow else "two_devices and not slow"
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        done = commands.SHARED.run(
            "pytest", "-q", "-p", "no:cacheprovider", "-m", which, file,
            limit=300, XLA_FLAGS=flags, JAX_NUM_CPU_DEVICES=str(devices), JAX_PLATFORMS="cpu",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs():
    """Frees compiled programs, which the next file may use too, only in time: see `host.crowded`."""
    yield
    if "jax" in sys.modules:
        from train import host

        if host.crowded():
            sys.modules["jax"].clear_caches()


def pytest_collection_modifyitems(items):
    """A file's tests share programs, so they stay in one process."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("-".join(item.path.parts[-2:])))
