"""Compiles the kernels of the CPU scans: as a build hook of the package, and in place by `python hatch_build.py`.

The library has no Python in it and is loaded by ctypes, so one file serves every version of Python. Nothing in it is
tied to the machine that compiles it: it holds an instance per instruction set and chooses one when it runs. Without a C
compiler the package is built without it, and runs plain PyTorch instead. RELATIONAL_RNN_BUILD_KERNELS says
otherwise: "require" (fail without), "skip", or "auto", the default.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand, or by make
    BuildHookInterface = object

ROOT = Path(__file__).parent
SCAN = ROOT / "src" / "relational_rnn" / "ops" / "relational_scan"
SOURCES = SCAN / "native"
LIBRARY = SOURCES / "kernels.so"  # in a folder that is no package: nothing takes it for a module of Python
VARIABLE = "RELATIONAL_RNN_BUILD_KERNELS"
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-fvisibility=default",
    "-fopenmp-simd",  # obeys `#pragma omp simd`; needs and starts no OpenMP
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
]
# Instances beside the baseline, where the compiler knows them.
INSTRUCTION_SETS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"],
}


def find_compiler() -> list[str] | None:
    """The command of a C compiler: $CC, the one that Python was built with, or what is on the path."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(command or "")
        if words and shutil.which(words[0]):
            return words
    return None


def digest() -> str:
    """Of the sources; the library carries it, so that a stale one is noticed."""
    found = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def compile_library(compiler: list[str], target: Path) -> None:
    """Compile all instances that the compiler knows, and link them."""

    def run(*arguments: object) -> None:
        subprocess.run([*compiler, *map(str, arguments)], check=True, capture_output=True, text=True)

    def knows(options: list[str]) -> bool:
        probe = subprocess.run(
            [*compiler, *options, "-E", "-x", "c", os.devnull], capture_output=True, text=True, check=False
        )
        return probe.returncode == 0

    with tempfile.TemporaryDirectory() as folder:
        instances = {"baseline": [], **{name: flags for name, flags in INSTRUCTION_SETS.items() if knows(flags)}}
        have = [f"-DHAVE_{name.upper()}" for name in instances]
        jobs: list[list[object]] = [[*FLAGS, *have, f'-DSOURCES="{digest()}"', SOURCES / "library.c"]]
        for name, options in instances.items():
            for is_double, number in enumerate(("float32", "float64")):
                defines = [f"-DKERNELS={number}_{name}", f"-DREAL_IS_DOUBLE={is_double}"]
                jobs.extend(
                    [*FLAGS, *options, *defines, SOURCES / source] for source in ("kernels.c", "fast_kernels.c")
                )
        objects = [Path(folder) / f"{i}.o" for i in range(len(jobs))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job, out: run(*job, "-c", "-o", out), jobs, objects))
        made = Path(folder) / target.name
        run("-shared", "-o", made, *objects, "-lm")
        partial = target.with_suffix(".partial")
        shutil.copyfile(made, partial)
        partial.replace(target)


def build(wish: str) -> str | None:
    """Build the library beside its Python side; returns why not, or None if it is there.

    One that lies there stays until a new one is whole: it carries a digest, so that a stale one is not used.

    Raises:
        SystemExit: it was required and cannot be built.
    """
    if wish not in ("auto", "require", "skip"):
        raise SystemExit(f'{VARIABLE} must be "auto", "require" or "skip", not {wish!r}')
    reason = None
    if wish == "skip":
        return f"{VARIABLE}=skip"
    compiler = find_compiler()
    if compiler is None:
        reason = "there is no C compiler"
    else:
        try:
            compile_library(compiler, LIBRARY)
        except subprocess.CalledProcessError as error:
            reason = f"the C compiler failed: {shlex.join(error.cmd)}\n{error.stderr}"
    if reason is not None and wish == "require":
        raise SystemExit(f"the CPU scan's kernels cannot be built: {reason}")
    return reason


class KernelsBuildHook(BuildHookInterface):
    """Puts the library into wheels and editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        reason = build(os.environ.get(VARIABLE, "auto"))
        if reason is not None:
            self.app.display_warning(f"relational-rnn without compiled kernels: {reason}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"
        if version != "editable":
            relative = LIBRARY.relative_to(ROOT / "src")
            build_data["force_include"][str(LIBRARY)] = str(relative)


def platform_tag() -> str:
    from packaging.tags import platform_tags  # hatchling depends on it

    # manylinux tags promise more about the C library than a compiler at hand can keep
    return next(tag for tag in platform_tags() if not tag.startswith(("manylinux", "musllinux")))


if __name__ == "__main__":
    why_not = build(os.environ.get(VARIABLE, "require"))
    print(why_not or LIBRARY.relative_to(ROOT))
    sys.exit(0 if why_not is None or os.environ.get(VARIABLE) == "skip" else 1)
