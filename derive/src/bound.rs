//! Which parameters may hold a `Gc`, which bounds they need, and what the type is called after a
//! rebranding.
//!
//! A parameter has one of three kinds, or both of the first two:
//!
//! | kind | where a field has it | `Trace` | `Rebrand<'b>` |
//! |---|---|---|---|
//! | held | as itself: `T`, `Vec<T>`, `Gc<'gc, T>` | `T: Trace` | `T: Rebrand<'b, To = TTo>`, and `T` becomes `TTo` |
//! | pointed at | declared `?Sized`, in `Gc<'gc, T>` | – | `T: RebrandTarget<'b, Target = TTo>`, and `T` becomes `TTo` |
//! | marker | elsewhere: in `PhantomData<T>`, `fn() -> T`, `Arc<T>`, `T::Item` | – | stays `T` |
//!
//! A type that is made of parameters may not be `Trace` although they are: `I::Item`, `Arc<T>`.
//! Such a type is bounded as a whole ([`Leaf`]): it must be `Trace`, and be rebranded as its text
//! says.
//!
//! All this is guessed from the text, so that a user need not write it. The guesses cannot be
//! unsound: [`crate::expand`] makes the type checker prove, from these bounds, that every field is
//! traced, and rebranded with its type.
//!
//! The bounds say `TTo` and not `<T as Rebrand<'b>>::To`, because only a parameter has the
//! associated types of its bounds, such as `TTo::Item`.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::punctuated::Punctuated;
use syn::visit_mut::VisitMut;
use syn::{
    GenericParam, Lifetime, PredicateType, Token, Type, TypeParamBound, TypePath, WherePredicate,
    parse_quote,
};

use crate::diag::Diag;
use crate::input::{Input, any_token, is_function, mentions_lifetime, mentions_param};
use crate::rebranding::Rebranding;
use crate::uses::{Leaf, Uses, is_named};

/// The parameters of a type, and the bounds that its two implementations need.
pub(crate) struct Bounds<'a> {
    input: &'a Input,
    /// The lifetime that the type is rebranded to. The type itself has no lifetime of this name.
    pub(crate) to: Lifetime,
    held: Vec<Held>,
    pub(crate) leaves: Vec<Leaf>,
    /// Predicates for both implementations: those of the user's attribute, or what skipped fields
    /// need.
    extra: Vec<WherePredicate>,
    /// The function pointers. They do not change, so nothing that they name may change.
    functions: Vec<Type>,
}

/// A parameter that may hold a `Gc`.
struct Held {
    from: Ident,
    /// The parameter that replaces it in the rebranded type.
    to: Ident,
    /// Whether a field has a value of it.
    traced: bool,
    /// Whether a field has a pointer to it, so that it need not be sized.
    pointed_at: bool,
}

