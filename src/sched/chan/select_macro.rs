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
    // A case, with its head and its body in one step: a step is a level of nesting, of which the compiler allows 128. A case is
    // kept as `(pattern, function, arguments, body)`. A block ends a case without a comma.
    (@read $cases:tt [] default => $body:block, $($rest:tt)*) => {
        $crate::select!(@read $cases [$body] $($rest)*)
    };
    (@read $cases:tt [] default => $body:block $($rest:tt)*) => {
        $crate::select!(@read $cases [$body] $($rest)*)
    };
    (@read $cases:tt [] default => $body:expr $(, $($rest:tt)*)?) => {
        $crate::select!(@read $cases [$body] $($($rest)*)?)
    };
    (@read $cases:tt [$first:expr] default => $($rest:tt)*) => {
        ::core::compile_error!("a select has at most one `default`")
    };
    (@read [$($case:tt)*] $default:tt $value:pat = recv($($of:tt)*) => $body:block, $($rest:tt)*) => {
        $crate::select!(@read [$($case)* (($value) recv ($($of)*) ($body))] $default $($rest)*)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = recv($($of:tt)*) => $body:block $($rest:tt)*) => {
        $crate::select!(@read [$($case)* (($value) recv ($($of)*) ($body))] $default $($rest)*)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = recv($($of:tt)*) => $body:expr $(, $($rest:tt)*)?) => {
        $crate::select!(@read [$($case)* (($value) recv ($($of)*) ($body))] $default $($($rest)*)?)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = send($($of:tt)*) => $body:block, $($rest:tt)*) => {
        $crate::select!(@read [$($case)* (($value) send ($($of)*) ($body))] $default $($rest)*)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = send($($of:tt)*) => $body:block $($rest:tt)*) => {
        $crate::select!(@read [$($case)* (($value) send ($($of)*) ($body))] $default $($rest)*)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = send($($of:tt)*) => $body:expr $(, $($rest:tt)*)?) => {
        $crate::select!(@read [$($case)* (($value) send ($($of)*) ($body))] $default $($($rest)*)?)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = future($($of:tt)*) => $body:block, $($rest:tt)*) => {
        $crate::select!(@read [$($case)* (($value) future ($($of)*) ($body))] $default $($rest)*)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = future($($of:tt)*) => $body:block $($rest:tt)*) => {
        $crate::select!(@read [$($case)* (($value) future ($($of)*) ($body))] $default $($rest)*)
    };
    (@read [$($case:tt)*] $default:tt $value:pat = future($($of:tt)*) => $body:expr $(, $($rest:tt)*)?) => {
        $crate::select!(@read [$($case)* (($value) future ($($of)*) ($body))] $default $($($rest)*)?)
    };
    (@read $cases:tt $default:tt $($rest:tt)*) => {
        ::core::compile_error!(
            "a case of a select is `pattern = recv(receiver) => body`, `pattern = send(sender, value) => body`, \
             `pattern = future(future) => body` or `default => body`"
        )
    };
    // The list of the cases, in pairs; four in one step.
    (@list) => { () };
    (@list
        ($va:tt $ka:ident ($($oa:tt)*) $ba:tt)
        ($vb:tt $kb:ident ($($ob:tt)*) $bb:tt)
        ($vc:tt $kc:ident ($($oc:tt)*) $bc:tt)
        ($vd:tt $kd:ident ($($od:tt)*) $bd:tt)
        $($rest:tt)*
    ) => {
        ($crate::__select::$ka($($oa)*), ($crate::__select::$kb($($ob)*), ($crate::__select::$kc($($oc)*), ($crate::__select::$kd($($od)*), $crate::select!(@list $($rest)*)))))
    };
    (@list ($value:tt $kind:ident ($($of:tt)*) $body:tt) $($rest:tt)*) => {
        ($crate::__select::$kind($($of)*), $crate::select!(@list $($rest)*))
    };
    // Which was chosen; four in one step.
    (@choose $chosen:ident) => { match $chosen {} };
    (@choose $chosen:ident
        (($va:pat) $ka:ident $oa:tt ($ba:expr))
        (($vb:pat) $kb:ident $ob:tt ($bb:expr))
        (($vc:pat) $kc:ident $oc:tt ($bc:expr))
        (($vd:pat) $kd:ident $od:tt ($bd:expr))
        $($rest:tt)*
    ) => {
        match $chosen {
            $crate::__select::Choice::This($va) => $ba,
            $crate::__select::Choice::Rest($crate::__select::Choice::This($vb)) => $bb,
            $crate::__select::Choice::Rest($crate::__select::Choice::Rest($crate::__select::Choice::This($vc))) => $bc,
            $crate::__select::Choice::Rest($crate::__select::Choice::Rest($crate::__select::Choice::Rest($crate::__select::Choice::This($vd)))) => $bd,
            $crate::__select::Choice::Rest($crate::__select::Choice::Rest($crate::__select::Choice::Rest($crate::__select::Choice::Rest(chosen)))) => $crate::select!(@choose chosen $($rest)*),
        }
    };
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
