//! The code that the derive writes.
//!
//! **Claim.** A derived `Trace` and a derived `Rebrand` are true, whatever [`crate::bound`] has
//! guessed.
//!
//! **How.** Besides the two implementations, the derive writes code that is type-checked and never
//! run. `Rebrand` has a hidden function that gets a value of the type and one of the rebranded
//! type. It asks about each field whether the type of the one is rebranded to the type of the
//! other. So a derived `Rebrand` is true if the `Rebrand` of every field is. If the type has no
//! lifetime and no held parameter, every field is its own rebranding for any brand, so it holds no
//! `Gc`, and `NEEDS_TRACE = false` is true as well. `trace` asks about what it leaves out: skipped
//! fields, function pointers, a `Drop` implementation.
//!
//! The derive cannot rely on two things:
//!
//! - *That the paths lead to this crate.* `#[trace(crate = ..)]`, or a crate that calls itself
//!   greywave, may lead to the real traits beside other checks. So the questions are inherent
//!   functions of `Tracer` and `Brand`, which stand in the signatures of the real traits'
//!   functions. An implementation of a real trait must use the real types, and an inherent function
//!   takes precedence over every trait's.
//! - *That the derive has seen the type.* An attribute macro below it may have changed a field,
//!   added one, or made a union of the type. So each pattern names all fields, and no pattern has
//!   `..`; a field that the derive has not seen is an error. No code reaches a field by `.`, which
//!   could go through a `Deref`.
//!
//! The code uses the fields themselves, and names no field's type, because a macro in a type may
//! mean something else in another place.
//!
//! The user's lints do not see the code, because every token has the span of the expansion. The
//! user's tokens keep their place in the file, for errors, and lose their context. The code
//! contains no `allow`, which a `forbid` would refuse. Local names are the macro's own
//! (`mixed_site`) and bound by `ref`, so that a constant of the same name is an error and not a
//! pattern.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{DeriveInput, GenericParam, Lifetime, Type, WherePredicate, parse_quote};

use crate::bound::Bounds;
use crate::input::{Field, Input, Shape, is_function, is_phantom, mentions_lifetime};

