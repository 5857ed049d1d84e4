"""The machine, arranged before jax starts: cores, memory, the cache of compiled programs."""

import ctypes
import os
import signal
import sys

ALLOCATORS = ("kept", "default")


def prepare(devices: int = 0, allocator: str = "kept") -> None:
    """What every command does first; call it at the top of a script or notebook for the same speed.

    Args:
      devices: CPU devices that jax sees; 0: one per core. The seeds, or the batch of a single seed, are
        spread over them. GPUs and TPUs are left alone.
      allocator: "kept": memory once used stays with the process; "default": the C library's own choice.
    """
    use_cores(devices)
    if allocator == "kept":
        keep_memory()
    cache_compilations()


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device():
    """That of the processor, for what is computed beside the accelerator; None: jax sees none."""
    import jax

    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def use_cores(devices: int = 0) -> None:
    """Makes jax see one CPU device per core. XLA's own threads give a scan over time next to nothing.

    A number that the user told jax by the environment stays, unless `devices` is given.
    """
    import jax

    if devices or not devices_chosen():
        jax.config.update("jax_num_cpu_devices", devices or cores())


def devices_chosen() -> bool:
    """Whether the environment says how many CPU devices jax sees."""
    flags = os.environ.get("XLA_FLAGS", "")
    return "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags


def keep_memory() -> bool:
    """Tells glibc to keep freed memory, for all libraries of this process; returns whether it listened.

    By default a large array is given back to the system when freed, and each page of the next one is
    fetched and cleared anew: a third of the time of a layer (experiments/speed measures both settings).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # another C library
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
    largest = 2**31 - 1
    # One arena: the others are cut into heaps of 64 MB, too small for what is kept here. Its price: threads
    # that compile wait for each other (16 s in place of 10 for three models on 2 cores), and a training
    # program, which takes its memory once for many steps, gains nothing.
    return all(mallopt(*o) for o in ((mmap_threshold, 2**30), (trim_threshold, largest), (arena_max, 1)))


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run need not compile.

    JAX_COMPILATION_CACHE_DIR names another folder; empty, it turns the cache off.
    """
    import jax
    import pooch

    if os.environ.get("JAX_COMPILATION_CACHE_DIR") == "":
        jax.config.update("jax_compilation_cache_dir", None)  # "" would be the working directory to XLA
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = pooch.os_cache("recurrent-cells") / "compiled"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # no home to write to: nothing is cached
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def stop_signals() -> list[int]:
    """The signals that ask for a stop (Ctrl-C, and what schedulers and terminals send), without those that
    this process was told to ignore, as by nohup."""
    names = (name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
    numbers = (getattr(signal, name) for name in names)
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def crowded() -> bool:
    """Whether this process has used up half of the memory maps that Linux lets it have.

    Each compiled program holds some dozens, and at the limit (65,530 by default) the compiler crashes.
    """
    try:
        with open("/proc/self/maps") as maps, open("/proc/sys/vm/max_map_count") as limit:
            return sum(1 for _ in maps) > int(limit.read()) // 2
    except OSError:
        return False  # another system
