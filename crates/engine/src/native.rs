//! Holds: the few calls into llama.cpp for which `llama-cpp-2` has no safe form. With the kernels, the only
//! unsafe code of the project.

#![expect(unsafe_code, reason = "these functions exist only as C functions")]

use std::{
    ffi::{CStr, CString, NulError, c_char, c_void},
    io, mem,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::NonNull,
};

use llama_cpp_2::{model::LlamaModel, token::LlamaToken, vocab::LlamaVocab};
use llama_cpp_sys_2 as sys;

// In native/grammar.cpp, and the C library's.
unsafe extern "C" {
    fn batchin_grammar_of(schema: *const c_char) -> *mut c_char;
    fn batchin_matcher(vocab: *const sys::llama_vocab, grammar: *const c_char) -> *mut sys::llama_sampler;
    fn batchin_accept(matcher: *mut sys::llama_sampler, token: sys::llama_token) -> bool;
    fn free(pointer: *mut c_void);
}

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

/// The grammar of what a JSON schema allows. `None` where it is not valid or uses what is not supported.
pub(crate) fn grammar_of(schema: &str) -> Option<String> {
    let schema = CString::new(schema).ok()?;
    // SAFETY: the schema is NUL-terminated and outlives the call, which keeps no pointer to it.
    let text = unsafe { batchin_grammar_of(schema.as_ptr()) };
    if text.is_null() {
        return None;
    }
    // SAFETY: NUL-terminated and ours.
    let grammar = unsafe { CStr::from_ptr(text) }.to_str().map(str::to_owned);
    // SAFETY: allocated by the C library, and not used after this.
    unsafe { free(text.cast()) };
    grammar.ok()
}

/// A grammar that the text of one sequence must follow, and how far it has come.
pub(crate) struct Grammar(NonNull<sys::llama_sampler>);

// SAFETY: owned alone, changed through `&mut` only, and bound to no thread.
unsafe impl Send for Grammar {}

impl Grammar {
    /// Matches from the start. `None` where the text is no grammar. The model must outlive it.
    pub(crate) fn new(model: &LlamaModel, text: &str) -> Option<Self> {
        let text = CString::new(text).ok()?;
        // SAFETY: `LlamaVocab` is, by its `repr`, the pointer and nothing else.
        let vocab = unsafe { mem::transmute::<LlamaVocab<'_>, *const sys::llama_vocab>(model.vocab()) };
        // SAFETY: the vocabulary is the model's; the text is NUL-terminated and copied.
        NonNull::new(unsafe { batchin_matcher(vocab, text.as_ptr()) }).map(Self)
    }

    /// Sets the scores of what may not come next to minus infinity, and changes no order.
    pub(crate) fn apply(&mut self, scores: &mut [sys::llama_token_data]) {
        let (data, size) = (scores.as_mut_ptr(), scores.len());
        let mut array = sys::llama_token_data_array { data, size, selected: -1, sorted: false };
        // SAFETY: the array lies in `scores`, of which the call keeps nothing.
        unsafe { sys::llama_sampler_apply(self.0.as_ptr(), &raw mut array) };
    }

    /// Goes on by a token. Whether that was allowed.
    pub(crate) fn accept(&mut self, token: LlamaToken) -> bool {
        // SAFETY: made by `new` and not freed.
        unsafe { batchin_accept(self.0.as_ptr(), token.0) }
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and not used after this.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) };
    }
}