pub(crate) fn implementations(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let trace = trace(input, bounds);
    let rebrand = rebrand(input, bounds);
    quote!(#trace #rebrand)
}

/// Returns the errors, and implementations that do nothing, so that one mistake is not reported
/// again wherever the type is used.
pub(crate) fn refused(
    input: &DeriveInput,
    greywave: &TokenStream,
    errors: Option<TokenStream>,
) -> TokenStream {
    if matches!(input.data, syn::Data::Union(_)) {
        return errors.unwrap_or_default();
    }
    let ident = &input.ident;
    let (params, args, clause) = input.generics.split_for_impl();
    let brand = Lifetime::new("'__brand", Span::call_site());
    let mut longer = input.generics.clone();
    longer.params.insert(0, parse_quote!(#brand));
    let rebranded = input.generics.params.iter().map(|param| match param {
        GenericParam::Lifetime(_) => quote!(#brand),
        GenericParam::Type(syn::TypeParam { ident, .. })
        | GenericParam::Const(syn::ConstParam { ident, .. }) => {
            quote!(#ident)
        }
    });
    let rebranded: Vec<_> = rebranded.collect();
    for param in input.generics.type_params() {
        let param = &param.ident;
        longer
            .make_where_clause()
            .predicates
            .push(parse_quote!(#param: #brand));
    }
    // If a bound depends on the brand, the rebranded type is not known to satisfy it.
    let bounds = (input
        .generics
        .type_params()
        .map(|param| param.bounds.to_token_stream()))
    .chain(clause.map(ToTokens::to_token_stream));
    let bounds: TokenStream = bounds.collect();
    let to = match input
        .generics
        .lifetimes()
        .any(|param| mentions_lifetime(&bounds, &param.lifetime))
    {
        true => quote!(()),
        false => quote!(#ident<#(#rebranded),*>),
    };
    let (longer, _, longer_clause) = longer.split_for_impl();
    quote! {
        #errors
        #[automatically_derived]
        unsafe impl #params #greywave::Trace for #ident #args #clause {
            fn trace(&self, _: &mut #greywave::Tracer<'_>) {}
        }
        #[automatically_derived]
        unsafe impl #longer #greywave::Rebrand<#brand> for #ident #args #longer_clause {
            type To = #to;
        }
    }
}

fn trace(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let greywave = &input.container.greywave;
    let trace = input.container.trace();
    let core = input.container.private(&quote!(core));
    let counting = input.container.private(&quote!(Counting));
    let external_bytes = input.container.private(&quote!(external_bytes));
    let params = params(input);
    let this = settled(bounds.own_type());
    let clause = clause(&bounds.for_trace());
    let needs_trace = needs_trace(input, bounds);
    let no_drop = no_drop(input, bounds);
    let [tracer, how, sum] = ["tracer", "how", "sum"].map(local);

    let edges = each_field(input, |field, at| {
        if field.skip || is_function(&field.ty) {
            let name = match field.skip {
                true => quote!(a_skipped_field_must_be_send_sync_and_static),
                false => quote!(a_function_pointer_must_be_send_and_sync),
            };
            let call = placed(&field.ty, &quote!(<#greywave::Tracer<'_>>::#name(#at)));
            return quote!(#call;);
        }
        let call = placed(&field.ty, &quote!(#trace::trace));
        quote!(#call(#at, #tracer);)
    });
    let add = quote!(#core::primitive::usize::saturating_add);
    let bytes = each_field(input, |field, at| {
        if !is_traced(field) {
            return TokenStream::new();
        }
        let bytes = placed(&field.ty, &quote!(#trace::count_external));
        quote!(#sum = #add(#sum, #bytes(#at, #how));)
    });
    let (tracer_arg, how_arg) = match input.fields().any(is_traced) {
        true => (quote!(#tracer), quote!(#how)),
        false => (quote!(_), quote!(_)),
    };
    let bytes = match input.fields().any(is_traced) {
        true => quote!(let mut #sum = 0; #bytes #sum),
        false => quote!(0),
    };

    quote! {
        #[automatically_derived]
        unsafe impl<#(#params),*> #trace for #this #clause {
            const NEEDS_TRACE: #core::primitive::bool = #needs_trace;

            #[inline]
            fn trace(&self, #tracer_arg: &mut #greywave::Tracer<'_>) {
                #no_drop
                #edges
            }

            #[inline]
            fn external_bytes(&self) -> #core::primitive::usize {
                #external_bytes(self)
            }

            #[inline]
            fn count_external(&self, #how_arg: &#counting<'_>) -> #core::primitive::usize {
                #bytes
            }
        }
    }
}

fn rebrand(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let to = &bounds.to;
    let params = params(input);
    let becomes = bounds.becoming();
    let this = settled(bounds.own_type());
    let rebranded = settled(bounds.rebranded_type());
    let clause = clause(&bounds.for_rebrand());
    let (path, target) = if is_unsized(input) {
        (
            input.container.private(&quote!(RebrandTarget)),
            quote!(Target),
        )
    } else {
        (input.container.rebrand(), quote!(To))
    };
    let brand = input.container.private(&quote!(Brand));
    let [before, after] = ["before", "after"].map(local);
    let check = check(input, bounds);
    quote! {
        #[automatically_derived]
        unsafe impl<#to, #(#params,)* #(#becomes),*> #path<#to> for #this #clause {
            type #target = #rebranded;

            fn __fields_are_rebranded(_: &#brand<#to>, #before: &mut Self, #after: &mut #rebranded) {
                #check
            }
        }
    }
}

/// Asks whether a type that may hold a `Gc` implements `Drop`.
fn no_drop(input: &Input, bounds: &Bounds<'_>) -> Option<TokenStream> {
    if !bounds.may_hold_gc() {
        return None;
    }
    let greywave = &input.container.greywave;
    let at = input.ident.span().resolved_at(Span::call_site());
    let name = quote_spanned!(at=> a_type_that_may_hold_a_gc_must_not_implement_drop);
    Some(quote_spanned!(at=> <#greywave::Tracer<'_>>::#name::<Self, _>();))
}

fn needs_trace(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let trace = input.container.trace();
    match bounds.deciding() {
        None => quote!(true),
        Some(none) if none.is_empty() => quote!(false),
        Some(types) => {
            let types = types.into_iter().map(settled);
            quote!(#(<#types as #trace>::NEEDS_TRACE)||*)
        }
    }
}

/// Returns the code that is type-checked and never run; see the head of this file.
fn check(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let [before, after] = ["before", "after"].map(local);
    let ident = &input.ident;
    let parts = |name: TokenStream, fields: &[Field]| {
        let [these, those] = ["before", "after"].map(|prefix| locals(prefix, fields.len()));
        let pattern = |names: &[Ident], name: &TokenStream| {
            let members = fields.iter().map(|field| settled(&field.member));
            quote!(#name { #(#members: ref mut #names),* })
        };
        let (this, that) = (
            pattern(&these, &quote!(Self #name)),
            pattern(&those, &quote!(#ident #name)),
        );
        let each = fields.iter().zip(these.iter().zip(&those));
        let questions: TokenStream = each
            .map(|(field, (this, that))| question(input, bounds, field, this, that))
            .collect();
        (this, that, questions)
    };
    let variants = match &input.shape {
        Shape::Struct(fields) => {
            let (this, that, questions) = parts(TokenStream::new(), fields);
            return quote!(let #this = *#before; let #that = *#after; #questions);
        }
        Shape::Enum(variants) => variants,
    };
    let arms = variants.iter().map(|(variant, fields)| {
        let variant = settled(variant);
        let (this, that, questions) = parts(quote!(::#variant), fields);
        quote!(#this => { if let #that = *#after { #questions } })
    });
    quote!(match *#before { #(#arms)* })
}

/// Asks the type checker about one field, by a mutable reference to it before a rebranding and one
/// after. They are mutable, so that no shorter lifetime is accepted.
fn question(
    input: &Input,
    bounds: &Bounds<'_>,
    field: &Field,
    before: &Ident,
    after: &Ident,
) -> TokenStream {
    let name = if field.skip {
        quote!(a_skipped_field_must_stay_as_it_is)
    } else if is_function(&field.ty) {
        quote!(a_function_pointer_must_stay_as_it_is)
    } else if is_phantom(&field.ty) {
        quote!(it_must_be_the_phantom_data_of_core)
    } else if is_unsized_tail(input, field) {
        quote!(a_tail_must_be_rebranded_with_its_type)
    } else {
        quote!(a_field_must_be_rebranded_with_its_type)
    };
    let brand = input.container.private(&quote!(Brand));
    let to = &bounds.to;
    let args = [before, after].map(|at| placed(&field.ty, &quote!(&mut *#at)));
    let call = placed(&field.ty, &quote!(<#brand<#to>>::#name(#(#args),*)));
    quote!(#call;)
}

fn is_traced(field: &Field) -> bool {
    !field.skip && !is_function(&field.ty)
}

/// Whether the type is a struct that is never sized, by the text of its last field.
fn is_unsized(input: &Input) -> bool {
    input
        .fields()
        .last()
        .is_some_and(|field| is_unsized_tail(input, field))
}

fn is_unsized_tail(input: &Input, field: &Field) -> bool {
    let Shape::Struct(fields) = &input.shape else {
        return false;
    };
    fields.last().is_some_and(|last| std::ptr::eq(last, field))
        && match &field.ty {
            Type::Slice(_) | Type::TraitObject(_) => true,
            Type::Path(path) => path.path.is_ident("str"),
            _ => false,
        }
}

/// Returns a statement for each field, which gets a reference to it. The pattern names all fields,
/// so a field that the derive has not seen is an error.
fn each_field(
    input: &Input,
    statement: impl Fn(&Field, &TokenStream) -> TokenStream,
) -> TokenStream {
    let parts = |name: TokenStream, fields: &[Field]| {
        let members = fields.iter().map(|field| settled(&field.member));
        let names = locals("field", fields.len());
        let each = fields.iter().zip(&names);
        let each: TokenStream = each
            .map(|(field, name)| statement(field, &placed(&field.ty, &quote!(&*#name))))
            .collect();
        (quote!(#name { #(#members: ref #names),* }), each)
    };
    match &input.shape {
        Shape::Struct(fields) => {
            let (pattern, each) = parts(quote!(Self), fields);
            quote!(let #pattern = *self; #each)
        }
        Shape::Enum(variants) => {
            let arms = variants.iter().map(|(variant, fields)| {
                let variant = settled(variant);
                let (pattern, each) = parts(quote!(Self::#variant), fields);
                quote!(#pattern => { #each })
            });
            quote!(match *self { #(#arms)* })
        }
    }
}

/// Returns a local name of the macro's own.
fn local(name: &str) -> Ident {
    Ident::new(&format!("__greywave_{name}"), Span::mixed_site())
}

fn locals(prefix: &str, count: usize) -> Vec<Ident> {
    (0..count)
        .map(|n| local(&format!("{prefix}_{n}")))
        .collect()
}

/// Returns the type's own parameters. Their bounds are in the where clause, because clippy requires
/// all of them in one place.
fn params(input: &Input) -> Vec<TokenStream> {
    let declared = |param: &GenericParam| match param {
        GenericParam::Type(param) => settled(&param.ident),
        other => settled(other),
    };
    input.generics.params.iter().map(declared).collect()
}

fn clause(predicates: &[WherePredicate]) -> TokenStream {
    if predicates.is_empty() {
        return TokenStream::new();
    }
    let predicates = predicates.iter().map(settled);
    quote!(where #(#predicates),*)
}

/// Returns `code` with the location of `place`, so that an error in it points there.
fn placed(place: &Type, code: &TokenStream) -> TokenStream {
    let mut tokens = place.to_token_stream().into_iter();
    let first = tokens
        .next()
        .map_or_else(Span::call_site, |token| token.span());
    let last = tokens.last().map_or(first, |token| token.span());
    let end = code.clone().into_iter().count().saturating_sub(1);
    let each = code.clone().into_iter().enumerate().map(|(n, mut token)| {
        let there = if n == end { last } else { first };
        // Only the location changes: the context of a local variable stays.
        token.set_span(token.span().located_at(there));
        token
    });
    each.collect()
}

/// Returns the user's tokens in their place but in the context of the expansion. `$crate`, and the
/// arguments of a macro, keep the meaning that their context gives them.
fn settled(part: impl ToTokens) -> TokenStream {
    let mut called = false;
    let each = part.into_token_stream().into_iter().map(|mut token| {
        let here = token.span().resolved_at(Span::call_site());
        let keep = called || matches!(&token, TokenTree::Ident(ident) if *ident == "$crate");
        called = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '!');
        match &mut token {
            _ if keep => {}
            TokenTree::Group(group) => {
                let mut inside = Group::new(group.delimiter(), settled(group.stream()));
                inside.set_span(here);
                *group = inside;
            }
            other => other.set_span(here),
        }
        token
    });
    each.collect()
}
