"""Compiles every kernel of kernels/cube to PTX for the cards that people have, without one.

In:    NVRTC: `pip install --no-deps -r tests/gpu/requirements.txt`, or a CUDA toolkit; a Vulkan device, if only in software, where the
       kernels' buffers lie meanwhile (Debian: mesa-vulkan-drivers); cargo.
Out:   a line for each architecture; exit 1 with NVRTC's own words at the first kernel that it refuses.
Never: runs a kernel.

Run:   python tests/gpu/ptx.py
"""

import ctypes
import os
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
    """PTX of a source, or the end."""
    program = ctypes.c_void_p()
    name = source.name.encode()
    code = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), name, 0, None, None)
    assert code == 0, f"nvrtcCreateProgram: {code}"
    folders = [folder for header in headers for folder in (header, header / "cccl")]
    options = [f"--gpu-architecture={architecture}", *(f"--include-path={folder}" for folder in folders)]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    if nvrtc.nvrtcCompileProgram(program, len(options), given) != 0:
        sys.exit(f"{source.name} for {architecture}: {text(nvrtc, program, 'ProgramLog')}")
    ptx = text(nvrtc, program, "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    assert f".target {architecture}" in ptx, f"{source.name}: PTX of another target"
    return ptx


def main():
    """Sources, then each architecture."""
    nvrtc, headers = find_nvrtc()
    with tempfile.TemporaryDirectory() as folder:
        command = ["cargo", "test", "--release", "-p", "cube", "--lib", "cuda_sources_of_every_kernel", "--", "--ignored"]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"CUBE_SOURCES": folder}, check=True, stdout=subprocess.DEVNULL)
        sources = sorted(Path(folder).glob("*.cu"))
        assert len(sources) > 20, f"{len(sources)} sources"
        for architecture in ARCHITECTURES:
            size = sum(len(compile_one(nvrtc, headers, source, architecture)) for source in sources)
            print(f"{architecture:8} {len(sources)} kernels, {size / 1e6:.2f} MB of PTX", flush=True)


if __name__ == "__main__":
    main()
