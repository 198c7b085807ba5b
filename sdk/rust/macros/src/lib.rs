//! The attribute macro of `dovetail-sdk`. It makes a component from the task's own WIT and one function.
//!
//! The macro calls `wit-bindgen` to generate the bindings, so authors need not know `wit-bindgen`. The host checks a
//! task's interface when the task is registered. The macro refuses only interfaces for which it cannot generate code.

mod contract;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::{ItemFn, LitStr, Token, parse::Parse, parse::ParseStream};

use contract::Contract;

/// Makes a function the task of its crate; see `dovetail_sdk::task`.
#[proc_macro_attribute]
pub fn task(arguments: proc_macro::TokenStream, function: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let arguments = syn::parse_macro_input!(arguments as Arguments);
    let function = syn::parse_macro_input!(function as ItemFn);
    let written = match check(&function).and_then(|()| read(arguments.world.as_ref())) {
        Ok(contract) => expand(&contract, &function),
        Err(error) => {
            let error = error.into_compile_error();
            quote! { #error #function }
        }
    };
    written.into()
}

/// The arguments of the attribute: `world = "name"`, or none.
struct Arguments {
    world: Option<LitStr>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() {
            return Ok(Self { world: None });
        }
        let name: Ident = input.parse()?;
        if name != "world" {
            return Err(syn::Error::new(
                name.span(),
                format!("unknown argument `{name}`: the only one is `world = \"name\"`"),
            ));
        }
        input.parse::<Token![=]>()?;
        let world = Some(input.parse()?);
        input.parse::<Option<Token![,]>>()?;
        if input.is_empty() { Ok(Self { world }) } else { Err(input.error("nothing else is expected")) }
    }
}

fn check(function: &ItemFn) -> syn::Result<()> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(syn::Error::new_spanned(token, "a task is an ordinary function: the host runs steps in parallel"));
    }
    if signature.inputs.len() != 1 {
        return Err(syn::Error::new_spanned(
            signature,
            "a task takes one argument: `fn run(input: Input) -> Result<Output>`",
        ));
    }
    Ok(())
}

fn read(world: Option<&LitStr>) -> syn::Result<Contract> {
    let span = world.map_or_else(Span::call_site, LitStr::span);
    let folder = std::env::var("CARGO_MANIFEST_DIR")
        .map_err(|_| syn::Error::new(span, "cargo did not say where the crate is (CARGO_MANIFEST_DIR)"))?;
    contract::read(folder.as_ref(), world.map(LitStr::value).as_deref())
        .map_err(|message| syn::Error::new(span, message))
}

fn expand(contract: &Contract, function: &ItemFn) -> TokenStream {
    let Contract { folders, world, interface, types, host, incomparable, input, output } = contract;
    let name = &function.sig.ident;
    let generated = format_ident!("__dovetail");
    let interface = {
        let parts = interface.iter().map(|part| ident(part));
        quote! { #generated::exports #(::#parts)* }
    };
    let types = types.iter().map(|t| ident(t));
    let input = ident(input);
    let output = match output {
        Some(output) => {
            let output = ident(output);
            quote! { #interface::#output }
        }
        None => quote! { () },
    };
    let bound = host.iter().map(|(id, path)| {
        let path = path.iter().map(|part| ident(part));
        quote! { #id: ::dovetail_sdk::bindings #(::#path)* }
    });
    let derives = incomparable.iter();
    quote! {
        #[doc(hidden)]
        #[allow(clippy::all, clippy::restriction, clippy::pedantic, reason = "written by wit-bindgen")]
        #[allow(dead_code, unsafe_code, unreachable_pub, unused_qualifications, missing_docs,
            reason = "written by wit-bindgen")]
        mod #generated {
            ::dovetail_sdk::__private::wit_bindgen::generate!({
                path: [#(#folders),*],
                world: #world,
                runtime_path: "::dovetail_sdk::__private::wit_bindgen::rt",
                additional_derives: [PartialEq],
                additional_derives_ignore: [#(#derives),*],
                export_macro_name: "__dovetail_export",
                generate_all,
                with: { #(#bound),* },
            });
        }

        #[allow(unused_imports, reason = "the types of the task's interface, used or not")]
        pub(crate) use #interface::{#(#types),*};

        #function

        // On every target: so a wrong signature is an error natively too, and the function counts as used.
        const _: fn(#interface::#input) -> ::core::result::Result<#output, ::dovetail_sdk::Error> = #name;

        #[cfg(target_family = "wasm")]
        #[allow(clippy::all, clippy::restriction, clippy::pedantic, reason = "written by wit-bindgen")]
        #[allow(unsafe_code, unused_qualifications, reason = "written by wit-bindgen")]
        const _: () = {
            struct Component;

            impl #interface::Guest for Component {
                fn run(input: #interface::#input) -> ::core::result::Result<#output, ::dovetail_sdk::TaskError> {
                    ::dovetail_sdk::__private::run(#name, input)
                }
            }

            #generated::__dovetail_export!(Component with_types_in #generated);
        };
    }
}

/// The identifier that wit-bindgen generates: a keyword gets an underscore at its end.
fn ident(name: &str) -> Ident {
    syn::parse_str(name).unwrap_or_else(|_| format_ident!("{name}_"))
}
