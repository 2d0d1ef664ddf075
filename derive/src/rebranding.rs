//! The text of a type after a rebranding.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use syn::visit_mut::{self, VisitMut};
use syn::{Lifetime, Type, parse_quote};

use crate::input::same;

/// Replaces the brand, the held parameters and `Self`.
pub(crate) struct Rebranding<'a> {
    brand: Option<(&'a Lifetime, &'a Lifetime)>,
    params: Vec<(&'a Ident, &'a Ident)>,
    this: TokenStream,
}

impl<'a> Rebranding<'a> {
    pub(crate) fn new(
        brand: Option<(&'a Lifetime, &'a Lifetime)>,
        params: Vec<(&'a Ident, &'a Ident)>,
        this: TokenStream,
    ) -> Self {
        Self {
            brand,
            params,
            this,
        }
    }

    fn path(&self, qself: &mut Option<syn::QSelf>, path: &mut syn::Path) {
        let Some(first) = path
            .segments
            .first_mut()
            .filter(|_| path.leading_colon.is_none())
        else {
            return;
        };
        if let Some((_, to)) = self
            .params
            .iter()
            .find(|(from, _)| same(from, &first.ident))
        {
            if qself.is_none() {
                first.ident = (*to).clone();
            }
        } else if first.ident == "Self" && qself.is_none() && path.segments.len() > 1 {
            let this = &self.this;
            let rest = path.segments.iter().skip(1);
            let whole: syn::ExprPath = parse_quote!(<#this>::#(#rest)::*);
            (*qself, *path) = (whole.qself, whole.path);
        }
    }

    fn tokens(&self, tokens: TokenStream) -> TokenStream {
        let mut quoted = false;
        let each = tokens.into_iter().map(|mut token| {
            match &mut token {
                TokenTree::Group(group) => {
                    let mut inside = Group::new(group.delimiter(), self.tokens(group.stream()));
                    inside.set_span(group.span());
                    *group = inside;
                }
                TokenTree::Ident(ident) if quoted => {
                    if let Some((_, to)) = self.brand.filter(|(from, _)| same(&from.ident, ident)) {
                        *ident = to.ident.clone();
                    }
                }
                TokenTree::Ident(ident) => {
                    if let Some((_, to)) = self.params.iter().find(|(from, _)| same(from, ident)) {
                        *ident = (*to).clone();
                    }
                }
                _ => {}
            }
            quoted = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '\'');
            token
        });
        each.collect()
    }
}

impl VisitMut for Rebranding<'_> {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if let Some((_, to)) = self
            .brand
            .filter(|(from, _)| same(&from.ident, &lifetime.ident))
        {
            lifetime.ident = to.ident.clone();
        }
    }

    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::Path(path) = ty {
            if path.qself.is_none() && path.path.is_ident("Self") {
                let this = &self.this;
                *ty = parse_quote!(#this);
                return;
            }
            self.path(&mut path.qself, &mut path.path);
        }
        visit_mut::visit_type_mut(self, ty);
    }

    fn visit_expr_path_mut(&mut self, expr: &mut syn::ExprPath) {
        self.path(&mut expr.qself, &mut expr.path);
        visit_mut::visit_expr_path_mut(self, expr);
    }

    fn visit_macro_mut(&mut self, invocation: &mut syn::Macro) {
        invocation.tokens = self.tokens(std::mem::take(&mut invocation.tokens));
    }
}
