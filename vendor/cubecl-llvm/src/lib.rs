//! Stand-in for `cubecl-llvm`: the names that `cubecl-cuda` 0.11.3 mentions, without a code generator behind them.
//!
//! In:    a kernel, if somebody selected the LLVM back end.
//! Out:   an error that says so. `cubecl-cuda/cpp` selects NVRTC, so nobody gets here.
//! Never: downloads or links LLVM. See `vendor/README.md` for the reason and for the day this can go.

use core::fmt;

use cubecl_core::{ir::nvidia::SmArch, prelude::KernelDefinition};
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::{
    compiler::{CompilationError, Compiler},
    kernel::BufferIOAttr,
};

/// Code generation target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The host (upstream's default).
    #[default]
    Cpu,
    /// NVIDIA PTX.
    Nvptx,
}

/// Upstream: the LLVM compiler. Here: one that refuses every kernel.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// Ignored.
    pub target: LlvmTarget,
}

/// The options that `cubecl-cuda` fills in; none is read.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Architecture of other targets.
    pub arch: Option<()>,
    /// NVIDIA architecture.
    pub sm_arch: Option<SmArch>,
    /// PTX version to emit.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Layout of the kernel parameters.
    pub grid_constants: bool,
}

/// Upstream: compiled PTX. Never made here.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// NUL-terminated PTX.
    pub ptx: Vec<core::ffi::c_char>,
    /// Entry point.
    pub entrypoint: String,
    /// IR text.
    pub ir: String,
    /// Shared memory of a launch, bytes.
    pub shared_memory_size: usize,
    /// Access of each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// Upstream: what the compiler made. Never made here.
#[non_exhaustive]
pub enum PlironArtifact {
    /// PTX.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlironArtifact::NvptxCode(module) = self;
        f.write_str(&module.ir)
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        let reason = "this build has no LLVM code generator; enable `cubecl-cuda/cpp`".to_string();
        Err(CompilationError::Generic { reason, backtrace: BackTrace::capture() })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// Names of upstream's `nvptx` module.
pub mod nvptx {
    /// Names of upstream's `nvptx::ptx_version` module.
    pub mod ptx_version {
        /// Upstream: the PTX version of a driver. Here there is none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// No version: nothing here emits PTX.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl core::fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {}
            }
        }
    }
}

/// Names of upstream's `shared` module.
pub mod shared {
    /// Names of upstream's `shared::lowered_features` module.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// Target whose features are narrowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA PTX.
            Nvptx,
        }

        /// Upstream narrows a device to what LLVM lowers. Called for the LLVM back end only, so there is nothing to do.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}
