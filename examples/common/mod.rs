//! What the example programs share: arguments, reports, random numbers, and the readers of the two
//! recorded formats.

#![allow(dead_code, reason = "each program uses its own part of this folder")]

pub(crate) mod args;
pub(crate) mod decode;
pub(crate) mod hg;
pub(crate) mod http;
pub(crate) mod mt;
pub(crate) mod report;
pub(crate) mod rng;
pub(crate) mod words;
