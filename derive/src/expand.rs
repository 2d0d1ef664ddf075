//! The code that is written.
//!
//! Beside the two implementations it holds code that is never run, only type-checked, generic over everything that they
//! are generic over. It has a value of the type and one of the rebranded type, and asks of each field whether the one's
//! type is rebranded to the other's. So a derived `Rebrand` is true if the `Rebrand` of every field is, whatever was
//! guessed in [`crate::bound`]. And where the type has no lifetime and no held parameter, every field is then its own
//! rebranding for any brand, so it holds no `Gc`: `NEEDS_TRACE = false` is true as well.
//!
//! All code goes by the fields themselves, and names no field's type: a macro in a type may mean another one elsewhere.
//!
//! The user's lints do not see the code, since every token has the span of the expansion: those of the user keep their
//! place in the file, for errors, and give up their context. There is no `allow` in it, which `forbid` would refuse.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{DeriveInput, GenericParam, Lifetime, Type, WherePredicate, parse_quote};

use crate::bound::{Bounds, written};
use crate::input::{Field, Input, Shape, is_function, is_phantom, mentions_lifetime};

pub(crate) fn implementations(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let trace = trace(input, bounds);
    let rebrand = rebrand(input, bounds);
    let no_drop = no_drop(input, bounds);
    quote!(#trace #rebrand #no_drop)
}

/// Errors, and implementations that do nothing: one mistake is not reported again wherever the type is used.
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
    // Where a bound depends on the brand, what the type becomes is not known to have it.
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
    let params = params(input);
    let this = settled(bounds.own_type());
    let clause = clause(&bounds.for_trace());
    let needs_trace = needs_trace(input, bounds);

    let edges = each_traced(input, |field| {
        let trace = placed(&field.ty, &quote!(#trace::trace));
        move |at| quote!(#trace(#at, __tracer);)
    });
    let add = quote!(#core::primitive::usize::saturating_add);
    let bytes = each_traced(input, |field| {
        let bytes = placed(&field.ty, &quote!(#trace::external_bytes));
        let add = &add;
        move |at| quote!(__sum = #add(__sum, #bytes(#at));)
    });
    let (tracer, bytes) = match input.fields().any(is_traced) {
        true => (quote!(__tracer), quote!(let mut __sum = 0; #bytes __sum)),
        false => (quote!(_), quote!(0)),
    };
    let check = check(input, bounds);
    // Two complaints about one field are reported as one if they are made in one function.
    let (again, brand, brands) = match is_plain(input) {
        true => {
            let to = &bounds.to;
            (Some(&check), quote!(#to), Some(quote!(<#to>)))
        }
        false => (None, quote!('_), None),
    };
    let borrow = brands.is_some().then_some(&brand);

    quote! {
        #[automatically_derived]
        unsafe impl<#(#params),*> #trace for #this #clause {
            const NEEDS_TRACE: #core::primitive::bool = #needs_trace;

            #[inline]
            fn trace #brands (&self, #tracer: &mut #greywave::Tracer<#brand>) {
                #check
                #edges
            }

            #[inline]
            fn external_bytes #brands (& #borrow self) -> #core::primitive::usize {
                #again
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
    quote! {
        #[automatically_derived]
        unsafe impl<#to, #(#params,)* #(#becomes),*> #path<#to> for #this #clause {
            type #target = #rebranded;
        }
    }
}

/// An overlap, if the type may hold a `Gc` and implements `Drop`.
fn no_drop(input: &Input, bounds: &Bounds<'_>) -> Option<TokenStream> {
    if !bounds.may_hold_gc() {
        return None;
    }
    let path = quote!(HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead);
    let path = input.container.private(&path);
    let params = params(input);
    let this = settled(bounds.own_type());
    let clause = clause(&written(input));
    let at = input.ident.span().resolved_at(Span::call_site());
    Some(quote_spanned! {at=>
        #[automatically_derived]
        impl<#(#params),*> #path for #this #clause {}
    })
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

/// Whether no bound is needed to say what a field becomes. Then it can be asked inside `trace`, where the tracer's
/// lifetime is one of which nothing is known.
fn is_plain(input: &Input) -> bool {
    input.generics.type_params().next().is_none()
}

/// What is type-checked and never run: see the head of this file.
fn check(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let [from, to] = [quote!(__from), quote!(__to)];
    let questions = match &input.shape {
        Shape::Struct(fields) => fields
            .iter()
            .map(|field| {
                let member = settled(&field.member);
                question(
                    input,
                    field,
                    &quote!(&mut #from.#member),
                    &quote!(&mut #to.#member),
                )
            })
            .collect(),
        Shape::Enum(variants) => variants
            .iter()
            .map(|(variant, fields)| {
                let variant = settled(variant);
                let members: Vec<_> = fields.iter().map(|field| settled(&field.member)).collect();
                let [these, those] = ["__from", "__to"].map(|prefix| locals(prefix, fields.len()));
                let each = fields.iter().zip(these.iter().zip(&those));
                let each = each.map(|(field, (this, that))| {
                    question(input, field, &quote!(&mut *#this), &quote!(&mut *#that))
                });
                let ident = &input.ident;
                quote! {
                    if let #ident::#variant { #(#members: #these,)* .. } = #from {
                        if let #ident::#variant { #(#members: #those,)* .. } = #to {
                            #(#each)*
                        }
                    }
                }
            })
            .collect::<TokenStream>(),
    };
    let [this, rebranded] = [bounds.own_type(), bounds.rebranded_type()].map(settled);
    let (brand, params, becomes) = (&bounds.to, params(input), bounds.becoming());
    let private = input.container.private(&quote!(Brand));
    let args = quote!(__brand: &#private<#brand>, __from: &mut #this, __to: &mut #rebranded);
    if is_plain(input) {
        return quote!(let _ = |#args| { #questions };);
    }
    let clause = clause(&bounds.for_rebrand_without_self());
    quote! {
        fn _rebranded<#brand, #(#params,)* #(#becomes),*>(#args) #clause {
            #questions
        }
    }
}

/// What the type checker is asked about one field, by a mutable reference to it before a rebranding and to it after.
/// (Mutable, so that no shorter lifetime will do.)
fn question(input: &Input, field: &Field, from: &TokenStream, to: &TokenStream) -> TokenStream {
    let brand = &quote!(__brand);
    let (name, args) = if field.skip {
        (
            quote!(a_skipped_field_must_be_send_sync_and_static),
            vec![from],
        )
    } else if is_function(&field.ty) {
        (
            quote!(a_function_pointer_must_stay_as_it_is),
            vec![from, to],
        )
    } else if is_phantom(&field.ty) {
        (quote!(it_must_be_the_phantom_data_of_core), vec![from])
    } else if is_unsized_tail(input, field) {
        (
            quote!(a_tail_must_be_rebranded_with_its_type),
            vec![brand, from, to],
        )
    } else {
        (
            quote!(a_field_must_be_rebranded_with_its_type),
            vec![brand, from, to],
        )
    };
    let name = input.container.private(&name);
    let args = args.into_iter().map(|arg| placed(&field.ty, arg));
    let call = placed(&field.ty, &quote!(#name(#(#args),*)));
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

/// A statement for each traced field, which gets a reference to it.
fn each_traced<S: Fn(TokenStream) -> TokenStream>(
    input: &Input,
    statement: impl Fn(&Field) -> S,
) -> TokenStream {
    let variants = match &input.shape {
        Shape::Struct(fields) => {
            let traced = fields.iter().filter(|field| is_traced(field));
            let each = traced.map(|field| {
                let member = settled(&field.member);
                statement(field)(placed(&field.ty, &quote!(&self.#member)))
            });
            return each.collect();
        }
        Shape::Enum(variants) => variants,
    };
    let arms = variants.iter().map(|(variant, fields)| {
        let variant = settled(variant);
        let traced: Vec<_> = fields.iter().filter(|field| is_traced(field)).collect();
        let members = traced.iter().map(|field| settled(&field.member));
        let names = locals("__field", traced.len());
        let each = traced
            .iter()
            .zip(&names)
            .map(|(field, name)| statement(field)(placed(&field.ty, &quote!(&*#name))));
        quote!(Self::#variant { #(#members: #names,)* .. } => { #(#each)* })
    });
    // A match on a reference to an empty enum would need an arm.
    if variants.is_empty() {
        quote!(match *self {})
    } else {
        quote!(match self { #(#arms)* })
    }
}

fn locals(prefix: &str, count: usize) -> Vec<Ident> {
    (0..count)
        .map(|n| format_ident!("{prefix}{n}", span = Span::call_site()))
        .collect()
}

/// The type's own parameters. Their bounds are in the where clause: clippy would have all of them in one place.
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

/// `code`, as if it were where `place` is, so that a complaint about it points there.
fn placed(place: &Type, code: &TokenStream) -> TokenStream {
    let mut tokens = place.to_token_stream().into_iter();
    let first = tokens
        .next()
        .map_or_else(Span::call_site, |token| token.span());
    let last = tokens.last().map_or(first, |token| token.span());
    let end = code.clone().into_iter().count().saturating_sub(1);
    let each = code.clone().into_iter().enumerate().map(|(n, mut token)| {
        let there = if n == end { last } else { first };
        // Only the place: a local variable stays what its context makes it.
        token.set_span(token.span().located_at(there));
        token
    });
    each.collect()
}

/// The user's tokens, in their place but in the context of the expansion. `$crate` and what a macro is called with mean
/// what they mean by their context.
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
