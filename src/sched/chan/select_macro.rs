//! The syntax of `select!`.

/// Waits until one of several cases is possible, carries that one out, and runs its body.
///
/// ```text
/// select! {
///     value = recv(&rx) => ..,            // Option<T>; None: closed and empty
///     result = send(&tx, value) => ..,    // Result<(), SendError<T>>
///     output = future(fut) => ..,         // any future, such as a timer
///     default => ..,                      // if nothing else is possible now
/// }
/// ```
///
/// - Each case has a pattern, which must match whatever the case gives. A body is a block, or an expression and a comma;
///   it may use `return`, `break`, `?` and `.await`.
/// - Among the cases that are ready one is chosen at random, each as likely.
/// - All expressions are evaluated once, in the order in which they are written, before anything is chosen. Values and futures of the cases that were
///   not chosen are dropped before the body runs. To keep a future for later, give `&mut future`.
/// - A channel may be an `Option` of a reference: `None` is never ready. A select in which nothing can ever be ready
///   waits for ever.
/// - With `default` it does not wait; without, it must be awaited, which the macro does: it belongs into an async
///   function or block.
/// - A select does not receive from itself what it sends.
/// - Dropped while it waits it has done nothing.
///
/// At most 64 cases.
#[macro_export]
macro_rules! select {
    // Nothing left to read: one pair of cases and one list of bodies.
    (@read [$($case:tt)*] []) => {{
        let chosen =
            $crate::__select::select($crate::select!(@list $($case)*)).await;
        $crate::select!(@choose chosen $($case)*)
    }};
    (@read [$($case:tt)*] [$default:expr]) => {{
        let chosen =
            $crate::__select::select_now($crate::select!(@list $($case)*)).await;
        match chosen {
            ::core::option::Option::Some(chosen) => $crate::select!(@choose chosen $($case)*),
            ::core::option::Option::None => $default,
        }
    }};
    // The head of a case. A case is kept as `(pattern, function, arguments, body)`.
    (@read $cases:tt [] default => $($rest:tt)*) => {
        $crate::select!(@body $cases [] [default] $($rest)*)
    };
    (@read $cases:tt [$first:expr] default => $($rest:tt)*) => {
        ::core::compile_error!("a select has at most one `default`")
    };
    (@read $cases:tt $default:tt $value:pat = recv($($of:tt)*) => $($rest:tt)*) => {
        $crate::select!(@body $cases $default [($value) recv ($($of)*)] $($rest)*)
    };
    (@read $cases:tt $default:tt $value:pat = send($($of:tt)*) => $($rest:tt)*) => {
        $crate::select!(@body $cases $default [($value) send ($($of)*)] $($rest)*)
    };
    (@read $cases:tt $default:tt $value:pat = future($($of:tt)*) => $($rest:tt)*) => {
        $crate::select!(@body $cases $default [($value) future ($($of)*)] $($rest)*)
    };
    (@read $cases:tt $default:tt $($rest:tt)*) => {
        ::core::compile_error!(
            "a case of a select is `pattern = recv(receiver) => body`, `pattern = send(sender, value) => body`, \
             `pattern = future(future) => body` or `default => body`"
        )
    };
    // Its body.
    (@body $cases:tt $default:tt $head:tt $body:block, $($rest:tt)*) => {
        $crate::select!(@keep $cases $default $head ($body) $($rest)*)
    };
    (@body $cases:tt $default:tt $head:tt $body:block $($rest:tt)*) => {
        $crate::select!(@keep $cases $default $head ($body) $($rest)*)
    };
    (@body $cases:tt $default:tt $head:tt $body:expr, $($rest:tt)*) => {
        $crate::select!(@keep $cases $default $head ($body) $($rest)*)
    };
    (@body $cases:tt $default:tt $head:tt $body:expr) => {
        $crate::select!(@keep $cases $default $head ($body))
    };
    (@keep $cases:tt [] [default] ($body:expr) $($rest:tt)*) => {
        $crate::select!(@read $cases [$body] $($rest)*)
    };
    (@keep [$($case:tt)*] $default:tt [$($head:tt)*] $body:tt $($rest:tt)*) => {
        $crate::select!(@read [$($case)* ($($head)* $body)] $default $($rest)*)
    };
    // The list of the cases, in pairs.
    (@list) => { () };
    (@list (($value:pat) $kind:ident ($($of:tt)*) $body:tt) $($rest:tt)*) => {
        ($crate::__select::$kind($($of)*), $crate::select!(@list $($rest)*))
    };
    // Which was chosen.
    (@choose $chosen:ident) => { match $chosen {} };
    (@choose $chosen:ident (($value:pat) $kind:ident $of:tt ($body:expr)) $($rest:tt)*) => {
        match $chosen {
            $crate::__select::Choice::This($value) => $body,
            $crate::__select::Choice::Rest(chosen) => $crate::select!(@choose chosen $($rest)*),
        }
    };
    ($($cases:tt)*) => {
        $crate::select!(@read [] [] $($cases)*)
    };
}