impl<'a> Bounds<'a> {
    pub(crate) fn of(input: &'a Input, diag: &mut Diag) -> Self {
        let params = type_params(input);
        let unsized_params = unsized_params(input);
        let mut uses = Uses::new(&params, &unsized_params);
        let mut functions = Vec::new();
        let mut extra = Vec::new();
        for field in input.fields() {
            if !field.skip {
                uses.visit(&field.ty);
            } else if input.container.bound.is_none() && mentions_param(&field.ty, &params) {
                let marker = input.container.private(&quote!(core::marker));
                let ty = &field.ty;
                extra.push(parse_quote!(#ty: #marker::Send + #marker::Sync + 'static));
            }
            if !field.skip && is_function(&field.ty) {
                functions.push(field.ty.clone());
            }
        }
        if let Some(predicates) = &input.container.bound {
            uses.replace_by(predicates);
            extra.clone_from(predicates);
        }
        let taken = names(input);
        let held = params.iter().map(|param| Held {
            from: (*param).clone(),
            to: fresh(&taken, &format!("{}To", unraw(param))),
            traced: uses.is_held(param),
            pointed_at: uses.is_pointed_at(param),
        });
        let held = held.filter(|held| held.traced || held.pointed_at).collect();
        let bounds = Self {
            input,
            to: lifetime(&fresh(&taken, "any_brand")),
            held,
            leaves: uses.leaves,
            extra,
            functions,
        };
        bounds.refuse(diag);
        bounds
    }

    /// Reports what is known to be wrong once the kinds of the parameters are known.
    fn refuse(&self, diag: &mut Diag) {
        for field in self.input.fields().filter(|field| field.skip) {
            if self.mentions_held(&field.ty) {
                diag.refuse(
                    &field.ty,
                    "a skipped field cannot name a parameter that another field holds: the parameter is rebranded \
                     with the type, and a skipped field stays as it is\n\
                     help: make it two parameters, or say that it holds no `Gc` and stays as it is, with \
                     `#[trace(bound = \"T: Send + Sync + 'static\")]` on the type and `skip` on both fields",
                );
            }
        }
        for predicate in written(self.input).iter().chain(&self.extra) {
            let WherePredicate::Type(PredicateType {
                bounded_ty, bounds, ..
            }) = predicate
            else {
                continue;
            };
            let held = self
                .held
                .iter()
                .any(|held| text(&held.from) == text(bounded_ty));
            for bound in bounds
                .iter()
                .filter(|bound| held && is_named(bound, &["Collect", "Rebrand"]))
            {
                let param = text(bounded_ty);
                diag.refuse(
                    bound,
                    format!(
                        "the derive adds what must be known of a parameter that a field holds, and this bound \
                         collides with it\n\
                         help: remove it, or write `{param}: Trace`; if `{param}` holds no `Gc`, so that it stays as \
                         it is, write `#[trace(bound = \"{param}: for<'a> Rebrand<'a, To = {param}>\")]` on the type instead",
                    ),
                );
            }
        }
        let Some(brand) = &self.input.brand else {
            return;
        };
        for Leaf { ty, .. } in self
            .leaves
            .iter()
            .filter(|leaf| !self.mentions_held(&leaf.ty))
        {
            let Type::Path(TypePath { qself: None, path }) = ty else {
                continue;
            };
            let (Some(first), Some(last)) = (path.segments.first(), path.segments.last()) else {
                continue;
            };
            let branded = |predicate: &&WherePredicate| {
                matches!(predicate, WherePredicate::Type(predicate)
                    if text(&predicate.bounded_ty) == text(first) && mentions_lifetime(&predicate.bounds, brand))
            };
            if let Some(WherePredicate::Type(predicate)) = written(self.input).iter().find(branded)
            {
                let bound = predicate
                    .bounds
                    .iter()
                    .find(|bound| mentions_lifetime(bound, brand));
                let bound = bound.map_or_else(String::new, text).replace(' ', "");
                diag.refuse(
                    ty,
                    format!(
                        "which `{last}` this is depends on `{brand}`, which changes\n\
                         help: name the trait: `<{first} as {bound}>::{last}`",
                        first = first.ident,
                        last = last.ident,
                    ),
                );
            }
        }
    }

    fn mentions_held(&self, part: &impl ToTokens) -> bool {
        let held: Vec<_> = self.held.iter().map(|held| &held.from).collect();
        mentions_param(part, &held)
    }

    /// Whether a value of the type may hold a `Gc`.
    pub(crate) fn may_hold_gc(&self) -> bool {
        self.input.brand.is_some() || !self.held.is_empty() || self.has_projection()
    }

    /// Whether an associated type decides if the type holds a `Gc`.
    fn has_projection(&self) -> bool {
        self.leaves.iter().any(|leaf| leaf.projection)
    }

    /// Returns the types whose `NEEDS_TRACE` together make the type's; nothing if the type's is
    /// always `true`.
    pub(crate) fn deciding(&self) -> Option<Vec<TokenStream>> {
        let points = self.held.iter().any(|held| held.pointed_at);
        if self.input.brand.is_some() || self.has_projection() || points {
            return None;
        }
        let held = self.held.iter().map(|held| held.from.to_token_stream());
        let leaves = self.leaves.iter().map(|leaf| leaf.ty.to_token_stream());
        Some(held.chain(leaves).collect())
    }

    /// Returns the type's own name and arguments.
    pub(crate) fn own_type(&self) -> TokenStream {
        named(self.input, Lifetime::clone, Ident::clone)
    }

    /// Returns the same for the rebranded type.
    pub(crate) fn rebranded_type(&self) -> TokenStream {
        let param = |param: &Ident| self.becomes(param).clone();
        named(self.input, |_| self.to.clone(), param)
    }

    /// Returns the parameters that replace the held ones in the rebranded type.
    pub(crate) fn becoming(&self) -> impl Iterator<Item = &Ident> {
        self.held.iter().map(|held| &held.to)
    }

    fn becomes<'b>(&'b self, param: &'b Ident) -> &'b Ident {
        let held = self.held.iter().find(|held| held.from == *param);
        held.map_or(param, |held| &held.to)
    }

    /// Returns `ty` as the rebranded type names it.
    fn rebranded(&self, ty: &Type) -> Type {
        let mut ty = ty.clone();
        self.rebranding(&self.to).visit_type_mut(&mut ty);
        ty
    }

    fn rebranding<'b>(&'b self, to: &'b Lifetime) -> Rebranding<'b> {
        let brand = self.input.brand.as_ref().map(|brand| (brand, to));
        let held = self.held.iter().map(|held| (&held.from, &held.to));
        Rebranding::new(brand, held.collect(), self.rebranded_type())
    }

    /// Returns the where clause of `Trace`.
    pub(crate) fn for_trace(&self) -> Vec<WherePredicate> {
        let mut all = self.without_leaves();
        if self.input.container.bound.is_none() {
            let trace = self.input.container.trace();
            all.extend(
                self.leaves
                    .iter()
                    .map(|Leaf { ty, .. }| parse_quote!(#ty: #trace)),
            );
        }
        all
    }

    fn without_leaves(&self) -> Vec<WherePredicate> {
        let mut all = written(self.input);
        all.extend(self.extra.iter().cloned());
        if self.input.container.bound.is_none() {
            let trace = self.input.container.trace();
            let traced = self.held.iter().filter(|held| held.traced);
            all.extend(traced.map(|Held { from, .. }| parse_quote!(#from: #trace)));
        }
        all
    }

    /// Returns the where clause of `Rebrand`: the bounds of the type, the bounds of the rebranded
    /// type, and how one becomes the other.
    pub(crate) fn for_rebrand(&self) -> Vec<WherePredicate> {
        let Self { to, input, .. } = self;
        let (trace, rebrand) = (input.container.trace(), input.container.rebrand());
        let mut all = Vec::new();
        for predicate in self.without_leaves() {
            self.twice(predicate, &mut all);
        }
        let target = input.container.private(&quote!(RebrandTarget));
        let sized = input.container.private(&quote!(core::marker::Sized));
        for Held {
            from,
            to: becomes,
            traced,
            pointed_at,
        } in &self.held
        {
            if *traced {
                all.push(parse_quote!(#from: #rebrand<#to, To = #becomes>));
                all.push(parse_quote!(#becomes: #trace));
            } else {
                all.push(parse_quote!(#becomes: ?#sized));
            }
            if *pointed_at {
                all.push(parse_quote!(#from: #target<#to, Target = #becomes>));
            }
        }
        for Leaf { ty, .. } in &self.leaves {
            let becomes = self.rebranded(ty);
            match &input.brand {
                Some(brand) if mentions_lifetime(ty, brand) && !self.mentions_held(ty) => {
                    let any = self.any();
                    let mut ty = ty.clone();
                    self.rebranding(&any).visit_type_mut(&mut ty);
                    all.push(parse_quote!(for<#any> #ty: #rebrand<#to, To = #becomes>));
                }
                _ => {
                    all.push(parse_quote!(#ty: #rebrand<#to, To = #becomes>));
                    all.push(parse_quote!(#becomes: #trace));
                }
            }
        }
        for ty in self.functions.iter().filter(|ty| self.mentions_held(ty)) {
            let becomes = self.rebranded(ty);
            let is = input.container.private(&quote!(Is));
            // The parentheses keep a `for<'a>` at the start of a predicate from binding the whole
            // predicate.
            all.push(parse_quote!((#ty): #is<#becomes>));
        }
        // `Rebrand::To` outlives the brand, and a field of type `Gc<'gc, T>` implies `T: 'gc`
        // although the text does not say so.
        let params = type_params(input).into_iter();
        all.extend(
            params
                .map(|param| self.becomes(param))
                .map(|param| parse_quote!(#param: #to)),
        );
        let mut seen = Vec::new();
        all.retain(|predicate| {
            let text = text(predicate);
            let new = !seen.contains(&text);
            seen.push(text);
            new
        });
        all
    }

    /// Returns `predicate` for the type and for the rebranded type.
    ///
    /// If two bounds differ only by a lifetime, such as `L: Lang<'gc>` and `L: Lang<'b>`, the
    /// compiler cannot choose between them. So they become one bound for every lifetime.
    fn twice(&self, predicate: WherePredicate, all: &mut Vec<WherePredicate>) {
        let mut again = predicate.clone();
        self.rebranding(&self.to)
            .visit_where_predicate_mut(&mut again);
        if text(&again) == text(&predicate) {
            all.push(predicate);
            return;
        }
        let (WherePredicate::Type(old), Some(brand)) = (&predicate, &self.input.brand) else {
            all.extend(
                [Some(predicate), without_unsized(again)]
                    .into_iter()
                    .flatten(),
            );
            return;
        };
        if self.mentions_held(old) {
            all.extend(
                [Some(predicate), without_unsized(again)]
                    .into_iter()
                    .flatten(),
            );
            return;
        }
        let branded = mentions_lifetime(&old.bounded_ty, brand);
        let mut plain = PredicateType {
            bounds: Punctuated::new(),
            ..old.clone()
        };
        for bound in &old.bounds {
            match bound {
                TypeParamBound::Trait(bound)
                    if !is_maybe(bound) && (branded || mentions_lifetime(bound, brand)) =>
                {
                    let any = self.any();
                    let inner =
                        |binder: &Option<syn::BoundLifetimes>| binder.clone().map(|b| b.lifetimes);
                    let binders = inner(&old.lifetimes)
                        .into_iter()
                        .chain(inner(&bound.lifetimes))
                        .flatten();
                    let (ty, mut bound) = (&old.bounded_ty, bound.clone());
                    bound.lifetimes = None;
                    let mut general: WherePredicate =
                        parse_quote!(for<#any, #(#binders),*> #ty: #bound);
                    self.rebranding(&any)
                        .visit_where_predicate_mut(&mut general);
                    all.push(general);
                }
                other => plain.bounds.push(other.clone()),
            }
        }
        if !plain.bounds.is_empty() {
            let plain = WherePredicate::Type(plain);
            let mut again = plain.clone();
            self.rebranding(&self.to)
                .visit_where_predicate_mut(&mut again);
            all.extend([Some(plain), without_unsized(again)].into_iter().flatten());
        }
    }

    /// Returns a lifetime for a binder.
    fn any(&self) -> Lifetime {
        lifetime(&fresh(&names(self.input), "any"))
    }
}

fn type_params(input: &Input) -> Vec<&Ident> {
    input
        .generics
        .type_params()
        .map(|param| &param.ident)
        .collect()
}

/// Returns the parameters that the user declares `?Sized`.
fn unsized_params(input: &Input) -> Vec<&Ident> {
    let declared = |param: &&Ident| {
        written(input).iter().any(|predicate| {
            matches!(predicate, WherePredicate::Type(predicate) if text(&predicate.bounded_ty) == text(param)
                && predicate.bounds.iter().any(|bound| matches!(bound, TypeParamBound::Trait(bound) if is_maybe(bound))))
        })
    };
    type_params(input).into_iter().filter(declared).collect()
}

/// Returns the bounds that the user wrote, at the parameters and in the where clause, as
/// predicates.
fn written(input: &Input) -> Vec<WherePredicate> {
    let inline = input
        .generics
        .type_params()
        .filter(|param| !param.bounds.is_empty());
    let inline = inline.map(|syn::TypeParam { ident, bounds, .. }| parse_quote!(#ident: #bounds));
    let clause = input
        .generics
        .where_clause
        .iter()
        .flat_map(|clause| clause.predicates.iter().cloned());
    inline.chain(clause).collect()
}

/// `?Sized` applies to what the user declared. A rebranded value is always sized, as `Rebrand::To`
/// is.
fn without_unsized(mut predicate: WherePredicate) -> Option<WherePredicate> {
    if let WherePredicate::Type(predicate) = &mut predicate {
        let bounds = std::mem::take(&mut predicate.bounds).into_iter();
        let kept = bounds
            .filter(|bound| !matches!(bound, TypeParamBound::Trait(bound) if is_maybe(bound)));
        predicate.bounds = kept.collect::<Punctuated<_, Token![+]>>();
        if predicate.bounds.is_empty() {
            return None;
        }
    }
    Some(predicate)
}

fn is_maybe(bound: &syn::TraitBound) -> bool {
    matches!(bound.modifier, syn::TraitBoundModifier::Maybe(_))
}

/// Returns the type with its parameters as `lifetime` and `param` name them.
fn named(
    input: &Input,
    lifetime: impl Fn(&Lifetime) -> Lifetime,
    param: impl Fn(&Ident) -> Ident,
) -> TokenStream {
    let ident = &input.ident;
    let args = input.generics.params.iter().map(|each| match each {
        GenericParam::Lifetime(each) => lifetime(&each.lifetime).into_token_stream(),
        GenericParam::Type(each) => param(&each.ident).into_token_stream(),
        GenericParam::Const(each) => each.ident.to_token_stream(),
    });
    let args: Vec<_> = args.collect();
    if args.is_empty() {
        quote!(#ident)
    } else {
        quote!(#ident<#(#args),*>)
    }
}

/// Returns every name in the user's type.
fn names(input: &Input) -> Vec<String> {
    let mut found = vec![input.ident.to_string()];
    let mut note = |tokens: TokenStream| {
        any_token(tokens, &mut |_, token| {
            if let TokenTree::Ident(ident) = token {
                found.push(unraw(ident));
            }
            false
        });
    };
    let (params, clause) = (&input.generics.params, &input.generics.where_clause);
    note(quote!(#params #clause));
    input
        .fields()
        .for_each(|field| note(field.ty.to_token_stream()));
    input
        .container
        .bound
        .iter()
        .flatten()
        .for_each(|predicate| note(predicate.to_token_stream()));
    found
}

/// Returns a name like `like` that the user's type does not have.
fn fresh(taken: &[String], like: &str) -> Ident {
    let mut name = like.to_owned();
    while taken.contains(&name) {
        name.push('_');
    }
    format_ident!("{name}", span = Span::call_site())
}

fn lifetime(name: &Ident) -> Lifetime {
    Lifetime::new(&format!("'{name}"), Span::call_site())
}

fn unraw(ident: &Ident) -> String {
    syn::ext::IdentExt::unraw(ident).to_string()
}

fn text(part: &impl ToTokens) -> String {
    part.to_token_stream().to_string()
}
