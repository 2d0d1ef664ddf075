//! All errors of one type, which are reported together.

use proc_macro2::TokenStream;
use quote::ToTokens;

#[derive(Default)]
pub(crate) struct Diag {
    errors: Vec<syn::Error>,
}

impl Diag {
    /// Refuses `at`. `message` says what is wrong, and after a newline what to do.
    pub(crate) fn refuse(&mut self, at: impl ToTokens, message: impl std::fmt::Display) {
        self.errors.push(syn::Error::new_spanned(at, message));
    }

    pub(crate) fn keep(&mut self, error: syn::Error) {
        self.errors.push(error);
    }

    /// Returns the errors as calls of `compile_error!`, or nothing if there are none.
    pub(crate) fn into_compile_errors(self) -> Option<TokenStream> {
        let mut errors = self.errors.into_iter();
        let mut all = errors.next()?;
        all.extend(errors);
        Some(all.into_compile_error())
    }
}
