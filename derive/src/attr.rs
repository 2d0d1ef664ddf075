//! The attributes: `#[trace(bound = "..", crate = path)]` on a type, `#[trace(skip)]` on a field.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Attribute, LitStr, Path, Token, WherePredicate};

use crate::diag::Diag;

/// What the attributes of a type say.
pub(crate) struct Container {
    /// The predicates that replace the inferred ones.
    pub(crate) bound: Option<Vec<WherePredicate>>,
    /// The path of greywave.
    pub(crate) greywave: TokenStream,
}

impl Container {
    pub(crate) fn read(attrs: &[Attribute], diag: &mut Diag) -> Self {
        let mut bound = None;
        let mut greywave = None;
        each_item(attrs, diag, |item, diag| {
            if item.path.is_ident("bound") {
                let text: LitStr = item.value()?.parse()?;
                once(&mut bound, predicates(&text)?, &item, diag);
            } else if item.path.is_ident("crate") {
                let path = item.value()?.call(Path::parse_mod_style)?;
                once(&mut greywave, path, &item, diag);
            } else if item.path.is_ident("skip") {
                let skip =
                    "`skip` belongs on a field: a type that holds no `Gc` is not traced anyway";
                return Err(item.error(skip));
            } else {
                let help =
                    "help: a type has `#[trace(bound = \"..\")]` and `#[trace(crate = path)]`";
                return Err(item.error(format!("unknown attribute\n{help}")));
            }
            Ok(())
        });
        let greywave = greywave.map_or_else(|| quote!(::greywave), Path::into_token_stream);
        Self { bound, greywave }
    }

    pub(crate) fn trace(&self) -> TokenStream {
        let Self { greywave, .. } = self;
        quote!(#greywave::Trace)
    }

    pub(crate) fn rebrand(&self) -> TokenStream {
        let Self { greywave, .. } = self;
        quote!(#greywave::Rebrand)
    }

    /// A path behind the private module that the crate keeps for the derive.
    pub(crate) fn private(&self, path: &TokenStream) -> TokenStream {
        let Self { greywave, .. } = self;
        quote!(#greywave::__private::#path)
    }
}

/// Whether a field's attributes say to skip it.
pub(crate) fn is_skipped(attrs: &[Attribute], diag: &mut Diag) -> bool {
    let mut skip = None;
    each_item(attrs, diag, |item, diag| {
        if item.path.is_ident("skip") {
            once(&mut skip, (), &item, diag);
            Ok(())
        } else if item.path.is_ident("bound") || item.path.is_ident("crate") {
            Err(item.error("this attribute belongs on the type, above `struct` or `enum`"))
        } else {
            Err(item.error("unknown attribute\nhelp: a field has `#[trace(skip)]`"))
        }
    });
    skip.is_some()
}

/// Refuses every `#[trace(..)]` on a variant.
pub(crate) fn refuse_on_variant(attrs: &[Attribute], diag: &mut Diag) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("trace")) {
        let message = "`#[trace(..)]` has no meaning on a variant\nhelp: put `#[trace(skip)]` on each of its fields";
        diag.refuse(attr, message);
    }
}

fn each_item(
    attrs: &[Attribute],
    diag: &mut Diag,
    mut read: impl FnMut(ParseNestedMeta<'_>, &mut Diag) -> syn::Result<()>,
) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("trace")) {
        if attr
            .meta
            .require_list()
            .is_ok_and(|list| list.tokens.is_empty())
        {
            diag.refuse(attr, "empty attribute");
        } else if let Err(error) = attr.parse_nested_meta(|item| read(item, diag)) {
            diag.keep(error);
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T, item: &ParseNestedMeta<'_>, diag: &mut Diag) {
    if place.replace(value).is_some() {
        diag.refuse(&item.path, "this attribute is given twice");
    }
}

/// The predicates in `bound = ".."`, with or without a `where` before them.
fn predicates(text: &LitStr) -> syn::Result<Vec<WherePredicate>> {
    text.parse_with(|input: syn::parse::ParseStream<'_>| {
        let _: Option<Token![where]> = input.parse()?;
        let list = Punctuated::<WherePredicate, Token![,]>::parse_terminated(input)?;
        Ok(list.into_iter().collect())
    })
}

/// Whether `repr(packed)`, in one of its forms, is among `attrs`.
pub(crate) fn packed(attrs: &[Attribute]) -> Option<&Attribute> {
    attrs.iter().find(|attr| {
        attr.path().is_ident("repr")
            && attr.meta.require_list().is_ok_and(|list| {
                let words = Punctuated::<syn::Meta, Token![,]>::parse_terminated;
                let words = words.parse2(list.tokens.clone()).unwrap_or_default();
                words.iter().any(|word| word.path().is_ident("packed"))
            })
    })
}
