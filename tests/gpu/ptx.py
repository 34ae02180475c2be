"""Compiles every kernel of kernels/cube to PTX for the cards that people have, without one.

In:    NVRTC: `pip install --no-deps -r tests/gpu/requirements.txt`, or a CUDA toolkit; a Vulkan device, if only in software, where the
       kernels' buffers lie meanwhile (Debian: mesa-vulkan-drivers); cargo.
Out:   a line for each architecture: how much PTX, the most registers of a unit, which kernels do not keep their numbers in registers;
       exit 1 with NVRTC's own words at the first kernel that it refuses.
Never: runs a kernel.

Run:   python tests/gpu/ptx.py
"""

import ctypes
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Ampere, Ada, Hopper, Blackwell.
ARCHITECTURES = ["sm_80", "sm_89", "sm_90a", "sm_120a"]


def find_nvrtc():
    """The library and the folders of its headers."""
    site = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    for library in [*site.glob("*/lib/libnvrtc.so.*"), *Path("/usr/local/cuda/lib64").glob("libnvrtc.so.*")]:
        if "builtins" not in library.name and "alt" not in library.name:
            headers = [path for path in (*site.glob("*/include"), Path("/usr/local/cuda/include")) if path.is_dir()]
            return ctypes.CDLL(str(library)), headers
    sys.exit("no NVRTC: pip install --no-deps -r tests/gpu/requirements.txt")


def text(nvrtc, program, kind):
    """A program's log or PTX."""
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{kind}")(program, buffer)
    return buffer.value.decode()


def compile_one(nvrtc, headers, source, architecture):
    """PTX of a source and the assembler's words about its registers, or the end."""
    program = ctypes.c_void_p()
    name = source.name.encode()
    code = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), name, 0, None, None)
    assert code == 0, f"nvrtcCreateProgram: {code}"
    folders = [folder for header in headers for folder in (header, header / "cccl")]
    options = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *(f"--include-path={folder}" for folder in folders)]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    if nvrtc.nvrtcCompileProgram(program, len(options), given) != 0:
        sys.exit(f"{source.name} for {architecture}: {text(nvrtc, program, 'ProgramLog')}")
    ptx, log = text(nvrtc, program, "PTX"), text(nvrtc, program, "ProgramLog")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    assert f".target {architecture}" in ptx, f"{source.name}: PTX of another target"
    return ptx, log


def registers(log):
    """Registers of a unit, and bytes that found no place in them."""
    used, spilled = re.search(r"Used (\d+) registers", log), re.search(r"(\d+) bytes spill stores", log)
    assert used and spilled, f"no registers in {log!r}"
    return int(used[1]), int(spilled[1])


def line(nvrtc, headers, sources, architecture):
    """What became of all sources."""
    made = {source.stem: compile_one(nvrtc, headers, source, architecture) for source in sources}
    found = {name: registers(log) for name, (_, log) in made.items()}
    size = sum(len(ptx) for ptx, _ in made.values())
    spills = [f"{name.split('-')[1]} {spilled} bytes" for name, (_, spilled) in found.items() if spilled]
    most = max(used for used, _ in found.values())
    return f"{architecture:8} {len(sources)} kernels, {size / 1e6:.2f} MB of PTX, {most} registers, spilled: {', '.join(spills) or 'none'}"


def main():
    """Sources, then each architecture."""
    nvrtc, headers = find_nvrtc()
    with tempfile.TemporaryDirectory() as folder:
        command = ["cargo", "test", "--release", "-p", "cube", "--lib", "cuda_sources_of_every_kernel", "--", "--ignored"]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"CUBE_SOURCES": folder}, check=True, stdout=subprocess.DEVNULL)
        sources = sorted(Path(folder).glob("*.cu"))
        assert len(sources) > 20, f"{len(sources)} sources"
        for architecture in ARCHITECTURES:
            print(line(nvrtc, headers, sources, architecture), flush=True)


if __name__ == "__main__":
    main()
