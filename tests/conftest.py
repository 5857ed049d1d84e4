"""What all tests share: quick compilation, and a process with two devices."""

import gc
import importlib.metadata
import os
import subprocess
import sys

import pytest

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
        number = {"JAX_NUM_CPU_DEVICES": str(devices)}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, file],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | number,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file():
    """Frees a file's compiled programs: each holds maps of memory, and a process may have some 65,000."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
