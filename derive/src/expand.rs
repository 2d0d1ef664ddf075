//! The code that is written.
//!
//! Beside the two implementations it holds code that is never run, only type-checked, generic over everything that they
//! are generic over: for each field, that its type is rebranded as the text of the rebranded type says. So a derived `Rebrand` is true if the `Rebrand` of every field is, whatever was guessed in [`crate::bound`]. And where the
//! type has no lifetime and no held parameter, every field is then its own rebranding for any brand, so it holds no
//! `Gc`: `NEEDS_TRACE = false` is true as well.
//!
//! The user's lints do not see the code, since every token has the span of the expansion: those of the user keep their
//! place in the file, for errors, and give up their context. There is no `allow` in it, which `forbid` would refuse.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{DeriveInput, GenericParam, Type, TypePath, WherePredicate, parse_quote};

use crate::bound::{Bounds, written};
use crate::input::{Field, Input, Shape, is_function, is_opaque};

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
    let mut longer = input.generics.clone();
    longer.params.insert(0, parse_quote!('__to));
    let (longer, _, _) = longer.split_for_impl();
    quote! {
        #errors
        #[automatically_derived]
        unsafe impl #params #greywave::Trace for #ident #args #clause {
            fn trace(&self, _: &mut ::greywave::Tracer<'_>) {}
        }
        #[automatically_derived]
        unsafe impl #longer ::greywave::Rebrand<'__to> for #ident #args #clause {
            type To = Self;
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

    let tracer = Ident::new("__tracer", Span::mixed_site());
    let edges = each_traced(
        input,
        |ty, field| quote!(<#ty as #trace>::trace(#field, #tracer);),
    );
    let nothing_traced = !input.fields().any(is_traced);
    let tracer = if nothing_traced {
        quote!(_)
    } else {
        quote!(#tracer)
    };

    let sum = Ident::new("__sum", Span::mixed_site());
    let bytes = each_traced(
        input,
        |ty, field| quote!(#sum = #core::primitive::usize::saturating_add(#sum, <#ty as #trace>::external_bytes(#field));),
    );
    let bytes = if nothing_traced {
        quote!(0)
    } else {
        quote!(let mut #sum = 0; #bytes #sum)
    };
    let (check, lifetime) = match is_plain(bounds) {
        true => {
            let to = &bounds.to;
            let questions = questions(input, bounds);
            (quote!(if false { #questions }), quote!(#to))
        }
        false => (check(input, bounds), quote!('_)),
    };
    // What a plain type asks is asked again beside the second use of each field: two complaints about a field are one
    // if they are made in one place.
    let (again, borrow) = match is_plain(bounds) {
        true => (&check, Some(&lifetime)),
        false => (&TokenStream::new(), None),
    };
    let binder = borrow.map(|lifetime| quote!(<#lifetime>));

    quote! {
        #[automatically_derived]
        unsafe impl<#(#params),*> #trace for #this #clause {
            const NEEDS_TRACE: #core::primitive::bool = #needs_trace;

            #[inline]
            fn trace #binder (&self, #tracer: &mut #greywave::Tracer<#lifetime>) {
                #check
                #edges
            }

            #[inline]
            fn external_bytes #binder (& #borrow self) -> #core::primitive::usize {
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
    let (path, target) = if tail_is_unsized(input) {
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

/// Whether no bound is needed to say what a field becomes. Then it can be asked inside `trace`, for any lifetime.
fn is_plain(bounds: &Bounds<'_>) -> bool {
    bounds.becoming().next().is_none() && bounds.leaves.is_empty()
}

/// The function that is type-checked, and never called: see the head of this file.
fn check(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let to = &bounds.to;
    let params = params(input);
    let becomes = bounds.becoming();
    let this = settled(bounds.own_type());
    let rebranded = settled(bounds.rebranded_type());
    let clause = clause(&bounds.for_rebrand_without_self());
    let questions = questions(input, bounds);
    quote! {
        fn _rebranded<#to, #(#params,)* #(#becomes),*>(_: &#this, _: &#rebranded) #clause {
            #questions
        }
    }
}

/// What the type checker is asked about each field.
fn questions(input: &Input, bounds: &Bounds<'_>) -> TokenStream {
    let to = &bounds.to;
    let skippable = input
        .container
        .private(&quote!(a_skipped_field_must_be_send_sync_and_static));
    let sized = input
        .container
        .private(&quote!(a_field_must_be_rebranded_with_its_type));
    let tail = input
        .container
        .private(&quote!(a_tail_must_be_rebranded_with_its_type));
    let same = input.container.private(&quote!(must_be_the_same_type));
    let phantom = input.container.private(&quote!(PhantomData));

    let last = input.fields().count();
    let fields = input.fields().enumerate().map(|(n, field)| {
        let ty = bounds.spelled_out(&field.ty);
        if field.skip {
            return ask(&field.ty, &skippable, &[settled(&ty)]);
        }
        let becomes = bounds.rebranded(&field.ty);
        let [ty, becomes] = [ty, becomes].map(|ty| settled(without_phantoms(ty)));
        if is_function(&field.ty) {
            ask(&field.ty, &same, &[ty, becomes])
        } else if n + 1 == last && tail_is_unsized(input) {
            ask(&field.ty, &tail, &[quote!(#to), ty, becomes])
        } else {
            ask(&field.ty, &sized, &[quote!(#to), ty, becomes])
        }
    });
    let phantoms = bounds.phantoms.iter().map(|written| {
        let args = written
            .path
            .segments
            .last()
            .map(|last| last.arguments.clone());
        let written = Type::Path(written.clone());
        let core: Type = parse_quote!(#phantom #args);
        let both = [&written, &core].map(|ty| settled(bounds.spelled_out(ty)));
        ask(&written, &same, &both)
    });
    quote!(#(#fields)* #(#phantoms)*)
}

/// A field that is a `PhantomData<..>` is rebranded with the type, whatever it names. So it is in a tuple or an array;
/// elsewhere it may decide what else is there.
fn without_phantoms(mut ty: Type) -> Type {
    match &mut ty {
        Type::Path(path) if is_phantom(path) => return parse_quote!(()),
        Type::Group(syn::TypeGroup { elem, .. })
        | Type::Paren(syn::TypeParen { elem, .. })
        | Type::Array(syn::TypeArray { elem, .. })
        | Type::Slice(syn::TypeSlice { elem, .. }) => {
            **elem = without_phantoms((**elem).clone());
        }
        Type::Tuple(tuple) => {
            for elem in &mut tuple.elems {
                *elem = without_phantoms(elem.clone());
            }
        }
        _ => {}
    }
    ty
}

fn is_phantom(path: &TypePath) -> bool {
    is_opaque(path)
        && path
            .path
            .segments
            .last()
            .is_some_and(|last| last.ident == "PhantomData")
}

fn is_traced(field: &Field) -> bool {
    !field.skip && !is_function(&field.ty)
}

/// Whether the last field of a struct is never sized, by its text; then the struct is not.
fn tail_is_unsized(input: &Input) -> bool {
    let Shape::Struct(fields) = &input.shape else {
        return false;
    };
    match fields.last().map(|field| &field.ty) {
        Some(Type::Slice(_) | Type::TraitObject(_)) => true,
        Some(Type::Path(path)) => path.path.is_ident("str"),
        _ => false,
    }
}

/// A statement for each traced field: of its type, and of a reference to it.
fn each_traced(
    input: &Input,
    statement: impl Fn(TokenStream, TokenStream) -> TokenStream,
) -> TokenStream {
    let variants = match &input.shape {
        Shape::Struct(fields) => {
            let each = fields.iter().filter(|field| is_traced(field)).map(|field| {
                let member = settled(&field.member);
                statement(settled(&field.ty), quote!(&self.#member))
            });
            return each.collect();
        }
        Shape::Enum(variants) => variants,
    };
    let arms = variants.iter().map(|(variant, fields)| {
        let variant = settled(variant);
        let traced: Vec<_> = fields.iter().filter(|field| is_traced(field)).collect();
        let members: Vec<_> = traced.iter().map(|field| settled(&field.member)).collect();
        let names: Vec<_> = (0..traced.len())
            .map(|n| format_ident!("__field{n}", span = Span::mixed_site()))
            .collect();
        let statements = traced
            .iter()
            .zip(&names)
            .map(|(field, name)| statement(settled(&field.ty), quote!(#name)));
        quote!(Self::#variant { #(#members: #names,)* .. } => { #(#statements)* })
    });
    // `*self` and `ref`: a match on a reference to an empty enum would need an arm.
    if variants.is_empty() {
        quote!(match *self {})
    } else {
        quote!(match self { #(#arms)* })
    }
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

/// A call of `question` with `args`, at the place that it is asked about, so that a complaint points there.
fn ask(place: &Type, question: &TokenStream, args: &[TokenStream]) -> TokenStream {
    let here = Span::call_site();
    let first = place.to_token_stream().into_iter().next();
    let place = first.map_or(here, |token| token.span()).resolved_at(here);
    let question: TokenStream = question
        .clone()
        .into_iter()
        .map(|mut token| {
            token.set_span(place);
            token
        })
        .collect();
    quote_spanned!(place=> #question::<#(#args),*>();)
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
