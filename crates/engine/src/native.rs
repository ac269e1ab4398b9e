//! Holds: the few calls into llama.cpp for which `llama-cpp-2` has no safe form. With the kernels, the only
//! unsafe code of the project.

#![expect(unsafe_code, reason = "these functions exist only as C functions")]

use std::{
    ffi::{CStr, CString, NulError},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use llama_cpp_sys_2 as sys;

/// Why a model could not be requantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// A path contains a NUL byte.
    #[error("the path of a model cannot contain a NUL byte")]
    Path(#[from] NulError),
    /// llama.cpp refused; its reasons are in the log.
    #[error("llama.cpp could not requantise the model (status {status})")]
    Refused {
        /// What `llama_model_quantize` returned.
        status: u32,
    },
    /// The finished file could not be put in place.
    #[error("could not move the requantised model into place")]
    Move(#[source] io::Error),
}

/// Rewrites a GGUF with all large tensors in Q8_0, the format with the fastest CPU kernels.
///
/// `output` appears only when it is whole. Takes about half a second per 100 MB.
///
/// # Errors
///
/// [`QuantizeError`]; nothing is left at `output` then.
pub fn quantize_q8_0(input: &Path, output: &Path) -> Result<(), QuantizeError> {
    // Three hundred lines about tensors are no news; what fails is said by the status.
    llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default().with_logs_enabled(false));
    let partial = output.with_extension("gguf.partial");
    let from = CString::new(input.as_os_str().as_bytes())?;
    let to = CString::new(partial.as_os_str().as_bytes())?;
    // SAFETY: takes no arguments and returns a plain struct by value.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = sys::LLAMA_FTYPE_MOSTLY_Q8_0;
    params.allow_requantize = true;
    params.nthread = 0;
    // SAFETY: both paths are NUL-terminated and, like `params`, outlive the call, which keeps no pointer to them.
    let status = unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params) };
    if status != 0 {
        // A half-written file is of no use; that it may not exist is fine.
        let _ = std::fs::remove_file(&partial);
        return Err(QuantizeError::Refused { status });
    }
    std::fs::rename(&partial, output).map_err(QuantizeError::Move)
}

/// What llama.cpp was compiled with, in its own words: `CPU : SSE3 = 1 | AVX2 = 1 | …`.
pub(crate) fn system_info() -> String {
    // SAFETY: returns a pointer to a static, NUL-terminated buffer that is rewritten only by further calls; this is
    // called once, from the main thread, before any model is loaded.
    unsafe {
        let text = sys::llama_print_system_info();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}
