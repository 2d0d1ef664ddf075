//! What the fields of a type show about its parameters: which ones are held, and which ones only
//! named.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    GenericArgument, PathArguments, Type, TypeParamBound, TypePath, WherePredicate, parse_quote,
};

use crate::input::{is_function, is_opaque, is_phantom, mentions_param, same};

/// A type that is bounded as a whole.
pub(crate) struct Leaf {
    pub(crate) ty: Type,
    /// An associated type is not asked for its `NEEDS_TRACE`, because that may depend on the
    /// deriving type's own.
    pub(crate) projection: bool,
}

/// What the fields show about the parameters.
pub(crate) struct Uses<'a> {
    params: &'a [&'a Ident],
    /// The parameters that need not be sized.
    unsized_params: &'a [&'a Ident],
    held: Vec<Ident>,
    pointed_at: Vec<Ident>,
    pub(crate) leaves: Vec<Leaf>,
}

impl<'a> Uses<'a> {
    pub(crate) fn new(params: &'a [&'a Ident], unsized_params: &'a [&'a Ident]) -> Self {
        Self {
            params,
            unsized_params,
            held: Vec::new(),
            pointed_at: Vec::new(),
            leaves: Vec::new(),
        }
    }

    /// Records what a field of type `ty` shows.
    pub(crate) fn visit(&mut self, ty: &Type) {
        // A function pointer does not change, and holds nothing.
        if !is_function(ty) {
            self.visit_type(ty);
        }
    }

    pub(crate) fn is_held(&self, param: &Ident) -> bool {
        self.held.contains(param)
    }

    /// Whether the parameter need not be sized and a pointer points to it, so that it may be a
    /// slice or a trait object.
    pub(crate) fn is_pointed_at(&self, param: &Ident) -> bool {
        self.pointed_at.contains(param)
    }

    fn mentioned(&self, part: &impl ToTokens) -> bool {
        mentions_param(part, self.params)
    }

    fn leaf(&mut self, ty: &Type, projection: bool) {
        let text = ty.to_token_stream().to_string();
        let known = |leaf: &Leaf| leaf.ty.to_token_stream().to_string() == text;
        if self.mentioned(ty) && !self.leaves.iter().any(known) {
            self.leaves.push(Leaf {
                ty: ty.clone(),
                projection,
            });
        }
    }

    /// Takes the bounds from the user's predicates, and not from the fields.
    pub(crate) fn replace_by(&mut self, predicates: &[WherePredicate]) {
        self.held.clear();
        self.pointed_at.clear();
        self.leaves.clear();
        for predicate in predicates {
            let WherePredicate::Type(predicate) = predicate else {
                continue;
            };
            let traced = predicate
                .bounds
                .iter()
                .any(|bound| is_named(bound, &["Trace", "Collect"]));
            if traced {
                match param(&predicate.bounded_ty, self.params) {
                    Some(param) => self.held.push(param.clone()),
                    None => self.leaf(&predicate.bounded_ty, true),
                }
            }
        }
    }
}

impl Visit<'_> for Uses<'_> {
    fn visit_type(&mut self, ty: &Type) {
        match ty {
            // It is not known what a macro expands to.
            Type::Macro(_) => {
                let named = self
                    .params
                    .iter()
                    .filter(|param| mentions_param(ty, &[**param]));
                self.held.extend(named.map(|param| (*param).clone()));
            }
            Type::Reference(_) => self.leaf(ty, false),
            // The parentheses keep a `for<'a>` at the start of a predicate from binding the whole
            // predicate.
            Type::BareFn(_) => self.leaf(&parse_quote!((#ty)), false),
            Type::Path(path) => {
                let first = path.path.segments.first().map(|first| &first.ident);
                let from_param = path.path.leading_colon.is_none()
                    && path.path.segments.len() > 1
                    && first
                        .is_some_and(|first| self.params.iter().any(|param| same(param, first)));
                if path.qself.is_some() || from_param {
                    self.leaf(ty, true);
                } else if let Some(param) = param(ty, self.params) {
                    self.held.push(param.clone());
                } else if let Some(param) = pointed_at(path, self.unsized_params) {
                    self.pointed_at.push(param.clone());
                } else if is_phantom(ty) {
                    // It is `Trace` whatever it names.
                } else if is_opaque(path) {
                    self.leaf(ty, false);
                } else {
                    visit::visit_type(self, ty);
                }
            }
            _ => visit::visit_type(self, ty),
        }
    }
}

/// Returns the parameter that `ty` is, through groups and parentheses.
fn param<'a>(ty: &Type, params: &[&'a Ident]) -> Option<&'a Ident> {
    match ty {
        Type::Group(group) => param(&group.elem, params),
        Type::Paren(paren) => param(&paren.elem, params),
        Type::Path(path) if path.qself.is_none() => params
            .iter()
            .find(|param| {
                path.path
                    .get_ident()
                    .is_some_and(|ident| same(param, ident))
            })
            .copied(),
        _ => None,
    }
}

/// Returns the parameter that `path` points to, if `path` is a pointer of this crate by its name.
fn pointed_at<'a>(path: &TypePath, params: &[&'a Ident]) -> Option<&'a Ident> {
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(args) = &last.arguments else {
        return None;
    };
    match args.args.last()? {
        GenericArgument::Type(ty) if last.ident == "Gc" || last.ident == "Weak" => {
            param(ty, params)
        }
        _ => None,
    }
}

/// Whether `bound` is a trait of one of these names.
pub(crate) fn is_named(bound: &TypeParamBound, names: &[&str]) -> bool {
    let TypeParamBound::Trait(bound) = bound else {
        return false;
    };
    let last = bound.path.segments.last();
    last.is_some_and(|last| names.iter().any(|name| last.ident == name))
}
